import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stereopsis.annotations import Annotation
from stereopsis.benchmarks import Prediction, SampleScore, benchmark_named, score, summarise
from stereopsis.benchmarks.scoring.statistics import (
    Interval,
    bootstrap_by_scene,
    macro_average,
    paired_bootstrap,
    seed_interval,
)
from stereopsis.benchmarks.scoring.summary import summarise_task
from stereopsis.errors import StereopsisError


def exact(id, scene_id, type, value):
    return SampleScore(id=id, scene_id=scene_id, task="sqa3d", type=type, scores={"em": value, "em_r": value})


def clustered(rng, scenes=40, per_scene=6):
    """Samples of mean 0 whose scenes differ as much as the samples within one."""
    values = rng.normal(size=(scenes, 1)) + rng.normal(size=(scenes, per_scene))
    return values.ravel(), [f"s{i}" for i in range(scenes) for _ in range(per_scene)]


def test_bootstrap_over_scenes_covers_the_truth_and_over_samples_does_not():
    rng = np.random.default_rng(1)
    by_scene = by_sample = 0
    for _ in range(200):
        values, scene_ids = clustered(rng)
        interval = bootstrap_by_scene(values, scene_ids, n=300)
        by_scene += interval.low <= 0 <= interval.high
        naive = bootstrap_by_scene(values, [str(i) for i in range(len(values))], n=300)
        by_sample += naive.low <= 0 <= naive.high
    assert 0.89 <= by_scene / 200 <= 0.99
    assert by_sample / 200 < 0.8


def test_bootstrap_width_is_that_of_the_normal_theory():
    values = np.random.default_rng(2).normal(size=400)
    interval = bootstrap_by_scene(values, [str(i) for i in range(400)], n=4000)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.06)
    assert interval.mean == pytest.approx(values.mean())
    narrower = bootstrap_by_scene(values, [str(i) for i in range(400)], n=4000, level=0.5)
    assert interval.low < narrower.low < interval.mean < narrower.high < interval.high


def test_bootstrap_weighs_samples_not_scenes():
    assert bootstrap_by_scene(np.array([1.0, 1.0, 1.0, 0.0]), ["a", "a", "a", "b"]).mean == 0.75


def test_bootstrap_draws_against_a_plain_loop():
    values, scene_ids = clustered(np.random.default_rng(3), scenes=7, per_scene=3)
    groups = values.reshape(7, 3)
    rng = np.random.default_rng(4)
    loop = [groups[rng.integers(0, 7, 7)].mean() for _ in range(20_000)]
    interval = bootstrap_by_scene(values, scene_ids, n=20_000)
    assert [interval.low, interval.high] == pytest.approx(np.quantile(loop, [0.025, 0.975]), abs=0.04)


@given(st.floats(-100, 100), st.integers(2, 6))
def test_identical_values_have_an_interval_of_no_width(value, count):
    interval = bootstrap_by_scene(np.full(count, value), [str(i) for i in range(count)], n=20)
    assert [interval.low, interval.high] == pytest.approx([value, value])


def test_bootstrap_repeats_with_its_seed_and_does_not_depend_on_chunks(monkeypatch):
    values, scene_ids = clustered(np.random.default_rng(5))
    first = bootstrap_by_scene(values, scene_ids, seed=7)
    assert first == bootstrap_by_scene(values, scene_ids, seed=7)
    assert first != bootstrap_by_scene(values, scene_ids, seed=8)
    monkeypatch.setattr("stereopsis.benchmarks.scoring.statistics._DRAWN_AT_ONCE", 100)
    chunked = bootstrap_by_scene(values, scene_ids, seed=7)
    assert [chunked.low, chunked.high] == pytest.approx([first.low, first.high], rel=1e-12)


def test_one_scene_gives_a_mean_but_no_bounds():
    interval = bootstrap_by_scene(np.array([0.0, 1.0]), ["a", "a"])
    assert interval.mean == 0.5
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
    assert str(interval.scaled(100.0)) == "50.0"
    assert str(Interval(mean=58.62, low=57.0, high=60.25)) == "58.6 [57.0, 60.2]"


