"""MMSI-Bench's published rows: ``id``, ``question_type``, ``question`` (with its options), ``answer``, ``images``."""

import re

from stereopsis.annotations import Annotation, AnnotationRecord
from stereopsis.benchmarks.files.annotation_files import AnnotationFile, entries, without_duplicates
from stereopsis.benchmarks.files.rows import rows

FILES = ("MMSI_Bench.parquet", "test.jsonl")
_OPTIONS = re.compile(r"(?<![A-Za-z])([A-F])\s*[:.]\s")
_DASH = re.compile(r"(?<=\.)-(?=[A-Z])")


def read(file: AnnotationFile) -> tuple[AnnotationRecord, ...]:
    """Questions; each is its own scene, as its pictures are shown for it alone.

    Raises:
        StereopsisError: the file cannot be read, a row lacks a field, or an id is there twice.
        MissingExtraError: a Parquet file, and no pyarrow.
    """
    placed = []
    for entry in entries(rows(file.path, without=("images",)), str(file.path)):
        question, key = entry.text("question"), entry.name("id")
        behind = question.rpartition("Options:")[2]
        annotation = Annotation(
            id=key,
            task="mmsi",
            scene_id=key,
            type=_DASH.sub("–", entry.text("question_type")),  # both dashes are in use for one category
            text=question,
            options=tuple(dict.fromkeys(_OPTIONS.findall(behind))) or ("A", "B", "C", "D"),
            answers=(entry.text("answer"),),
        )
        placed.append((entry.place, AnnotationRecord(annotation=annotation)))
    return without_duplicates(placed)
