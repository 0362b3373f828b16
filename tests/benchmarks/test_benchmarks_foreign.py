"""Prediction files of Chat-Scene, LLaVA, lmms-eval and ScanRefer's benchmark, in their published forms."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stereopsis.annotations import Annotation, AnnotationRecord
from stereopsis.benchmarks import score
from stereopsis.benchmarks.files.box_files import read_boxes
from stereopsis.benchmarks.files.foreign import as_word, located
from stereopsis.benchmarks.files.matching import ScoredFile, score_file
from stereopsis.benchmarks.files.predictions import read_predictions
from stereopsis.benchmarks.scoring.boxes import box_of_corners
from stereopsis.errors import StereopsisError

A, B, C = [0.0, 0, 0, 1, 1, 1], [5.0, 0, 0, 1, 1, 1], [9.0, 0, 0, 1, 1, 1]
SCENE = "scene0011_00"


def asked(task: str, name: str, text: str, answers=("brown",), scene=SCENE, **more: Any) -> AnnotationRecord:
    targets = more.pop("targets", None)
    annotation = Annotation(
        id=name, task=task, scene_id=scene, type=more.pop("type", "x"), text=text, answers=answers, **more
    )
    boxes = None if targets is None else tuple(tuple(map(float, box)) for box in targets)
    return AnnotationRecord(annotation=annotation, targets=boxes)


def scored(folder: Path, content: object, records: list[AnnotationRecord], protocol="", **options: Any) -> ScoredFile:
    path = folder / "p.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    task = records[0].annotation.task
    protocols = {task: protocol} if protocol else None
    return score_file(read_predictions(path, task), records, lambda each: score(each, protocols=protocols), **options)


def values(result: ScoredFile, metric: str) -> list[float]:
    return [sample.scores[metric] for sample in result.samples]


def chat_scene(prompt: str, said: str, references: list, **more: Any) -> dict[str, Any]:
    """One entry of ``preds_epoch*_step*_*.json``, as Chat-Scene's training script saves them."""
    plain = {"scene_id": SCENE, "gt_id": 0, "pred_id": 0, "qid": 0, "prompt": prompt, "pred": said}
    return {**plain, "ref_captions": references, "type_info": 0, **more}


SUFFIX = " Answer the question using a single word or phrase."


def test_chat_scene_answers_go_by_scene_words_and_references(tmp_path):
    records = [
        asked("scanqa", "val-0", "What color is the chair?"),
        asked("scanqa", "val-1", "What color is the chair?", answers=("red", "dark red")),
        asked("scanqa", "val-2", "What color is the chair?", scene="scene0012_00"),
    ]
    said = [
        chat_scene("What color is the chair?" + SUFFIX, "Dark red.", ["red", "dark red"]),
        chat_scene("What color is the chair?" + SUFFIX, "Brown.", ["brown"], scene_id="scene0012_00"),
        chat_scene("What color is the chair?" + SUFFIX, "Green.", ["brown"]),
    ]
    result = scored(tmp_path, said, records)
    assert [p.text for p in result.predictions] == ["green", "dark red", "brown"]
    assert values(result, "em") == [0.0, 1.0, 1.0]
    assert "Read in the form of Chat-Scene." in result.notes
    with pytest.raises(StereopsisError, match="1 of 3 annotations have no prediction"):
        scored(tmp_path, said[:2], records)
    with pytest.raises(StereopsisError, match="none of its 1 ids"):
        scored(tmp_path, [chat_scene("Where is it?", "Left.", ["brown"])], records)


def test_a_question_inside_another_and_two_situations_are_told_apart(tmp_path):
    """The longer text that fits wins; of equal questions the one whose situation was asked."""
    records = [
        asked("sqa3d", "short", "Is it red?", answers=("no",)),
        asked("sqa3d", "long", "What is it? Is it red?", answers=("no",)),
        asked("sqa3d", "door", "What is ahead?", situation="I face the door.", answers=("no",)),
        asked("sqa3d", "bed", "What is ahead?", situation="I face the bed.", answers=("no",)),
    ]
    said = [
        chat_scene("I sit. What is it? Is it red?" + SUFFIX, "Long.", ["no"], type_info=5),
        chat_scene("I face the bed. What is ahead?" + SUFFIX, "Bed.", ["no"]),
        chat_scene("I sit. Is it red?" + SUFFIX, "Short.", ["no"], type_info=1),
        chat_scene("I stand elsewhere. What is ahead?" + SUFFIX, "Door.", ["no"]),
    ]
    assert [p.text for p in scored(tmp_path, said, records).predictions] == ["short", "long", "door", "bed"]


