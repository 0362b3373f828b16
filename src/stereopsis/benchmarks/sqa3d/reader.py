"""SQA3D's annotation files: questions and answers of the authors, or Video-3D-LLM's ``sqa3d_*_llava_style.json``."""

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from stereopsis.benchmarks.annotation_files import (
    AnnotationRecord,
    Entry,
    entries,
    read_json,
    unknown_format,
    without_duplicates,
)
from stereopsis.benchmarks.llava_style import is_llava_style, llava_record
from stereopsis.benchmarks.sqa3d.metric import QUESTION_TYPES, question_type
from stereopsis.benchmarks.sqa3d.prompt import SUFFIX
from stereopsis.errors import StereopsisError
from stereopsis.scenes.annotations import Annotation

DEFAULT_SPLIT = "test"
FILES = ("v1_balanced_questions_{split}_scannetv2.json", "sqa3d_{split}_llava_style.json")
_QUESTIONS, _ANSWERS = "_questions_", "_sqa_annotations_"

Alignments = Mapping[str, Float[np.ndarray, "4 4"]]
"""Scene id -> axis-alignment matrix (raw ScanNet frame to aligned frame)."""


def read(path: Path, *, split: str | None = None, alignments: Alignments | None = None) -> tuple[AnnotationRecord, ...]:
    """Read a file of questions together with its file of answers beside it, or a llava-style file.

    Args:
        path: ``v1_balanced_questions_*.json`` or ``v1_balanced_sqa_annotations_*.json`` (the other one must lie
            beside it), or ``*_llava_style.json``.
        split: "train" gives one annotation for each wording of the situation (ids "ID", "ID#2", "ID#3").
        alignments: see `parse`.

    Raises:
        StereopsisError: a file is missing, damaged or of another form; an id is there twice; a question has no answer.
    """
    if _ANSWERS in path.name:
        path = path.with_name(path.name.replace(_ANSWERS, _QUESTIONS))
    content = read_json(path)
    if is_llava_style(content) or not isinstance(content, dict):
        return parse(content, str(path), split=split)
    partner = path.with_name(path.name.replace(_QUESTIONS, _ANSWERS))
    if partner == path or not partner.is_file():
        raise StereopsisError(
            f"{path}: has the questions only; the answers (v1_balanced_sqa_annotations_*.json) must lie beside it under "
            f"their official name, and {partner.name if partner != path else 'that file'} is not there"
        )
    return parse(
        content, str(path), split=split, answers=read_json(partner), answers_where=str(partner), alignments=alignments
    )


def parse(
    content: Any,
    where: str,
    *,
    split: str | None = None,
    answers: Any = None,
    answers_where: str = "answers",
    alignments: Alignments | None = None,
) -> tuple[AnnotationRecord, ...]:
    """Annotations of content that was read from `where`.

    The files give the agent's place in axes of the raw scan around the origin of the aligned frame: turning it by the
    scene's axis alignment, without its translation, puts it into the aligned frame, and the agent looks along -x of
    its own rotation. (Checked on the test split: agents that sit are then at what they sit on, and the objects that
    they say they face lie ahead.) Without the scene's matrix, place and direction stay unknown (None).

    Args:
        content: the questions file's, or a list of llava-style records.
        where: for error messages.
        split: see `read`.
        answers: the answers file's content.
        answers_where: for error messages.
        alignments: the scenes' axis-alignment matrices.

    Raises:
        StereopsisError: see `read`.
    """
    if is_llava_style(content):
        return _parse_llava(content, where)
    if not isinstance(content, dict) or "questions" not in content or not isinstance(answers, dict):
        found = content if isinstance(content, dict) else (content or [{}])[0] if isinstance(content, list) else {}
        raise unknown_format(
            "sqa3d",
            where,
            found if isinstance(found, dict) else {},
            "'questions' (with the answers) or 'conversations'",
        )
    replies: dict[str, Entry] = {}
    for entry in Entry(answers_where, answers).children("annotations"):
        key = entry.name("question_id")
        if key in replies:
            raise StereopsisError(f"{entry.place}: sqa3d '{key}' is answered twice; remove one")
        replies[key] = entry
    placed: list[tuple[str, AnnotationRecord]] = []
    asked: set[str] = set()
    for entry in Entry(where, content).children("questions"):
        key = entry.name("question_id")
        if key in asked:
            raise StereopsisError(
                f"{entry.place}: sqa3d '{key}' is there twice; a duplicate would count double, remove it"
            )
        if key not in replies:
            raise StereopsisError(f"{entry.place}: question '{key}' has no answer in {answers_where}")
        asked.add(key)
        reply = replies[key]
        situations = [entry.text("situation")]
        if split == "train" and entry.content.get("alternative_situation"):
            situations += entry.texts("alternative_situation")
        for number, situation in enumerate(situations, start=1):
            record = _record(entry, reply, key if number == 1 else f"{key}#{number}", situation, alignments)
            placed.append((entry.place, record))
    if unasked := [key for key in replies if key not in asked]:
        raise StereopsisError(
            f"{answers_where}: answers {len(unasked)} questions that {where} does not ask, such as '{unasked[0]}'; take "
            "both files of the same split"
        )
    return without_duplicates(placed)


