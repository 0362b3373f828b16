"""A probe joined with evaluations: quartiles and correlations within one model, and the scatter over models."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stereopsis.benchmarks import all_benchmarks, benchmark_named
from stereopsis.errors import RunFolderError
from stereopsis.evaluation.records import read_results
from stereopsis.probing.downstream import correlate, join, quartile_table
from stereopsis.probing.probe_scenes import best_layer, read_probe


def add_downstream(result: dict[str, Any], evaluation: Path) -> None:
    """Put an evaluation's samples beside their scenes' scores: ``result["downstream"]`` and ``result["metrics"]``.

    Raises:
        RunFolderError: no finished evaluation, or none of its scenes was probed.
    """
    records, summary = read_results(evaluation)
    scores = {s["scene_id"]: s["score"] for s in result["layers"][best_layer(result)]["scenes"]}
    found: dict[str, Any] = {}
    for task, benchmark in all_benchmarks().items():
        joined = join(scores, records, task)
        if len(joined.scores) >= 4:
            found[task] = {
                "metric": benchmark.headline,
                "quartiles": _plain(quartile_table(joined.scores, joined.values, joined.scenes)),
                "correlation": _plain(correlate(joined.scores, joined.values, joined.scenes)),
            }
    if not found:
        raise RunFolderError(f"{evaluation} speaks of none of the probed scenes; evaluate and probe the same scenes")
    result["downstream"] = found
    result["metrics"] = metrics_of(summary["tasks"])


def metrics_of(tasks: dict[str, Any]) -> dict[str, float]:
    """Headline of every benchmark of an evaluation's summary, percent."""
    headlines = {task: benchmark_named(task).headline for task in tasks}
    return {
        task: values["overall"][headlines[task]]["mean"]
        for task, values in tasks.items()
        if headlines[task] in values["overall"]
    }


def add_models(result: dict[str, Any], others: Sequence[Path]) -> None:
    """Put this probe and others side by side: ``result["models"]``, and over them ``result["over_models"]``.

    Raises:
        RunFolderError: a probe cannot be read.
    """
    models = []
    for probe in (result, *(read_probe(path) for path in others)):
        score = probe["layers"][best_layer(probe)]["score"]
        models.append(
            {
                "name": probe["subject"]["name"],
                "score": None if score is None else score["mean"],
                "metrics": probe.get("metrics", {}),
            }
        )
    result["models"] = models
    tasks = dict.fromkeys(task for model in models for task in model["metrics"])
    over: dict[str, Any] = {}
    for task in tasks:
        known = [m for m in models if m["score"] is not None and m["metrics"].get(task) is not None]
        if len(known) >= 3:
            pairs = [(m["score"], m["metrics"][task]) for m in known]
            over[task] = _plain(correlate([a for a, _ in pairs], [b for _, b in pairs]))
    result["over_models"] = over


def _plain(value: Any) -> Any:
    """Dataclasses and NaN as JSON has them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
