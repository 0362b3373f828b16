"""Which prediction answers which annotation, and that the scores are those of the benchmark's own metric."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stereopsis.annotations import Annotation
from stereopsis.benchmarks import score
from stereopsis.benchmarks.files.annotation_files import AnnotationRecord
from stereopsis.benchmarks.files.matching import ScoredFile, score_file
from stereopsis.benchmarks.files.predictions import read_predictions
from stereopsis.errors import StereopsisError

A, B, C = [0.0, 0, 0, 1, 1, 1], [5.0, 0, 0, 1, 1, 1], [9.0, 0, 0, 1, 1, 1]
MOST_OF_A = [0.0, 0, 0, 1, 1, 0.6]
"""IoU 0.6 with A."""
THIRD_A = [0.0, 0, 0, 1, 1, 0.34]
"""IoU 0.34 with A."""


def asked(
    task: str, name: str, *, kind: str = "x", answers=("yes",), scene="scene0000_00", **more: Any
) -> AnnotationRecord:
    annotation = Annotation(id=name, task=task, scene_id=scene, type=kind, text="t", answers=answers)
    for key in set(more) & {"targets", "query"}:
        boxes = [tuple(map(float, box)) for box in ([more[key]] if key == "query" else more[key])]
        more[key] = boxes[0] if key == "query" else tuple(boxes)
    return AnnotationRecord(annotation=annotation, **more)


def scored(folder: Path, predictions: object, records: list[AnnotationRecord], **options: Any) -> ScoredFile:
    path = folder / "p.json"
    path.write_text(json.dumps(predictions))
    return score_file(read_predictions(path, records[0].annotation.task), records, score, **options)


def values(result: ScoredFile, metric: str) -> list[float]:
    return [sample.scores[metric] for sample in result.samples]


def test_answers_go_to_their_questions_whatever_the_order(tmp_path):
    records = [asked("sqa3d", "1", answers=("two",)), asked("sqa3d", "2", answers=("a chair",)), asked("sqa3d", "3")]
    result = scored(tmp_path, {"3": "no", "2": "Chair!", "1": "2"}, records)
    assert [sample.id for sample in result.samples] == ["1", "2", "3"]
    assert values(result, "em") == [1.0, 1.0, 0.0]
    assert result.missing == result.extra == result.notes == ()


def test_other_names_of_a_sample_are_known_and_said(tmp_path):
    records = [asked("scanqa", "val-0", names=("scanqa_val-0_0", "scanqa_val-0_1")), asked("scanqa", "val-1")]
    result = scored(tmp_path, {"scanqa_val-0_0": "yes", "val-1": "no"}, records)
    assert values(result, "em") == [1.0, 0.0]
    assert "1 samples are named as the official repositories" in result.notes[0]
    with pytest.raises(StereopsisError, match="'scanqa_val-0_0' and 'scanqa_val-0_1' both answer scanqa 'val-0'"):
        scored(tmp_path, {"scanqa_val-0_0": "yes", "scanqa_val-0_1": "yes", "val-1": "no"}, records)


def test_an_annotations_own_id_counts_before_the_names_of_others(tmp_path):
    records = [asked("sqa3d", "1", names=("2",)), asked("sqa3d", "2", names=("1",), answers=("no",))]
    assert values(scored(tmp_path, {"1": "yes", "2": "no"}, records), "em") == [1.0, 1.0]


def test_names_that_mean_two_annotations_mean_none(tmp_path):
    records = [asked("sqa3d", "a", names=("x",)), asked("sqa3d", "b", names=("x",))]
    with pytest.raises(StereopsisError, match="none of its 1 ids"):
        scored(tmp_path, {"x": "yes"}, records)


def test_missing_predictions_are_an_error_unless_they_may_count_as_wrong(tmp_path):
    records = [asked("sqa3d", str(n)) for n in range(9)]
    with pytest.raises(
        StereopsisError, match=r"7 of 9 .*\(2, 3, 4, 5, 6, \.\.\.\).* 3 predictions, and 1 that .*\(zz\)"
    ):
        scored(tmp_path, {"0": "yes", "1": "yes", "zz": "yes"}, records)
    result = scored(tmp_path, {"0": "yes", "1": "yes", "zz": "yes"}, records, missing_as_wrong=True)
    assert values(result, "em") == [1.0, 1.0] + [0.0] * 7
    assert (len(result.missing), result.extra) == (7, ("zz",))
    assert any("7 annotations have no prediction" in note for note in result.notes)
    assert any("1 predictions belong to no annotation" in note for note in result.notes)


def test_extra_predictions_are_left_out_and_told(tmp_path):
    result = scored(tmp_path, {"1": "yes", "other": "no"}, [asked("sqa3d", "1")])
    assert values(result, "em") == [1.0]
    assert result.extra == ("other",)


def test_a_missing_answer_to_a_question_about_nothing_is_wrong_too(tmp_path):
    """Pointing at nothing would be right there; not answering is not."""
    records = [asked("multi3drefer", "a", targets=()), asked("multi3drefer", "b", targets=())]
    result = scored(tmp_path, {"a": {"scores": [0.1, 0.9], "objects": [A]}}, records, missing_as_wrong=True)
    assert values(result, "f1@0.25") == [1.0, 0.0]


def test_a_missing_caption_scores_nothing_at_all(tmp_path):
    records = [asked("scan2cap", n, answers=(f"this is a {n} thing",)) for n in ("red", "blue", "green")]
    result = scored(tmp_path, {n: f"this is a {n} thing" for n in ("red", "blue")}, records, missing_as_wrong=True)
    assert set(result.samples[2].scores.values()) == {0.0}
    assert values(result, "rouge_l@0.5")[:2] == [1.0, 1.0]


def test_nothing_in_common_is_an_error_that_shows_both(tmp_path):
    with pytest.raises(StereopsisError, match=r"none of its 1 ids \(a\) is one of the 1 annotations' \(1\)"):
        scored(tmp_path, {"a": "yes"}, [asked("sqa3d", "1")], missing_as_wrong=True)


@pytest.mark.parametrize(("box", "worth"), [(A, (1, 1)), (MOST_OF_A, (1, 1)), (THIRD_A, (1, 0)), (B, (0, 0))])
def test_scanrefer_takes_the_picked_box(tmp_path, box, worth):
    result = scored(tmp_path, {"1": box}, [asked("scanrefer", "1", targets=[A])])
    assert (values(result, "acc@0.25"), values(result, "acc@0.5")) == ([worth[0]], [worth[1]])


def test_scanrefer_picks_the_best_candidate_never_the_zero_target(tmp_path):
    records = [asked("scanrefer", "1", targets=[B])]
    said = {"1": {"scores": [0.1, 0.6, 0.9], "objects": [A, B]}}
    assert values(scored(tmp_path, said, records), "acc@0.5") == [1.0]
    said = {"1": {"scores": [0.1, 0.6]}}
    proposals = {"scene0000_00": np.array([A, B])}
    assert values(scored(tmp_path, said, records, proposals=proposals), "acc@0.5") == [1.0]
    with pytest.raises(StereopsisError, match=r"has scores but no boxes.*--boxes"):
        scored(tmp_path, said, records)


@pytest.mark.parametrize("scores", [[0.5], [0.5] * 4])
def test_scores_must_fit_the_candidates(tmp_path, scores):
    with pytest.raises(StereopsisError, match=f"{len(scores)} scores for 2 candidates; expected 3"):
        scored(tmp_path, {"1": {"scores": scores, "objects": [A, B]}}, [asked("multi3drefer", "1", targets=[A])])


def test_multi3drefer_from_scores_by_hand(tmp_path):
    """cosines 0.9, 0.9, 0.1 and zero 0.0 at temperature 0.07: two candidates share all weight, one reaches 0.4."""
    said = {"1": {"scores": [0.9, 0.9, 0.1, 0.0], "objects": [A, B, C]}}
    one = scored(tmp_path, said, [asked("multi3drefer", "1", targets=[A])])
    assert values(one, "f1@0.5") == [1.0]
    two = scored(tmp_path, said, [asked("multi3drefer", "1", targets=[A, B])])
    assert values(two, "f1@0.5") == [pytest.approx(2 / 3)]
    with pytest.raises(StereopsisError, match="scores with the zero target's last"):
        scored(tmp_path, {"1": [A, B]}, [asked("multi3drefer", "1", targets=[A])])


def test_truth_of_the_prediction_file_serves_where_there_is_no_other(tmp_path):
    said = {"1": {"pred_response": A, "gt_response": A}, "2": {"pred_response": A, "gt_response": B}}
    result = scored(tmp_path, said, [asked("scanrefer", "1"), asked("scanrefer", "2")])
    assert values(result, "acc@0.5") == [1.0, 0.0]
    assert "true boxes of 2 samples are the file's own" in result.notes[0]
    with pytest.raises(StereopsisError, match="neither from the annotations nor from a gt_response"):
        scored(tmp_path, {"1": A}, [asked("scanrefer", "1")])


def test_places_in_a_list_are_believed_only_if_the_boxes_agree(tmp_path):
    records = [
        asked("scanrefer", "s|1|0", names=("0",), targets=[A]),
        asked("scanrefer", "s|2|0", names=("1",), targets=[B]),
    ]
    near = [*A[:5], 1.004]
    right = {"0": {"pred_response": A, "gt_response": near}, "1": {"pred_response": A, "gt_response": B}}
    assert values(scored(tmp_path, right, records), "acc@0.5") == [1.0, 0.0]
    swapped = {"0": right["1"], "1": right["0"]}
    with pytest.raises(StereopsisError, match=r"stands for 's\|1\|0', but its gt_response is another box"):
        scored(tmp_path, swapped, records)


def test_another_truth_under_the_right_id_is_told(tmp_path):
    result = scored(tmp_path, {"1": {"pred_response": A, "gt_response": B}}, [asked("scanrefer", "1", targets=[A])])
    assert values(result, "acc@0.5") == [1.0]
    assert "In 1 samples gt_response is another box" in result.notes[0]


def test_several_true_boxes_agree_in_any_order(tmp_path):
    records = [asked("multi3drefer", "m", names=("0",), targets=[A, B])]
    said = {"0": {"scores": [0.9, 0.1, 0.0], "objects": [A, B], "gt_response": [B, A]}}
    assert values(scored(tmp_path, said, records), "f1@0.5") == [pytest.approx(2 / 3)]
    said["0"]["gt_response"] = [A, A]
    with pytest.raises(StereopsisError, match="another box"):
        scored(tmp_path, said, records)


def test_types_that_the_annotations_lack_come_from_the_file(tmp_path):
    said = {"1": {"pred_response": A, "question_type": "unique"}, "2": {"pred_response": A, "question_type": "unique"}}
    records = [asked("scanrefer", "1", kind="", targets=[A]), asked("scanrefer", "2", kind="multiple", targets=[A])]
    assert [sample.type for sample in scored(tmp_path, said, records).samples] == ["unique", "multiple"]


def captions(**more: Any) -> list[AnnotationRecord]:
    return [
        asked("scan2cap", f"s|{n}", answers=(f"this is a {n} thing .", f"a {n} thing"), **more) for n in ("red", "blue")
    ]


def test_captions_without_boxes_are_compared_as_they_stand(tmp_path):
    result = scored(tmp_path, {"s|red": "a red thing", "s|blue": ""}, captions(targets=[A]))
    assert values(result, "rouge_l@0.5")[0] == 1.0
    assert values(result, "cider@0.5")[0] > values(result, "cider@0.5")[1] == 0.0
    assert "1 predictions are empty." in result.notes


def test_a_candidate_that_misses_the_object_empties_its_caption(tmp_path):
    said = {"s|red": "a red thing", "s|blue": "a blue thing"}
    found = scored(tmp_path, said, captions(targets=[A]), proposals={"scene0000_00": np.array([B, MOST_OF_A])})
    assert values(found, "rouge_l@0.5") == [1.0, 1.0]
    missed = scored(tmp_path, said, captions(targets=[A]), proposals={"scene0000_00": np.array([B, THIRD_A])})
    empty = scored(tmp_path, {"s|red": "", "s|blue": ""}, captions(targets=[A]))
    assert [s.scores for s in missed.samples] == [s.scores for s in empty.samples]


def test_the_query_box_of_the_annotation_file_decides_where_it_is_there(tmp_path):
    first, second = captions(targets=[A])
    records = [dataclasses.replace(first, query=tuple(map(float, MOST_OF_A))), second]
    result = scored(tmp_path, {"s|red": "a red thing", "s|blue": "a blue thing"}, records)
    assert values(result, "rouge_l@0.5")[0] == 1.0
    assert values(result, "cider@0.5")[1] == 0.0


def test_scan2cap_samples_are_known_by_their_captions(tmp_path):
    said = [
        {"sample_id": n, "pred_response": f"a {colour} thing", "scene": "scannet/scene0000_00", "gt_response": truth}
        for n, colour, truth in (
            (30, "blue", ["sos a blue thing eos", "This is a blue thing."]),
            (12, "red", ["this is a red thing .", "a red thing"]),
        )
    ]
    result = scored(tmp_path, said, captions())
    assert values(result, "rouge_l@0.5") == [1.0, 1.0]
    assert "2 samples are named as the official" in result.notes[0]
    named = [dataclasses.replace(each, names=(name,)) for each, name in zip(captions(), ("30", "12"), strict=True)]
    assert values(scored(tmp_path, said, named), "rouge_l@0.5") == [1.0, 1.0]  # captions count before places in a list
    with pytest.raises(StereopsisError, match="none of its 2 ids"):
        scored(tmp_path, [{**each, "scene": "scannet/scene0001_00"} for each in said], captions())


def test_mixed_benchmarks_are_refused(tmp_path):
    with pytest.raises(StereopsisError, match="annotations of one benchmark"):
        scored(tmp_path, {"1": "x"}, [asked("sqa3d", "1"), asked("scanqa", "2")])