def _record(entry: Entry, reply: Entry, key: str, situation: str, alignments: Alignments | None) -> AnnotationRecord:
    question, scene_id = entry.text("question"), entry.text("scene_id")
    if reply.content.get("scene_id", scene_id) != scene_id:
        raise reply.wrong("scene_id", f"'{scene_id}', as in the questions file")
    answers = tuple(each.text("answer") for each in reply.children("answers"))
    position, yaw = _pose(reply, None if alignments is None else alignments.get(scene_id))
    return AnnotationRecord(
        annotation=Annotation(
            id=key,
            task="sqa3d",
            scene_id=scene_id,
            type=question_type(question),
            text=question,
            situation=situation,
            position=position,
            yaw=yaw,
            answers=answers,
        )
    )


def _pose(
    reply: Entry, alignment: Float[np.ndarray, "4 4"] | None
) -> tuple[tuple[float, float, float] | None, float | None]:
    """Place in the aligned frame (metres) and facing direction (radians from +x, in -pi..pi)."""
    if "position" not in reply.content or "rotation" not in reply.content:
        return None, None
    position, rotation = reply.child("position"), reply.child("rotation")
    place = np.array([position.number(axis) for axis in "xyz"])
    x, y, z, w = (rotation.number(f"_{axis}") for axis in "xyzw")
    if alignment is None:
        return None, None
    turn = alignment[:3, :3]
    heading = turn @ np.array([2 * (y * y + z * z) - 1, -2 * (x * y + w * z), 0.0])
    aligned = turn @ place
    return (float(aligned[0]), float(aligned[1]), float(aligned[2])), math.atan2(heading[1], heading[0])


def _parse_llava(content: Any, where: str) -> tuple[AnnotationRecord, ...]:
    placed, times, seen = [], Counter[str](), set[tuple[str, str]]()
    for entry in entries(content, where):
        record = llava_record(entry)
        kind = record.metadata.text("question_type").lower()
        if kind not in QUESTION_TYPES:
            raise record.metadata.wrong("question_type", f"one of {', '.join(QUESTION_TYPES)}")
        words = record.between("", SUFFIX)
        if (record.id, words) in seen:
            raise StereopsisError(f"{entry.place}: sqa3d '{record.id}' asks the same twice; remove the duplicate")
        seen.add((record.id, words))
        times[record.id] += 1  # the training files repeat a question for each wording of its situation
        if not record.answer.strip():
            raise entry.wrong("conversations", "an answer of 'gpt' that is not empty")
        annotation = Annotation(
            id=record.id if times[record.id] == 1 else f"{record.id}#{times[record.id]}",
            task="sqa3d",
            scene_id=record.scene_id,
            type=kind,
            text=words,
            answers=(record.answer,),
        )
        placed.append((entry.place, AnnotationRecord(annotation=annotation)))
    return without_duplicates(placed)
