"""One door to the annotation files of all benchmarks; the form of a file is told from its content.

A file is either a benchmark's own, which its `Benchmark.read` knows, or one of Video-3D-LLM's processed ones
(`stereopsis.benchmarks.files.llava_style`). Recipes and commands both come through here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stereopsis.annotations import Annotation, AnnotationRecord
from stereopsis.benchmarks.benchmark import Benchmark
from stereopsis.benchmarks.files.annotation_files import (
    Alignments,
    AnnotationFile,
    entries,
    read_json,
    without_duplicates,
)
from stereopsis.benchmarks.files.llava_style import LlavaRecord, is_llava_style, llava_record
from stereopsis.benchmarks.registry import all_benchmarks, benchmark_named
from stereopsis.errors import StereopsisError

TRAIN = "train"


def read_annotations(
    task: str, path: str | Path, *, split: str | None = None, alignments: Alignments | None = None
) -> tuple[Annotation, ...]:
    """The annotations of a benchmark's file, in the file's order; ids are unique.

    Takes the authors' files and Video-3D-LLM's ``*_llava_style.json``; a folder stands for the split's file in it.

    Args:
        task: the benchmark.
        path: the file, or a folder with files under their official names.
        split: which file of a folder (by default the evaluated one); "train" also gives every wording of a situation
            or description, where the benchmark has several. A file whose name says "train" is of that split.
        alignments: scene id -> axis-alignment matrix, which an agent's `position` and `yaw` need; None without.

    Raises:
        StereopsisError: the file is missing, damaged, or of no known form; an entry lacks a field; an id is there
            twice. The message names file, entry and key.
    """
    records = read_annotation_records(task, path, split=split, alignments=alignments)
    return tuple(record.annotation for record in records)


def read_annotation_records(
    task: str, path: str | Path, *, split: str | None = None, alignments: Alignments | None = None
) -> tuple[AnnotationRecord, ...]:
    """As `read_annotations`, with the boxes of the file and the names that prediction files use.

    Raises:
        StereopsisError: see `read_annotations`.
    """
    benchmark = benchmark_named(task)
    found = _file(benchmark, Path(path), split)
    file = AnnotationFile(path=found, split=split or _split_of(found), alignments=alignments)
    if benchmark.processed is not None and is_llava_style(file.content):
        return parse_llava_style(task, file.content, str(found), split=file.split)
    return benchmark.read(file)


def parse_llava_style(task: str, content: Any, where: str, *, split: str | None = None) -> tuple[AnnotationRecord, ...]:
    """The annotations of processed records that are in memory already.

    Records that name another benchmark are passed over.

    Raises:
        StereopsisError: see `read_annotations`.
    """
    benchmark = benchmark_named(task)
    records = [llava_record(entry) for entry in entries(content, where)]
    mine = [record for record in records if _stated(record) in (None, task)]
    if not mine:
        raise StereopsisError(f"{where}: its {len(records)} records are of other benchmarks than {task}")
    return _of_benchmark(benchmark, mine, where, split)


def read_processed(path: Path) -> tuple[AnnotationRecord, ...]:
    """All annotations of one of Video-3D-LLM's processed files; each record names its benchmark.

    Returns:
        Benchmark by benchmark, each in the file's order.

    Raises:
        StereopsisError: see `read_annotations`; or a record names no benchmark that has such files.
    """
    where = str(path)
    by_task: dict[str, list[LlavaRecord]] = {}
    for entry in entries(read_json(path), where):
        record = llava_record(entry)
        task = _stated(record)
        if task is None:
            known = [each.name for each in all_benchmarks().values() if each.processed is not None]
            raise record.metadata.wrong("dataset", f"one of {', '.join(known)}; leave other benchmarks' records out")
        by_task.setdefault(task, []).append(record)
    split = _split_of(path)
    return tuple(
        record
        for task, records in by_task.items()
        for record in _of_benchmark(benchmark_named(task), records, where, split)
    )


def _of_benchmark(
    benchmark: Benchmark, records: Sequence[LlavaRecord], where: str, split: str | None
) -> tuple[AnnotationRecord, ...]:
    if benchmark.processed is None:
        raise StereopsisError(f"{where}: {benchmark.name} has no processed files; give the authors' own")
    return without_duplicates(benchmark.processed(records, split))


def _stated(record: LlavaRecord) -> str | None:
    """The benchmark that a record names, where it is one with such files."""
    name = record.metadata.content.get("dataset")
    benchmark = all_benchmarks().get(name.lower()) if isinstance(name, str) else None
    return None if benchmark is None or benchmark.processed is None else benchmark.name


def _split_of(path: Path) -> str | None:
    return TRAIN if TRAIN in path.name else None


def _file(benchmark: Benchmark, path: Path, split: str | None) -> Path:
    if not path.is_dir():
        return path
    names = [name.format(split=split or benchmark.evaluated) for name in benchmark.files]
    for name in names:
        if (path / name).is_file():
            return path / name
    raise StereopsisError(
        f"{path}: holds no annotations of {benchmark.name}; expected {' or '.join(names)}, or give the file itself"
    )
