"""ScanQA's annotation files: ``ScanQA_v1.0_*.json``, or Video-3D-LLM's ``scanqa_*_llava_style.json``."""

import re
from typing import Any

from stereopsis.benchmarks.annotation_files import (
    AnnotationRecord,
    entries,
    unknown_format,
    without_duplicates,
)
from stereopsis.benchmarks.llava_style import LlavaRecord, is_llava_style, llava_record
from stereopsis.benchmarks.scanqa.prompt import SUFFIX
from stereopsis.errors import StereopsisError
from stereopsis.scenes.annotations import Annotation

DEFAULT_SPLIT = "val"
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


def parse(content: Any, where: str, *, split: str | None = None) -> tuple[AnnotationRecord, ...]:
    """Annotations of content that was read from `where`; ids are the authors' question ids in both forms.

    The test splits have no answers and cannot be scored.

    Args:
        content: a list of records.
        where: for error messages.
        split: not needed here.

    Raises:
        StereopsisError: the content has another form, an entry is damaged, or an id is there twice.
    """
    if is_llava_style(content):
        return _parse_llava(content, where)
    listed = entries(content, where)
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
            object_ids=entry.integers("object_ids") if "object_ids" in entry.content else (),
        )
        names = tuple(f"scanqa_{key}_{number}" for number in range(max(1, len(annotation.answers))))
        placed.append((entry.place, AnnotationRecord(annotation=annotation, names=names)))
    return without_duplicates(placed)


def _parse_llava(content: Any, where: str) -> tuple[AnnotationRecord, ...]:
    """One annotation per question; files with one record per answer are put together again."""
    by_question: dict[str, list[LlavaRecord]] = {}
    seen: dict[str, str] = {}
    for entry in entries(content, where):
        record = llava_record(entry)
        if record.id in seen:
            raise StereopsisError(f"{entry.place}: scanqa '{record.id}' is there twice (first: {seen[record.id]})")
        seen[record.id] = entry.place.rsplit(": ", 1)[-1]
        numbered = _NUMBERED_ID.fullmatch(record.id)
        by_question.setdefault(numbered[1] if numbered else record.id, []).append(record)
    found = []
    for key, records in by_question.items():
        first = records[0]
        question = first.between("", SUFFIX)
        for other in records[1:]:
            if other.between("", SUFFIX) != question or other.scene_id != first.scene_id:
                raise StereopsisError(f"{other.entry.place}: '{other.id}' asks something else than '{first.id}'")
        listed = "answers" in first.metadata.content
        answers = first.metadata.texts("answers") if listed else tuple(record.answer for record in records)
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
        names = tuple(record.id for record in records if record.id != key)
        found.append(AnnotationRecord(annotation=annotation, names=names))
    return tuple(found)