def test_paired_comparison_sees_what_separate_intervals_cannot():
    rng = np.random.default_rng(6)
    base, scene_ids = clustered(rng)
    better = base + 0.2 + 0.1 * rng.normal(size=len(base))
    comparison = paired_bootstrap(better, base, scene_ids)
    assert comparison.difference.low > 0
    assert comparison.difference.mean == pytest.approx(0.2, abs=0.03)
    assert comparison.p_value < 0.01
    assert bootstrap_by_scene(better, scene_ids).low < bootstrap_by_scene(base, scene_ids).high
    swapped = paired_bootstrap(base, better, scene_ids)
    assert swapped.difference.mean == pytest.approx(-comparison.difference.mean)
    assert swapped.p_value == comparison.p_value


def test_no_difference_has_p_value_one_and_noise_rarely_a_small_one():
    values, scene_ids = clustered(np.random.default_rng(7))
    assert paired_bootstrap(values, values, scene_ids).p_value == 1.0
    rng = np.random.default_rng(8)
    small = sum(
        paired_bootstrap(clustered(rng)[0], clustered(rng)[0], scene_ids, n=200).p_value < 0.05 for _ in range(100)
    )
    assert small <= 13


def test_macro_average_weighs_types_alike():
    assert macro_average(np.array([1.0, 1.0, 1.0, 0.0]), ["a", "a", "a", "b"]) == 0.5


def test_seed_interval_is_students():
    interval = seed_interval([1.0, 2.0, 3.0])
    # t(0.975, 2 degrees of freedom) = 4.3027, standard error 1 / sqrt 3
    assert interval.mean == 2.0
    assert interval.high - 2.0 == pytest.approx(4.30265 / math.sqrt(3), rel=1e-5)
    assert 2.0 - interval.low == pytest.approx(interval.high - 2.0)
    assert math.isnan(seed_interval([5.0]).low)


def test_statistics_refuse_what_has_no_mean():
    with pytest.raises(StereopsisError, match="no samples"):
        bootstrap_by_scene(np.zeros(0), [])
    with pytest.raises(StereopsisError, match="2 values but 1 scene ids"):
        bootstrap_by_scene(np.zeros(2), ["a"])
    with pytest.raises(StereopsisError, match=r"sample 1 \(scene 'b'\) has a score that is not finite"):
        bootstrap_by_scene(np.array([0.0, np.nan]), ["a", "b"])
    with pytest.raises(StereopsisError, match="got 2 and 1 values"):
        paired_bootstrap(np.zeros(2), np.zeros(1), ["a", "b"])
    with pytest.raises(StereopsisError, match="finite"):
        seed_interval([1.0, math.nan])
    with pytest.raises(StereopsisError):
        seed_interval([])
    with pytest.raises(StereopsisError):
        macro_average(np.zeros(0), [])


def test_summary_in_points_overall_by_type_and_macro():
    samples = [
        exact("0", "a", "is", 1.0),
        exact("1", "a", "is", 1.0),
        exact("2", "b", "is", 1.0),
        exact("3", "b", "how", 0.0),
    ]
    summary = summarise(samples)["sqa3d"]
    assert summary.overall["em"].mean == 75.0
    assert summary.macro["em"].mean == 50.0
    assert {name: values["em"].mean for name, values in summary.by_type.items()} == {"how": 0.0, "is": 100.0}
    assert summary.type_counts == {"how": 1, "is": 3}
    assert (summary.count, summary.scene_count) == (4, 2)
    assert math.isnan(summary.by_type["how"]["em"].low)  # one scene only
    assert summary.by_type["is"]["em"].low == 100.0
    assert summary.overall["em"].low == 50.0  # all draws hold scene b only, at worst
    assert summary.overall["em"].high == 100.0


