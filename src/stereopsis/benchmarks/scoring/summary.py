"""From per-sample scores to a table's numbers: overall, by type and averaged over types, with intervals."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from stereopsis.benchmarks.records import Metric, SampleScore
from stereopsis.benchmarks.scoring.java_tools import METEOR_COUNTS, meteor_of_counts
from stereopsis.benchmarks.scoring.statistics import Interval, draw_scenes, percentile_interval, ratio
from stereopsis.benchmarks.scoring.text import BLEU_COUNTS, bleu_of_counts
from stereopsis.errors import StereopsisError

POINTS = 100.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """A benchmark's numbers in POINTS, as papers print them (EM 0-100; CIDEr 102.1 is a mean of 1.021).

    Attributes:
        task: the benchmark.
        count: samples.
        scene_count: scenes.
        overall: metric name -> value over all samples, or what the benchmark takes for it (its macro).
        macro: metric name -> mean over the question types' values; a group of types counts once.
        by_type: question type, or group of types -> metric name -> value; a group's is the mean of its types'.
        type_counts: question type, or group of types -> samples.
        protocol: by whose rules the samples were scored.
        unavailable: metric name -> why it has no value; such a metric is in none of the tables above.
    """

    task: str
    count: int
    scene_count: int
    overall: Mapping[str, Interval]
    macro: Mapping[str, Interval]
    by_type: Mapping[str, Mapping[str, Interval]]
    type_counts: Mapping[str, int]
    protocol: str = ""
    unavailable: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Block:
    """One metric's columns and the statistic of their sums, [..., columns] -> [...]."""

    columns: Float[np.ndarray, "samples columns"]
    statistic: Callable[[np.ndarray], np.ndarray]


