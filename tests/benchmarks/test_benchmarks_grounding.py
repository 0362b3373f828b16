import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stereopsis.annotations import Annotation
from stereopsis.benchmarks import Prediction, score
from stereopsis.benchmarks.multi3drefer.metric import select
from stereopsis.benchmarks.scoring.baselines import chance_scores, majority_answers
from stereopsis.benchmarks.scoring.boxes import matched_f1
from stereopsis.errors import StereopsisError
from stereopsis.geometry.boxes import iou

NONE = np.zeros((0, 6))


def row(*xs, size=1.0):
    """Unit cubes with centres at these x."""
    return np.array([[x, 0.0, 0.0, size, size, size] for x in xs]).reshape(-1, 6)


def grounded(task, boxes, scores, targets, zero=None, id="0"):
    return Prediction(
        annotation=Annotation(id=id, task=task, scene_id="s", type="t", text="the chair"),
        boxes=boxes,
        scores=np.array(scores, dtype=float),
        zero_target_score=zero,
        targets=targets,
    )


def only(prediction):
    return score([prediction])[0].scores


def test_f1_worked_by_hand():
    assert matched_f1(row(0, 5), row(0, 5)) == (1.0, 1.0)
    assert matched_f1(row(0, 5), row(0)) == (2 / 3, 2 / 3)
    assert matched_f1(row(0), row(0, 5, 10)) == (0.5, 0.5)
    # shifted by 0.4: IoU 0.6 / 1.4 = 0.43
    assert matched_f1(row(0.4), row(0)) == (1.0, 0.0)
    assert matched_f1(row(0, 0), row(0)) == (2 / 3, 2 / 3)
    assert matched_f1(NONE, NONE) == (1.0, 1.0)
    assert matched_f1(NONE, row(0)) == matched_f1(row(0), NONE) == (0.0, 0.0)


def test_iou_at_the_threshold_is_a_hit():
    half_height = np.array([[0.0, 0.0, 0.25, 1.0, 1.0, 0.5]])
    assert matched_f1(half_height, np.array([[0.0, 0.0, 0.5, 1.0, 1.0, 1.0]])) == (1.0, 1.0)


def brute_force_f1(predicted, targets, threshold):
    """F1 of the matching with the largest total IoU among all matchings, tried one by one."""
    overlap = iou(predicted, targets)
    if len(predicted) > len(targets):
        overlap = overlap.T
    rows = range(overlap.shape[0])
    best = max(
        itertools.permutations(range(overlap.shape[1]), overlap.shape[0]),
        key=lambda columns: sum(overlap[r, c] for r, c in zip(rows, columns, strict=True)),
    )
    hits = sum(overlap[r, c] >= threshold for r, c in zip(rows, best, strict=True))
    return 2 * hits / (len(predicted) + len(targets))


@pytest.mark.parametrize("seed", range(60))
def test_f1_is_that_of_the_best_of_all_matchings(seed):
    rng = np.random.default_rng(seed)
    predicted, targets = (
        np.concatenate([rng.uniform(0, 1.0, (n, 3)), rng.uniform(0.5, 1.5, (n, 3))], axis=1)
        for n in rng.integers(1, 6, 2)
    )
    assert matched_f1(predicted, targets, (0.1, 0.25, 0.5)) == tuple(
        pytest.approx(brute_force_f1(predicted, targets, threshold)) for threshold in (0.1, 0.25, 0.5)
    )


@given(st.integers(0, 2**32 - 1), st.integers(0, 4), st.integers(0, 4))
def test_f1_is_symmetric_bounded_and_invariant_to_order_and_place(seed, first, second):
    rng = np.random.default_rng(seed)
    a, b = (np.concatenate([rng.uniform(0, 2, (n, 3)), rng.uniform(0.5, 2, (n, 3))], axis=1) for n in (first, second))
    value = matched_f1(a, b)
    shift = np.concatenate([rng.uniform(-10, 10, 3), np.zeros(3)])
    assert 0 <= value[1] <= value[0] <= 1
    assert matched_f1(b, a) == value
    assert matched_f1(a[::-1].copy() + shift, b + shift) == value
    assert matched_f1(a, a) == (1.0, 1.0)


