"""Reader of 3D-FRONT houses: one scene per room, its views rendered when they are asked for.

A house is a JSON file; its furniture lies in a folder ``3D-FUTURE-model`` beside it or above it. The data set
holds no photographs: the views here are ray-cast along a planned walk, with two lamps and no cast shadows. The
same files and settings give the same bytes. Only what the house lists for the room is shown; rays that leave
through a door or a gap meet nothing (depth 0).
"""

import dataclasses
import functools
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from stereopsis.errors import SceneError
from stereopsis.geometry.camera import Intrinsics
from stereopsis.geometry.mesh import TriangleMesh
from stereopsis.reading import read_bytes
from stereopsis.scenes.bad_frames import MAX_BAD_FRACTION, OnBadFrame, check_policy
from stereopsis.scenes.readers.front3d.assemble import AssembledRoom, assemble_room
from stereopsis.scenes.readers.front3d.config import Front3DConfig
from stereopsis.scenes.readers.front3d.floor import plan_floor
from stereopsis.scenes.readers.front3d.house import House, read_house
from stereopsis.scenes.readers.front3d.models import find_models
from stereopsis.scenes.scene import Frame, Scene, SceneObject
from stereopsis.scenes.surfaces.lighting import Lighting, draw_lighting
from stereopsis.scenes.surfaces.mesh_views import MeshRenderer, MeshView
from stereopsis.scenes.walk import pinhole_intrinsics, plan_walk

EXPECTED_FILES = (
    "a 3D-FRONT house HOUSE.json (or a folder that holds one), with 3D-FUTURE-model/MODEL_ID/raw_model.obj beside it "
    "or above it; one room of several: HOUSE.json#ROOM"
)
_KEYS = (b'"furniture"', b'"mesh"', b'"scene"', b'"room"')
DEFAULT = Front3DConfig()


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Source:
    """Everything that determines a room's views; small, hashable and picklable."""

    house: Path
    changed: tuple[int, int]
    room: str
    models: Path | None
    config: Front3DConfig
    on_bad_frame: OnBadFrame
    max_bad_fraction: float


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _OpenRoom:
    """A room that is ready to be photographed."""

    room: AssembledRoom
    renderer: MeshRenderer
    intrinsics: Intrinsics
    poses: Float[np.ndarray, "views 4 4"]


def is_front3d(path: Path) -> bool:
    """Whether a path is a house file (perhaps with "#ROOM"), or a folder with one; looks for its keys only."""
    path, _ = _split_room(path)
    return any(_is_house(file) for file in _candidates(path)[:20])


def front3d_rooms(path: str | Path) -> tuple[str, ...]:
    """The names of a house's rooms, for ``read_front3d(path, room=...)``.

    Raises:
        SceneError: not a house.
    """
    return tuple(room.name for room in read_house(_house_file(Path(path))).rooms)


def front3d_scene_paths(path: Path) -> list[Path]:
    """Paths for `open_front3d`: HOUSE.json#ROOM for every room of a house, or of all the houses of a folder.

    A house that cannot be read stands for itself, so that opening it says why, and the others are not lost.
    """
    file, room = _split_room(path)
    if room is not None:
        return [path]
    found: list[Path] = []
    for house in _candidates(file):
        if not _is_house(house):
            continue
        try:
            found += [house.with_name(f"{house.name}#{name}") for name in front3d_rooms(house)]
        except SceneError:
            found.append(house)
    return found


def open_front3d(path: Path, *, on_bad_frame: OnBadFrame = "raise") -> Scene:
    """Open "HOUSE.json#ROOM", or a house with one room. See `read_front3d`."""
    file, room = _split_room(path)
    return read_front3d(file, room=room, on_bad_frame=on_bad_frame)


def read_front3d(
    path: str | Path,
    *,
    room: str | None = None,
    models: str | Path | None = None,
    config: Front3DConfig = DEFAULT,
    on_bad_frame: OnBadFrame = "raise",
    max_bad_fraction: float = MAX_BAD_FRACTION,
) -> Scene:
    """Open one room of a house; its geometry is read now, its views are rendered when asked for.

    Furniture that the data set does not publish (no such model, a reference to nothing, marked as not valid) is
    always left out; ``provenance["left_out"]`` holds the reasons and ``provenance["left_out_counts"]`` their
    numbers.

    Args:
        path: the house's JSON file, or a folder that holds one.
        room: its name, see `front3d_rooms`; None for houses with one room.
        models: the folder of 3D-FUTURE models; None looks for "3D-FUTURE-model" beside the house and above it.
        config: the walk and the camera.
        on_bad_frame: what happens to furniture and walls that are damaged (NaN positions, broken models, ...):
            "raise" stops at the first; "skip" leaves them out, counted.
        max_bad_fraction: the share of damaged things at which "skip" stops, too.

    Returns:
        A scene "HOUSE_ROOM" in the house's frame turned z up, with the floor at z = 0; objects have tight boxes
        around their placed meshes.

    Raises:
        SceneError: not a house, no such room, damaged (see `on_bad_frame`), every model missing, or no place
            for a camera.
        MissingExtraError: embreex is not installed.
    """
    check_policy(on_bad_frame)
    file = _house_file(Path(path))
    house = read_house(file)
    listed = house.room(room)
    stat = file.stat()
    source = _Source(
        house=file,
        changed=(stat.st_mtime_ns, stat.st_size),
        room=listed.name,
        models=find_models(file, None if models is None else Path(models)),
        config=config,
        on_bad_frame=on_bad_frame,
        max_bad_fraction=max_bad_fraction,
    )
    opened = _open(source)
    return Scene(
        id=f"{house.uid}_{listed.name}",
        frames=tuple(
            Frame(
                name=f"view-{index:03d}",
                T_world_camera=pose,
                intrinsics=opened.intrinsics,
                load_colour=functools.partial(_colour, source, index),
                load_depth=functools.partial(_depth, source, index),
            )
            for index, pose in enumerate(opened.poses)
        ),
        objects=_seen_objects(opened) if config.visibility else opened.room.objects,
        provenance={
            "format": "front3d",
            "path": str(file),
            "room": listed.name,
            "room_type": listed.type,
            "models": None if source.models is None else str(source.models),
            "config": dataclasses.asdict(config),
            "floor_height": opened.room.floor_height,
            "left_out": dict(opened.room.left_out),
            "left_out_counts": dict(opened.room.left_out_counts),
            "skipped": {},
            "alignment": {"method": "given"},
        },
    )


