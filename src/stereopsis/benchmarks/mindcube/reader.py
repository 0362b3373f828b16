"""MindCube's published rows: ``id``, ``question``, ``gt_answer``, ``images``, and ``input_prompt`` in lmms-eval's."""

import re

from stereopsis.annotations import Annotation, AnnotationRecord
from stereopsis.benchmarks.files.annotation_files import AnnotationFile, entries, without_duplicates
from stereopsis.benchmarks.files.rows import rows

FILES = ("MindCube_{split}.jsonl", "MindCube_tinybench.jsonl", "combined-00000-of-00001.parquet")
TYPES = {"among": "among", "around": "around", "aroundnew": "around", "rotation": "rotation"}
_OPTIONS = re.compile(r"(?<![A-Za-z])([A-E])\.\s")


def read(file: AnnotationFile) -> tuple[AnnotationRecord, ...]:
    """Questions; the type is how the id begins, and each is its own scene.

    Raises:
        StereopsisError: the file cannot be read, a row lacks a field, or an id is there twice.
        MissingExtraError: a Parquet file, and no pyarrow.
    """
    placed = []
    for entry in entries(rows(file.path, without=("images",)), str(file.path)):
        key, question = entry.name("id"), entry.text("question")
        annotation = Annotation(
            id=key,
            task="mindcube",
            scene_id=key,
            type=TYPES.get(key.split("_", 1)[0], "other"),
            text=entry.text("input_prompt") if "input_prompt" in entry.content else question,
            options=tuple(dict.fromkeys(_OPTIONS.findall(question))),
            answers=(entry.text("gt_answer"),),
        )
        placed.append((entry.place, AnnotationRecord(annotation=annotation)))
    return without_duplicates(placed)
