"""ScanRefer's annotation files: the authors', one grouped by object, or Video-3D-LLM's ``scanrefer_vg_*`` ones.

Ids are "SCENE|OBJECT|ANNOTATION" in all of them.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from stereopsis.annotations import Annotation, AnnotationRecord, Box
from stereopsis.benchmarks.files.annotation_files import (
    AnnotationFile,
    Entry,
    entries,
    unknown_format,
    without_duplicates,
)
from stereopsis.benchmarks.files.llava_style import LlavaRecord
from stereopsis.benchmarks.scanrefer.classes import unique_or_multiple
from stereopsis.benchmarks.scanrefer.prompt import PREFIX

FILES = ("ScanRefer_filtered_{split}.json", "scanrefer_vg_{split}_llava_style.json")
TYPES = ("unique", "multiple")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Description:
    """One description of one object, as the authors' file lists them.

    Attributes:
        place: where it was read, for error messages.
        scene_id: its scene.
        object_id: ScanNet's instance id.
        object_name: ScanNet's name of the object ("office_chair").
        ann_id: tells the descriptions of an object apart.
        text: the description.
        type: "unique" or "multiple".
        box: of the object, aligned frame, metres; None where the file has none.
        names: its place in the authors' file, which prediction files call it by; none in files grouped by object.
        counted: whether the type was counted over the file, which states none.
    """

    place: str
    scene_id: str
    object_id: int
    object_name: str
    ann_id: str
    text: str
    type: str
    box: Box | None
    names: tuple[str, ...] = ()
    counted: bool = False


def read(file: AnnotationFile) -> tuple[AnnotationRecord, ...]:
    """Annotations of the authors' file, or of one that is grouped by object.

    Raises:
        StereopsisError: the file has another form, an entry is damaged, or an id is there twice.
    """
    return without_duplicates(
        (
            said.place,
            AnnotationRecord(
                annotation=Annotation(
                    id=f"{said.scene_id}|{said.object_id}|{said.ann_id}",
                    task="scanrefer",
                    scene_id=said.scene_id,
                    type=said.type,
                    text=said.text,
                    object_ids=(said.object_id,),
                ),
                names=said.names,
                counted_type=said.counted,
                targets=None if said.box is None else (said.box,),
            ),
        )
        for said in descriptions(file.content, str(file.path))
    )


def descriptions(content: Any, where: str) -> list[Description]:
    """The descriptions of the authors' form (one entry each) or grouped by object (``descriptions``, ``ref_captions``).

    The type is the file's ``eval_type`` where every entry has one; else it is computed from the whole content.

    Raises:
        StereopsisError: an entry lacks a field, or the content has another form.
    """
    listed = entries(content, where)
    if "description" in listed[0].content:
        found = [_single(entry, index) for index, entry in enumerate(listed)]
    elif {"descriptions", "ref_captions"} & set(listed[0].content):
        found = [said for entry in listed for said in _grouped(entry)]
    else:
        raise unknown_format(
            "scanrefer", where, listed[0].content, "'scene_id', 'object_id', 'object_name', 'ann_id' and 'description'"
        )
    if all(said.type for said in found):
        return found
    types = unique_or_multiple((said.scene_id, said.object_id, said.object_name) for said in found)
    return [dataclasses.replace(said, type=type, counted=True) for said, type in zip(found, types, strict=True)]


def _single(entry: Entry, index: int) -> Description:
    return Description(
        place=entry.place,
        scene_id=entry.text("scene_id"),
        object_id=entry.integer("object_id"),
        object_name=entry.text("object_name"),
        ann_id=entry.name("ann_id"),
        text=entry.text("description"),
        type=eval_type(entry, "eval_type") if "eval_type" in entry.content else "",
        box=entry.box("box"),
        names=(str(index),),
    )


def _grouped(entry: Entry) -> list[Description]:
    texts = entry.texts("descriptions" if "descriptions" in entry.content else "ref_captions")
    return [
        Description(
            place=entry.place,
            scene_id=entry.text("scene_id"),
            object_id=entry.integer("object_id" if "object_id" in entry.content else "obj_id"),
            object_name=entry.text("object_name"),
            ann_id=str(number),
            text=text,
            type="",
            box=entry.box("box"),
        )
        for number, text in enumerate(texts)
    ]


def eval_type(entry: Entry, key: str) -> str:
    """The field that says "unique" or "multiple".

    Raises:
        StereopsisError: it says something else.
    """
    if entry.content.get(key) not in TYPES:
        raise entry.wrong(key, "'unique' or 'multiple'")
    return str(entry.content[key])


def processed(records: Sequence[LlavaRecord], split: str | None = None) -> Iterator[tuple[str, AnnotationRecord]]:
    """Annotations of processed records.

    Raises:
        StereopsisError: a record is damaged.
    """
    for record in records:
        object_id, box = record.metadata.integer("object_id"), record.entry.box("box")
        annotation = Annotation(
            id=f"{record.scene_id}|{object_id}|{record.metadata.name('ann_id')}",
            task="scanrefer",
            scene_id=record.scene_id,
            type=eval_type(record.metadata, "question_type"),
            text=record.between(f"{PREFIX}\n", ""),
            object_ids=(object_id,),
        )
        targets = None if box is None else (box,)
        yield (
            record.place,
            AnnotationRecord(annotation=annotation, names=(record.id,), targets=targets, words=record.words),
        )
