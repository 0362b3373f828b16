"""Two systems on the same questions: by how much one is better, and whether that is more than chance.

Both are scored on the same samples, so that what makes a question easy or hard cancels. Two tests, both with the scene
as the unit, because the samples of one scene are not independent:

- the bootstrap draws whole scenes with replacement and gives the difference an interval;
- the permutation test swaps the two systems' results in whole scenes, at random, as it were equally likely if the two
  were alike, and counts how often the difference becomes as large as the observed one. With few scenes all swaps are
  tried, and the p-value is exact.

Many metrics and types are many tests: of twenty comparisons of equal systems, one is expected to show p < 0.05.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from stereopsis.benchmarks.records import Metric, SampleScore
from stereopsis.benchmarks.scoring.java_tools import METEOR_COUNTS, meteor_of_counts
from stereopsis.benchmarks.scoring.statistics import Interval, draw_scenes, percentile_interval, ratio
from stereopsis.benchmarks.scoring.summary import POINTS
from stereopsis.benchmarks.scoring.text import BLEU_COUNTS, bleu_of_counts
from stereopsis.errors import StereopsisError

EXACT_SCENES = 12
"""With at most so many scenes that differ all swaps are tried (2 to that power)."""
_SHOWN = 5
_ROUNDING = 1e-12


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetricComparison:
    """One metric of two systems, in points.

    Attributes:
        first: the first system's value.
        second: the second system's.
        difference: first - second, with its bootstrap interval over scenes.
        p_value: of the two-sided permutation test over scenes; NaN from fewer than two scenes.
        wins: samples on which the first is better.
        losses: samples on which the second is better.
        ties: samples on which both are equal.
    """

    first: float
    second: float
    difference: Interval
    p_value: float
    wins: int
    losses: int
    ties: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskComparison:
    """Two systems on one benchmark.

    Attributes:
        task: the benchmark.
        count: samples.
        scene_count: scenes.
        overall: metric name -> comparison over all samples.
        by_type: question type -> metric name -> comparison.
        type_counts: question type -> samples.
    """

    task: str
    count: int
    scene_count: int
    overall: Mapping[str, MetricComparison]
    by_type: Mapping[str, Mapping[str, MetricComparison]]
    type_counts: Mapping[str, int]


def compare_samples(
    first: Sequence[SampleScore],
    second: Sequence[SampleScore],
    metrics: Sequence[Metric],
    *,
    n: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> TaskComparison:
    """Compare two systems on one benchmark; the order of their samples does not matter.

    Args:
        first: per-sample scores of one system.
        second: of the other, for the same samples.
        metrics: which to compare.
        n: bootstrap draws, and random swaps where not all are tried.
        seed: of both.
        level: of the intervals.

    Raises:
        StereopsisError: the two do not hold the same samples, were scored under different protocols, or one lacks a
            metric.
    """
    require_same_samples(first, second)
    other = {sample.id: sample for sample in second}
    pairs = [(sample, other[sample.id]) for sample in sorted(first, key=lambda each: each.id)]
    types = sorted({sample.type for sample, _ in pairs})

    def compared(some: Sequence[tuple[SampleScore, SampleScore]]) -> dict[str, MetricComparison]:
        return {metric.name: _compared(some, metric, n, seed, level) for metric in metrics}

    of_type = {name: [pair for pair in pairs if pair[0].type == name] for name in types}
    return TaskComparison(
        task=pairs[0][0].task,
        count=len(pairs),
        scene_count=len({sample.scene_id for sample, _ in pairs}),
        overall=compared(pairs),
        by_type={name: compared(some) for name, some in of_type.items()},
        type_counts={name: len(some) for name, some in of_type.items()},
    )


def require_same_samples(first: Sequence[SampleScore], second: Sequence[SampleScore]) -> None:
    """Two systems can be compared pairwise only where both answered the same questions of the same scenes.

    Raises:
        StereopsisError: it lists what differs.
    """
    tasks = sorted({sample.task for sample in (*first, *second)})
    if len(tasks) != 1 or not first or not second:
        raise StereopsisError(
            f"a comparison needs samples of one benchmark from both, got {len(first)} and {len(second)} of {tasks}"
        )
    kept = [{sample.id: sample for sample in samples} for samples in (first, second)]
    for name, samples, by_id in (("first", first, kept[0]), ("second", second, kept[1])):
        if len(by_id) != len(samples):
            raise StereopsisError(f"{tasks[0]}: the {name} holds {len(samples) - len(by_id)} samples twice")
    differences = []
    for name, mine, others in (("first", kept[0], kept[1]), ("second", kept[1], kept[0])):
        alone = sorted(mine.keys() - others.keys())
        if alone:
            differences.append(f"{len(alone)} samples only in the {name} ({_some(alone)})")
    for what in ("scene_id", "type"):
        moved = sorted(
            key for key in kept[0].keys() & kept[1].keys() if getattr(kept[0][key], what) != getattr(kept[1][key], what)
        )
        if moved:
            differences.append(f"{len(moved)} samples with another {what.removesuffix('_id')} ({_some(moved)})")
    protocols = sorted({sample.protocol for sample in (*first, *second)} - {""})
    if len(protocols) > 1:
        differences.append(f"scored under different protocols ({', '.join(protocols)})")
    if differences:
        raise StereopsisError(
            f"{tasks[0]}: the two cannot be compared: {'; '.join(differences)}. Score both on the "
            "same annotations, under one protocol"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _columns(samples: Sequence[SampleScore], metric: Metric) -> Float[np.ndarray, "samples columns"]:
    """What `_statistic` needs the sums of."""
    if metric.bleu_order or metric.meteor:
        counts = [sample.bleu_counts if metric.bleu_order else sample.meteor_counts for sample in samples]
        expected = BLEU_COUNTS if metric.bleu_order else METEOR_COUNTS
        wrong = [sample.id for sample, each in zip(samples, counts, strict=True) if len(each) != expected]
        if wrong:
            raise StereopsisError(
                f"{len(wrong)} samples have no counts of {metric.name} ({_some(wrong)}); score the texts again"
            )
        return np.array(counts, dtype=np.float64)
    return np.column_stack([_values(samples, metric), np.ones(len(samples))])


def _statistic(sums: Float[np.ndarray, "rows columns"], metric: Metric) -> Float[np.ndarray, " rows"]:
    if metric.bleu_order:
        return bleu_of_counts(sums)[:, metric.bleu_order - 1]
    if metric.meteor:
        return meteor_of_counts(sums)
    return ratio(sums[:, 0], sums[:, 1])


def _values(samples: Sequence[SampleScore], metric: Metric) -> Float[np.ndarray, " samples"]:
    lacking = [sample.id for sample in samples if metric.name not in sample.scores]
    if lacking:
        raise StereopsisError(
            f"{len(lacking)} samples have no '{metric.name}' ({_some(lacking)}); score both with the same version"
        )
    return np.array([sample.scores[metric.name] for sample in samples])


def _compared(
    pairs: Sequence[tuple[SampleScore, SampleScore]], metric: Metric, n: int, seed: int, level: float
) -> MetricComparison:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    scene_ids = [sample.scene_id for sample in first]
    columns = np.concatenate([_columns(first, metric), _columns(second, metric)], axis=1)
    draws = draw_scenes(columns, scene_ids, n, seed)
    width = columns.shape[1] // 2

    def gap(sums: np.ndarray) -> np.ndarray:
        return _statistic(sums[:, :width], metric) - _statistic(sums[:, width:], metric)

    scenes = len(set(scene_ids))
    whole = draws.observed[None]
    advantage = _values(first, metric) - _values(second, metric)
    wins, losses = int((advantage > _ROUNDING).sum()), int((advantage < -_ROUNDING).sum())
    return MetricComparison(
        first=POINTS * float(_statistic(whole[:, :width], metric)[0]),
        second=POINTS * float(_statistic(whole[:, width:], metric)[0]),
        difference=percentile_interval(float(gap(whole)[0]), gap(draws.drawn), level, scenes=scenes).scaled(POINTS),
        p_value=_permutation_p(columns, scene_ids, metric, n, seed) if scenes > 1 else math.nan,
        wins=wins,
        losses=losses,
        ties=len(pairs) - wins - losses,
    )


def _permutation_p(
    columns: Float[np.ndarray, "samples columns"], scene_ids: Sequence[str], metric: Metric, n: int, seed: int
) -> float:
    """Two-sided p-value of swapping the two halves of `columns` in whole scenes.

    Exact over all swaps where at most `EXACT_SCENES` scenes differ at all; else ``(1 + k) / (n + 1)`` of `n` random
    ones, k of which reach the observed difference.
    """
    width = columns.shape[1] // 2
    scenes, index = np.unique(np.asarray(scene_ids, dtype=str), return_inverse=True)
    sums = np.zeros((len(scenes), 2 * width))
    np.add.at(sums, index, columns)
    total = sums.sum(axis=0)
    # what a swap of a scene adds to one side and takes from the other
    moved = sums[:, width:] - sums[:, :width]
    moved = moved[np.any(moved != 0, axis=1)]
    if len(moved) == 0:
        return 1.0

    def gaps(swapped: np.ndarray) -> np.ndarray:
        shift = swapped @ moved
        return _statistic(total[:width] + shift, metric) - _statistic(total[width:] - shift, metric)

    observed = abs(float(gaps(np.zeros((1, len(moved))))[0]))
    if len(moved) <= EXACT_SCENES:
        every = np.array(list(itertools.product((0.0, 1.0), repeat=len(moved))))
        return float(np.mean(np.abs(gaps(every)) >= observed - _ROUNDING))
    rng = np.random.default_rng(seed)
    reached, chunk = 0, max(1, 4_000_000 // len(moved))
    for start in range(0, n, chunk):
        swapped = rng.integers(0, 2, size=(min(chunk, n - start), len(moved))).astype(np.float64)
        reached += int((np.abs(gaps(swapped)) >= observed - _ROUNDING).sum())
    return (1 + reached) / (n + 1)
