"""How sure a mean is: bootstrap over scenes, paired comparisons, intervals over seeds.

Samples of one scene are not independent (they share views, objects and the model's mistakes about them), so
whole scenes are resampled, never single samples.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.stats import t as student_t

from stereopsis.errors import StereopsisError

_DRAWN_AT_ONCE = 4_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interval:
    """A value and the bounds of its confidence interval; NaN bounds where too little data gives none."""

    mean: float
    low: float
    high: float

    def scaled(self, factor: float) -> "Interval":
        """The same in another unit, such as points for fractions (factor 100)."""
        return Interval(mean=self.mean * factor, low=self.low * factor, high=self.high * factor)

    def __str__(self) -> str:
        if math.isnan(self.low):
            return f"{self.mean:.1f}"
        return f"{self.mean:.1f} [{self.low:.1f}, {self.high:.1f}]"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """The difference first - second of two systems on the same samples.

    Attributes:
        difference: of the means, with its bootstrap interval.
        p_value: two-sided: twice the share of draws in which the difference has the other sign (or is zero).
    """

    difference: Interval
    p_value: float


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SceneDraws:
    """Column sums of the data and of its bootstrap draws.

    Attributes:
        observed: [columns] sums over all samples.
        drawn: [draws, columns] sums over the samples of the scenes drawn with replacement.
    """

    observed: Float[np.ndarray, " columns"]
    drawn: Float[np.ndarray, "draws columns"]


def draw_scenes(
    columns: Float[np.ndarray, "samples columns"], scene_ids: Sequence[str], n: int = 1000, seed: int = 0
) -> SceneDraws:
    """Draw as many scenes as there are, with replacement, `n` times, and sum the columns over each draw.

    Any statistic of column sums (a mean as sum of values over sum of ones, corpus BLEU from its counts) can
    be computed from the result, for all columns under the same draws.

    Raises:
        StereopsisError: no samples, a value that is not finite, or another number of scene ids than samples.
    """
    if len(columns) != len(scene_ids):
        raise StereopsisError(f"{len(columns)} values but {len(scene_ids)} scene ids; give one scene id per value")
    if len(columns) == 0:
        raise StereopsisError("there are no samples to average; check that the evaluation wrote any records")
    if not np.isfinite(columns).all():
        where = int(np.argmax(~np.isfinite(columns).all(axis=1)))
        raise StereopsisError(f"sample {where} (scene '{scene_ids[where]}') has a score that is not finite")
    scenes, index = np.unique(np.asarray(scene_ids, dtype=str), return_inverse=True)
    sums = np.zeros((len(scenes), columns.shape[1]))
    np.add.at(sums, index, columns)
    rng = np.random.default_rng(seed)
    share = np.full(len(scenes), 1.0 / len(scenes))
    drawn, chunk = [], max(1, _DRAWN_AT_ONCE // len(scenes))
    for start in range(0, n, chunk):
        times = rng.multinomial(len(scenes), share, size=min(chunk, n - start))
        drawn.append(times.astype(np.float64) @ sums)
    return SceneDraws(observed=sums.sum(axis=0), drawn=np.concatenate(drawn))


def percentile_interval(
    observed: float, drawn: Float[np.ndarray, " draws"], level: float = 0.95, scenes: int = 2
) -> Interval:
    """The percentile bootstrap interval; no bounds from fewer than two `scenes`. NaN draws are left out."""
    drawn = drawn[~np.isnan(drawn)]
    if scenes < 2 or len(drawn) == 0:
        return Interval(mean=observed, low=math.nan, high=math.nan)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean=observed, low=float(low), high=float(high))


def ratio(
    numerator: Float[np.ndarray, "*shape"], denominator: Float[np.ndarray, "*shape"]
) -> Float[np.ndarray, "*shape"]:
    """Elementwise division, NaN where the denominator is 0 (nothing of that kind was drawn)."""
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)


def bootstrap_by_scene(
    values: Float[np.ndarray, " samples"],
    scene_ids: Sequence[str],
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The mean over samples, with a percentile interval from `n` draws of whole scenes.

    Fewer than two scenes give no bounds (NaN).

    Raises:
        StereopsisError: as `draw_scenes`.
    """
    draws = draw_scenes(np.column_stack([values, np.ones(len(values))]), scene_ids, n, seed)
    means = ratio(draws.drawn[:, 0], draws.drawn[:, 1])
    return percentile_interval(float(draws.observed[0] / draws.observed[1]), means, level, scenes=len(set(scene_ids)))


def paired_bootstrap(
    first: Float[np.ndarray, " first_samples"],
    second: Float[np.ndarray, " second_samples"],
    scene_ids: Sequence[str],
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Comparison:
    """Compare two systems on the same samples, in the same order, by resampling scenes.

    Raises:
        StereopsisError: the two differ in length, or as `draw_scenes`.
    """
    if len(first) != len(second):
        raise StereopsisError(
            f"a paired comparison needs the same samples for both: got {len(first)} and {len(second)} values"
        )
    draws = draw_scenes(np.column_stack([first - second, np.ones(len(first))]), scene_ids, n, seed)
    differences = ratio(draws.drawn[:, 0], draws.drawn[:, 1])
    observed = float(draws.observed[0] / draws.observed[1])
    scenes = len(set(scene_ids))
    tail = 1 + min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return Comparison(
        difference=percentile_interval(observed, differences, level, scenes=scenes),
        p_value=min(1.0, 2.0 * tail / (n + 1)) if scenes > 1 else math.nan,
    )


def macro_average(values: Float[np.ndarray, " samples"], types: Sequence[str]) -> float:
    """The mean over types of the mean within each type, so that a frequent type does not drown the others.

    Raises:
        StereopsisError: no samples, or another number of types than values.
    """
    if len(values) != len(types) or len(values) == 0:
        raise StereopsisError(f"a macro average needs one type per value, got {len(values)} and {len(types)}")
    _, index = np.unique(np.asarray(types, dtype=str), return_inverse=True)
    return float((np.bincount(index, weights=values) / np.bincount(index)).mean())


def seed_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean over training seeds with Student's t interval; one seed gives no bounds (NaN).

    Raises:
        StereopsisError: no value, or one that is not finite.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if len(numbers) == 0 or not np.isfinite(numbers).all():
        raise StereopsisError(f"an interval over seeds needs finite values, got {list(values)}")
    mean = float(numbers.mean())
    if len(numbers) == 1:
        return Interval(mean=mean, low=math.nan, high=math.nan)
    half = float(student_t.ppf((1 + level) / 2, len(numbers) - 1) * numbers.std(ddof=1) / math.sqrt(len(numbers)))
    return Interval(mean=mean, low=mean - half, high=mean + half)
