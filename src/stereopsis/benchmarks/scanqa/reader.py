"""ScanQA's annotation files: ``ScanQA_v1.0_*.json``, or Video-3D-LLM's ``scanqa_*_llava_style.json``."""

import re
from collections.abc import Iterator, Sequence

from stereopsis.annotations import Annotation, AnnotationRecord
from stereopsis.benchmarks.files.annotation_files import (
    AnnotationFile,
    entries,
    unknown_format,
    without_duplicates,
)
from stereopsis.benchmarks.files.llava_style import LlavaRecord
from stereopsis.benchmarks.scanqa.prompt import SUFFIX
from stereopsis.errors import StereopsisError

FILES = ("ScanQA_v1.0_{split}.json", "scanqa_{split}_llava_style.json")
_NUMBERED_ID = re.compile(r"scanqa_(.+)_(\d+)")
_TYPES = (
    ("place", ("Where",)),
    ("number", ("How many",)),
    ("color", ("What color", "What is the color")),
    ("object nature", ("What shape", "What type", "What kind")),
    ("object", ("What is",)),
)


def question_type(question: str) -> str:
    """Place, number, color, object nature, object or other: the first of the authors' phrases that it holds."""
    return next((name for name, phrases in _TYPES if any(phrase in question for phrase in phrases)), "other")


def read(file: AnnotationFile) -> tuple[AnnotationRecord, ...]:
    """Annotations of the authors' file; ids are the authors' question ids, as in the processed form.

    The test splits have no answers and cannot be scored, but answered (`submission`); their scenes' objects are not
    public, so none are kept.

    Raises:
        StereopsisError: the file has another form, an entry is damaged, or an id is there twice.
    """
    where = str(file.path)
    listed = entries(file.content, where)
    if "question_id" not in listed[0].content:
        raise unknown_format("scanqa", where, listed[0].content, "'question_id', 'question' and 'answers'")
    placed = []
    for entry in listed:
        question, key = entry.text("question"), entry.name("question_id")
        annotation = Annotation(
            id=key,
            task="scanqa",
            scene_id=entry.text("scene_id"),
            type=question_type(question),
            text=question,
            answers=entry.texts("answers") if "answers" in entry.content else (),
            object_ids=entry.integers("object_ids") if {"object_ids", "answers"} <= entry.content.keys() else (),
        )
        names = tuple(f"scanqa_{key}_{number}" for number in range(max(1, len(annotation.answers))))
        placed.append((entry.place, AnnotationRecord(annotation=annotation, names=names)))
    return without_duplicates(placed)


def processed(records: Sequence[LlavaRecord], split: str | None = None) -> Iterator[tuple[str, AnnotationRecord]]:
    """One annotation per question; files with one record per answer are put together again.

    Raises:
        StereopsisError: a record is damaged, is there twice, or records of one question disagree.
    """
    by_question: dict[str, list[LlavaRecord]] = {}
    seen: dict[str, str] = {}
    for record in records:
        if record.id in seen:
            raise StereopsisError(f"{record.place}: scanqa '{record.id}' is there twice (first: {seen[record.id]})")
        seen[record.id] = record.place.rsplit(": ", 1)[-1]
        numbered = _NUMBERED_ID.fullmatch(record.id)
        by_question.setdefault(numbered[1] if numbered else record.id, []).append(record)
    for key, alike in by_question.items():
        first = alike[0]
        question = first.between("", f" {SUFFIX}")
        for other in alike[1:]:
            if other.words != first.words or other.scene_id != first.scene_id:
                raise StereopsisError(f"{other.place}: '{other.id}' asks something else than '{first.id}'")
        listed = "answers" in first.metadata.content
        answers = first.metadata.texts("answers") if listed else tuple(record.answer for record in alike)
        if not any(answer.strip() for answer in answers):
            raise first.entry.wrong("conversations", "an answer of 'gpt' that is not empty")
        annotation = Annotation(
            id=key,
            task="scanqa",
            scene_id=first.scene_id,
            type=question_type(question),
            text=question,
            answers=answers,
        )
        names = tuple(record.id for record in alike if record.id != key)
        yield first.place, AnnotationRecord(annotation=annotation, names=names, words=first.words)
