"""The processed annotations of Video-3D-LLM, Ross3D and 3DRS: ``data/processed/*_llava_style.json``.

A file is a list of conversations of two turns. The human's turn wraps the question in an image token and the
benchmark's instructions; here it is unwrapped, so that an `Annotation` holds the bare question or description, as
from every other source. `stereopsis.benchmarks` puts the same words around it again.
"""

import collections
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from stereopsis.errors import SceneError
from stereopsis.geometry.boxes import check_boxes
from stereopsis.scenes.annotations import Annotation, Task

IMAGE_TOKEN = "<image>"
SQA3D_SUFFIX = "Answer the question using a single word or phrase."
SCANQA_SUFFIX = "Answer the question simply."
GROUNDING_PREFIX = "Identify the object according to the following description."
MULTI3DREFER_SUFFIX = "There may be no corresponding object, or there may be one or more objects."
SCAN2CAP_PROMPT = "Given an object located at <coord> , describe the object in detail."
_WRAPPING: dict[Task, tuple[str, str]] = {
    "sqa3d": ("", f" {SQA3D_SUFFIX}"),
    "scanqa": ("", f" {SCANQA_SUFFIX}"),
    "scan2cap": (SCAN2CAP_PROMPT, ""),
    "scanrefer": (f"{GROUNDING_PREFIX}\n", ""),
    "multi3drefer": (f"{GROUNDING_PREFIX}\n", f"\n{MULTI3DREFER_SUFFIX}"),
}
_NUMBERED: tuple[Task, ...] = ("scan2cap", "scanrefer", "multi3drefer")  # their ids are row numbers of one file
_VIDEO_PREFIX = "scannet/"
_REMEDY = "write the file again with Video-3D-LLM's preprocessing scripts, or repair the record"
_SENTENCE_END = re.compile(r"[.?!][\"')]? ")


class ProcessedSample(NamedTuple):
    """One record of a processed file; a tuple, because a training set has 223 128 of them.

    Attributes:
        annotation: what is asked and what is right.
        boxes: [targets, 6] true boxes of ``annotation.object_ids``, in their order, cx cy cz dx dy dz, aligned frame,
            metres; empty where the file has none (questions, test splits).
        box_input: [6] the box that ``<coord>`` speaks of (scan2cap): the object's own for training, the best proposal
            for validation; None where there is none.
    """

    annotation: Annotation
    boxes: Float[np.ndarray, "targets 6"]
    box_input: Float[np.ndarray, "6"] | None


def read_samples(path: Path) -> tuple[ProcessedSample, ...]:
    """Read a processed annotation file.

    Ids of SQA3D and ScanQA are the file's own; SQA3D's training file repeats a question's id for its alternative
    situations, and the repetitions get "/1" and "/2" after it. The other tasks' ids are row numbers, which mean
    nothing outside their file: they become "scanrefer-SCENE-17". ScanQA's question type "unknow" is read as "unknown".

    Returns:
        The records, in the file's order; tasks may be mixed.

    Raises:
        SceneError: no such file, not JSON, or a record is of another form; the message names record and field.
    """
    try:
        records = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise SceneError(f"{path}: does not exist; check the path") from error
    except (OSError, ValueError, RecursionError) as error:
        raise SceneError(f"{path}: cannot be read as JSON ({error}); copy the file again") from error
    if not isinstance(records, list):
        raise SceneError(f"{path}: found a {type(records).__name__}, expected a list of records; {_REMEDY}")
    samples: list[ProcessedSample] = []
    seen: collections.Counter[str] = collections.Counter()
    for number, record in enumerate(records):
        where = f"{path}: record {number}"
        if not isinstance(record, dict):
            raise SceneError(f"{where}: found {_shown(record)}, expected an object; {_REMEDY}")
        samples.append(_sample(record, where, seen))
    return tuple(samples)


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


def _sample(record: Mapping[str, Any], where: str, seen: collections.Counter[str]) -> ProcessedSample:
    metadata = record.get("metadata")
    if not isinstance(metadata, dict):
        raise SceneError(f"{where}: 'metadata' is {_shown(metadata)}, expected an object; {_REMEDY}")
    task = _task(metadata.get("dataset"), where)
    asked, answer = _turns(record.get("conversations"), where)
    question_type = metadata.get("question_type", "unknown")
    if not isinstance(question_type, str):
        raise SceneError(f"{where}: 'question_type' is {_shown(question_type)}, expected a text; {_REMEDY}")
    video = record.get("video")
    if not isinstance(video, str) or not video.startswith(_VIDEO_PREFIX):
        raise SceneError(f"{where}: 'video' is {_shown(video)}, expected 'scannet/SCENE'; {_REMEDY}")
    scene_id = video.removeprefix(_VIDEO_PREFIX)
    text = _unwrapped(asked, task, where)
    situation, text = split_situation(text, question_type) if task == "sqa3d" else ("", text)
    object_ids = _object_ids(metadata, task, where)
    annotation = Annotation(
        id=_unique_id(record.get("id"), task, scene_id, where, seen),
        task=task,
        scene_id=scene_id,
        type="unknown" if question_type == "unknow" else question_type,
        text=text,
        situation=situation,
        answers=_answers(record, metadata, task, answer, where),
        object_ids=object_ids,
    )
    return ProcessedSample(annotation, *_boxes(record, task, len(object_ids), where))


