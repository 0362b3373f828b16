"""Prediction files: every form that the official repositories write, and every way in which a file can be bad."""

import json
from pathlib import Path

import numpy as np
import pytest

from stereopsis.benchmarks.files.box_files import boxes_of, read_boxes
from stereopsis.benchmarks.files.predictions import PredictionFile, read_predictions
from stereopsis.errors import StereopsisError

BOX = [0.0, 1.0, 0.5, 1.0, 2.0, 1.0]
OTHER = [3.0, 1.0, 0.5, 1.0, 2.0, 1.0]


def written(folder: Path, text: str, name: str = "predictions.jsonl") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def read(folder: Path, text: str, task="sqa3d") -> PredictionFile:
    return read_predictions(written(folder, text), task)


def lines(*records: dict) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def official(name: object, said: object, **more: object) -> dict:
    return {"dataset": "x", "sample_id": name, "prompt": "p", "pred_response": said, "model_id": "m", **more}


def test_official_lines_of_a_text_benchmark(tmp_path):
    file = read(
        tmp_path,
        lines(
            official(220602000002, "two", gt_response="2", question_type="how"),
            official(220602000003, "", gt_response=["a", "b"], question_type="is", scene="scannet/scene0011_00"),
        ),
    )
    assert file.form == "json lines"
    assert file.torn_lines == 0
    first, second = file.samples
    assert (first.id, first.text, first.references, first.type) == ("220602000002", "two", ("2",), "how")
    assert (second.text, second.references, second.scene_id) == ("", ("a", "b"), "scene0011_00")
    assert first.boxes is None
    assert first.scores is None


def test_official_lines_of_scanrefer_hold_the_picked_box(tmp_path):
    sample = read(tmp_path, lines(official(17, BOX, gt_response=OTHER, question_type="unique")), "scanrefer").samples[0]
    assert sample.id == "17"
    assert sample.text is None
    np.testing.assert_array_equal(sample.boxes, [BOX])
    np.testing.assert_array_equal(sample.true_boxes, [OTHER])


def test_official_lines_of_multi3drefer_hold_scores_and_objects(tmp_path):
    record = {
        "sample_id": 4,
        "scores": [0.1, 0.7, 0.2],
        "objects": [BOX, OTHER],
        "gt_response": [],
        "question_type": "mt",
    }
    sample = read(tmp_path, lines(record), "multi3drefer").samples[0]
    np.testing.assert_array_equal(sample.scores, [0.1, 0.7, 0.2])
    np.testing.assert_array_equal(sample.boxes, [BOX, OTHER])
    assert sample.true_boxes.shape == (0, 6)


def test_our_own_records_can_be_read_again(tmp_path):
    record = {"id": "q", "type": "st_w_d", "boxes": [BOX], "cosines": [0.5], "zero_cosine": 0.25, "targets": [OTHER]}
    record |= {"prediction": "", "scores": {"f1@0.25": 1.0}, "scene_id": "scene0000_00"}
    sample = read(tmp_path, lines(record), "multi3drefer").samples[0]
    np.testing.assert_array_equal(sample.scores, [0.5])
    np.testing.assert_array_equal(sample.true_boxes, [OTHER])
    assert (sample.zero_target_score, sample.scene_id) == (0.25, "scene0000_00")


def test_of_our_records_only_the_benchmarks_own_count(tmp_path):
    mine = {"id": "q", "task": "sqa3d", "prediction": "yes"}
    others = [{**mine, "task": "scanqa", "prediction": "no"}, {**mine, "task": "scanrefer", "boxes": [], "cosines": []}]
    assert [s.text for s in read(tmp_path, lines(*others, mine)).samples] == ["yes"]
    with pytest.raises(StereopsisError, match="no prediction of multi3drefer"):
        read(tmp_path, lines(*others, mine), "multi3drefer")


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ('{"a": "yes", "b": "no"}', "json object"),
        ('{\n "a": "yes",\n "b": "no"\n}\n', "json object"),
        ('{"a": ["yes"], "b": {"answer": "no"}}', "json object"),
        ('[{"question_id": "a", "answer_top10": ["yes", "maybe"]}, {"question_id": "b", "answer": "no"}]', "json list"),
        ('{"sample_id": "a", "pred_response": "yes"}\r\n\r\n{"sample_id": "b", "pred_response": "no"}', "json lines"),
        ('\ufeff{"sample_id": "a", "pred_response": "yes"}\n{"sample_id": "b", "pred_response": "no"}\n', "json lines"),
    ],
)
def test_every_form_says_the_same(tmp_path, text, form):
    file = read(tmp_path, text)
    assert file.form == form
    assert [(sample.id, sample.text) for sample in file.samples] == [("a", "yes"), ("b", "no")]


def test_one_line_alone_is_one_sample(tmp_path):
    file = read(tmp_path, lines(official("a", "yes")))
    assert (file.form, len(file.samples)) == ("json lines", 1)


def test_scan2cap_frames_are_taken_off_elsewhere_they_stay(tmp_path):
    text = '{"a": ["sos a chair . eos"], "b": "sos"}'
    assert [s.text for s in read(tmp_path, text, "scan2cap").samples] == ["a chair .", "sos"]
    assert [s.text for s in read(tmp_path, text, "scanqa").samples] == ["sos a chair . eos", "sos"]


def test_scanrefer_object_of_boxes(tmp_path):
    file = read(tmp_path, json.dumps({"a": BOX, "b": {"scores": [1.0, 2.0]}}), "scanrefer")
    np.testing.assert_array_equal(file.samples[0].boxes, [BOX])
    assert file.samples[1].boxes is None


