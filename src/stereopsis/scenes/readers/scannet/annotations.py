"""ScanNet's instances: which vertices of the mesh belong to which object, and the objects' boxes.

Three files tell it together. ``SCENE_vh_clean_2.ply`` is the mesh; ``SCENE_vh_clean_2.0.010000.segs.json`` gives each
vertex, by its place in the mesh, the id of a small segment; ``SCENE.aggregation.json`` lists the objects, each as a
label and a set of segments. The object's number there (``objectId``) is the one that annotations of ScanNet mean
by ``object_id``.
"""

import csv
import dataclasses
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from jaxtyping import Float, Int
from pydantic import BaseModel, Field, StrictStr, TypeAdapter, ValidationError

from stereopsis.errors import SceneError
from stereopsis.geometry.boxes import box_from_points
from stereopsis.geometry.camera import transform
from stereopsis.reading import read_json, read_text
from stereopsis.scenes.scene import SceneObject

NO_OBJECT = -1
_RESTORE = "restore the file from the data set"
_Id = Annotated[int, Field(strict=True, ge=0, lt=2**31)]


class _Group(BaseModel):
    """An object of the aggregation; its other fields are of no use here."""

    object_id: _Id = Field(alias="objectId")
    label: StrictStr
    segments: list[_Id]


_GROUPS = TypeAdapter(list[_Group])
_SEGMENTS = TypeAdapter(list[_Id])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Instance:
    """An object as the aggregation lists it.

    Attributes:
        id: its ``objectId``.
        label: what the annotator typed (ScanNet's "raw category").
        segments: ids of the segments that make it up.
    """

    id: int
    label: str
    segments: frozenset[int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelMapRow:
    """What the label map says of a raw label.

    Attributes:
        name: ScanNet's own category.
        nyu40_id: 1..40; 0 where the map has none.
        nyu40: the NYU40 class's name.
    """

    name: str
    nyu40_id: int
    nyu40: str


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ScanInstances:
    """A scan's objects.

    Attributes:
        objects: in the aggregation's order; boxes in the aligned frame. With a label map, the attributes hold
            "category", "nyu40" and "nyu40_id" where the map knows the label.
        vertex_objects: int32 [vertices] id of the object that each mesh vertex belongs to, -1 for none. A vertex that
            two objects claim goes to the one that is listed later.
        skipped: {"object ID (label)": why it is left out}: listed twice, or without any segment.
        contested_vertices: how many vertices more than one object claims.
        unknown_labels: {raw label: number of objects} that the label map does not know; empty without a map.
    """

    objects: tuple[SceneObject, ...]
    vertex_objects: Int[np.ndarray, "vertices"]
    skipped: Mapping[str, str]
    contested_vertices: int
    unknown_labels: Mapping[str, int]


def read_segments(path: Path) -> Int[np.ndarray, "vertices"]:
    """Read a ``.segs.json``: the segment id of each mesh vertex, int32.

    Raises:
        SceneError: the file is absent, no JSON, or its ``segIndices`` are no list of ids.
    """
    content = _read_json(path, "segIndices")
    try:
        return np.array(_SEGMENTS.validate_python(content["segIndices"]), dtype=np.int32)
    except ValidationError as error:
        raise _wrong(path, "segIndices", error) from error


def read_aggregation(path: Path) -> tuple[Instance, ...]:
    """Read an ``.aggregation.json``: the objects as sets of segments, in the file's order.

    Raises:
        SceneError: the file is absent, no JSON, or an object lacks its id, label or segments.
    """
    content = _read_json(path, "segGroups")
    try:
        groups = _GROUPS.validate_python(content["segGroups"])
    except ValidationError as error:
        raise _wrong(path, "segGroups", error) from error
    return tuple(Instance(id=item.object_id, label=item.label, segments=frozenset(item.segments)) for item in groups)


def read_label_map(path: Path) -> dict[str, LabelMapRow]:
    """Read ``scannetv2-labels.combined.tsv``: {raw label: category}.

    Raises:
        SceneError: the file is absent, lacks a column, or an NYU40 id is no number.
    """
    columns = ("raw_category", "category", "nyu40id", "nyu40class")
    try:
        rows = csv.DictReader(io.StringIO(read_text(path), newline=""), delimiter="\t", quoting=csv.QUOTE_NONE)
        missing = [name for name in columns if name not in (rows.fieldnames or ())]
        if missing:
            raise SceneError(
                f"{path}: lacks the columns {', '.join(missing)}; expected ScanNet's label map, columns separated "
                "by tabs; pass scannetv2-labels.combined.tsv"
            )
        return {
            row["raw_category"]: LabelMapRow(
                name=row["category"] or "", nyu40_id=int(row["nyu40id"] or 0), nyu40=row["nyu40class"] or ""
            )
            for row in rows
        }
    except (OSError, ValueError, csv.Error) as error:
        raise SceneError(
            f"{path}: cannot be read as a label map ({error}); expected ScanNet's scannetv2-labels.combined.tsv; "
            f"{_RESTORE}"
        ) from error


def make_instances(
    vertices: Float[np.ndarray, "vertices 3"],
    segments: Int[np.ndarray, "segmented"],
    instances: Sequence[Instance],
    T_aligned_world: Float[np.ndarray, "4 4"],
    *,
    label_map: Mapping[str, LabelMapRow] | None = None,
    where: str = "scan",
) -> ScanInstances:
    """Put segments and objects together with the mesh.

    Args:
        vertices: [vertices, 3] of the mesh, in its file's order, unaligned world, metres.
        segments: [vertices] segment id of each.
        instances: the aggregation's objects.
        T_aligned_world: world to the aligned frame.
        label_map: what to say of labels.
        where: the scan, for messages.

    Raises:
        SceneError: as many segment entries as vertices are needed, and every segment that an object names must exist:
            otherwise the files are of different meshes or releases. Two different objects may not share an id.
    """
    if len(segments) != len(vertices):
        raise SceneError(
            f"{where}: {len(segments)} segment entries for {len(vertices)} mesh vertices; expected one each; the "
            "segments belong to another mesh: take both files from the same release (…_vh_clean_2)"
        )
    kept, skipped = _distinct(instances, where)
    known, inverse = np.unique(segments, return_inverse=True)
    aligned = transform(T_aligned_world, np.asarray(vertices, dtype=np.float64))
    vertex_objects = np.full(len(vertices), NO_OBJECT, dtype=np.int32)
    claims = np.zeros(len(vertices), dtype=np.int32)
    objects = []
    unknown: Counter[str] = Counter()
    for item in kept:
        wanted = np.array(sorted(item.segments))
        lost = np.setdiff1d(wanted, known)
        if len(lost):
            raise SceneError(
                f"{where}: object {item.id} ({item.label}) names {len(lost)} segments that no vertex has (the first: "
                f"{lost[0]}); the aggregation belongs to another segmentation: take both files from the same release"
            )
        mine = np.isin(known, wanted)[inverse]
        vertex_objects[mine] = item.id
        claims[mine] += 1
        attributes: dict[str, Any] = {}
        if label_map is not None and item.label in label_map:
            category = label_map[item.label]
            attributes = {"category": category.name, "nyu40": category.nyu40, "nyu40_id": category.nyu40_id}
        elif label_map is not None:
            unknown[item.label] += 1
        objects.append(
            SceneObject(id=item.id, label=item.label, box=box_from_points(aligned[mine]), attributes=attributes)
        )
    return ScanInstances(
        objects=tuple(objects),
        vertex_objects=vertex_objects,
        skipped=skipped,
        contested_vertices=int((claims > 1).sum()),
        unknown_labels=dict(unknown),
    )


def _distinct(instances: Sequence[Instance], where: str) -> tuple[list[Instance], dict[str, str]]:
    """Objects without those listed twice (one scan of the release lists all of its objects so) and empty ones."""
    kept: list[Instance] = []
    skipped: dict[str, str] = {}
    by_id: dict[int, Instance] = {}
    by_segments: dict[tuple[str, frozenset[int]], Instance] = {}
    for number, item in enumerate(instances):
        name = f"object {item.id} ({item.label})"
        twin = by_segments.get((item.label, item.segments))
        if not item.segments:
            skipped[f"{name}, entry {number}"] = "it has no segments, so no surface"
        elif twin is not None:
            skipped[f"{name}, entry {number}"] = f"the same label and segments as object {twin.id}"
        elif item.id in by_id:
            raise SceneError(
                f"{where}: the aggregation has two different objects of id {item.id} ({by_id[item.id].label}, "
                f"{item.label}); expected ids that differ; {_RESTORE}"
            )
        else:
            kept.append(item)
            by_id[item.id] = item
            by_segments[item.label, item.segments] = item
    return kept, skipped


def _read_json(path: Path, key: str) -> dict[str, Any]:
    try:
        content = read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        raise SceneError(
            f"{path}: cannot be read as JSON ({error}); expected an object that holds '{key}'; {_RESTORE}"
        ) from error
    if not isinstance(content, dict) or key not in content:
        raise SceneError(f"{path}: holds no '{key}'; expected ScanNet's layout; {_RESTORE}")
    return content


def _wrong(path: Path, key: str, error: ValidationError) -> SceneError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in (key, *first["loc"]))
    return SceneError(f"{path}: field '{key}': {first['msg']} (found {str(first['input'])[:60]}); {_RESTORE}")
