"""Benchmarks: what is asked, what is expected, and what an answer is worth.

A benchmark is one `Benchmark`, declared in its own folder or by another package; nothing outside its folder knows its
name. In use::

    annotations = read_annotations("NAME", path)       # the authors' files, or Video-3D-LLM's
    words = prompt_of(annotation)                      # what the model reads
    prediction = Prediction(annotation=annotation, text=...)  # or boxes, scores, zero_target_score, targets
    samples = score(predictions)                       # one SampleScore per prediction, fractions
    summaries = summarise(samples)                     # per task: points with intervals over scenes
"""

from collections.abc import Mapping, Sequence

from stereopsis.annotations import Annotation, AnnotationRecord
from stereopsis.benchmarks.benchmark import Benchmark, Kind
from stereopsis.benchmarks.files.annotation_files import AnnotationFile
from stereopsis.benchmarks.files.readers import (
    parse_llava_style,
    read_annotation_records,
    read_annotations,
    read_processed,
)
from stereopsis.benchmarks.protocols import Protocol
from stereopsis.benchmarks.published import Published
from stereopsis.benchmarks.records import Metric, Prediction, SampleScore
from stereopsis.benchmarks.registry import (
    all_benchmarks,
    benchmark_named,
    benchmark_names,
    benchmarks_of,
    trained_benchmarks,
)
from stereopsis.benchmarks.scoring.statistics import Interval
from stereopsis.benchmarks.scoring.summary import Summary, summarise_task

__all__ = [
    "AnnotationFile",
    "AnnotationRecord",
    "Benchmark",
    "Interval",
    "Kind",
    "Metric",
    "Prediction",
    "Protocol",
    "Published",
    "SampleScore",
    "Summary",
    "all_benchmarks",
    "benchmark_named",
    "benchmark_names",
    "benchmarks_of",
    "parse_llava_style",
    "prompt_of",
    "protocols_of",
    "published_figures",
    "read_annotation_records",
    "read_annotations",
    "read_processed",
    "score",
    "summarise",
    "target_of",
    "trained_benchmarks",
]


def prompt_of(annotation: Annotation, protocol: str | None = None) -> str:
    """The benchmark's words for this annotation, without image token, chat template or spatial instruction.

    Args:
        annotation: what is asked.
        protocol: by whose rules, where protocols differ in their words; None = the default.

    Raises:
        StereopsisError: the annotation lacks its question or description, or there is no such protocol.
    """
    benchmark = benchmark_named(annotation.task)
    return (benchmark.protocol(protocol).prompt or benchmark.prompt)(annotation)


def target_of(annotation: Annotation) -> str:
    """The text that a model is trained to answer: the first answer or caption, or ``<ground>``.

    Raises:
        StereopsisError: the annotation has no answer.
    """
    return benchmark_named(annotation.task).target(annotation)


def protocols_of(names: Mapping[str, str] | None = None) -> dict[str, Protocol]:
    """The protocol of every benchmark: the named one, or its default.

    Raises:
        StereopsisError: there is no such benchmark, or the benchmark has no such protocol.
    """
    for task in names or {}:
        benchmark_named(task)
    return {task: benchmark.protocol((names or {}).get(task)) for task, benchmark in all_benchmarks().items()}


def published_figures(task: str | None = None, metric: str | None = None) -> tuple[Published, ...]:
    """The figures that papers print of a benchmark and a metric, or all; benchmark by benchmark."""
    benchmarks = all_benchmarks().values() if task is None else [benchmark_named(task)]
    return tuple(row for benchmark in benchmarks for row in benchmark.published if metric in (None, row.metric))


def score(
    predictions: Sequence[Prediction], *, protocols: Mapping[str, str] | None = None, meteor: bool = False
) -> list[SampleScore]:
    """Score predictions of any mixture of benchmarks; the result keeps their order.

    Pass a whole split at once: CIDEr depends on the set it is computed over.

    Args:
        predictions: what was said.
        protocols: benchmark -> name of one of its protocols; those that are not named take their default.
        meteor: whether METEOR is computed too, if Java is there; a run of the program takes some seconds.

    Raises:
        StereopsisError: a prediction lacks what its benchmark needs, one annotation was predicted twice, or there is no
            such benchmark or protocol.
    """
    rules = protocols_of(protocols)
    by_task: dict[str, list[int]] = {}
    for index, prediction in enumerate(predictions):
        by_task.setdefault(prediction.annotation.task, []).append(index)
    samples: dict[int, SampleScore] = {}
    for task, indices in by_task.items():
        benchmark = benchmark_named(task)
        options = {"meteor": meteor} if benchmark.has_meteor else {}
        scored = benchmark.score([predictions[index] for index in indices], rules[task].name, **options)
        samples.update(zip(indices, scored, strict=True))
    return [samples[index] for index in range(len(predictions))]


def summarise(
    samples: Sequence[SampleScore], *, n: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, Summary]:
    """Each benchmark's numbers in points, overall, averaged over types and by type, with intervals over scenes.

    Args:
        samples: of any mixture of benchmarks.
        n: bootstrap draws.
        seed: of the draws.
        level: of the intervals.

    Returns:
        In the order of tables.

    Raises:
        StereopsisError: a sample lacks a metric of its benchmark, or holds a value that is not finite.
    """
    by_task: dict[str, list[SampleScore]] = {}
    for sample in samples:
        by_task.setdefault(sample.task, []).append(sample)
    for task in by_task:
        benchmark_named(task)
    return {
        task: summarise_task(
            by_task[task],
            benchmark.metrics,
            groups=benchmark.type_groups,
            over=benchmark.over,
            n=n,
            seed=seed,
            level=level,
        )
        for task, benchmark in all_benchmarks().items()
        if task in by_task
    }