def _task(name: Any, where: str) -> Task:
    known: dict[str, Task] = {task: task for task in _WRAPPING}
    if not isinstance(name, str) or name.lower() not in known:
        raise SceneError(
            f"{where}: 'metadata.dataset' is {_shown(name)}, expected one of {', '.join(known)}; leave other "
            "benchmarks' records out"
        )
    return known[name.lower()]


def _turns(conversations: Any, where: str) -> tuple[str, str]:
    """What the human says and what the model answers."""
    turns = conversations if isinstance(conversations, list) else []
    speakers = [turn.get("from") if isinstance(turn, dict) else None for turn in turns]
    values = [turn["value"] for turn in turns if isinstance(turn, dict) and isinstance(turn.get("value"), str)]
    if speakers != ["human", "gpt"] or len(values) != 2:
        raise SceneError(
            f"{where}: 'conversations' is {_shown(conversations)}, expected two turns with 'value', from 'human' and "
            f"'gpt'; {_REMEDY}"
        )
    return values[0], values[1]


def _unwrapped(asked: str, task: Task, where: str) -> str:
    """The bare question or description, its own blanks kept."""
    before, after = _WRAPPING[task]
    body = asked.removeprefix(IMAGE_TOKEN)
    body = body[1:] if body[:1] in (" ", "\n") else body
    wrapped = body.startswith(before) and body.endswith(after) and len(body) >= len(before) + len(after)
    bare = body[len(before) : len(body) - len(after)]
    if not asked.startswith(IMAGE_TOKEN) or not wrapped or IMAGE_TOKEN in body or (task == "scan2cap") != (bare == ""):
        words = f"'{IMAGE_TOKEN} {before}...{after}'".replace("\n", "\\n")
        raise SceneError(
            f"{where}: the human's turn is {_shown(asked)}, expected {words} ({task}); files with other wording "
            "(such as boxes as text) are not read; write it with the 'cls' template"
        )
    return bare


def _object_ids(metadata: Mapping[str, Any], task: Task, where: str) -> tuple[int, ...]:
    if task in ("sqa3d", "scanqa"):
        return ()
    value = metadata.get("object_id")
    values = value if task == "multi3drefer" and isinstance(value, list) else [value]
    texts = [str(item) for item in values if isinstance(item, int | str) and not isinstance(item, bool)]
    if len(texts) != len(values) or not all(text.isdecimal() for text in texts):
        form = "a list of numbers" if task == "multi3drefer" else "a number"
        raise SceneError(f"{where}: 'metadata.object_id' is {_shown(value)}, expected {form}; {_REMEDY}")
    return tuple(map(int, texts))


def _answers(
    record: Mapping[str, Any], metadata: Mapping[str, Any], task: Task, answer: str, where: str
) -> tuple[str, ...]:
    if task in ("scanrefer", "multi3drefer"):
        return ()
    given = metadata.get("answers") if task == "scanqa" else record.get("annotations") if task == "scan2cap" else None
    values = [answer] if given is None else given
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise SceneError(f"{where}: the answers are {_shown(values)}, expected a list of texts; {_REMEDY}")
    return tuple(value for value in values if value.strip())


def _boxes(record: Mapping[str, Any], task: Task, targets: int, where: str) -> tuple[np.ndarray, np.ndarray | None]:
    if task in ("sqa3d", "scanqa"):
        return np.zeros((0, 6)), None
    if task == "multi3drefer":
        many = record.get("box")
        boxes = np.zeros((0, 6)) if many is None else _box_array(many, "box", where)
    else:
        name = "box" if task == "scanrefer" else "gt_box"
        one = record.get(name)
        boxes = np.zeros((0, 6)) if one is None else _box_array([one], name, where)
    if len(boxes) and len(boxes) != targets:
        raise SceneError(f"{where}: {len(boxes)} boxes for {targets} objects; expected one each; {_REMEDY}")
    shown = record.get("box_input") if task == "scan2cap" else None
    return boxes, None if shown is None else _box_array([shown], "box_input", where)[0]


def _box_array(values: Any, what: str, where: str) -> Float[np.ndarray, "boxes 6"]:
    try:
        boxes = np.array(values, dtype=np.float64) if values else np.zeros((0, 6))
        check_boxes(boxes, what)
        if boxes.ndim != 2:
            raise ValueError(f"{what}: shape {boxes.shape}")
    except (TypeError, ValueError) as error:
        raise SceneError(
            f"{where}: '{what}' is {_shown(values)} ({error}); expected six finite numbers cx cy cz dx dy dz per box, "
            f"metres; {_REMEDY}"
        ) from error
    return boxes


def _unique_id(value: Any, task: Task, scene_id: str, where: str, seen: collections.Counter[str]) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise SceneError(f"{where}: 'id' is {_shown(value)}, expected a number or a text; {_REMEDY}")
    unique = f"{task}-{scene_id}-{value}" if task in _NUMBERED else str(value)
    seen[unique] += 1
    if seen[unique] == 1:
        return unique
    if task != "sqa3d":
        raise SceneError(f"{where}: the id {_shown(value)} is another {task} record's, too; ids must differ; {_REMEDY}")
    return f"{unique}/{seen[unique] - 1}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
