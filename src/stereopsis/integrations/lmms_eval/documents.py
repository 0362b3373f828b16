"""The tasks' documents and metrics: functions that lmms-eval calls by name, on plain records."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stereopsis.annotations import Annotation
from stereopsis.benchmarks import Prediction, benchmark_named, benchmarks_of, prompt_of, score, summarise, target_of
from stereopsis.errors import StereopsisError
from stereopsis.scenes.formats import open_scene

FIELDS = ("id", "task", "scene_id", "type", "text", "situation", "options", "answers")


def spoken_tasks() -> tuple[str, ...]:
    """Benchmarks that lmms-eval can ask: pictures and words in, words out."""
    return tuple(each.name for each in benchmarks_of("text", "choice", "number"))


def document(annotation: Annotation, folder: Path, views: int) -> dict[str, Any]:
    """One line of a task's data file.

    Args:
        annotation: the question.
        folder: of its scene.
        views: how many pictures a model is shown.

    Raises:
        StereopsisError: the benchmark is not one of `spoken_tasks`.
    """
    able = spoken_tasks()
    if annotation.task not in able:
        raise StereopsisError(
            f"{annotation.task} '{annotation.id}': lmms-eval asks in words and pictures and takes words as answers; "
            f"only {' and '.join(able)} have that form. Use 'stereopsis evaluate' for the others"
        )
    plain = {**annotation.to_dict(), "answers": list(annotation.answers)}
    return {**{key: plain[key] for key in FIELDS if key in plain}, "scene": str(folder.resolve()), "views": views}


def annotation_of(doc: Mapping[str, Any]) -> Annotation:
    """The inverse of `document`."""
    return Annotation.from_dict({key: doc[key] for key in FIELDS if key in doc})


def view_indices(frames: int, views: int) -> list[int]:
    """Evenly spaced frames, the first and the last among them; all where there are no more than `views`."""
    if views >= frames or frames < 2:
        return list(range(frames))
    return [index * (frames - 1) // (views - 1) for index in range(views)] if views > 1 else [0]


def doc_to_visual(doc: Mapping[str, Any]) -> list[Any]:
    """The scene's views as PIL pictures, for models that know nothing of 3D."""
    from PIL import Image

    frames = open_scene(Path(doc["scene"])).frames
    return [Image.fromarray(frames[index].colour()) for index in view_indices(len(frames), int(doc["views"]))]


def doc_to_text(doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, Any] | None = None) -> str:
    """The benchmark's own words, instruction included; model-specific wording would be another protocol."""
    return prompt_of(annotation_of(doc))


def doc_to_target(doc: Mapping[str, Any]) -> str:
    """The first accepted answer."""
    return target_of(annotation_of(doc))


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Keep question and answer for every metric: they are computed over the whole set (see `aggregate`)."""
    said = {"doc": {key: doc[key] for key in FIELDS if key in doc}, "text": str(results[0]) if len(results) else ""}
    return dict.fromkeys(metric_names(doc["task"]), said)


def metric_names(task: str) -> list[str]:
    """The metrics that a task reports: of one answer each, without METEOR (it needs Java: ``stereopsis score``)."""
    return [metric.name for metric in benchmark_named(task).metrics if not metric.meteor and not metric.ranked]


def aggregate(metric: str) -> Callable[[Sequence[Mapping[str, Any]]], float]:
    """A function from all of `process_results`' records to the metric in points, under the default protocol."""

    def value(records: Sequence[Mapping[str, Any]]) -> float:
        predictions = [Prediction(annotation=annotation_of(each["doc"]), text=each["text"]) for each in records]
        samples = score(predictions)
        return summarise(samples, n=1)[samples[0].task].overall[metric].mean

    return value