def test_alike_questions_get_one_answer_each(tmp_path):
    records = [asked("scanqa", f"val-{n}", "How many chairs?", answers=("2",)) for n in range(2)]
    said = [chat_scene("How many chairs?" + SUFFIX, text, ["2"]) for text in ("2.", "3.")]
    assert sorted(values(scored(tmp_path, said, records), "em")) == [0.0, 1.0]


@pytest.mark.parametrize(
    ("sentence", "word"), [("Brown.", "brown"), ("2", "2"), (".", "."), ("", ""), ("TV", "tV"), ("On top..", "on top.")]
)
def test_sentences_become_words_as_chat_scenes_evaluator_makes_them(sentence, word):
    assert as_word(sentence) == word


def described(name: str, number: int, target: list[float]) -> AnnotationRecord:
    text = f"It is the chair number {number}."
    return asked("scanrefer", name, text, answers=(), targets=[target], object_ids=(number,))


def pointing(number: int, said: str, **more: Any) -> dict[str, Any]:
    prompt = f'Is there "It is the chair number {number}"? Give its ID.'
    return chat_scene(prompt, said, ["<OBJ000>."], gt_id=number, **more)


def test_chat_scene_points_by_instance_numbers(tmp_path):
    """By hand: B is named and right; the first that exists is taken; none named, so instance 0 counts."""
    records = [described("b", 1, B), described("c", 2, C), described("a", 3, A), described("x", 4, B)]
    said = [
        pointing(1, "<OBJ001>."),
        pointing(2, "<OBJ099> or <OBJ002>."),
        pointing(3, "No idea."),
        pointing(4, "<OBJ002>."),
    ]
    instances = {SCENE: np.array([A, B, C])}
    assert values(scored(tmp_path, said, records, proposals=instances), "acc@0.5") == [1.0, 1.0, 1.0, 0.0]
    with pytest.raises(StereopsisError, match=r"names candidates by number.*--boxes"):
        scored(tmp_path, said, records)


def test_chat_scene_points_by_location_tokens(tmp_path):
    """B is [5, 0, 0, 1, 1, 1] metres: tokens 1000, but three digits end at 999, so 4.9: IoU 0.9 / 1.1."""
    said = [
        pointing(1, "<LOC990><LOC500><LOC500><LOC600><LOC600><LOC600></LOCATION>"),
        pointing(2, "<LOC990><LOC500></LOCATION>"),
    ]
    assert located(said[0]["pred"]) == [[4.9, 0.0, 0.0, 1.0, 1.0, 1.0]]
    assert values(scored(tmp_path, said, [described("b", 1, B), described("c", 2, C)]), "acc@0.5") == [1.0, 0.0]


def test_systems_that_name_objects_have_a_protocol_of_their_own(tmp_path):
    """F1 by hand: {A, B} for {A}: 2/3; nothing for nothing: 1; B twice for {B, C}: one hit of 2 + 2 boxes: 1/2."""
    records = [
        asked("multi3drefer", "one", "the chair near the door", targets=[A], object_ids=(4,), answers=()),
        asked("multi3drefer", "none", "the blue sofa", targets=[], answers=()),
        asked("multi3drefer", "two", "the lamps", targets=[B, C], object_ids=(7, 8), answers=()),
    ]
    said = [
        chat_scene("Find the chair near the door, please.", "Yes. <OBJ000> and <OBJ001>.", [4], type_info="st_w_d"),
        chat_scene("Find the blue sofa, please.", "No.", [], type_info="zt_wo_d"),
        chat_scene("Find the lamps, please.", "Yes. <OBJ001> and <OBJ001>.", [8, 7], type_info="mt"),
    ]
    options: dict[str, Any] = {"proposals": {SCENE: np.array([A, B, C])}}
    named = scored(tmp_path, said, records, "named", **options)
    assert values(named, "f1@0.5") == pytest.approx([2 / 3, 1.0, 0.5])
    assert {sample.protocol for sample in named.samples} == {"named"}
    with pytest.raises(StereopsisError, match=r"zero target's last.*boxes alone are scored by .*'named'"):
        scored(tmp_path, said, records, **options)
    missing = scored(tmp_path, said[:2], records, "named", missing_as_wrong=True, **options)
    assert values(missing, "f1@0.5") == pytest.approx([2 / 3, 1.0, 0.0])
    with pytest.raises(StereopsisError, match="protocol 'named' is for systems that name objects"):
        scored(tmp_path, {"one": {"scores": [0.9, 0.1], "objects": [A]}}, records[:1], "named")