def test_summary_agrees_with_the_single_bootstrap():
    values, scene_ids = clustered(np.random.default_rng(9))
    samples = [exact(str(i), s, "all", v) for i, (s, v) in enumerate(zip(scene_ids, values.tolist(), strict=True))]
    summary = summarise(samples, n=300, seed=3, level=0.8)["sqa3d"]
    single = bootstrap_by_scene(values, scene_ids, n=300, seed=3, level=0.8).scaled(100.0)
    for interval in (summary.overall["em"], summary.macro["em"], summary.by_type["all"]["em"]):
        assert [interval.mean, interval.low, interval.high] == pytest.approx([single.mean, single.low, single.high])


def test_bleu_of_a_summary_is_corpus_bleu_of_exactly_those_samples():
    from pycocoevalcap.bleu.bleu import Bleu

    said = [
        ("what", "the red chair by the door", "the red chair at the door"),
        ("what", "a table with four legs", "a table with four metal legs"),
        ("where", "left", "to the left of the big sofa"),
        ("where", "on the left of the big sofa", "left of the big sofa"),
    ]
    predictions = [
        Prediction(
            annotation=Annotation(id=str(i), task="scanqa", scene_id=f"s{i}", type=type, answers=(gold,)),
            text=text,
        )
        for i, (type, text, gold) in enumerate(said)
    ]
    summary = summarise(score(predictions), n=50)["scanqa"]

    def official(rows):
        references = {i: [gold] for i, (_, _, gold) in enumerate(rows)}
        return Bleu(4).compute_score(references, {i: [text] for i, (_, text, _) in enumerate(rows)}, verbose=0)[0]

    for order in range(4):
        name = f"bleu_{order + 1}"
        assert summary.overall[name].mean == pytest.approx(100 * official(said)[order])
        assert summary.by_type["what"][name].mean == pytest.approx(100 * official(said[:2])[order])
        assert summary.by_type["where"][name].mean == pytest.approx(100 * official(said[2:])[order])
        assert summary.overall[name].low < summary.overall[name].mean <= summary.overall[name].high
    sentence_mean = 100 * np.mean([sample.scores["bleu_2"] for sample in score(predictions)])
    assert abs(sentence_mean - summary.overall["bleu_2"].mean) > 1


def test_records_survive_json_and_mixed_tasks_keep_their_order():
    def asked(task, id):
        return Annotation(id=id, task=task, scene_id="s", type="t", answers=("yes",), text="q")

    box = np.array([[0.0, 0.0, 0.0, 1.0, 1.0, 1.0]])
    predictions = [
        Prediction(annotation=asked("scanqa", "1"), text="yes"),
        Prediction(annotation=asked("scanrefer", "2"), boxes=box, scores=np.ones(1), targets=box),
        Prediction(annotation=asked("sqa3d", "3"), text="no"),
        Prediction(annotation=asked("scanqa", "4"), text="no"),
    ]
    samples = score(predictions)
    assert [(sample.task, sample.id) for sample in samples] == [
        ("scanqa", "1"), ("scanrefer", "2"), ("sqa3d", "3"), ("scanqa", "4")
    ]  # fmt: skip
    back = [SampleScore.from_dict(json.loads(json.dumps(sample.to_dict()))) for sample in samples]
    assert back == samples
    assert list(summarise(back, n=10)) == ["sqa3d", "scanqa", "scanrefer"]
    assert summarise([]) == {}


def test_summary_names_the_sample_that_lacks_a_metric():
    with pytest.raises(StereopsisError, match="sqa3d '9' has no score 'em'"):
        summarise([SampleScore(id="9", scene_id="s", task="sqa3d", type="t", scores={"acc": 1.0})])
    with pytest.raises(StereopsisError, match="not finite"):
        summarise([exact("0", "a", "is", math.nan)])
    with pytest.raises(StereopsisError, match="samples of one task"):
        summarise_task([], benchmark_named("sqa3d").metrics)
