"""VSI-Bench's published rows, one question each, as Parquet or JSON lines."""

from pathlib import Path

from stereopsis.annotations import Annotation, AnnotationRecord
from stereopsis.benchmarks.files.annotation_files import AnnotationFile, Entry, entries, without_duplicates
from stereopsis.benchmarks.files.rows import rows
from stereopsis.errors import StereopsisError
from stereopsis.reading import read_text

DIRECTION_TYPES = ("object_rel_direction_easy", "object_rel_direction_medium", "object_rel_direction_hard")
CHOICE_TYPES = (*DIRECTION_TYPES, "object_rel_distance", "route_planning", "obj_appearance_order")
NUMBER_TYPES = ("object_counting", "object_abs_distance", "object_size_estimation", "room_size_estimation")
FILES = ("test_{split}.parquet", "test.jsonl", "test-00000-of-00001.parquet")
DEBIASED = "debiased"
PRUNED_IDS = "pruned_ids.txt"


def read(file: AnnotationFile) -> tuple[AnnotationRecord, ...]:
    """Questions, each about the video ``<dataset>/<scene_name>.mp4``; the scene is called by the name.

    With split "debiased", only those that the benchmark's authors have not pruned: by the field ``pruned``, or by the
    ids in ``pruned_ids.txt`` beside the file.

    Raises:
        StereopsisError: the file cannot be read, a row lacks a field, is of an unknown type, an id is there twice, or
            nothing tells what is pruned.
        MissingExtraError: a Parquet file, and no pyarrow.
    """
    found = entries(rows(file.path), str(file.path))
    if file.split == DEBIASED:
        found = _debiased(found, file.path)
    return without_duplicates((entry.place, _record(entry)) for entry in found)


def _debiased(found: list[Entry], path: Path) -> list[Entry]:
    if all(isinstance(entry.content.get("pruned"), bool) for entry in found):
        return [entry for entry in found if not entry.content["pruned"]]
    listed = path.with_name(PRUNED_IDS)
    if not listed.is_file():
        raise StereopsisError(
            f"{path}: nothing tells which questions are pruned; expected a field 'pruned' or {listed}; take both files "
            "from the data set's page"
        )
    pruned = set(read_text(listed).split())
    return [entry for entry in found if entry.name("id") not in pruned]


def _record(entry: Entry) -> AnnotationRecord:
    kind = entry.text("question_type")
    if kind not in (*CHOICE_TYPES, *NUMBER_TYPES):
        raise entry.wrong("question_type", f"one of {', '.join((*CHOICE_TYPES, *NUMBER_TYPES))}")
    annotation = Annotation(
        id=entry.name("id"),
        task="vsibench",
        scene_id=entry.name("scene_name"),
        type=kind,
        text=entry.text("question"),
        options=entry.texts("options") if kind in CHOICE_TYPES else (),
        answers=(entry.name("ground_truth"),),
    )
    return AnnotationRecord(annotation=annotation)
