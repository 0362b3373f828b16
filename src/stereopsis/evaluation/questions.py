"""What is asked: which questions, about which scenes, in which order; checked before hours are spent on them."""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from stereopsis.annotations import Annotation
from stereopsis.benchmarks import benchmark_named, benchmark_names, prompt_of, protocols_of
from stereopsis.data.pack import candidate_boxes
from stereopsis.errors import SceneError, StereopsisError, did_you_mean
from stereopsis.scenes.scene import Scene

Key = tuple[str, str]
"""Task and annotation id: what identifies a sample."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class EvaluationSample:
    """A scene, and what is asked about it, in the scene's order."""

    scene: Scene
    annotations: tuple[Annotation, ...]


def key_of(annotation: Annotation) -> Key:
    """What identifies a sample among all that are evaluated."""
    return annotation.task, annotation.id


def targets_of(annotation: Annotation, scene: Scene) -> Float[np.ndarray, "targets 6"]:
    """True boxes of an annotation's objects."""
    boxes = [scene.object(i).box for i in annotation.object_ids]
    return np.stack(boxes) if boxes else np.zeros((0, 6))


def parse_benchmarks(names: str) -> tuple[str, ...]:
    """The benchmarks of a list with commas between, each once, in the usual order.

    Raises:
        StereopsisError: an unknown name; suggests the nearest.
    """
    wanted = [name.strip().lower() for name in names.split(",") if name.strip()]
    known = benchmark_names()
    for name in wanted:
        if name not in known:
            raise StereopsisError(f"unknown benchmark '{name}'{did_you_mean(name, known)}")
    if not wanted:
        raise StereopsisError(f"no benchmark is named; give some of {', '.join(known)}, separated by commas")
    return tuple(task for task in known if task in wanted)


def parse_annotation_files(items: Iterable[str]) -> dict[str, Path]:
    """Benchmark -> file, of words such as ``BENCHMARK=FILE``.

    Raises:
        StereopsisError: not of this form, an unknown benchmark, or one that is named twice.
    """
    found = _by_benchmark(items, "BENCHMARK=FILE", "annotation files")
    return {task: Path(file) for task, file in found.items()}


def parse_protocols(items: Iterable[str]) -> dict[str, str]:
    """Benchmark -> protocol, of words such as ``BENCHMARK=NAME``.

    Raises:
        StereopsisError: not of this form, an unknown benchmark or protocol, or a benchmark that is named twice.
    """
    found = _by_benchmark(items, "BENCHMARK=NAME", "protocols")
    protocols = {str(task): name for task, name in found.items()}
    protocols_of(protocols)
    return protocols