def front3d_mesh(scene: Scene) -> TriangleMesh:
    """The mesh behind a scene's views, in its world frame; labels are object ids, 0 is structure.

    Raises:
        SceneError: the scene was not opened by `read_front3d`.
    """
    return _open(_source_of(scene)).room.mesh


def front3d_instances(scene: Scene) -> Int[np.ndarray, "views height width"]:
    """The object id at every pixel of every view; 0 for floor, walls and ceiling, -1 where a ray meets nothing.

    Raises:
        SceneError: the scene was not opened by `read_front3d`.
    """
    opened = _open(_source_of(scene))
    return _instances(opened, [frame.T_world_camera for frame in scene.frames])


def _source_of(scene: Scene) -> _Source:
    loader = scene.frames[0].load_colour if scene.frames else None
    source = loader.args[0] if isinstance(loader, functools.partial) and loader.args else None
    if not isinstance(source, _Source):
        raise SceneError(f"scene '{scene.id}' was not opened from a 3D-FRONT house; open it with read_front3d")
    return source


def _split_room(path: Path) -> tuple[Path, str | None]:
    """("HOUSE.json", "ROOM") of "HOUSE.json#ROOM"."""
    name, mark, room = path.name.partition("#")
    return (path.with_name(name), room or None) if mark and name and not path.exists() else (path, None)


def _candidates(path: Path) -> list[Path]:
    """The files that could be houses."""
    if path.is_dir():
        return sorted(path.glob("*.json"))
    return [path] if path.suffix.lower() == ".json" and path.is_file() else []


def _is_house(file: Path) -> bool:
    try:
        content = read_bytes(file)
    except (OSError, ValueError):
        return False
    return all(key in content for key in _KEYS)


def _house_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    houses = [file for file in _candidates(path) if _is_house(file)]
    if len(houses) != 1:
        found = "no house" if not houses else f"{len(houses)} houses"
        remedy = "check the path" if not houses else f"open one of them, for instance {houses[0]}"
        raise SceneError(f"{path}: holds {found}; expected {EXPECTED_FILES}; {remedy}")
    return houses[0]


@functools.lru_cache(maxsize=2)
def _open(source: _Source) -> _OpenRoom:
    """Read, place and plan; kept for the last rooms of this process."""
    house: House = read_house(source.house)
    room = assemble_room(
        house,
        house.room(source.room),
        source.models,
        on_bad_frame=source.on_bad_frame,
        max_bad_fraction=source.max_bad_fraction,
    )
    floor = plan_floor(room)
    config = source.config
    seed = [config.seed, zlib.crc32(f"{house.uid}/{source.room}".encode())]
    poses = plan_walk(
        np.random.default_rng([*seed, 2]),
        floor.plan,
        views=config.views,
        horizontal_fov_degrees=config.horizontal_fov_degrees,
    )
    poses[:, :3, 3] += floor.corner
    lighting = draw_lighting(np.random.default_rng([*seed, 4]), floor.plan.size)
    moved = Lighting(
        positions=lighting.positions + floor.corner.astype(np.float32),
        strengths=lighting.strengths,
        ambient=lighting.ambient,
        tint=lighting.tint,
    )
    return _OpenRoom(
        room=room,
        renderer=MeshRenderer(room.mesh, moved),
        intrinsics=pinhole_intrinsics(config.width, config.height, config.horizontal_fov_degrees),
        poses=poses,
    )


def _instances(opened: _OpenRoom, poses: Sequence[np.ndarray]) -> Int[np.ndarray, "views height width"]:
    return np.stack([opened.renderer.labels(opened.intrinsics, pose) for pose in poses])


def _seen_objects(opened: _OpenRoom) -> tuple[SceneObject, ...]:
    """The objects with their pixel counts."""
    count = len(opened.room.objects)
    seen = [np.bincount(labels[labels > 0], minlength=count + 1) for labels in _instances(opened, list(opened.poses))]
    return tuple(
        dataclasses.replace(item, visible_pixels=tuple(int(view[item.id]) for view in seen))
        for item in opened.room.objects
    )


@functools.lru_cache(maxsize=2)
def _view(source: _Source, index: int) -> MeshView:
    """One rendered view; colour and depth are mostly asked for one after the other."""
    opened = _open(source)
    return opened.renderer.render(opened.intrinsics, opened.poses[index])


def _colour(source: _Source, index: int) -> UInt8[np.ndarray, "height width 3"]:
    return _view(source, index).colour.copy()


def _depth(source: _Source, index: int) -> Float[np.ndarray, "height width"]:
    return _view(source, index).depth.copy()
