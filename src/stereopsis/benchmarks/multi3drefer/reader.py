"""Multi3DRefer's annotation files: ``multi3drefer_*.json``, or Video-3D-LLM's ``multi3drefer_*_llava_style.json``.

Ids are "SCENE|OBJECTS|ANNOTATION", OBJECTS being the instance ids joined by "-" or "none". Where two different
descriptions share these three (the files number descriptions per described object, which descriptions without a target
do not name), the later ones get "#2", "#3" at the end, in the order of the file.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from stereopsis.annotations import Annotation, AnnotationRecord, Box
from stereopsis.benchmarks.files.annotation_files import (
    AnnotationFile,
    Entry,
    entries,
    unknown_format,
    without_duplicates,
)
from stereopsis.benchmarks.files.llava_style import LlavaRecord
from stereopsis.benchmarks.multi3drefer.metric import TYPES
from stereopsis.benchmarks.multi3drefer.prompt import SUFFIX
from stereopsis.benchmarks.scanrefer.prompt import PREFIX
from stereopsis.errors import StereopsisError

FILES = ("multi3drefer_{split}.json", "multi3drefer_{split}_llava_style.json")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Description:
    """A description; `own_number` tells those apart that have one key and speak of different objects."""

    place: str
    scene_id: str
    object_ids: tuple[int, ...]
    ann_id: str
    own_number: str
    type: str
    text: str
    name: str
    targets: tuple[Box, ...] | None
    words: str = ""

    @property
    def key(self) -> str:
        return f"{self.scene_id}|{'-'.join(map(str, self.object_ids)) or 'none'}|{self.ann_id}"


def read(file: AnnotationFile) -> tuple[AnnotationRecord, ...]:
    """Annotations of the authors' file.

    Raises:
        StereopsisError: the file has another form, an entry is damaged, or a description is there twice.
    """
    where = str(file.path)
    listed = entries(file.content, where)
    if "object_ids" not in listed[0].content:
        raise unknown_format(
            "multi3drefer", where, listed[0].content, "'scene_id', 'object_ids', 'ann_id', 'eval_type', 'description'"
        )
    return without_duplicates(_numbered(_official(entry, index) for index, entry in enumerate(listed)))


def processed(records: Sequence[LlavaRecord], split: str | None = None) -> Iterator[tuple[str, AnnotationRecord]]:
    """Annotations of processed records.

    Raises:
        StereopsisError: a record is damaged, or a description is there twice.
    """
    return _numbered(map(_llava, records))


def _numbered(said: Iterable[_Description]) -> Iterator[tuple[str, AnnotationRecord]]:
    times: Counter[str] = Counter()
    seen: dict[tuple[str, str, str], str] = {}
    for each in said:
        same = (each.key, each.own_number, each.text.casefold())
        if same in seen:
            raise StereopsisError(
                f"{each.place}: multi3drefer '{each.key}' is there twice (first: {seen[same]}); "
                "a duplicate would count double, remove it"
            )
        seen[same] = each.place.rsplit(": ", 1)[-1]
        times[each.key] += 1
        annotation = Annotation(
            id=each.key if times[each.key] == 1 else f"{each.key}#{times[each.key]}",
            task="multi3drefer",
            scene_id=each.scene_id,
            type=each.type,
            text=each.text,
            object_ids=each.object_ids,
        )
        yield (
            each.place,
            AnnotationRecord(annotation=annotation, names=(each.name,), targets=each.targets, words=each.words),
        )


def _type(entry: Entry, key: str) -> str:
    kind = entry.content.get(key)
    if kind not in TYPES:
        raise entry.wrong(key, f"one of {', '.join(TYPES)}")
    return str(kind)


def _official(entry: Entry, index: int) -> _Description:
    object_ids = entry.integers("object_ids")
    return _Description(
        place=entry.place,
        scene_id=entry.text("scene_id"),
        object_ids=object_ids,
        type=_type(entry, "eval_type"),
        text=entry.text("description"),
        ann_id=entry.name("ann_id"),
        own_number=entry.name("object_id") if entry.content.get("object_id") is not None else "",
        name=str(index),
        targets=_targets(entry, "boxes", object_ids),
    )


def _llava(record: LlavaRecord) -> _Description:
    object_ids = record.metadata.integers("object_id")
    return _Description(
        place=record.place,
        scene_id=record.scene_id,
        object_ids=object_ids,
        ann_id=record.metadata.name("ann_id"),
        own_number=record.id,
        type=_type(record.metadata, "question_type"),
        text=record.between(f"{PREFIX}\n", f"\n{SUFFIX}"),
        name=record.id,
        targets=_targets(record.entry, "box", object_ids),
        words=record.words,
    )


def _targets(entry: Entry, key: str, object_ids: tuple[int, ...]) -> tuple[Box, ...] | None:
    boxes = entry.boxes(key)
    if boxes is not None and len(boxes) != len(object_ids):
        raise entry.wrong(key, f"one box for each of the {len(object_ids)} objects")
    return boxes
