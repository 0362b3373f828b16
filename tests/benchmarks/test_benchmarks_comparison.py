"""Paired comparison: hand-worked cases, a slow reference, and what the tests promise under no difference."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest

from stereopsis.benchmarks import Metric, SampleScore, benchmark_named
from stereopsis.benchmarks.files.result_files import read_result
from stereopsis.benchmarks.scoring.comparison import compare_samples
from stereopsis.benchmarks.scoring.statistics import paired_bootstrap
from stereopsis.benchmarks.scoring.text import bleu_of_counts, score_texts
from stereopsis.errors import RunFolderError, StereopsisError

EM = (Metric(name="em"),)
BLEU2 = (Metric(name="bleu_2", bleu_order=2),)


def sample(name: str, scene: str, value: float, kind: str = "what", counts=()) -> SampleScore:
    scores = {"em": float(value), "bleu_2": float(value)}
    return SampleScore(id=name, scene_id=scene, task="sqa3d", type=kind, scores=scores, bleu_counts=counts)


def of(values, scenes, kinds=None) -> list[SampleScore]:
    kinds = kinds or ["what"] * len(values)
    return [sample(f"q{n}", s, v, k) for n, (v, s, k) in enumerate(zip(values, scenes, kinds, strict=True))]


def test_a_case_worked_by_hand():
    """Scenes a, b, c; first wins 2 in a, 1 in b, loses 1 in c.

    Scene sums of first - second: +2, +1, -1 over 5 samples: 40 points. All 8 swaps give the sums
    2, 4, 0, -2 (c not swapped / swapped for each of a, b) and their negatives: +-2, +-4, 0, 0, ... of which
    |sum| >= 2 holds for 6 of 8 (the two with a and b against each other and c making up the rest give 0).
    """
    scenes = ["a", "a", "b", "c", "c"]
    first, second = of([1, 1, 1, 0, 1], scenes), of([0, 0, 0, 1, 1], scenes)
    sums = [2 * a + b - c for a, b, c in itertools.product((1, -1), repeat=3)]
    assert sorted(sums) == [-4, -2, -2, 0, 0, 2, 2, 4]
    result = compare_samples(first, second, EM, n=200).overall["em"]
    assert result.first == pytest.approx(80.0)
    assert result.second == pytest.approx(40.0)
    assert result.difference.mean == pytest.approx(40.0)
    assert result.p_value == pytest.approx(6 / 8)
    assert (result.wins, result.losses, result.ties) == (3, 1, 1)


def test_the_most_extreme_case_has_the_smallest_exact_p():
    scenes = [f"s{n}" for n in range(10)]
    result = compare_samples(of([1] * 10, scenes), of([0] * 10, scenes), EM, n=100).overall["em"]
    assert result.p_value == pytest.approx(2 / 2**10)
    assert result.difference.low == result.difference.high == pytest.approx(100.0)


def test_equal_systems_do_not_differ():
    scenes = [f"s{n % 7}" for n in range(40)]
    values = np.random.default_rng(0).integers(0, 2, 40).tolist()
    result = compare_samples(of(values, scenes), of(values, scenes), EM, n=100).overall["em"]
    assert (result.difference.mean, result.difference.low, result.difference.high) == (0.0, 0.0, 0.0)
    assert result.p_value == 1.0
    assert (result.wins, result.losses, result.ties) == (0, 0, 40)


def test_swapping_the_systems_turns_the_sign_alone():
    rng = np.random.default_rng(1)
    scenes = [f"s{n}" for n in rng.integers(0, 30, 200)]
    first, second = of(rng.random(200), scenes), of(rng.random(200), scenes)
    there = compare_samples(first, second, EM, n=500).overall["em"]
    back = compare_samples(second, first[::-1], EM, n=500).overall["em"]
    assert back.difference.mean == pytest.approx(-there.difference.mean)
    assert (back.difference.low, back.difference.high) == pytest.approx((-there.difference.high, -there.difference.low))
    assert back.p_value == there.p_value
    assert (back.wins, back.losses) == (there.losses, there.wins)


def test_the_interval_is_that_of_the_paired_bootstrap():
    rng = np.random.default_rng(2)
    scenes = [f"s{n:02d}" for n in np.sort(rng.integers(0, 20, 90))]
    one, two = rng.random(90), rng.random(90)
    names = [f"q{n:03d}" for n in range(90)]
    first = [sample(n, s, float(v)) for n, s, v in zip(names, scenes, one, strict=True)]
    second = [sample(n, s, float(v)) for n, s, v in zip(names, scenes, two, strict=True)]
    ours = compare_samples(first, second, EM, n=400, seed=5).overall["em"].difference
    known = paired_bootstrap(one, two, scenes, n=400, seed=5).difference
    assert (ours.mean, ours.low, ours.high) == pytest.approx((100 * known.mean, 100 * known.low, 100 * known.high))


def slow_p(first, second, value) -> float:
    """Every way of swapping scenes, from the definition."""
    scenes = sorted({s.scene_id for s in first})
    reached, observed = 0, abs(value(first) - value(second))
    for swaps in itertools.product((False, True), repeat=len(scenes)):
        swapped = dict(zip(scenes, swaps, strict=True))
        pairs = [(b, a) if swapped[a.scene_id] else (a, b) for a, b in zip(first, second, strict=True)]
        reached += abs(value([a for a, _ in pairs]) - value([b for _, b in pairs])) >= observed - 1e-12
    return reached / 2 ** len(scenes)


@pytest.mark.parametrize("seed", range(4))
def test_exact_p_equals_a_slow_reference(seed):
    rng = np.random.default_rng(seed)
    scenes = [f"s{n}" for n in rng.integers(0, 6, 25)]
    first, second = of(rng.random(25), scenes), of(rng.random(25), scenes)
    result = compare_samples(first, second, EM, n=50).overall["em"]
    assert result.p_value == pytest.approx(slow_p(first, second, lambda s: np.mean([x.scores["em"] for x in s])))


def test_corpus_bleu_is_compared_as_corpus_bleu():
    truth = [["a b c d"], ["e f g h"], ["i j k l"], ["m n o p"], ["q r s t"]]
    said = (["a b c d", "e f x y", "i j", "m", "q r s t"], ["a b x y", "e f g h", "z", "m n o p", "q r"])
    scenes = ["s0", "s0", "s1", "s2", "s3"]
    systems = []
    for texts in said:
        scores = score_texts(texts, truth)
        rows = zip(scores.bleu[:, 1], scores.bleu_counts, scenes, strict=True)
        systems.append([sample(f"q{n}", s, float(v), counts=tuple(c)) for n, (v, c, s) in enumerate(rows)])

    def corpus(samples) -> float:
        return float(bleu_of_counts(np.sum([s.bleu_counts for s in samples], axis=0))[1])

    result = compare_samples(*systems, BLEU2, n=50).overall["bleu_2"]
    assert result.first == pytest.approx(100 * corpus(systems[0]))
    assert result.difference.mean == pytest.approx(100 * (corpus(systems[0]) - corpus(systems[1])))
    assert result.p_value == pytest.approx(slow_p(*systems, corpus))
    assert (result.wins, result.losses, result.ties) == (3, 2, 0)


def test_random_swaps_agree_with_all_swaps(monkeypatch):
    rng = np.random.default_rng(3)
    scenes = [f"s{n}" for n in range(12) for _ in range(3)]
    first, second = of(rng.random(36) + 0.12, scenes), of(rng.random(36), scenes)
    exact = compare_samples(first, second, EM, n=50).overall["em"].p_value
    monkeypatch.setattr("stereopsis.benchmarks.scoring.comparison.EXACT_SCENES", 0)
    drawn = compare_samples(first, second, EM, n=20_000).overall["em"].p_value
    assert 0.001 < exact < 0.9
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 20_000))


def test_under_no_difference_p_is_uniform():
    """Of 200 comparisons of equal systems about a tenth has p <= 0.1 (binomial: 20 +- 4.2; 4 sigma)."""
    rng = np.random.default_rng(4)
    scenes = [f"s{n}" for n in range(9) for _ in range(4)]
    p = [
        compare_samples(of(rng.random(36), scenes), of(rng.random(36), scenes), EM, n=10).overall["em"].p_value
        for _ in range(200)
    ]
    assert 4 <= sum(value <= 0.1 for value in p) <= 37


def test_the_scene_is_the_unit():
    """A hundred samples of two scenes are two observations: no p below 1/2 is possible."""
    scenes = ["a"] * 50 + ["b"] * 50
    assert compare_samples(of([1] * 100, scenes), of([0] * 100, scenes), EM, n=50).overall["em"].p_value == 0.5
    alone = compare_samples(of([1] * 9, ["a"] * 9), of([0] * 9, ["a"] * 9), EM, n=50).overall["em"]
    assert math.isnan(alone.p_value)
    assert math.isnan(alone.difference.low)


def test_by_type_equals_the_types_alone():
    rng = np.random.default_rng(6)
    scenes = [f"s{n}" for n in rng.integers(0, 8, 60)]
    kinds = [("what", "how")[n % 2] for n in range(60)]
    first, second = of(rng.random(60), scenes, kinds), of(rng.random(60), scenes, kinds)
    whole = compare_samples(first, second, EM, n=100)
    alone = compare_samples(first[1::2], second[1::2], EM, n=100)
    assert whole.by_type["how"]["em"] == alone.overall["em"]
    assert whole.type_counts == {"how": 30, "what": 30}
    assert (whole.count, whole.scene_count) == (60, 8)


def test_what_differs_is_listed():
    first = of([1, 1, 1], ["a", "a", "b"])
    with pytest.raises(StereopsisError, match=r"1 samples only in the first \(q2\)"):
        compare_samples(first, first[:2], EM)
    moved = [*first[:2], sample("q2", "z", 1.0)]
    with pytest.raises(StereopsisError, match=r"1 samples with another scene \(q2\)"):
        compare_samples(first, moved, EM)
    with pytest.raises(StereopsisError, match="1 samples with another type"):
        compare_samples(first, [*first[:2], sample("q2", "b", 1.0, "how")], EM)
    with pytest.raises(StereopsisError, match="holds 1 samples twice"):
        compare_samples([*first, first[0]], first, EM)
    with pytest.raises(StereopsisError, match="of one benchmark"):
        compare_samples(first, [], EM)
    ruled = [dataclasses.replace(each, protocol=name) for each, name in zip(first, ("a", "b", "b"), strict=True)]
    with pytest.raises(StereopsisError, match=r"scored under different protocols \(a, b\)"):
        compare_samples(ruled, first, EM)
    with pytest.raises(StereopsisError, match="3 samples have no 'cider'"):
        compare_samples(first, first, benchmark_named("scanqa").metrics[:1])
    with pytest.raises(StereopsisError, match="3 samples have no counts of bleu_2"):
        compare_samples(first, first, BLEU2)


# results on disk


def record(**changes) -> dict:
    return {
        "id": "q",
        "scene_id": "s",
        "task": "sqa3d",
        "type": "what",
        "text": "where?",
        "scores": {"em": 1.0},
    } | changes


def folder_of(path, records, settings=None):
    path.mkdir(parents=True)
    (path / "records.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    if settings is not None:
        (path / "summary.json").write_text(json.dumps({"settings": settings, "tasks": {}}))
    return path


def test_results_are_found_in_folders_runs_and_files(tmp_path):
    folder = folder_of(
        tmp_path / "run" / "evaluation", [record(), record(id="r", task="scanqa")], {"protocols": {"sqa3d": "x"}}
    )
    for path in (folder, tmp_path / "run", folder / "records.jsonl"):
        result = read_result(path)
        assert [s.id for s in result.samples["sqa3d"]] == ["q"]
        assert list(result.samples) == ["sqa3d", "scanqa"]
        assert result.protocols == {"sqa3d": "x"}
        assert result.questions["sqa3d", "q"] == "where?"


def test_protocols_of_records_count(tmp_path):
    assert read_result(folder_of(tmp_path / "a", [record(protocol="p")])).protocols == {"sqa3d": "p"}
    assert read_result(folder_of(tmp_path / "b", [record()])).protocols == {}
    with pytest.raises(RunFolderError, match="scored under several protocols"):
        read_result(folder_of(tmp_path / "c", [record(protocol="p"), record(id="r", protocol="o")]))
    with pytest.raises(RunFolderError, match="scored under several protocols"):
        read_result(folder_of(tmp_path / "d", [record(protocol="p")], {"protocols": {"sqa3d": "o"}}))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "is empty"),
        ("{", "line 1: not valid JSON"),
        ("[]", "line 1: expected an object"),
        (json.dumps(record(task="chess")), "line 1: a record needs"),
        (json.dumps(record(scene_id=None)), "scene_id is missing"),
        (json.dumps(record(scores=3)), "a record needs"),
        (json.dumps(record(scores={"em": None})), "'em' must be a finite number"),
        (json.dumps(record(scores={"em": float("nan")})), "'em' must be a finite number"),
        (json.dumps(record()) + "\n" + json.dumps(record()), "1 ids occur more than once"),
    ],
)
def test_damaged_results_are_refused(tmp_path, line, message):
    folder = folder_of(tmp_path / "a", [])
    (folder / "records.jsonl").write_text(line)
    with pytest.raises(RunFolderError if "occur" not in message else StereopsisError, match=message):
        read_result(folder)


def test_totals_cannot_be_compared(tmp_path):
    (tmp_path / "scores.json").write_text('{"em": 50.0}')
    with pytest.raises(RunFolderError, match=r"holds totals.*--output"):
        read_result(tmp_path / "scores.json")
    with pytest.raises(RunFolderError, match="holds no scored result"):
        read_result(tmp_path)
