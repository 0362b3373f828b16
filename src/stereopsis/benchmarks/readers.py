"""One door to the annotation files of all five benchmarks; the form of a file is told from its content."""

from pathlib import Path
from typing import Any

from stereopsis.benchmarks.annotation_files import AnnotationRecord, read_json
from stereopsis.benchmarks.multi3drefer import reader as _multi3drefer
from stereopsis.benchmarks.scan2cap import reader as _scan2cap
from stereopsis.benchmarks.scanqa import reader as _scanqa
from stereopsis.benchmarks.scanrefer import reader as _scanrefer
from stereopsis.benchmarks.sqa3d import reader as _sqa3d
from stereopsis.benchmarks.sqa3d.reader import Alignments
from stereopsis.errors import StereopsisError, did_you_mean
from stereopsis.scenes.annotations import TASKS, Annotation

_READERS: dict[str, Any] = {
    "sqa3d": _sqa3d,
    "scanqa": _scanqa,
    "scan2cap": _scan2cap,
    "scanrefer": _scanrefer,
    "multi3drefer": _multi3drefer,
}


def read_annotations(
    task: str, path: str | Path, *, split: str | None = None, alignments: Alignments | None = None
) -> tuple[Annotation, ...]:
    """The annotations of a benchmark's file, in the file's order; ids are unique.

    Takes the authors' files and Video-3D-LLM's ``*_llava_style.json``; a folder stands for the split's file in it.

    Args:
        task: the benchmark.
        path: the file, or a folder with files under their official names.
        split: which file of a folder (by default the evaluated one: "test" for sqa3d, else "val"); "train" also
            gives every wording of a situation (sqa3d) and every description of an object (scan2cap).
        alignments: scene id -> axis-alignment matrix, which sqa3d's `position` and `yaw` need; None without.

    Raises:
        StereopsisError: the file is missing, damaged, or of no known form; an entry lacks a field; an id is there
            twice. The message names file, entry and key.
    """
    return tuple(
        record.annotation for record in read_annotation_records(task, path, split=split, alignments=alignments)
    )


def read_annotation_records(
    task: str, path: str | Path, *, split: str | None = None, alignments: Alignments | None = None
) -> tuple[AnnotationRecord, ...]:
    """As `read_annotations`, with the boxes of the file and the names that prediction files use.

    Raises:
        StereopsisError: see `read_annotations`.
    """
    reader = _reader(task)
    file = _file(reader, task, Path(path), split)
    if split is None and "train" in file.name:
        split = "train"
    if task == "sqa3d":
        return _sqa3d.read(file, split=split, alignments=alignments)
    records: tuple[AnnotationRecord, ...] = reader.parse(read_json(file), str(file), split=split)
    return records


def parse_llava_style(task: str, content: Any, where: str) -> tuple[AnnotationRecord, ...]:
    """The annotations of llava-style records that are in memory already.

    Raises:
        StereopsisError: see `read_annotations`.
    """
    records: tuple[AnnotationRecord, ...] = _reader(task).parse(content, where)
    return records


def _reader(task: str) -> Any:
    if task not in _READERS:
        raise StereopsisError(f"there is no benchmark '{task}'{did_you_mean(task, TASKS)}")
    return _READERS[task]


def _file(reader: Any, task: str, path: Path, split: str | None) -> Path:
    if not path.is_dir():
        return path
    names = [name.format(split=split or reader.DEFAULT_SPLIT) for name in reader.FILES]
    for name in names:
        if (path / name).is_file():
            return path / name
    raise StereopsisError(
        f"{path}: holds no annotations of {task}; expected {' or '.join(names)}, or give the file itself"
    )
