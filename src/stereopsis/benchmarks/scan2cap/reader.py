"""Scan2Cap's annotations: made from ScanRefer's files, or read from Video-3D-LLM's ``scan2cap_*_llava_style.json``.

For evaluation there is one annotation per object, "SCENE|OBJECT", whose references are all of its descriptions; for
training one per description, "SCENE|OBJECT|ANNOTATION".
"""

from typing import Any

from stereopsis.benchmarks.annotation_files import AnnotationRecord, Entry, entries, without_duplicates
from stereopsis.benchmarks.llava_style import is_llava_style, llava_record
from stereopsis.benchmarks.scanrefer.reader import Description, descriptions, eval_type
from stereopsis.scenes.annotations import Annotation

DEFAULT_SPLIT = "val"
FILES = ("ScanRefer_filtered_{split}.json", "scan2cap_{split}_llava_style.json")


def parse(content: Any, where: str, *, split: str | None = None) -> tuple[AnnotationRecord, ...]:
    """Annotations of content that was read from `where`.

    Args:
        content: a list of records.
        where: for error messages.
        split: "train" gives one annotation per description of ScanRefer's file, everything else one per object.

    Raises:
        StereopsisError: the content has another form, an entry is damaged, or an id is there twice.
    """
    if is_llava_style(content):
        return without_duplicates((entry.place, _llava(entry)) for entry in entries(content, where))
    said = descriptions(content, where)
    single = without_duplicates((each.place, _record([each], True)) for each in said)
    if split == "train":
        return single
    # An object under two names would be two objects in the published preparation. No real file has one; it is refused.
    groups: dict[tuple[str, int, str], list[Description]] = {}
    for each in said:
        groups.setdefault((each.scene_id, each.object_id, each.object_name), []).append(each)
    return without_duplicates((group[0].place, _record(group, False)) for group in groups.values())


def _record(said: list[Description], single: bool) -> AnnotationRecord:
    first = said[0]
    key = f"{first.scene_id}|{first.object_id}"
    return AnnotationRecord(
        annotation=Annotation(
            id=f"{key}|{first.ann_id}" if single else key,
            task="scan2cap",
            scene_id=first.scene_id,
            type=first.type,
            answers=tuple(each.text for each in said),
            object_ids=(first.object_id,),
        ),
        names=first.names,
        targets=None if first.box is None else (first.box,),
    )


def _llava(entry: Entry) -> AnnotationRecord:
    record = llava_record(entry)
    object_id = record.metadata.integer("object_id")
    key = f"{record.scene_id}|{object_id}"
    evaluated = "annotations" in entry.content
    target = entry.box("gt_box")
    if not evaluated and not record.answer.strip():
        raise entry.wrong("conversations", "a caption of 'gpt' that is not empty")
    return AnnotationRecord(
        annotation=Annotation(
            id=key if evaluated else f"{key}|{record.metadata.name('ann_id')}",
            task="scan2cap",
            scene_id=record.scene_id,
            type=eval_type(record.metadata, "question_type"),
            answers=entry.texts("annotations") if evaluated else (record.answer,),
            object_ids=(object_id,),
        ),
        names=(record.id,),
        targets=None if target is None else (target,),
        query=entry.box("box_input"),
    )
