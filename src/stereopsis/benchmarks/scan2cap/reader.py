"""Scan2Cap's annotations: made from ScanRefer's files, or read from Video-3D-LLM's ``scan2cap_*_llava_style.json``.

For evaluation there is one annotation per object, "SCENE|OBJECT", whose references are all of its descriptions; for
training one per description, "SCENE|OBJECT|ANNOTATION".
"""

from collections.abc import Iterator, Sequence

from stereopsis.annotations import Annotation, AnnotationRecord
from stereopsis.benchmarks.files.annotation_files import AnnotationFile, without_duplicates
from stereopsis.benchmarks.files.llava_style import LlavaRecord
from stereopsis.benchmarks.scanrefer.reader import Description, descriptions, eval_type

FILES = ("ScanRefer_filtered_{split}.json", "scan2cap_{split}_llava_style.json")


def read(file: AnnotationFile) -> tuple[AnnotationRecord, ...]:
    """Annotations of ScanRefer's file: one per object, or for the split "train" one per description.

    Raises:
        StereopsisError: the file has another form, an entry is damaged, or an id is there twice.
    """
    said = descriptions(file.content, str(file.path))
    single = without_duplicates((each.place, _record([each], True)) for each in said)
    if file.split == "train":
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


def processed(records: Sequence[LlavaRecord], split: str | None = None) -> Iterator[tuple[str, AnnotationRecord]]:
    """Annotations of processed records; one with a list of reference captions is evaluated, others are trained on.

    Raises:
        StereopsisError: a record is damaged.
    """
    for record in records:
        entry, object_id = record.entry, record.metadata.integer("object_id")
        key, evaluated, target = f"{record.scene_id}|{object_id}", "annotations" in entry.content, entry.box("gt_box")
        annotation = Annotation(
            id=key if evaluated else f"{key}|{record.metadata.name('ann_id')}",
            task="scan2cap",
            scene_id=record.scene_id,
            type=eval_type(record.metadata, "question_type"),
            answers=entry.texts("annotations") if evaluated else (record.said(),),
            object_ids=(object_id,),
        )
        yield (
            record.place,
            AnnotationRecord(
                annotation=annotation,
                names=(record.id,),
                targets=None if target is None else (target,),
                query=entry.box("box_input"),
                words=record.words,
            ),
        )