def test_odd_characters_inside_a_line_do_not_split_it(tmp_path):
    said = "first\u2028second\x0bthird\x1cfourth"
    file = read(tmp_path, json.dumps(official("a", said), ensure_ascii=False) + "\n" + lines(official("b", "x")))
    assert [sample.text for sample in file.samples] == [said, "x"]


def test_a_torn_last_line_is_passed_over_and_counted(tmp_path):
    whole = lines(official("a", "yes"), official("b", "no"))
    file = read(tmp_path, whole + lines(official("c", "perhaps"))[:-9])
    assert [sample.id for sample in file.samples] == ["a", "b"]
    assert file.torn_lines == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("  \n\n", "is empty"),
        ("[]", "holds no prediction at all"),
        ("{}", "holds no prediction at all"),
        ("3", "expected an object"),
        ('"yes"', "expected an object"),
        ("[1, 2]", "item 0: expected an object with sample_id"),
        ('{"a": "yes"', "line 1: not valid JSON"),
        ('{"sample_id": "a", "pred_response": "x"}\n{"sample_id": "b", "pred_resp\n', "line 2: not valid JSON"),
        (
            '{"sample_id": "a", "pred_response": "x"}\n{"sam\n{"sample_id": "c", "pred_response": "y"}\n',
            "line 2: not valid",
        ),
        ('{"a": 2}', "needs its answer as text.*found 2"),
        ('{"a": null}', "needs its answer as text.*found nothing"),
        ('{"a": true}', "needs its answer as text"),
        ('{"a": []}', "needs its answer as text"),
        ('[{"answer": "x"}]', "needs an id"),
        ('[{"id": 1.5, "answer": "x"}]', "needs an id"),
        ('[{"id": true, "answer": "x"}]', "needs an id"),
        ('{"a": "yes", "b": "x", "a": "no"}', r"1 ids occur more than once \(a\)"),
        (lines(official(1, "x"), official("1", "y")), r"1 ids occur more than once \(1\)"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_bad_text_files_are_refused_with_their_place(tmp_path, text, message):
    with pytest.raises(StereopsisError, match=message) as caught:
        read(tmp_path, text)
    assert "predictions.jsonl" in str(caught.value)


def test_bytes_that_are_no_text_and_files_that_are_not_there(tmp_path):
    path = tmp_path / "p.json"
    with pytest.raises(StereopsisError, match=r"p\.json cannot be read"):
        read_predictions(path, "sqa3d")
    path.write_bytes(b'{"a": "\xff\xfe"}')
    with pytest.raises(StereopsisError, match="cannot be read as UTF-8"):
        read_predictions(path, "sqa3d")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({}, "needs a box"),
        ({"pred_response": "the chair"}, "boxes must be"),
        ({"pred_response": [0, 0, 0, 1, 1]}, "boxes must be"),
        ({"pred_response": [[0, 0, 0, 1, 1, 1], [0, 0]]}, "boxes must be"),
        ({"pred_response": [0, 0, 0, 1, 1, -1]}, "sizes >= 0"),
        ({"pred_response": [0, 0, float("nan"), 1, 1, 1]}, "must be finite"),
        ({"scores": "high"}, "list of numbers"),
        ({"scores": [1, "2"]}, "list of numbers"),
        ({"scores": [0.5, float("nan")], "objects": [BOX]}, "score 1 is nan"),
        ({"scores": [float("inf")], "objects": [BOX]}, "score 0 is inf"),
        ({"scores": [10**400], "objects": [BOX]}, "list of numbers"),
        ({"pred_response": [10**400, 0, 0, 1, 1, 1]}, "boxes must be"),
        ({"scores": [0.5], "objects": [BOX], "zero_target_score": float("nan")}, "score 0 is nan"),
        ({"scores": [0.5], "objects": [BOX], "gt_response": ["a chair"]}, "truth: boxes must be"),
    ],
)
def test_bad_pointing_samples_are_refused(tmp_path, record, message):
    with pytest.raises(StereopsisError, match=message) as caught:
        read(tmp_path, json.dumps([{"sample_id": "s7", **record}]), "multi3drefer")
    assert "s7" in str(caught.value)


def test_a_ten_megabyte_answer_is_read_whole(tmp_path):
    said = " " * 5_000_000 + "word" * 1_250_000
    assert read(tmp_path, lines(official("a", said), official("b", "x")), "scan2cap").samples[0].text == said


def test_candidate_boxes(tmp_path):
    path = written(tmp_path, json.dumps({"scannet/scene0011_00": [BOX, OTHER], "scene0012_00": []}), "boxes.json")
    found = read_boxes(path)
    np.testing.assert_array_equal(found["scene0011_00"], [BOX, OTHER])
    assert found["scene0012_00"].shape == (0, 6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([BOX], "expected {scene"),
        ({"s": [BOX[:5]]}, "scene 's': boxes must be"),
        ({"s": [[0, 0, 0, 1, 1, float("inf")]]}, "box 0 is .*finite"),
        ({"s": [BOX], "scannet/s": [BOX]}, "names a scene twice"),
    ],
)
def test_bad_candidate_boxes_are_refused(tmp_path, content, message):
    with pytest.raises(StereopsisError, match=message):
        read_boxes(written(tmp_path, json.dumps(content), "boxes.json"))


def test_boxes_must_be_numbers():
    with pytest.raises(StereopsisError, match="here: boxes must be lists of six numbers"):
        boxes_of([[{}]], "here")