def summarise_task(
    samples: Sequence[SampleScore],
    metrics: Sequence[Metric],
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
    over: Literal["samples", "types"] = "samples",
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Summary:
    """Average the samples of one benchmark, with intervals from resampling scenes.

    All intervals come from the same draws. A value that rests on one scene only has no bounds (NaN). A metric that
    the samples mark as unavailable is listed in `Summary.unavailable` instead; an optional one that none of them has is
    left out.

    Args:
        samples: per-sample scores of one task.
        metrics: which to report (each benchmark's `METRICS`).
        groups: name -> question types that are averaged first, and then count as one; those that are there.
        over: whether ``overall`` is the mean over samples, or over types and groups.
        n: bootstrap draws.
        seed: of the draws.
        level: of the intervals.

    Raises:
        StereopsisError: no samples, several tasks or protocols, a missing metric, a metric that only some samples
            have, or a value that is not finite.
    """
    tasks = sorted({sample.task for sample in samples})
    if len(tasks) != 1:
        raise StereopsisError(f"a summary needs samples of one task, got {len(samples)} samples of {tasks}")
    protocols = sorted({sample.protocol for sample in samples})
    if len(protocols) != 1:
        raise StereopsisError(
            f"{tasks[0]}: samples scored by different protocols ({', '.join(protocols)}) have no mean"
        )
    metrics = [m for m in metrics if not m.optional or any(m.name in sample.scores for sample in samples)]
    unavailable = _unavailable(samples, metrics)
    metrics = [metric for metric in metrics if metric.name not in unavailable]
    types = sorted({sample.type for sample in samples})
    type_counts = Counter(sample.type for sample in samples)
    averaged = _averaged(types, groups or {})
    scene_count = len({sample.scene_id for sample in samples})
    scenes_of_type = [len({s.scene_id for s in samples if s.type == name}) for name in types]
    blocks = [_block(samples, metric) for metric in metrics]
    columns = np.concatenate([np.zeros((len(samples), 0)), *(block.columns for block in blocks)], axis=1)
    draws = _draws_by_type(samples, types, columns, n, seed)

    overall: dict[str, Interval] = {}
    macro: dict[str, Interval] = {}
    by_type: dict[str, dict[str, Interval]] = {name: {} for name in (*types, *averaged)}
    start = 0
    for metric, block in zip(metrics, blocks, strict=True):
        here = slice(start, start + block.columns.shape[1])
        start = here.stop
        sums = draws[:, :, here]
        # Row 0 is the data itself, the other rows are draws.
        whole, each = block.statistic(sums.sum(axis=1)), block.statistic(sums)
        worth = {name: _mean_of_known(each[:, indices]) for name, indices in averaged.items()}
        macro[metric.name] = _points(_mean_of_known(np.stack(list(worth.values()), axis=1)), level, scene_count)
        overall[metric.name] = macro[metric.name] if over == "types" else _points(whole, level, scene_count)
        for index, name in enumerate(types):
            by_type[name][metric.name] = _points(each[:, index], level, scenes_of_type[index])
        for name, indices in averaged.items():
            by_type[name][metric.name] = _points(worth[name], level, max(scenes_of_type[i] for i in indices))
    return Summary(
        task=samples[0].task,
        count=len(samples),
        scene_count=scene_count,
        overall=overall,
        macro=macro,
        by_type=by_type,
        type_counts={name: type_counts[name] for name in types}
        | {name: sum(type_counts[types[i]] for i in indices) for name, indices in averaged.items()},
        protocol=protocols[0],
        unavailable=unavailable,
    )


def _averaged(types: Sequence[str], groups: Mapping[str, Sequence[str]]) -> dict[str, list[int]]:
    """What a mean over types averages: each group, and each type outside all groups, with the types' indices."""
    found = {name: [types.index(each) for each in members if each in types] for name, members in groups.items()}
    found = {name: indices for name, indices in found.items() if indices}
    grouped = {index for indices in found.values() for index in indices}
    return found | {name: [index] for index, name in enumerate(types) if index not in grouped}


def _mean_of_known(values: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, " rows"]:
    """The mean of a row's values that are known; NaN where none is."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0.0).sum(axis=1), known.sum(axis=1).astype(np.float64))


def _unavailable(samples: Sequence[SampleScore], metrics: Sequence[Metric]) -> dict[str, str]:
    """Metric name -> reason, of the metrics that no sample has."""
    reasons = {}
    for metric in metrics:
        lacking = [sample for sample in samples if metric.name in sample.unavailable]
        if lacking and len(lacking) < len(samples):
            raise StereopsisError(
                f"{lacking[0].task}: {len(lacking)} of {len(samples)} samples have no '{metric.name}' "
                f"({lacking[0].unavailable[metric.name]}); score all of them in one go"
            )
        if lacking:
            reasons[metric.name] = lacking[0].unavailable[metric.name]
    return reasons


def _draws_by_type(
    samples: Sequence[SampleScore],
    types: Sequence[str],
    columns: Float[np.ndarray, "samples columns"],
    n: int,
    seed: int,
) -> Float[np.ndarray, "rows types columns"]:
    """Column sums per question type: of all samples first, then of each bootstrap draw."""
    place = {name: index for index, name in enumerate(types)}
    one_hot = np.eye(len(types))[[place[sample.type] for sample in samples]]
    spread = (one_hot[:, :, None] * columns[:, None, :]).reshape(len(samples), -1)
    draws = draw_scenes(spread, [sample.scene_id for sample in samples], n, seed)
    return np.vstack([draws.observed, draws.drawn]).reshape(n + 1, len(types), -1)


def _points(values: Float[np.ndarray, " rows"], level: float, scenes: int) -> Interval:
    return percentile_interval(float(values[0]), values[1:], level, scenes=scenes).scaled(POINTS)


def _block(samples: Sequence[SampleScore], metric: Metric) -> _Block:
    if metric.bleu_order:
        order = metric.bleu_order - 1
        for sample in samples:
            if len(sample.bleu_counts) != BLEU_COUNTS:
                raise StereopsisError(f"{sample.task} '{sample.id}' has no BLEU counts; score its text again")
        counts = np.array([sample.bleu_counts for sample in samples])
        return _Block(columns=counts, statistic=lambda sums: bleu_of_counts(sums)[..., order])
    if metric.meteor:
        for sample in samples:
            if len(sample.meteor_counts) != METEOR_COUNTS:
                raise StereopsisError(f"{sample.task} '{sample.id}' has no METEOR counts; score its text again")
        return _Block(columns=np.array([sample.meteor_counts for sample in samples]), statistic=meteor_of_counts)
    for sample in samples:
        if metric.name not in sample.scores:
            raise StereopsisError(
                f"{sample.task} '{sample.id}' has no score '{metric.name}' (it has: "
                f"{', '.join(sample.scores)}); score it again with this version"
            )
    values = np.array([sample.scores[metric.name] for sample in samples])
    return _Block(
        columns=np.column_stack([values, np.ones(len(samples))]),
        statistic=lambda sums: ratio(sums[..., 0], sums[..., 1]),
    )
