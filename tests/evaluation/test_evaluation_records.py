"""Records on disk: plain, whole or absent, and readable by anything that reads JSON."""

import math

import numpy as np
import pytest

from stereopsis.benchmarks import Prediction, score
from stereopsis.errors import RunFolderError
from stereopsis.evaluation.in_memory import evaluate
from stereopsis.evaluation.records import read_results, record_of, summary_dict, write_results


def test_a_record_tells_what_was_asked_said_meant_and_earned(hand_scene, strict_json):
    import json

    scene = hand_scene(
        "a",
        [{"task": "multi3drefer", "text": "the cubes", "type": "mt", "object_ids": (1, 2)}],
        proposals=(0.00049, 10.0),
    )
    prediction = Prediction(
        annotation=scene.annotations[0],
        boxes=np.stack([p.box for p in scene.proposals]),
        scores=np.array([0.91234567, -0.5]),
        zero_target_score=-1.0,
        targets=np.stack([scene.object(1).box, scene.object(2).box]),
    )
    (sample,) = score([prediction])
    record = record_of(prediction, sample)
    assert record["id"] == "a-0"
    assert (record["scene_id"], record["task"], record["type"]) == ("a", "multi3drefer", "mt")
    assert (record["text"], record["prediction"], record["object_ids"]) == ("the cubes", "", [1, 2])
    assert record["boxes"] == [[0.0, 0, 0, 1, 1, 1], [10.0, 0, 0, 1, 1, 1]]  # millimetres
    assert record["cosines"] == [0.9123, -0.5]
    assert record["zero_cosine"] == -1.0
    assert record["targets"][1][0] == 10.0
    assert record["scores"] == dict(sample.scores)
    assert strict_json(json.dumps(record)) == record


def test_unknown_bounds_become_null(hand_scene):
    question = {"task": "sqa3d", "text": "?", "answers": ("yes",), "type": "is"}

    def yes(scene):
        return [Prediction(annotation=a, text="yes") for a in scene.annotations]

    one = summary_dict(evaluate(yes, [hand_scene("a", [question])]).summaries)
    assert one["sqa3d"]["overall"]["em"] == {"mean": 100.0, "low": None, "high": None}
    assert (one["sqa3d"]["count"], one["sqa3d"]["scene_count"], one["sqa3d"]["type_counts"]) == (1, 1, {"is": 1})
    two = summary_dict(evaluate(yes, [hand_scene("a", [question]), hand_scene("b", [question])]).summaries)
    assert two["sqa3d"]["by_type"]["is"]["em"] == {"mean": 100.0, "low": 100.0, "high": 100.0}
    assert not math.isnan(two["sqa3d"]["macro"]["em"]["low"])


def test_what_is_written_reads_back_and_nothing_partial_stays(tmp_path):
    records = [{"id": "a", "scores": {"em": 1.0}}, {"id": "b", "text": "zwei Stühle\nund"}]
    write_results(tmp_path / "evaluation", records, {"sqa3d": {"count": 2}}, {"scenes": 1})
    assert {path.name for path in (tmp_path / "evaluation").iterdir()} == {"records.jsonl", "summary.json"}
    again, summary = read_results(tmp_path / "evaluation")
    assert again == records
    assert summary == {"settings": {"scenes": 1}, "tasks": {"sqa3d": {"count": 2}}}
    write_results(tmp_path / "evaluation", records[:1], {}, {})
    assert read_results(tmp_path / "evaluation")[0] == records[:1]


@pytest.mark.parametrize("missing", ["records.jsonl", "summary.json"])
def test_half_an_evaluation_is_none(tmp_path, missing):
    write_results(tmp_path, [{"id": "a"}], {}, {})
    (tmp_path / missing).unlink()
    with pytest.raises(RunFolderError, match=rf"no {missing}.*run 'stereopsis evaluate' first"):
        read_results(tmp_path)
