"""Processed annotation files in a data folder of Video-3D-LLM, Ross3D or 3DRS: ``processed/**/*_llava_style.json``."""

from collections.abc import Sequence
from pathlib import Path

from stereopsis.annotations import AnnotationRecord
from stereopsis.benchmarks.files.readers import read_processed
from stereopsis.benchmarks.registry import all_benchmarks, benchmark_named
from stereopsis.errors import SceneError, StereopsisError, did_you_mean

SUFFIX = "_llava_style.json"


class ProcessedFiles:
    """Files are read when something in them is asked for, and once.

    Args:
        root: the data folder, which holds ``processed/``.
    """

    def __init__(self, root: Path) -> None:
        self.folder = root / "processed"
        self._records: dict[Path, tuple[AnnotationRecord, ...]] = {}
        self._by_scene: dict[Path, dict[str, list[AnnotationRecord]]] = {}

    def names(self) -> tuple[str, ...]:
        """Names of the files without their ending, sorted ("BENCHMARK_SPLIT", ...)."""
        return tuple(sorted(path.name.removesuffix(SUFFIX) for path in self._files()))

    def records(self, name: str) -> tuple[AnnotationRecord, ...]:
        """All records of a file; its questions are asked in the file's own words.

        Args:
            name: the file's name with or without "_llava_style.json", or the benchmark's name and the split where the
                file is called otherwise.

        Raises:
            SceneError: no such file, or several of that name.
            StereopsisError: a record is of another form, or asks in other words than its benchmark here.
        """
        path = self.file(name)
        if path not in self._records:
            records = read_processed(path)
            for record in records:
                _require_own_words(record, path)
            self._records[path] = records
        return self._records[path]

    def of_scene(self, names: Sequence[str], scene_id: str) -> tuple[AnnotationRecord, ...]:
        """A scene's records in some files (see `records`)."""
        found: list[AnnotationRecord] = []
        for name in names:
            path = self.file(name)
            if path not in self._by_scene:
                groups: dict[str, list[AnnotationRecord]] = {}
                for record in self.records(name):
                    groups.setdefault(record.annotation.scene_id, []).append(record)
                self._by_scene[path] = groups
            found += self._by_scene[path].get(scene_id, [])
        return tuple(found)

    def file(self, name: str) -> Path:
        """The file that a name means (see `records`).

        Raises:
            SceneError: no such file, or several of that name.
        """
        stem = name.removesuffix(SUFFIX)
        wanted = {stem + SUFFIX, *_official_names(stem)}
        found = [path for path in self._files() if path.name in wanted]
        if len(found) == 1:
            return found[0]
        if found:
            places = ", ".join(str(path) for path in found)
            raise SceneError(f"{self.folder}: several files are named '{name}': {places}; keep one of them")
        raise SceneError(
            f"{self.folder / (stem + SUFFIX)}: does not exist{did_you_mean(stem, self.names())}; write it with "
            "Video-3D-LLM's preprocessing scripts, or check the name"
        )

    def _files(self) -> list[Path]:
        return sorted(self.folder.rglob(f"*{SUFFIX}"))


def _official_names(stem: str) -> list[str]:
    """How the file of a benchmark and a split is called."""
    task, _, split = stem.rpartition("_")
    benchmark = all_benchmarks().get(task)
    return [] if benchmark is None else [name.format(split=split) for name in benchmark.files if name.endswith(SUFFIX)]


def _require_own_words(record: AnnotationRecord, path: Path) -> None:
    """A model is trained and asked in one wording: the benchmark's prompt must give the file's words again."""
    annotation = record.annotation
    ours = benchmark_named(annotation.task).prompt(annotation)
    if ours != record.words:
        shown = record.words if len(record.words) <= 80 else f"{record.words[:77]}..."
        raise StereopsisError(
            f"{path}: {annotation.task} '{annotation.id}' asks {shown!r}, expected {ours!r}; files with other wording "
            "(such as boxes as text) are not trained on: write it with the 'cls' template"
        )
