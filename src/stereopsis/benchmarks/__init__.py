"""Benchmarks: what is asked, what is expected, and what an answer is worth.

One folder per benchmark (``reader.py``, ``prompt.py``, ``metric.py``, ``card.md``); beside them what they share. In
use::

    annotations = read_annotations("sqa3d", path)      # the authors' files, or Video-3D-LLM's
    words = prompt_of(annotation)                      # what the model reads
    prediction = Prediction(annotation=annotation, text=...)  # or boxes, scores, zero_target_score, targets
    samples = score(predictions)                       # one SampleScore per prediction, fractions
    summaries = summarise(samples)                     # per task: points with intervals over scenes
"""

from collections.abc import Callable, Mapping, Sequence

from stereopsis.benchmarks.annotation_files import AnnotationRecord
from stereopsis.benchmarks.multi3drefer import metric as _multi3drefer_metric
from stereopsis.benchmarks.multi3drefer import prompt as _multi3drefer_prompt
from stereopsis.benchmarks.protocols import Protocol, protocol_of
from stereopsis.benchmarks.published import Published, published
from stereopsis.benchmarks.readers import parse_llava_style, read_annotation_records, read_annotations
from stereopsis.benchmarks.records import Metric, Prediction, SampleScore
from stereopsis.benchmarks.scan2cap import metric as _scan2cap_metric
from stereopsis.benchmarks.scan2cap import prompt as _scan2cap_prompt
from stereopsis.benchmarks.scanqa import metric as _scanqa_metric
from stereopsis.benchmarks.scanqa import prompt as _scanqa_prompt
from stereopsis.benchmarks.scanrefer import metric as _scanrefer_metric
from stereopsis.benchmarks.scanrefer import prompt as _scanrefer_prompt
from stereopsis.benchmarks.sqa3d import metric as _sqa3d_metric
from stereopsis.benchmarks.sqa3d import prompt as _sqa3d_prompt
from stereopsis.benchmarks.statistics import Interval
from stereopsis.benchmarks.summary import Summary, summarise_task
from stereopsis.errors import StereopsisError, did_you_mean
from stereopsis.scenes.annotations import TASKS, Annotation, Task

__all__ = [
    "METRICS",
    "PROTOCOLS",
    "AnnotationRecord",
    "Interval",
    "Metric",
    "Prediction",
    "Protocol",
    "Published",
    "SampleScore",
    "Summary",
    "parse_llava_style",
    "prompt_of",
    "protocols_of",
    "published",
    "read_annotation_records",
    "read_annotations",
    "score",
    "summarise",
    "target_of",
]

_PROMPTS: dict[Task, Callable[[Annotation], str]] = {
    "sqa3d": _sqa3d_prompt.prompt,
    "scanqa": _scanqa_prompt.prompt,
    "scan2cap": _scan2cap_prompt.prompt,
    "scanrefer": _scanrefer_prompt.prompt,
    "multi3drefer": _multi3drefer_prompt.prompt,
}
_TARGETS: dict[Task, Callable[[Annotation], str]] = {
    "sqa3d": _sqa3d_prompt.target,
    "scanqa": _scanqa_prompt.target,
    "scan2cap": _scan2cap_prompt.target,
    "scanrefer": _scanrefer_prompt.target,
    "multi3drefer": _multi3drefer_prompt.target,
}
_SCORERS: dict[Task, Callable[..., list[SampleScore]]] = {
    "sqa3d": _sqa3d_metric.score,
    "scanqa": _scanqa_metric.score,
    "scan2cap": _scan2cap_metric.score,
    "scanrefer": _scanrefer_metric.score,
    "multi3drefer": _multi3drefer_metric.score,
}
_WITH_METEOR = ("scanqa", "scan2cap")

METRICS: dict[Task, tuple[Metric, ...]] = {
    "sqa3d": _sqa3d_metric.METRICS,
    "scanqa": _scanqa_metric.METRICS,
    "scan2cap": _scan2cap_metric.METRICS,
    "scanrefer": _scanrefer_metric.METRICS,
    "multi3drefer": _multi3drefer_metric.METRICS,
}
"""The metrics of each benchmark, the one that it is known by first."""

PROTOCOLS: dict[Task, tuple[Protocol, ...]] = {
    "sqa3d": _sqa3d_metric.PROTOCOLS,
    "scanqa": _scanqa_metric.PROTOCOLS,
    "scan2cap": _scan2cap_metric.PROTOCOLS,
    "scanrefer": _scanrefer_metric.PROTOCOLS,
    "multi3drefer": _multi3drefer_metric.PROTOCOLS,
}
"""The protocols of each benchmark, the default first: the one behind the tables of Video-3D-LLM, 3DRS and Ross3D."""


def prompt_of(annotation: Annotation) -> str:
    """The benchmark's words for this annotation, without image token, chat template or spatial instruction.

    Raises:
        StereopsisError: the annotation lacks its question or description.
    """
    return _PROMPTS[annotation.task](annotation)


def target_of(annotation: Annotation) -> str:
    """The text that a model is trained to answer: the first answer or caption, or ``<ground>``.

    Raises:
        StereopsisError: the annotation has no answer.
    """
    return _TARGETS[annotation.task](annotation)


def protocols_of(names: Mapping[str, str] | None = None) -> dict[Task, Protocol]:
    """The protocol of every task: the named one, or its default.

    Raises:
        StereopsisError: there is no such task, or the task has no such protocol.
    """
    for task in names or {}:
        if task not in PROTOCOLS:
            raise StereopsisError(f"there is no benchmark '{task}'{did_you_mean(task, TASKS)}")
    return {task: protocol_of(PROTOCOLS[task], (names or {}).get(task)) for task in TASKS}


def score(
    predictions: Sequence[Prediction], *, protocols: Mapping[str, str] | None = None, meteor: bool = False
) -> list[SampleScore]:
    """Score predictions of any mixture of tasks; the result keeps their order.

    Pass a whole split at once: CIDEr depends on the set it is computed over.

    Args:
        predictions: what was said.
        protocols: task -> name of one of its `PROTOCOLS`; tasks that are not named take their default.
        meteor: whether METEOR is computed too, if Java is there; a run of the program takes some seconds.

    Raises:
        StereopsisError: a prediction lacks what its task needs, one annotation was predicted twice, or there is no
            such protocol.
    """
    rules = protocols_of(protocols)
    samples: dict[int, SampleScore] = {}
    for task in TASKS:
        places = [place for place, each in enumerate(predictions) if each.annotation.task == task]
        if places:
            options = {"meteor": meteor} if task in _WITH_METEOR else {}
            scored = _SCORERS[task]([predictions[place] for place in places], rules[task].name, **options)
            samples.update(zip(places, scored, strict=True))
    return [samples[place] for place in range(len(predictions))]


def summarise(
    samples: Sequence[SampleScore], *, n: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[Task, Summary]:
    """Each task's numbers in points, overall, averaged over types and by type, with intervals over scenes.

    Args:
        samples: of any mixture of tasks.
        n: bootstrap draws.
        seed: of the draws.
        level: of the intervals.

    Raises:
        StereopsisError: a sample lacks a metric of its task, or holds a value that is not finite.
    """
    return {
        task: summarise_task(
            [sample for sample in samples if sample.task == task], METRICS[task], n=n, seed=seed, level=level
        )
        for task in TASKS
        if any(sample.task == task for sample in samples)
    }