def _by_benchmark(items: Iterable[str], form: str, what: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in items:
        name, mark, value = item.partition("=")
        if not mark or not value:
            raise StereopsisError(f"'{item}': expected {form}")
        task, *others = parse_benchmarks(name)
        if others:
            raise StereopsisError(f"'{item}' names several benchmarks; expected {form}")
        if task in found:
            raise StereopsisError(f"two {what} are named for {task}; give one")
        found[task] = value
    return found


def attach(scenes: Iterable[Scene], annotations: Iterable[Annotation]) -> list[Scene]:
    """The scenes with these annotations instead of their own; scenes that nothing is asked about are left out.

    For the benchmarks' own annotation files, which lie apart from the scenes.

    Raises:
        SceneError: annotations speak of scenes that are not there; names the first and tells how many.
    """
    by_scene: dict[str, list[Annotation]] = {}
    for annotation in annotations:
        by_scene.setdefault(annotation.scene_id, []).append(annotation)
    found = [scene.replace(annotations=tuple(by_scene.pop(scene.id))) for scene in scenes if scene.id in by_scene]
    if by_scene:
        lost = sum(len(each) for each in by_scene.values())
        raise SceneError(
            f"{len(by_scene)} scenes that {lost} annotations speak of are missing: {_some(sorted(by_scene))}; prepare "
            "them with 'stereopsis prepare' and name their folder with --scenes"
        )
    return found


def scan_alignments(scenes: Iterable[Scene]) -> dict[str, Float[np.ndarray, "4 4"]]:
    """Scene id -> ScanNet's axis alignment, by which annotation files say where somebody stands.

    Scenes whose upright frame is not ScanNet's are left out: the identity (the scan came without its matrix), and
    frames that were estimated from depth.
    """
    return {
        scene.id: scene.T_aligned_world
        for scene in scenes
        if not np.array_equal(scene.T_aligned_world, np.eye(4)) and not _is_estimated(scene)
    }


def _is_estimated(scene: Scene) -> bool:
    alignment = scene.provenance.get("alignment")
    return isinstance(alignment, dict) and alignment.get("method") == "estimated"


def questions(scenes: Iterable[Scene], tasks: Sequence[str], limit: int | None = None) -> list[EvaluationSample]:
    """What is asked about some scenes, in canonical order: the scenes' order, then each scene's own.

    Args:
        scenes: with annotations.
        tasks: the benchmarks that are asked for.
        limit: only the first so many questions of each benchmark, in canonical order; None = all.

    Returns:
        Scenes about which something is asked.

    Raises:
        SceneError: two scenes share an id.
        StereopsisError: two questions of a benchmark share an id, a question speaks of an object that its scene
            lacks, or it lacks its answer or its one target; tells how many, and the first of them. A benchmark none of
            whose questions has an answer may have its own server, and is asked.
    """
    asked: list[EvaluationSample] = []
    taken: Counter[str] = Counter()
    for scene in scenes:
        chosen = []
        for annotation in scene.annotations:
            if annotation.task in tasks and (limit is None or taken[annotation.task] < limit):
                taken[annotation.task] += 1
                chosen.append(annotation)
        if chosen:
            asked.append(EvaluationSample(scene=scene, annotations=tuple(chosen)))
    _check_unique(asked)
    kept = unanswered_tasks(asked)
    problems = [text for each in asked for a in each.annotations if (text := _problem(a, each.scene, kept)) is not None]
    if problems:
        raise StereopsisError(
            f"{len(problems)} questions cannot be evaluated: {_some(problems, '; ')}. Correct the annotations, or "
            "prepare the scenes again"
        )
    return asked


def fingerprint_of(
    asked: Sequence[EvaluationSample], proposals: str, protocols: Mapping[str, str] | None = None
) -> str:
    """Changes whenever a question, its wording, its answer, its order, or what its scene consists of does.

    Pixels are not read: a stored scene checks those itself.

    Args:
        asked: scenes and questions.
        proposals: boxes that grounding chooses from.
        protocols: benchmark -> protocol, in whose words it is asked; None = the defaults.
    """
    rules = protocols or {}
    digest = hashlib.sha256()
    for each in asked:
        scene = each.scene
        digest.update(json.dumps([scene.id, [frame.name for frame in scene.frames]]).encode())
        arrays = [scene.T_aligned_world, candidate_boxes(scene, proposals)]
        arrays += [frame.T_world_camera for frame in scene.frames] + [o.box for o in scene.objects]
        for array in arrays:
            digest.update(np.ascontiguousarray(array, dtype=np.float64).tobytes())
        for a in each.annotations:
            record = [a.task, a.id, a.type, prompt_of(a, rules.get(a.task)), list(a.answers), list(a.object_ids)]
            digest.update(json.dumps(record).encode())
    return digest.hexdigest()


def counts(asked: Iterable[EvaluationSample]) -> dict[str, int]:
    """Questions per benchmark, in the usual order."""
    found = Counter(a.task for each in asked for a in each.annotations)
    return {task: found[task] for task in benchmark_names() if found[task]}


def _check_unique(asked: Sequence[EvaluationSample]) -> None:
    scenes = Counter(each.scene.id for each in asked)
    twice = [name for name, count in scenes.items() if count > 1]
    if twice:
        raise SceneError(f"scenes occur more than once: {_some(twice)}; name each scene's folder once")
    keys = Counter(key_of(a) for each in asked for a in each.annotations)
    double = [f"{task} '{name}'" for (task, name), count in keys.items() if count > 1]
    if double:
        raise StereopsisError(
            f"{len(double)} question ids occur more than once: {_some(double)}; every id must be unique within its "
            "benchmark, or samples could not be told apart: correct the annotations"
        )


def unanswered_tasks(asked: Iterable[EvaluationSample]) -> tuple[str, ...]:
    """Benchmarks none of whose questions has an answer, as their authors keep those: asked, but not scored."""
    by_task: dict[str, list[Annotation]] = {}
    for each in asked:
        for annotation in each.annotations:
            by_task.setdefault(annotation.task, []).append(annotation)
    return tuple(task for task, found in by_task.items() if benchmark_named(task).unanswered(found))


def _problem(annotation: Annotation, scene: Scene, unanswered: Sequence[str]) -> str | None:
    what = f"{annotation.task} '{annotation.id}'"
    known = {item.id for item in scene.objects}
    absent = [i for i in annotation.object_ids if i not in known]
    if absent:
        return f"{what} speaks of object {absent[0]}, which scene '{scene.id}' lacks"
    benchmark = benchmark_named(annotation.task)
    if benchmark.one_target and len(annotation.object_ids) != 1:
        return f"{what} needs exactly one object, it has {len(annotation.object_ids)}"
    if annotation.task in unanswered:
        return None
    if not benchmark.points and not any(answer.strip() for answer in annotation.answers):
        return f"{what} has no answer to compare with"
    return None


def _some(names: Sequence[str], separator: str = ", ", most: int = 3) -> str:
    return separator.join(names[:most]) + (f"{separator}..." if len(names) > most else "")
