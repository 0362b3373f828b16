"""SQA3D's annotation files: questions and answers of the authors, or Video-3D-LLM's ``sqa3d_*_llava_style.json``."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from stereopsis.annotations import Annotation, AnnotationRecord
from stereopsis.benchmarks.files.annotation_files import (
    Alignments,
    AnnotationFile,
    Entry,
    read_json,
    unknown_format,
    without_duplicates,
)
from stereopsis.benchmarks.files.llava_style import LlavaRecord
from stereopsis.benchmarks.sqa3d.metric import QUESTION_TYPES, question_type
from stereopsis.benchmarks.sqa3d.prompt import SUFFIX
from stereopsis.errors import StereopsisError

FILES = ("v1_balanced_questions_{split}_scannetv2.json", "sqa3d_{split}_llava_style.json")
_QUESTIONS, _ANSWERS = "_questions_", "_sqa_annotations_"
_SENTENCE_END = re.compile(r"[.?!][\"')]? ")


def read(file: AnnotationFile) -> tuple[AnnotationRecord, ...]:
    """Read a file of questions together with its file of answers beside it (either may be named).

    The split "train" gives one annotation for each wording of the situation (ids "ID", "ID#2", "ID#3").

    The files give the agent's place in axes of the raw scan around the origin of the aligned frame: turning it by the
    scene's axis alignment, without its translation, puts it into the aligned frame, and the agent looks along -x of
    its own rotation. (Checked on the test split: agents that sit are then at what they sit on, and the objects that
    they say they face lie ahead.) Without the scene's matrix, place and direction stay unknown (None).

    Raises:
        StereopsisError: a file is missing, damaged or of another form; an id is there twice; a question has no answer.
    """
    path = file.path
    if _ANSWERS in path.name:
        path = path.with_name(path.name.replace(_ANSWERS, _QUESTIONS))
    content = file.content if path == file.path else read_json(path)
    if not isinstance(content, dict) or "questions" not in content:
        found = content if isinstance(content, dict) else (content or [{}])[0] if isinstance(content, list) else {}
        found = found if isinstance(found, dict) else {}
        raise unknown_format("sqa3d", str(path), found, "'questions' (with the answers) or 'conversations'")
    partner = path.with_name(path.name.replace(_QUESTIONS, _ANSWERS))
    if partner == path or not partner.is_file():
        raise StereopsisError(
            f"{path}: has the questions only; the answers (v1_balanced_sqa_annotations_*.json) must lie beside it "
            f"under their official name, and {partner.name if partner != path else 'that file'} is not there"
        )
    replies = _replies(partner)
    placed: list[tuple[str, AnnotationRecord]] = []
    asked: set[str] = set()
    for entry in Entry(str(path), content).children("questions"):
        key = entry.name("question_id")
        if key in asked:
            raise StereopsisError(
                f"{entry.place}: sqa3d '{key}' is there twice; a duplicate would count double, remove it"
            )
        if key not in replies:
            raise StereopsisError(f"{entry.place}: question '{key}' has no answer in {partner}")
        asked.add(key)
        situations = [entry.text("situation")]
        if file.split == "train" and entry.content.get("alternative_situation"):
            situations += entry.texts("alternative_situation")
        for number, situation in enumerate(situations, start=1):
            record = _record(entry, replies[key], _wording(key, number), situation, file.alignments)
            placed.append((entry.place, record))
    if unasked := [key for key in replies if key not in asked]:
        raise StereopsisError(
            f"{partner}: answers {len(unasked)} questions that {path} does not ask, such as '{unasked[0]}'; "
            "take both files of the same split"
        )
    return without_duplicates(placed)


def processed(records: Sequence[LlavaRecord], split: str | None = None) -> Iterator[tuple[str, AnnotationRecord]]:
    """Annotations of processed records, with situation and question apart (see `split_situation`).

    The training file repeats a question for each wording of its situation ("ID", "ID#2", "ID#3"), and two of its
    wordings may be the same; elsewhere a repeated question would count double.

    Raises:
        StereopsisError: a record is damaged, or asks the same twice outside the training split.
    """
    times, seen = Counter[str](), set[tuple[str, str]]()
    for record in records:
        kind = record.metadata.text("question_type").lower()
        if kind not in QUESTION_TYPES:
            raise record.metadata.wrong("question_type", f"one of {', '.join(QUESTION_TYPES)}")
        situation, question = split_situation(record.between("", f" {SUFFIX}"), kind)
        if split != "train" and (record.id, record.words) in seen:
            raise StereopsisError(f"{record.place}: sqa3d '{record.id}' asks the same twice; remove the duplicate")
        seen.add((record.id, record.words))
        times[record.id] += 1
        annotation = Annotation(
            id=_wording(record.id, times[record.id]),
            task="sqa3d",
            scene_id=record.scene_id,
            type=kind,
            text=question,
            situation=situation,
            answers=(record.said(),),
        )
        yield record.place, AnnotationRecord(annotation=annotation, words=record.words)


def _wording(key: str, number: int) -> str:
    return key if number == 1 else f"{key}#{number}"


def split_situation(text: str, question_type: str) -> tuple[str, str]:
    """Part what SQA3D's processed files join with a blank: (situation, question).

    The question begins at the last sentence that starts with the word of its type ("what", "is", ...; "others": at
    the last sentence). Where the situation lacks its full stop, it begins at the last such word with a capital
    letter. Joined by one blank, the parts give the text again exactly. Of the 3 519 published test questions, all but
    two are parted where the original is; those two questions are of two sentences.

    Args:
        text: situation, blank, question.
        question_type: one of SQA3D's six.
    """
    starts = [match.end() for match in _SENTENCE_END.finditer(text)]
    word = "" if question_type == "others" else question_type
    fitting = [start for start in starts if text[start:].lstrip().lower().startswith(word)]
    if not fitting and word:
        fitting = [match.start() + 1 for match in re.finditer(rf" {re.escape(word.capitalize())}", text)]
    start = max(fitting or starts or [0])
    return (text[: start - 1], text[start:]) if start else ("", text)


def _replies(path: Path) -> dict[str, Entry]:
    """Answers by question."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise unknown_format("sqa3d", str(path), {}, "'annotations', the answers to the questions beside it")
    replies: dict[str, Entry] = {}
    for entry in Entry(str(path), content).children("annotations"):
        key = entry.name("question_id")
        if key in replies:
            raise StereopsisError(f"{entry.place}: sqa3d '{key}' is answered twice; remove one")
        replies[key] = entry
    return replies


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