def test_select_follows_the_zero_target_and_the_cumulative_probability():
    def chosen(scores, zero, **options):
        return select(np.array(scores, dtype=float), zero, **options).tolist()

    assert chosen([0.5, 0.4], 0.6) == []
    assert chosen([], -1.0) == []
    assert chosen([0.1, 0.9, 0.2], 0.0) == [1]
    # three equal proposals share the probability: 1/3 is below 0.4, 2/3 is not
    assert chosen([0.5, 0.5, 0.5], -1.0) == [0, 1]
    assert chosen([0.5, 0.5], -1.0) == [0]
    # the zero target keeps its share: four times 1/4
    assert chosen([0.5, 0.5, 0.5], 0.5) == [0, 1]
    assert chosen([0.5, 0.5, 0.5], -1.0, threshold=0.7) == [0, 1, 2]
    # a ten times higher temperature flattens the distribution
    assert chosen([0.5, 0.4, 0.3, 0.2], -1.0) == [0]
    assert chosen([0.5, 0.4, 0.3, 0.2], -1.0, temperature=0.7) == [0, 1]


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=8), st.floats(-1, 1), st.floats(0.05, 0.95))
def test_selected_proposals_are_the_shortest_sufficient_prefix_of_the_ranking(values, zero, threshold):
    scores = np.array(values)
    chosen = select(scores, zero, threshold=threshold)
    if zero > scores.max():
        assert len(chosen) == 0
        return
    assert len(chosen) >= 1
    assert (np.diff(scores[chosen]) <= 1e-12).all()
    weights = np.exp((np.append(scores, zero) - 1) / 0.07)
    share = weights[chosen].sum() / weights.sum()
    assert share >= threshold - 1e-9 or len(chosen) == len(scores)
    assert weights[chosen[:-1]].sum() / weights.sum() < threshold + 1e-9


def test_multi3drefer_scores_none_one_and_several():
    three = row(0, 5, 10)
    assert only(grounded("multi3drefer", three, [0, 0, 0], NONE, zero=0.9)) == {"f1@0.25": 1.0, "f1@0.5": 1.0}
    assert only(grounded("multi3drefer", three, [0, 0, 0], row(0), zero=0.9))["f1@0.25"] == 0.0
    assert only(grounded("multi3drefer", three, [0.9, 0, 0], NONE, zero=0.0))["f1@0.25"] == 0.0
    assert only(grounded("multi3drefer", three, [0.9, 0, 0], row(0), zero=0.0))["f1@0.5"] == 1.0
    assert only(grounded("multi3drefer", three, [0.9, 0, 0.9], row(0, 10), zero=0.0))["f1@0.5"] == pytest.approx(2 / 3)
    assert only(grounded("multi3drefer", NONE, [], NONE, zero=0.0))["f1@0.5"] == 1.0
    assert only(grounded("multi3drefer", NONE, [], row(0), zero=0.0))["f1@0.5"] == 0.0


def test_scanrefer_takes_the_best_proposal_and_never_the_zero_target():
    boxes = row(0, 0.4, 5)
    assert only(grounded("scanrefer", boxes, [0.9, 0.1, 0.2], row(0), zero=1.0)) == {
        "acc@0.25": 1.0,
        "acc@0.5": 1.0,
    }
    assert only(grounded("scanrefer", boxes, [0.1, 0.9, 0.2], row(0))) == {"acc@0.25": 1.0, "acc@0.5": 0.0}
    assert only(grounded("scanrefer", boxes, [0.1, 0.2, 0.9], row(0))) == {"acc@0.25": 0.0, "acc@0.5": 0.0}
    assert only(grounded("scanrefer", NONE, [], row(0))) == {"acc@0.25": 0.0, "acc@0.5": 0.0}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_and_boxes_that_are_not_finite_are_refused(bad):
    with pytest.raises(StereopsisError, match=r"scanrefer '0': proposal scores must be finite"):
        grounded("scanrefer", row(0, 5), [0.5, bad], row(0))
    with pytest.raises(StereopsisError, match="zero-target score"):
        grounded("multi3drefer", row(0), [0.5], row(0), zero=bad)
    with pytest.raises(StereopsisError, match="targets must be finite"):
        grounded("scanrefer", row(0), [0.5], row(bad))


