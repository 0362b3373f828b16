"""EM averaged over types, and differences between arms under the same draws."""

import dataclasses

import numpy as np
import pytest

from stereopsis.benchmarks import SampleScore
from stereopsis.benchmarks.records import Metric
from stereopsis.benchmarks.scoring.summary import summarise_task
from stereopsis.report.headlines import arm_headlines, contrasts, macro_em, questions_of
from stereopsis.report.read import read_subject
from stereopsis.report.results import EvaluationRecord


def record(scene: str, type_name: str, number: int, em: float, task: str = "sqa3d") -> EvaluationRecord:
    return EvaluationRecord(
        id=f"{scene}-{type_name}-{number}",
        scene_id=scene,
        task=task,
        type=type_name,
        situation="",
        text="?",
        answers=("yes",),
        object_ids=(),
        prediction="yes",
        boxes=np.zeros((0, 6)),
        cosines=np.zeros(0),
        zero_cosine=float("nan"),
        targets=np.zeros((0, 6)),
        scores={"em": em},
    )


def test_macro_by_hand():
    # Type a: 1 of 4 right, type b: 1 of 1 right: (25 + 100) / 2.
    records = [record("s", "a", n, float(n == 0)) for n in range(4)] + [record("t", "b", 0, 1.0)]
    score = macro_em(records)
    assert score.first.mean == pytest.approx(62.5)
    assert score.types == 2


def test_agrees_with_the_summary_of_one_task(comparison):
    questions = [r for r in questions_of(read_subject(comparison).arms[1]) if r.task == "scanqa"]
    samples = [
        SampleScore(id=r.id, scene_id=r.scene_id, task="scanqa", type=r.type, scores=r.scores) for r in questions
    ]
    expected = summarise_task(samples, [Metric(name="em")]).macro["em"]
    assert dataclasses.astuple(macro_em(questions).first) == pytest.approx(dataclasses.astuple(expected))


def test_an_arm_does_not_differ_from_itself(comparison):
    questions = questions_of(read_subject(comparison).arms[1])
    difference = macro_em(questions, questions).difference
    assert (difference.mean, difference.low, difference.high) == (0.0, 0.0, 0.0)


def test_swapping_the_arms_turns_the_sign(comparison):
    subject = read_subject(comparison)
    first, second = questions_of(subject.arms[1]), questions_of(subject.arms[2])
    there, back = macro_em(first, second).difference, macro_em(second, first).difference
    assert there.mean == pytest.approx(-back.mean)
    assert there.low == pytest.approx(-back.high)


def test_only_common_questions_are_compared():
    first = [record("s", "a", n, 1.0) for n in range(3)]
    second = [record("s", "a", 0, 0.0)]
    assert macro_em(first, second).difference.mean == 100.0
    assert macro_em([], second) is None
    # Nothing in common: the arm's own value, no difference.
    alone = macro_em(first, [record("u", "b", 0, 1.0)])
    assert alone.first.mean == 100.0
    assert alone.difference is None


def test_paired_difference_is_tighter_than_two_intervals():
    # Scenes differ wildly in difficulty, the second arm answers one more question right in every scene.
    rng = np.random.default_rng(0)
    first, second = [], []
    for scene in range(30):
        right = int(rng.integers(0, 10))
        first += [record(f"s{scene}", "a", n, float(n < right)) for n in range(10)]
        second += [record(f"s{scene}", "a", n, float(n < right + 1)) for n in range(10)]
    score = macro_em(second, first)
    assert score.difference.mean == pytest.approx(10.0)
    assert score.difference.low == pytest.approx(10.0)  # the same in every scene
    assert score.first.high - score.first.low > 15.0


def test_headlines_of_a_comparison(comparison):
    subject = read_subject(comparison)
    lines = arm_headlines(subject)
    assert [line.arm for line in lines] == [1, 2]  # the blind arm is what others are compared with
    base = lines[0]
    types = {(r.task, r.type) for r in questions_of(subject.arms[1])}
    assert base.types == len(types)
    majority = [subject.majority.by_type[task][name]["em"].mean for task, name in types]
    assert base.majority == pytest.approx(np.mean(majority))
    assert base.over_blind.mean == pytest.approx(base.em.mean - macro_em(questions_of(subject.arms[0])).first.mean)
    acc = subject.arms[1].evaluation.tasks["scanrefer"].overall["acc@0.25"].mean
    assert base.times_chance == pytest.approx(acc / subject.chance.overall["scanrefer"]["acc@0.25"].mean)
    (contrast,) = contrasts(subject)
    assert (contrast.first, contrast.second) == (2, 1)
    assert contrast.difference.mean == pytest.approx(lines[1].em.mean - lines[0].em.mean)