def test_chat_scene_captions_go_by_their_object(tmp_path):
    records = [
        asked("scan2cap", f"s|{n}", "", answers=(f"this is a {colour} thing .",), object_ids=(n,), targets=[box])
        for n, colour, box in ((3, "red", A), (4, "blue", B))
    ]
    said = [
        chat_scene("Describe it.", "this is a blue thing .", ["sos This is a blue thing. eos"], gt_id=4, pred_id=1),
        chat_scene("Describe it.", "this is a red thing .", ["sos This is a red thing. eos"], gt_id=3, pred_id=0),
    ]
    assert values(scored(tmp_path, said, records), "rouge_l@0.5") == [1.0, 1.0]
    far = scored(tmp_path, said, records, proposals={SCENE: np.array([A, C])})
    assert values(far, "rouge_l@0.5")[0] == 1.0
    assert values(far, "cider@0.5")[1] == 0.0


def test_instances_of_chat_scenes_attribute_files(tmp_path):
    path = tmp_path / "scannet_mask3d_val_attributes.pt"
    torch.save({SCENE: {"locs": torch.tensor([A, B]), "objects": ["chair", "bed"]}}, path)
    np.testing.assert_array_equal(read_boxes(path)[SCENE], [A, B])
    torch.save([1, 2], path)
    with pytest.raises(StereopsisError, match=r"expected \{scene: \{'locs': tensor"):
        read_boxes(path)
    path.write_bytes(b"no archive")
    with pytest.raises(StereopsisError, match="found something else"):
        read_boxes(path)


