import dataclasses
from pathlib import Path

import numpy as np
import pytest

import stereopsis.benchmarks as benchmarks
from stereopsis.annotations import Annotation
from stereopsis.benchmarks import (
    Prediction,
    benchmark_named,
    benchmark_names,
    protocols_of,
    published_figures,
    score,
    summarise,
)
from stereopsis.benchmarks.scoring.boxes import evaluated_iou
from stereopsis.errors import StereopsisError
from stereopsis.geometry.boxes import iou

BOX = np.array([[0.0, 0.0, 0.5, 1.0, 1.0, 1.0]])


def answered(task, text, *answers, id="0", **fields):
    annotation = Annotation(id=id, task=task, scene_id="s", type="t", answers=answers)
    return Prediction(annotation=annotation, text=text, **fields)


def test_every_task_has_one_default_protocol_and_it_comes_first():
    for task in benchmark_names():
        protocols = benchmark_named(task).protocols
        assert [p.default for p in protocols] == [True] + [False] * (len(protocols) - 1)
        assert {p.task for p in protocols} == {task}
        assert len({p.name for p in protocols}) == len(protocols)
        assert protocols_of()[task] == protocols[0]
    assert protocols_of({"scan2cap": "released"})["scan2cap"].name == "released"


def test_samples_and_summaries_say_their_protocol():
    said = [answered("sqa3d", "red", "red")]
    assert score(said)[0].protocol == "strict"
    assert summarise(score(said, protocols={"sqa3d": "released"}))["sqa3d"].protocol == "released"
    other = dataclasses.replace(score(said, protocols={"sqa3d": "released"})[0], id="1")
    with pytest.raises(StereopsisError, match="different protocols"):
        summarise([*score(said), other])


def test_unknown_protocols_are_refused_with_a_suggestion():
    with pytest.raises(StereopsisError, match=r"scan2cap has no protocol 'strickt' \(did you mean 'strict'\?\)"):
        score([], protocols={"scan2cap": "strickt"})
    with pytest.raises(StereopsisError, match=r"no benchmark 'scan2cat' \(did you mean 'scan2cap'\?\)"):
        score([], protocols={"scan2cat": "strict"})


@pytest.mark.parametrize(
    ("text", "answer", "em", "refined"),
    [
        ("the left", "left", 1, 1),
        ("on the left", "left", 0, 1),
        ("left", "on the left side", 0, 1),
        ("arm chair", "armchair", 0, 1),
        ("right", "left", 0, 0),
        ("no", "none", 0, 0),  # "none" becomes "zero"
        ("", "left", 0, 0),
        (" .", "left", 0, 0),
        ("left", "椅子", 0, 0),  # an answer of which the cleaning leaves nothing
    ],
)
def test_refined_match_worked_by_hand(text, answer, em, refined):
    assert score([answered("sqa3d", text, answer)])[0].scores == {"em": em, "em_r": refined}


def test_the_released_refined_match_lets_empty_answers_through():
    silent = [answered("sqa3d", text, "left", id=text) for text in ("", "  ", ".", "右")]
    released = score(silent, protocols={"sqa3d": "released"})
    assert [s.scores for s in released] == [{"em": 0.0, "em_r": 1.0}] * 4
    assert [s.scores for s in score(silent)] == [{"em": 0.0, "em_r": 0.0}] * 4
    several = [answered("sqa3d", "a red box", "blue", "red")]
    assert score(several)[0].scores == score(several, protocols={"sqa3d": "released"})[0].scores == {"em": 0, "em_r": 1}


def test_summaries_leave_unavailable_metrics_out_and_say_why():
    samples = score([answered("scanqa", "red", "red"), answered("scanqa", "two", "two", id="1")])
    summary = summarise(samples, n=20)["scanqa"]
    assert "meteor" not in summary.overall
    assert "meteor" not in summary.macro
    assert "meteor" not in summary.by_type["t"]
    assert summary.unavailable["meteor"].startswith("not asked for")
    mixed = [samples[0], dataclasses.replace(samples[1], unavailable={})]
    with pytest.raises(StereopsisError, match="1 of 2 samples have no 'meteor'"):
        summarise(mixed)


def test_evaluated_iou_is_the_iou_but_for_its_small_addition():
    rng = np.random.default_rng(0)
    a, b = (np.concatenate([rng.uniform(0, 1, (9, 3)), rng.uniform(0.3, 1, (9, 3))], axis=1) for _ in range(2))
    np.testing.assert_allclose(evaluated_iou(a, b), iou(a, b), atol=1e-6)
    half = BOX * np.array([1, 1, 0.5, 1, 1, 0.5])
    assert iou(half, BOX)[0, 0] == 0.5
    assert evaluated_iou(half, BOX)[0, 0] == pytest.approx(0.5 / (1 + 1e-8), abs=1e-15)
    assert evaluated_iou(half, BOX)[0, 0] < 0.5
    assert evaluated_iou(np.zeros((1, 6)), np.zeros((1, 6)))[0, 0] == 0.0


def test_published_figures_belong_to_our_metrics_and_protocols():
    rows = published_figures()
    for row in rows:
        assert row.metric in {metric.name for metric in benchmark_named(row.task).metrics}
        assert row.protocol in {None, *(p.name for p in benchmark_named(row.task).protocols)}
        assert row.split == ("test" if row.task == "sqa3d" else "val")
        assert 0 < row.value < (120 if "cider" in row.metric else 100)
        assert row.source
    keys = [(row.task, row.method, row.metric) for row in rows]
    assert len(set(keys)) == len(keys)
    best = {row.method: row.value for row in published_figures("sqa3d", "em")}
    assert (best["Video-3D-LLM"], best["3DRS"], best["Ross3D"]) == (58.6, 60.6, 63.0)
    assert {row.task for row in published_figures("scanqa")} == {"scanqa"}


def test_cards_name_every_protocol():
    for task in benchmark_names():
        card = (Path(benchmarks.__file__).parent / task / "card.md").read_text()
        assert all(f"`{protocol.name}`" in card for protocol in benchmark_named(task).protocols)
        for row in published_figures(task):
            assert row.method in card
            assert f"{row.value}" in card
