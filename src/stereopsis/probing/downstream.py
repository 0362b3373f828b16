"""Does correspondence predict performance? Quartiles of samples by score, and correlations (3DRS, figure 1)."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from stereopsis.benchmarks import benchmark_named
from stereopsis.benchmarks.scoring.statistics import Interval, bootstrap_by_scene
from stereopsis.errors import StereopsisError

QUARTILES = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quartiles:
    """A metric over the quarters of the samples, from the lowest to the highest correspondence score.

    Attributes:
        means: per quarter, with the interval from resampling scenes.
        samples: per quarter.
        bounds: lowest and highest score of each quarter.
    """

    means: tuple[Interval, ...]
    samples: tuple[int, ...]
    bounds: tuple[tuple[float, float], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Correlation:
    """Pearson's and Spearman's coefficients; intervals from resampling the groups."""

    pearson: Interval
    spearman: Interval
    samples: int


def quartile_table(
    scores: Sequence[float], values: Sequence[float], scenes: Sequence[str], *, draws: int = 1000
) -> Quartiles:
    """Sort samples by score, cut them into four equal parts (a scene's samples tie; ties stay together), average each.

    Args:
        scores: correspondence score of each sample (its scene's).
        values: the metric of each sample.
        scenes: of each sample.
        draws: bootstrap draws.

    Raises:
        StereopsisError: lengths differ, or there are fewer than four samples.
    """
    if not len(scores) == len(values) == len(scenes):
        raise StereopsisError(
            f"quartiles need one score, value and scene per sample, got {len(scores)}, {len(values)}, {len(scenes)}"
        )
    if len(scores) < QUARTILES:
        raise StereopsisError(f"quartiles need at least {QUARTILES} samples, got {len(scores)}")
    array, metric, names = np.asarray(scores, float), np.asarray(values, float), np.asarray(scenes, str)
    order = np.lexsort((names, array))
    rank = np.empty(len(array), dtype=np.int64)
    rank[order] = np.arange(len(array))
    first: dict[tuple[float, str], int] = {}
    for index in order:  # a scene's samples belong to the quarter of its first one
        first.setdefault((float(array[index]), str(names[index])), int(rank[index]))
    quarter = np.array([first[(float(s), str(n))] * QUARTILES // len(array) for s, n in zip(array, names, strict=True)])
    means, samples, bounds = [], [], []
    for number in range(QUARTILES):
        inside = quarter == number
        samples.append(int(inside.sum()))
        if not inside.any():
            means.append(Interval(mean=float("nan"), low=float("nan"), high=float("nan")))
            bounds.append((float("nan"), float("nan")))
            continue
        means.append(bootstrap_by_scene(metric[inside], names[inside].tolist(), n=draws))
        bounds.append((float(array[inside].min()), float(array[inside].max())))
    return Quartiles(means=tuple(means), samples=tuple(samples), bounds=tuple(bounds))


def correlate(
    x: Sequence[float], y: Sequence[float], groups: Sequence[str] | None = None, *, draws: int = 1000, seed: int = 0
) -> Correlation:
    """Correlation of two columns, with percentile intervals from resampling groups (scenes, or runs) whole.

    Args:
        x: one value per sample.
        y: one value per sample.
        groups: of each sample; None: each sample is its own.
        draws: bootstrap draws.
        seed: of the draws.

    Raises:
        StereopsisError: lengths differ, or there are fewer than three samples.
    """
    if len(x) != len(y) or len(x) < 3:
        raise StereopsisError(f"a correlation needs at least three pairs, got {len(x)} and {len(y)} values")
    a, b = np.asarray(x, float), np.asarray(y, float)
    names = np.arange(len(a)).astype(str) if groups is None else np.asarray(groups, str)
    members = [np.flatnonzero(names == name) for name in np.unique(names)]
    rng = np.random.default_rng(seed)
    drawn = np.full((draws, 2), np.nan)
    for number in range(draws):
        chosen = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        drawn[number] = _coefficients(a[chosen], b[chosen])
    pearson, spearman = _coefficients(a, b)
    return Correlation(
        pearson=_interval(pearson, drawn[:, 0]), spearman=_interval(spearman, drawn[:, 1]), samples=len(a)
    )


def _coefficients(a: Float[np.ndarray, "n"], b: Float[np.ndarray, "n"]) -> tuple[float, float]:
    """Pearson and Spearman; NaN where a column is constant."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan"), float("nan")
    ranks = stats.rankdata(a), stats.rankdata(b)
    return float(np.corrcoef(a, b)[0, 1]), float(np.corrcoef(*ranks)[0, 1])


def _interval(value: float, drawn: Float[np.ndarray, "draws"]) -> Interval:
    usable = drawn[~np.isnan(drawn)]
    if len(usable) < 20:
        return Interval(mean=value, low=float("nan"), high=float("nan"))
    low, high = np.quantile(usable, [0.025, 0.975])
    return Interval(mean=value, low=float(low), high=float(high))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Joined:
    """An evaluation's samples of one benchmark whose scene was probed: score, metric (percent) and scene of each."""

    scores: tuple[float, ...]
    values: tuple[float, ...]
    scenes: tuple[str, ...]


def join(
    scene_scores: Mapping[str, float | None], records: Sequence[Mapping[str, Any]], task: str, metric: str | None = None
) -> Joined:
    """Put each sample of an evaluation beside its scene's correspondence score.

    Args:
        scene_scores: per scene; None where it has none.
        records: lines of an evaluation's records.jsonl.
        task: which benchmark.
        metric: which of its metrics; None = its headline.
    """
    metric = benchmark_named(task).headline if metric is None else metric
    found = [
        (scene_scores[r["scene_id"]], 100.0 * r["scores"][metric], r["scene_id"])
        for r in records
        if r["task"] == task and metric in r["scores"] and scene_scores.get(r["scene_id"]) is not None
    ]
    return Joined(
        scores=tuple(float(s) for s, _, _ in found if s is not None),
        values=tuple(float(v) for _, v, _ in found),
        scenes=tuple(str(n) for _, _, n in found),
    )
