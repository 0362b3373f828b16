"""Multi3DRefer's annotation files: ``multi3drefer_*.json``, or Video-3D-LLM's ``multi3drefer_*_llava_style.json``.

Ids are "SCENE|OBJECTS|ANNOTATION", OBJECTS being the instance ids joined by "-" or "none". Where two different
descriptions share these three (the files number descriptions per described object, which descriptions without a target
do not name), the later ones get "#2", "#3" at the end, in the order of the file.
"""

from collections import Counter
from typing import Any

from stereopsis.benchmarks.annotation_files import (
    AnnotationRecord,
    Box,
    Entry,
    entries,
    unknown_format,
    without_duplicates,
)
from stereopsis.benchmarks.llava_style import is_llava_style, llava_record
from stereopsis.benchmarks.multi3drefer.metric import TYPES
from stereopsis.benchmarks.multi3drefer.prompt import SUFFIX
from stereopsis.benchmarks.scanrefer.prompt import PREFIX
from stereopsis.errors import StereopsisError
from stereopsis.scenes.annotations import Annotation

DEFAULT_SPLIT = "val"
FILES = ("multi3drefer_{split}.json", "multi3drefer_{split}_llava_style.json")


def parse(content: Any, where: str, *, split: str | None = None) -> tuple[AnnotationRecord, ...]:
    """Annotations of content that was read from `where`.

    Args:
        content: a list of records.
        where: for error messages.
        split: not needed here.

    Raises:
        StereopsisError: the content has another form, an entry is damaged, or a description is there twice.
    """
    listed = entries(content, where)
    if is_llava_style(content):
        found = [_llava(entry) for entry in listed]
    elif "object_ids" in listed[0].content:
        found = [_official(entry, index) for index, entry in enumerate(listed)]
    else:
        raise unknown_format(
            "multi3drefer", where, listed[0].content, "'scene_id', 'object_ids', 'ann_id', 'eval_type', 'description'"
        )
    times: Counter[str] = Counter()
    seen: dict[tuple[str, str, str], str] = {}
    placed = []
    for entry, (key, own_number, record) in zip(listed, found, strict=True):
        words = record["text"].casefold()
        if (key, own_number, words) in seen:
            raise StereopsisError(
                f"{entry.place}: multi3drefer '{key}' is there twice (first: {seen[key, own_number, words]}); "
                "a duplicate would count double, remove it"
            )
        seen[key, own_number, words] = entry.place.rsplit(": ", 1)[-1]
        times[key] += 1
        placed.append((entry.place, _record(key if times[key] == 1 else f"{key}#{times[key]}", record)))
    return without_duplicates(placed)


def _record(key: str, parts: dict[str, Any]) -> AnnotationRecord:
    return AnnotationRecord(
        annotation=Annotation(
            id=key,
            task="multi3drefer",
            scene_id=parts["scene_id"],
            type=parts["type"],
            text=parts["text"],
            object_ids=parts["object_ids"],
        ),
        names=(parts["name"],),
        targets=parts["targets"],
    )


def _key(scene_id: str, object_ids: tuple[int, ...], ann_id: str) -> str:
    return f"{scene_id}|{'-'.join(map(str, object_ids)) or 'none'}|{ann_id}"


def _type(entry: Entry, key: str) -> str:
    kind = entry.content.get(key)
    if kind not in TYPES:
        raise entry.wrong(key, f"one of {', '.join(TYPES)}")
    return str(kind)


def _official(entry: Entry, index: int) -> tuple[str, str, dict[str, Any]]:
    scene_id, object_ids = entry.text("scene_id"), entry.integers("object_ids")
    parts = {
        "scene_id": scene_id,
        "type": _type(entry, "eval_type"),
        "text": entry.text("description"),
        "object_ids": object_ids,
        "name": str(index),
        "targets": _targets(entry, "boxes", object_ids),
    }
    own_number = entry.name("object_id") if entry.content.get("object_id") is not None else ""
    return _key(scene_id, object_ids, entry.name("ann_id")), own_number, parts


def _llava(entry: Entry) -> tuple[str, str, dict[str, Any]]:
    record = llava_record(entry)
    object_ids = record.metadata.integers("object_id")
    parts = {
        "scene_id": record.scene_id,
        "type": _type(record.metadata, "question_type"),
        "text": record.between(PREFIX, SUFFIX),
        "object_ids": object_ids,
        "name": record.id,
        "targets": _targets(entry, "box", object_ids),
    }
    return _key(record.scene_id, object_ids, record.metadata.name("ann_id")), record.id, parts


def _targets(entry: Entry, key: str, object_ids: tuple[int, ...]) -> tuple[Box, ...] | None:
    boxes = entry.boxes(key)
    if boxes is not None and len(boxes) != len(object_ids):
        raise entry.wrong(key, f"one box for each of the {len(object_ids)} objects")
    return boxes
