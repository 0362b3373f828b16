"""``python -m stereopsis.integrations.lmms_eval SCENES --output TASKS``: write the tasks' folder."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from stereopsis.annotations import Annotation
from stereopsis.benchmarks import read_annotations
from stereopsis.errors import StereopsisError
from stereopsis.integrations.lmms_eval.documents import spoken_tasks
from stereopsis.integrations.lmms_eval.tasks import write_tasks
from stereopsis.scenes.prepare import PrepareSettings, find_captures
from stereopsis.scenes.scene import check_scene_id


def main(
    scenes: Annotated[Path, typer.Argument(help="A folder of scenes; with annotations, if no file is given.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write, for --include_path.")],
    benchmarks: Annotated[str, typer.Option(help="Which, separated by commas.")] = ",".join(spoken_tasks()),
    annotations: Annotated[
        Path | None, typer.Option(help="The benchmark's own file (one benchmark); scenes are SCENES/SCENE_ID.")
    ] = None,
    views: Annotated[int, typer.Option(min=1, help="Pictures of a scene for models that know nothing of 3D.")] = 32,
) -> None:
    """Write tasks for lmms-eval."""
    tasks = benchmarks.split(",")
    unknown = sorted(set(tasks) - set(spoken_tasks()))
    if unknown:
        raise StereopsisError(f"lmms-eval can be asked {' and '.join(spoken_tasks())}, not {', '.join(unknown)}")
    if annotations is not None and len(tasks) != 1:
        raise StereopsisError("an annotation file is one benchmark's; name it with --benchmarks")

    def asked() -> Iterator[tuple[Annotation, Path]]:
        if annotations is not None:
            for each in read_annotations(tasks[0], annotations):
                yield each, scenes / check_scene_id(each.scene_id, str(annotations))
            return
        for capture in find_captures(scenes):
            yield from ((each, capture.path) for each in capture.load(PrepareSettings()).annotations)

    for name in write_tasks(asked(), output, tasks=tasks, views=views):
        typer.echo(f"lmms-eval --model stereopsis --model_args pretrained=MODEL --tasks {name} --include_path {output}")


if __name__ == "__main__":
    try:
        typer.run(main)
    except StereopsisError as error:
        sys.exit(f"error: {error}")
