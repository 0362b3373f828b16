"""A listed room becomes one labelled mesh: structure and furniture at their places, z up, floor at z = 0."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from stereopsis.errors import SceneError
from stereopsis.geometry.boxes import box_from_points
from stereopsis.geometry.mesh import TriangleMesh, join_meshes
from stereopsis.scenes.bad_frames import OnBadFrame
from stereopsis.scenes.readers.front3d.house import Damaged, House, HouseRoom, Unavailable
from stereopsis.scenes.readers.front3d.models import FOLDER, category_colour, load_model, model_facts
from stereopsis.scenes.scene import SceneObject

Z_UP = np.array([[1.0, 0, 0, 0], [0, 0, -1.0, 0], [0, 1.0, 0, 0], [0, 0, 0, 1.0]])
"""From the files' y-up frame to the world: a quarter turn about x, so that (x, y, z) becomes (x, -z, y)."""

_STRUCTURE = {"floor": (150, 122, 94), "wall": (206, 202, 190), "ceiling": (232, 231, 226)}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class AssembledRoom:
    """A room's surfaces and objects in the world frame (z up, metres, floor at 0).

    Attributes:
        mesh: label 0 is structure, others are the objects' ids.
        floor: [triangles, 3, 3] the floor's triangles; none where the house lists no floor for this room.
        objects: without visible pixels.
        floor_height: the floor's height in the house's own frame, metres.
        left_out: {instance: reason} of what was not placed.
        left_out_counts: how many for each kind of reason.
    """

    mesh: TriangleMesh
    floor: Float[np.ndarray, "triangles 3 3"]
    objects: tuple[SceneObject, ...]
    floor_height: float
    left_out: Mapping[str, str]
    left_out_counts: Mapping[str, int]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Piece:
    """One placed child: a piece of furniture (with its record) or of structure (with its type)."""

    instance: str
    mesh: TriangleMesh
    record: Mapping[str, Any] | None
    type: str = ""


def assemble_room(
    house: House, room: HouseRoom, models: Path | None, *, on_bad_frame: OnBadFrame, max_bad_fraction: float
) -> AssembledRoom:
    """Place everything that stands in a room.

    Args:
        house: the parsed house.
        room: one of its rooms.
        models: the folder of 3D-FUTURE models; None where there is none.
        on_bad_frame: "raise" stops at the first damaged thing; "skip" leaves damaged things out and counts them.
            What the data set does not publish is always left out and counted.
        max_bad_fraction: the share of damaged things at which "skip" stops, too.

    Raises:
        SceneError: something is damaged and the policy is "raise", too much is damaged, every model is missing,
            or nothing is left to see.
    """
    pieces: list[_Piece] = []
    left_out: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for index, child in enumerate(room.children):
        name = _instance(child, index, left_out)
        try:
            pieces.append(_place(house, child, name, models))
        except Unavailable as reason:
            left_out[name] = f"{reason.kind}: {reason}"
            counts[reason.kind] += 1
        except Damaged as reason:
            message = f"{house.path}: room '{room.name}', '{name}': {reason}"
            if on_bad_frame == "raise":
                raise SceneError(
                    f"{message}; repair or restore the file, or leave damaged things out with on_bad_frame='skip'"
                ) from reason
            left_out[name] = f"damaged: {reason}"
            counts["damaged"] += 1
    _check_share(house, room, models, pieces, left_out, counts, max_bad_fraction)
    return _join(pieces, left_out, counts)


def _instance(child: Any, index: int, taken: Mapping[str, str]) -> str:
    name = str(child.get("instanceid") or f"child-{index}") if isinstance(child, dict) else f"child-{index}"
    return name if name not in taken else f"{name}~{index}"


def _check_share(
    house: House,
    room: HouseRoom,
    models: Path | None,
    pieces: list[_Piece],
    left_out: Mapping[str, str],
    counts: Mapping[str, int],
    max_bad_fraction: float,
) -> None:
    where = f"{house.path}: room '{room.name}'"
    first = "\n  ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:3])
    if counts.get("damaged", 0) > max_bad_fraction * len(room.children):
        raise SceneError(
            f"{where}: {counts['damaged']} of {len(room.children)} things are damaged, more than the tolerated "
            f"{max_bad_fraction:.0%}; restore the file, or raise max_bad_fraction; the first reasons:\n  {first}"
        )
    if counts.get("missing model", 0) and not any(piece.record is not None for piece in pieces):
        folder = "no folder of models was found" if models is None else f"looked in {models}"
        raise SceneError(
            f"{where}: none of its {counts['missing model']} furniture models was found ({folder}); expected "
            f"{FOLDER}/MODEL_ID/raw_model.obj beside the house or above it; name the folder with models=..."
        )
    if not pieces:
        raise SceneError(
            f"{where}: nothing in it can be shown; expected floor, walls or furniture; choose another room"
            + (f"; the first reasons:\n  {first}" if first else "")
        )


