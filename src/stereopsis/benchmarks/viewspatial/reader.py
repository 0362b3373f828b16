"""ViewSpatial-Bench's published rows: ``question_type``, ``question``, ``choices``, ``answer``, ``images`` or paths."""

from stereopsis.annotations import Annotation, AnnotationRecord
from stereopsis.benchmarks.files.annotation_files import AnnotationFile, entries, without_duplicates
from stereopsis.benchmarks.files.rows import rows

FILES = ("ViewSpatial-Bench.json", "test-00000-of-00001.parquet", "test.jsonl")


def read(file: AnnotationFile) -> tuple[AnnotationRecord, ...]:
    """Questions, called by their place in the file where they have no id; each is its own scene.

    Raises:
        StereopsisError: the file cannot be read, a row lacks a field, or an id is there twice.
        MissingExtraError: a Parquet file, and no pyarrow.
    """
    placed = []
    for place, entry in enumerate(entries(rows(file.path, without=("images",)), str(file.path))):
        key = entry.name("id") if "id" in entry.content else str(place)
        annotation = Annotation(
            id=key,
            task="viewspatial",
            scene_id=key,
            type=entry.text("question_type"),
            text=entry.text("question"),
            options=tuple(entry.text("choices").split("\n")),
            answers=(entry.text("answer"),),
        )
        placed.append((entry.place, AnnotationRecord(annotation=annotation)))
    return without_duplicates(placed)