class Evil:
    """Would make a folder if it were unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return (Path.mkdir, (self.folder,))


def test_nothing_in_an_attribute_file_is_executed(tmp_path):
    torch.save({SCENE: {"locs": Evil(tmp_path / "made")}}, tmp_path / "a.pt")
    with pytest.raises(StereopsisError, match="found something else"):
        read_boxes(tmp_path / "a.pt")
    assert not (tmp_path / "made").exists()


def test_llavas_answers_have_their_text_under_text(tmp_path):
    records = [asked("sqa3d", "7", "What color?"), asked("sqa3d", "8", "What color?")]
    llava = [
        {"question_id": n, "prompt": "What color?", "text": text, "answer_id": "k", "model_id": "m", "metadata": {}}
        for n, text in ((7, "brown"), (8, "red"))
    ]
    lines = "".join(json.dumps(record) + "\n" for record in llava)
    assert values(scored(tmp_path, lines, records), "em") == [1.0, 0.0]
    assert "Read in the form of LLaVA." in scored(tmp_path, lines, records).notes
    assert values(scored(tmp_path, lines.splitlines()[0], records[:1]), "em") == [1.0]
    with pytest.raises(StereopsisError, match="needs its answer as text"):  # LLaVA's questions are no answers
        scored(tmp_path, json.dumps([{"question_id": 7, "image": "x.jpg", "text": "What color?"}]), records)


def logged(place: int, said: object, target: str, **more: Any) -> dict[str, Any]:
    """A line of ``*_samples_*.jsonl`` as lmms-eval writes it since 2026."""
    plain = {"doc_id": place, "target": target, "filtered_resps": said, "token_counts": [None], "doc_hash": "0"}
    return {**plain, "input": "What color?", **more}


def test_lmms_evals_logs_name_the_document_where_a_task_repeats_it(tmp_path):
    records = [asked("vsibench", str(n), "How many?", answers=("3",), type="object_counting") for n in (50, 60)]
    lines = "".join(
        json.dumps(logged(place, [said], "3", vsibench_overall={"id": name, "ground_truth": "3", "prediction": said}))
        + "\n"
        for place, (name, said) in enumerate(((60, "3"), (50, "9")))
    )
    result = scored(tmp_path, lines, records)
    assert [p.text for p in result.predictions] == ["9", "3"]
    assert "Read in the form of lmms-eval." in result.notes


def test_lmms_evals_logs_without_ids_go_by_place_if_the_answers_agree(tmp_path):
    records = [asked("scanqa", "val-0", "What color?"), asked("scanqa", "val-1", "How many?", answers=("2", "two"))]
    said = [logged(1, "two", "['2', 'two']"), logged(0, [["red"]], "brown")]
    assert [p.text for p in scored(tmp_path, said, records).predictions] == ["red", "two"]
    with pytest.raises(StereopsisError, match="place 1 of the data set is 'val-0' here, whose answer is not '2'"):
        scored(tmp_path, said, records[::-1])
    with pytest.raises(StereopsisError, match="1 that belong to no annotation"):
        scored(tmp_path, [logged(5, "x", "brown"), said[1]], records)


def test_lmms_evals_older_logs_are_one_object(tmp_path):
    old = [{"doc_id": 0, "doc": {"id": "q1"}, "target": "brown", "resps": [["brown"]], "filtered_resps": ["brown"]}]
    content = {"args": {"model": "llava"}, "model_configs": {}, "logs": old, "time": "0101"}
    records = [asked("sqa3d", "q0", "t"), asked("sqa3d", "q1", "t")]
    for text in (json.dumps(content), json.dumps(content, indent=4)):
        assert values(scored(tmp_path, text, records[1:]), "em") == [1.0]
    assert [p.text for p in scored(tmp_path, content, records, missing_as_wrong=True).predictions] == ["", "brown"]


def corners(box: list[float], order=(0, 3, 1, 2, 7, 6, 5, 4)) -> list[list[float]]:
    centre, size = np.array(box[:3]), np.array(box[3:])
    signs = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    return (centre + signs * size)[list(order)].tolist()


def test_scanrefers_own_submission_has_eight_corners(tmp_path):
    records = [asked("scanrefer", f"{SCENE}|{n}|0", "t", answers=(), type="", targets=[B]) for n in (1, 2)]
    said = [
        {"scene_id": SCENE, "object_id": "2", "ann_id": "0", "bbox": corners(A), "unique_multiple": 1, "others": 0},
        {"scene_id": SCENE, "object_id": 1, "ann_id": 0, "bbox": corners(B), "unique_multiple": 0},
    ]
    result = scored(tmp_path, said, records)
    assert values(result, "acc@0.5") == [1.0, 0.0]
    assert [sample.type for sample in result.samples] == ["unique", "multiple"]
    assert "Read in the form of the authors' benchmark." in result.notes
    for bbox in (corners(A)[:7], [[1, 2]] * 8, "x", [[float("nan")] * 3] * 8):
        with pytest.raises(StereopsisError, match=rf"sample '{SCENE}\|1\|0': its box must be 8 corners"):
            scored(tmp_path, [{**said[1], "bbox": bbox}], records)


@pytest.mark.parametrize("turn", [0.0, 0.7])
def test_the_box_of_corners_holds_them(turn):
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    points = np.array(corners([1, 2, 3, 0.4, 0.6, 0.8])) @ rotation.T
    box = np.array(box_of_corners(points.tolist(), "here"))
    np.testing.assert_allclose(box[:3] - box[3:] / 2, points.min(axis=0))
    np.testing.assert_allclose(box[:3] + box[3:] / 2, points.max(axis=0))
    if not turn:
        np.testing.assert_allclose(box, [1, 2, 3, 0.4, 0.6, 0.8])


def test_of_a_part_of_a_split_unique_and_multiple_cannot_be_told(tmp_path):
    from stereopsis.benchmarks.files.annotation_files import AnnotationFile
    from stereopsis.benchmarks.scanrefer import reader

    entries = [
        {"scene_id": SCENE, "object_id": "1", "object_name": "chair", "ann_id": "0", "description": "the chair"},
        {"scene_id": SCENE, "object_id": "2", "object_name": "bed", "ann_id": "0", "description": "the bed"},
    ]
    path = tmp_path / "part.json"
    path.write_text(json.dumps([{**entry, "box": B} for entry in entries]))
    records = list(reader.read(AnnotationFile(path=path)))
    assert [record.annotation.type for record in records] == ["unique", "unique"]
    said = {f"{SCENE}|1|0": {"pred_response": B, "question_type": "multiple"}, f"{SCENE}|2|0": B}
    result = scored(tmp_path, said, records)
    assert [sample.type for sample in result.samples] == ["multiple", "unknown"]
    assert "no whole split (train 36665, val 9508)" in result.notes[0]
    assert "cannot be told which are unique" in result.notes[0]
    path.write_text(json.dumps([{**entry, "box": B, "eval_type": "multiple"} for entry in entries]))
    stated = scored(tmp_path, said, list(reader.read(AnnotationFile(path=path))))
    assert [sample.type for sample in stated.samples] == ["multiple", "multiple"]
    assert not any("cannot be told" in note for note in stated.notes)