def _place(house: House, child: Any, name: str, models: Path | None) -> _Piece:
    if not isinstance(child, dict):
        raise Damaged(f"the entry is a {type(child).__name__}, expected a record with ref, pos, rot and scale")
    ref = child.get("ref")
    found = [*house.furniture.get(str(ref), ()), *house.meshes.get(str(ref), ())]
    if not found:
        raise Unavailable("dangling reference", f"the house lists neither furniture nor mesh '{ref}'")
    if len(found) > 1:
        raise Damaged(f"uid '{ref}' is used for {len(found)} different things")
    T = Z_UP @ _child_transform(child)
    if str(ref) in house.meshes:
        if found[0].get("xyz") == [] or found[0].get("faces") == []:
            raise Unavailable("empty mesh", f"mesh '{ref}' has no triangles")
        return _Piece(instance=name, mesh=_structure(house, found[0]).transformed(T), record=None, type=_type(found[0]))
    record = found[0]
    if record.get("valid", True) is False:
        raise Unavailable("not valid", f"the house marks furniture '{ref}' as not valid")
    if models is None:
        raise Unavailable("missing model", f"there is no folder {FOLDER} beside the house or above it")
    mesh = load_model(models, record.get("jid"), furniture_label(record, {}))
    facts = model_facts(models).get(str(record.get("jid")), {})
    placed = mesh.transformed(T)
    if not np.isfinite(placed.triangles).all():
        raise Damaged("its corners are NaN or inf after placing")
    return _Piece(instance=name, mesh=placed, record={**record, "facts": facts})


def _child_transform(child: Mapping[str, Any]) -> Float[np.ndarray, "4 4"]:
    """[4, 4]: scale, then turn, then move, in the files' y-up frame."""
    scale, turn, translation = (_numbers(child, key, count) for key, count in (("scale", 3), ("rot", 4), ("pos", 3)))
    if (np.abs(scale) < 1e-9).any():
        raise Damaged(f"scale {scale.tolist()} has a zero")
    if np.linalg.norm(turn) < 1e-6:
        raise Damaged("rot is the zero quaternion, which is no rotation")
    T = np.eye(4)
    T[:3, :3] = Rotation.from_quat(turn).as_matrix() * scale
    T[:3, 3] = translation
    return T


def _numbers(record: Mapping[str, Any], key: str, count: int) -> np.ndarray:
    value = record.get(key)
    try:
        numbers = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise Damaged(f"{key} is {str(value)[:60]}, expected {count} numbers") from error
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise Damaged(f"{key} is {str(value)[:60]}, expected {count} finite numbers")
    return numbers


def _type(record: Mapping[str, Any]) -> str:
    return str(record.get("type") or "").strip()


def _structure(house: House, record: Mapping[str, Any]) -> TriangleMesh:
    """A listed mesh in the files' frame."""
    try:
        xyz = np.array(record.get("xyz"), dtype=np.float64)
        faces = np.array(record.get("faces"), dtype=np.float64)
        if xyz.ndim != 1 or len(xyz) % 3 or faces.ndim != 1 or len(faces) % 3 or not len(faces):
            raise ValueError(f"xyz has shape {xyz.shape} and faces {faces.shape}; expected flat lists of triples")
        if not (np.isfinite(faces).all() and (faces == np.floor(faces)).all()):
            raise ValueError("faces are not whole numbers")
        vertices = xyz.reshape(-1, 3)
        colour = house.colours.get(str(record.get("material")), _structure_colour(_type(record)))
        painted = np.tile(np.array(colour, dtype=np.uint8), (len(vertices), 1))
        return TriangleMesh.from_faces(vertices, faces.reshape(-1, 3).astype(np.int64), painted)
    except (TypeError, ValueError) as error:
        raise Damaged(f"mesh '{record.get('uid')}' is unusable: {error}") from error


def _structure_colour(kind: str) -> tuple[int, int, int]:
    for word, colour in _STRUCTURE.items():
        if word in kind.lower():
            return colour
    return category_colour(kind)


def furniture_label(record: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """The category in lower case: of model_info.json, else of the house, else the end of the title."""
    title = str(record.get("title") or "").split("/")[-1]
    for name in (facts.get("category"), record.get("category"), title, facts.get("super-category")):
        if isinstance(name, str) and name.strip():
            return name.strip().lower()
    return "furniture"


def _join(pieces: list[_Piece], left_out: Mapping[str, str], counts: Mapping[str, int]) -> AssembledRoom:
    floors = [piece.mesh.triangles for piece in pieces if piece.type.lower() == "floor"]
    floor = np.concatenate(floors) if floors else np.zeros((0, 3, 3))
    everything = floor if len(floor) else np.concatenate([piece.mesh.triangles for piece in pieces])
    level = float(np.median(floor[..., 2]) if len(floor) else everything[..., 2].min())
    down = np.eye(4)
    down[2, 3] = -level
    meshes: list[TriangleMesh] = []
    objects: list[SceneObject] = []
    for piece in pieces:
        mesh = piece.mesh.transformed(down)
        if piece.record is not None:
            objects.append(_object(len(objects) + 1, piece, mesh))
            mesh = mesh.labelled(len(objects))
        meshes.append(mesh)
    return AssembledRoom(
        mesh=join_meshes(meshes),
        floor=floor - (0.0, 0.0, level),
        objects=tuple(objects),
        floor_height=level,
        left_out=left_out,
        left_out_counts=dict(counts),
    )


def _object(number: int, piece: _Piece, mesh: TriangleMesh) -> SceneObject:
    assert piece.record is not None
    facts = piece.record["facts"]
    told = {
        "instance": piece.instance,
        "model": piece.record.get("jid"),
        "title": piece.record.get("title"),
        "super_category": facts.get("super-category"),
        "style": facts.get("style"),
        "theme": facts.get("theme"),
        "material": facts.get("material"),
    }
    return SceneObject(
        id=number,
        label=furniture_label(piece.record, facts),
        box=box_from_points(mesh.triangles),
        attributes={key: value for key, value in told.items() if isinstance(value, str) and value},
    )
