"""Writing a folder of tasks that ``lmms-eval --include_path`` reads."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from stereopsis.annotations import Annotation
from stereopsis.benchmarks import benchmark_named
from stereopsis.errors import StereopsisError
from stereopsis.files import write_atomic
from stereopsis.integrations.lmms_eval.documents import document, metric_names, spoken_tasks

FUNCTIONS = "stereopsis_functions"
SPLIT = "test"


def task_name(task: str) -> str:
    """What lmms-eval calls the task."""
    return f"stereopsis_{task}"


def write_tasks(
    asked: Iterable[tuple[Annotation, Path]], folder: Path, *, tasks: Sequence[str] | None = None, views: int = 32
) -> list[str]:
    """Write, for each benchmark, its questions and its task file.

    Args:
        asked: questions, each with the folder of its scene; those of other benchmarks are left out.
        folder: where to.
        tasks: which benchmarks; None = all that lmms-eval can ask.
        views: pictures that a model is shown of a scene.

    Returns:
        The names of the tasks.

    Raises:
        StereopsisError: there is no question of these benchmarks, a scene has no folder, or lmms-eval cannot ask one.
    """
    tasks = spoken_tasks() if tasks is None else tasks
    lines: dict[str, list[str]] = {task: [] for task in tasks}
    for annotation, scene in asked:
        if annotation.task in lines:
            if not scene.is_dir():
                raise StereopsisError(f"{annotation.task} '{annotation.id}': there is no scene folder {scene}")
            lines[annotation.task].append(json.dumps(document(annotation, scene, views)) + "\n")
    found = [task for task in tasks if lines[task]]
    if not found:
        raise StereopsisError(
            f"no question of {' or '.join(tasks)} was found; are the scenes prepared with annotations?"
        )
    for task in found:
        data = (folder / f"{task}.jsonl").resolve()
        write_atomic(data, "".join(lines[task]).encode())
        write_atomic(folder / f"{task_name(task)}.yaml", task_file(task, data).encode())
    write_atomic(folder / f"{FUNCTIONS}.py", functions_file(found).encode())
    return [task_name(task) for task in found]


def task_file(task: str, data: Path) -> str:
    """The YAML of a task; functions are named by ``!function MODULE.NAME`` beside it.

    Values are written as JSON, which YAML contains, so that paths with any characters come through.
    """
    longest = benchmark_named(task).max_new_tokens
    plain: dict[str, Any] = {
        "task": task_name(task),
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {SPLIT: str(data)}},
        "test_split": SPLIT,
        "output_type": "generate_until",
        "generation_kwargs": {
            "max_new_tokens": longest,
            "temperature": 0,
            "do_sample": False,
        },
        "metadata": [{"version": 1.0}],
    }
    lines = [f"{key}: {json.dumps(value)}" for key, value in plain.items()]
    for name in ("doc_to_visual", "doc_to_text", "doc_to_target", "process_results"):
        lines.append(f"{name}: !function {FUNCTIONS}.{name}")
    lines.append("metric_list:")
    for metric in metric_names(task):
        lines += [
            f"  - metric: {metric}",
            f"    aggregation: !function {FUNCTIONS}.aggregate_{metric}",
            "    higher_is_better: true",
        ]
    return "\n".join(lines) + "\n"


def functions_file(tasks: Sequence[str]) -> str:
    """The Python file beside the task files, which only names this package's functions."""
    source = "stereopsis.integrations.lmms_eval.documents"
    metrics = list(dict.fromkeys(name for task in tasks for name in metric_names(task)))
    return "\n".join(
        [
            '"""Written by stereopsis.integrations.lmms_eval: what the task files beside it call."""',
            "",
            f"from {source} import aggregate, doc_to_target, doc_to_text, doc_to_visual, process_results",
            "",
            *(f'aggregate_{name} = aggregate("{name}")' for name in metrics),
            "",
        ]
    )