def test_incomplete_or_mistaken_grounding_input_is_refused_by_name():
    with pytest.raises(StereopsisError, match="2 scores for 1 proposal"):
        grounded("scanrefer", row(0), [0.1, 0.2], row(0))
    with pytest.raises(StereopsisError, match="sizes >= 0"):
        grounded("scanrefer", row(0, size=-1.0), [0.1], row(0))
    with pytest.raises(StereopsisError, match="exactly one target box, got 2"):
        only(grounded("scanrefer", row(0), [0.1], row(0, 5)))
    with pytest.raises(StereopsisError, match="2 proposals have no scores"):
        only(grounded("scanrefer", row(0, 5), [], row(0)))
    with pytest.raises(StereopsisError, match="2 proposals have no scores"):
        only(grounded("multi3drefer", row(0, 5), [], row(0), zero=0.0))
    with pytest.raises(StereopsisError, match="needs zero_target_score"):
        only(grounded("multi3drefer", row(0), [0.1], row(0)))
    with pytest.raises(StereopsisError, match="before the division by the temperature"):
        only(grounded("multi3drefer", row(0), [0.5 / 0.07], row(0), zero=0.0))


@pytest.mark.parametrize("task", ["scanrefer", "multi3drefer"])
@pytest.mark.parametrize("seed", range(10))
def test_chance_is_the_mean_score_over_every_possible_pick(task, seed):
    rng = np.random.default_rng(seed)
    targets = row(*rng.uniform(0, 4, 1 if task == "scanrefer" else seed % 4))
    boxes = row(*rng.uniform(0, 4, 7))
    picks = []
    for place in range(len(boxes)):
        scores = np.where(np.arange(len(boxes)) == place, 1.0, -1.0)
        picks.append(only(grounded(task, boxes, scores, targets, zero=-1.0)))
    expected = {name: np.mean([pick[name] for pick in picks]) for name in picks[0]}
    assert chance_scores(grounded(task, boxes, [], targets)) == pytest.approx(expected)


def test_chance_without_proposals_and_for_text():
    assert chance_scores(grounded("scanrefer", NONE, [], row(0))) == {"acc@0.25": 0.0, "acc@0.5": 0.0}
    assert chance_scores(grounded("multi3drefer", NONE, [], NONE)) == {"f1@0.25": 1.0, "f1@0.5": 1.0}
    with pytest.raises(StereopsisError, match="scanrefer and multi3drefer"):
        chance_scores(grounded("scanqa", NONE, [], NONE))


def test_majority_answers():
    def said(task, type, *answers):
        return Annotation(id="0", task=task, scene_id="s", type=type, answers=answers)

    guess = majority_answers(
        [
            said("sqa3d", "is", "yes"),
            said("sqa3d", "is", "no"),
            said("sqa3d", "is", "no "),
            said("sqa3d", "what", "chair", "chair", "chair"),
            said("sqa3d", "what", "bed"),
            said("sqa3d", "can", "yes"),
            said("sqa3d", "can", "yes"),
            said("sqa3d", "can", "yes"),
            said("scanqa", "is", "perhaps"),
            said("scanrefer", "unique"),
        ]
    )
    assert guess(said("sqa3d", "is")) == "no"
    assert guess(said("sqa3d", "what")) == "bed"  # a tie, since one annotation counts an answer once
    assert guess(said("sqa3d", "never seen")) == "yes"
    assert guess(said("scanqa", "is")) == "perhaps"
    with pytest.raises(StereopsisError, match="no answers of task 'scanrefer'"):
        guess(said("scanrefer", "unique"))
