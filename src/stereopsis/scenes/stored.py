"""This package's own scene layout: one folder per scene, written whole or not at all.

    SCENE/
      scene.json            schema version, id, alignment, cameras, frames with poses and checksums
      annotations.json      questions, captions and expressions (may be rewritten apart from the rest)
      frames/NAME.png       colour without loss (small images), or NAME.jpg (quality 95, full chroma)
      frames/NAME.depth.png 16-bit millimetres, 0 = invalid
      birdseye.png, birdseye_void.png   where the scene has a view from above
      birdseye_filled.png   where small holes in it were filled: which pixels

A scene is written into a hidden folder beside its place (``.NAME.writing-...``) and then renamed, with
scene.json last: a folder without scene.json is never read. Files are not flushed to the disk (no fsync), for
speed; should a power failure lose bytes after the rename, the checksums in scene.json say so when they are
read. A process that is killed leaves its hidden folder behind, which may be deleted. Instance maps are not
stored.
"""

import dataclasses
import functools
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stereopsis.annotations import Annotation
from stereopsis.errors import FrameError, SceneError
from stereopsis.files import replacing, write_failure
from stereopsis.geometry.birdseye import BirdsEyeView
from stereopsis.geometry.camera import Intrinsics
from stereopsis.reading import read_json
from stereopsis.scenes.bad_frames import (
    MAX_BAD_FRACTION,
    OnBadFrame,
    check_frame,
    check_frame_pose,
    check_intrinsics,
    check_policy,
    check_skipped,
    drop_frames,
)
from stereopsis.scenes.conventions import Conventions, ReadOptions
from stereopsis.scenes.images import (
    encode_colour,
    encode_depth,
    encode_mask,
    read_colour,
    read_depth,
    read_mask,
)
from stereopsis.scenes.scene import Frame, Proposal, Scene, SceneObject
from stereopsis.scenes.stored_schema import (
    EXPECTED_FILES,
    SCHEMA,
    SCHEMA_VERSION,
    BirdseyeRecord,
    FrameRecord,
    ObjectRecord,
    check_name,
    check_record,
    read_record,
)

LOSSLESS_UP_TO = 160
ColourFormat = Literal["auto", "png", "jpg"]


def is_stored(path: Path) -> bool:
    """Whether a folder holds a scene in this layout."""
    return (path / "scene.json").is_file()


def write_scene(
    scene: Scene, path: str | Path, *, overwrite: bool = False, colour_format: ColourFormat = "auto"
) -> Path:
    """Write a scene; other processes see all of it or nothing.

    Args:
        scene: at least one frame; frame names become file names (see `stereopsis.scenes.stored_schema.check_name`).
        path: the scene's new folder; its parents are made as needed.
        overwrite: replace a scene that is already there. Anything else that is there is never replaced.
        colour_format: "png" loses nothing; "jpg" is about ten times smaller; "auto" takes png up to 160
            pixels.

    Returns:
        The folder.

    Raises:
        FrameError: a frame's pose, pixels or name cannot be stored.
        SceneError: the place is taken, the disk is full, or the scene's facts are not plain finite values.
            Nothing half-written is left.
    """
    path = Path(path)
    if not scene.frames:
        raise SceneError(f"scene '{scene.id}' has no frames, so there is nothing to write to {path}; add frames")
    _check_place(path, overwrite)
    temporary = path.with_name(f".{path.name}.writing-{secrets.token_hex(6)}")
    try:
        (temporary / "frames").mkdir(parents=True)
        _write_files(scene, temporary, colour_format)
        _take_place(temporary, path)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise SceneError(write_failure(path, error)) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return path


def stored_id(path: Path) -> str:
    """The id of a stored scene.

    Raises:
        SceneError: not a scene of this layout, or damaged.
    """
    return read_record(path).id


def read_scene(
    path: Path,
    *,
    options: ReadOptions = ReadOptions(),  # noqa: B008
    on_bad_frame: OnBadFrame = "raise",
    max_bad_fraction: float = MAX_BAD_FRACTION,
) -> Scene:
    """Open a scene in this package's own layout; the frames' pixels are read when asked for.

    Args:
        path: the scene's folder.
        options: what a person says of poses and depth, where they were stored wrongly.
        on_bad_frame: "raise" stops at the first frame whose files are absent or whose pose is wrong; "skip"
            leaves such frames out and counts them.
        max_bad_fraction: the share of bad frames at which "skip" stops, too.

    Raises:
        FrameError: a frame is bad and the policy is "raise". Checksums are compared on decoding.
        SceneError: not a scene of this layout, of another schema version, damaged, or too many bad frames.
    """
    path = Path(path)
    check_policy(on_bad_frame)
    record = read_record(path)
    conventions = Conventions(depth_scale=record.depth_units_per_metre).with_options(options, str(path))
    cameras = tuple(Intrinsics(**dict(camera)) for camera in record.cameras)
    for number, camera in enumerate(cameras):
        check_intrinsics(camera, f"{path / 'scene.json'}: camera {number}")
    present = _file_names(path / "frames")
    frames, skipped = [], {}
    for item in record.frames:
        frames.append(_frame(path, item, cameras, conventions))
        try:
            check_frame_pose(frames[-1].T_world_camera, f"{path / 'scene.json'}: frame '{item.name}'")
            _check_present(path, item, present)
        except FrameError as error:
            if on_bad_frame == "raise":
                raise
            skipped[item.name] = str(error)
    check_skipped(str(path), len(frames), skipped, max_bad_fraction)
    scene = Scene(
        id=record.id,
        frames=tuple(frames),
        T_aligned_world=np.array(record.T_aligned_world),
        objects=tuple(_object(item) for item in record.objects),
        proposals=tuple(
            Proposal(box=np.array(item.box), score=item.score, label=item.label) for item in record.proposals
        ),
        annotations=_read_annotations(path / "annotations.json"),
        birdseye=None if record.birdseye is None else _read_birdseye(path, record.birdseye),
        provenance=record.provenance,
    )
    return drop_frames(scene, skipped)


def _check_place(path: Path, overwrite: bool) -> None:
    if path.is_dir() and not any(path.iterdir()):
        return
    if not (path.exists() or path.is_symlink()):
        return
    if not is_stored(path) or path.is_symlink():
        raise SceneError(
            f"{path}: exists and is not a scene of this layout ({EXPECTED_FILES}), so it is never replaced; "
            "choose another folder"
        )
    if not overwrite:
        raise SceneError(f"{path}: already holds a scene; choose another folder, or pass overwrite=True to replace it")


def _take_place(temporary: Path, path: Path) -> None:
    """Give the finished folder its name; an older scene steps aside first and comes back should that fail."""
    if not is_stored(path):
        temporary.rename(path)
        return
    aside = path.with_name(f".{path.name}.replaced-{secrets.token_hex(6)}")
    path.rename(aside)
    try:
        temporary.rename(path)
    except BaseException:
        aside.rename(path)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _write_files(scene: Scene, folder: Path, colour_format: ColourFormat) -> None:
    cameras: dict[Intrinsics, int] = {}
    frames = [_write_frame(frame, folder / "frames", colour_format, cameras) for frame in scene.frames]
    record = {
        "format": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "id": scene.id,
        "T_aligned_world": scene.T_aligned_world.tolist(),
        "depth_units_per_metre": 1000.0,
        "cameras": [dataclasses.asdict(camera) for camera in cameras],
        "frames": frames,
        "objects": [_object_record(item) for item in scene.objects],
        "proposals": [
            {"box": item.box.tolist(), "score": float(item.score), "label": item.label} for item in scene.proposals
        ],
        "birdseye": None if scene.birdseye is None else _write_birdseye(scene.birdseye, folder),
        "provenance": _origin(scene),
    }
    annotations = [annotation.to_dict() for annotation in scene.annotations]
    check_record(record, f"scene '{scene.id}'", "correct the scene before writing it")
    (folder / "annotations.json").write_bytes(_json(annotations, scene.id))
    with replacing(folder / "scene.json") as partial:  # whoever finds one finds all of it, even in a hidden folder
        partial.write_bytes(_json(record, scene.id))


def _origin(scene: Scene) -> dict[str, Any]:
    """The provenance; the source's conventions are not those of what is stored."""
    facts = dict(scene.provenance)
    if "conventions" in facts:
        facts["source_conventions"] = facts.pop("conventions")
    return facts


def _write_frame(
    frame: Frame, folder: Path, colour_format: ColourFormat, cameras: dict[Intrinsics, int]
) -> dict[str, Any]:
    check_name(frame.name, "cannot write the scene")
    pixels = check_frame(frame)
    colour, depth = pixels.colour, pixels.depth
    suffix = colour_format
    if colour_format == "auto":
        suffix = "png" if max(colour.shape[:2]) <= LOSSLESS_UP_TO else "jpg"
    record: dict[str, Any] = {
        "name": frame.name,
        "T_world_camera": frame.T_world_camera.tolist(),
        "camera": cameras.setdefault(frame.intrinsics, len(cameras)),
        "colour": _write_image(folder / f"{frame.name}.{suffix}", encode_colour(colour, f".{suffix}")),
    }
    if frame.depth_intrinsics is not None:
        record["depth_camera"] = cameras.setdefault(frame.depth_intrinsics, len(cameras))
    if depth is not None:
        record["depth"] = _write_image(folder / f"{frame.name}.depth.png", encode_depth(depth))
    return record


def _write_birdseye(view: BirdsEyeView, folder: Path) -> dict[str, Any]:
    record = {
        "origin": [float(value) for value in view.origin],
        "metres_per_pixel": float(view.metres_per_pixel),
        "size": len(view.void),
        "image": _write_image(folder / "birdseye.png", encode_colour(view.image, ".png")),
        "void": _write_image(folder / "birdseye_void.png", encode_mask(view.void)),
    }
    if view.filled is not None:
        record["filled"] = _write_image(folder / "birdseye_filled.png", encode_mask(view.filled))
    return record


def _write_image(path: Path, data: bytes) -> dict[str, str]:
    path.write_bytes(data)
    return {"format": path.suffix[1:], "sha256": hashlib.sha256(data).hexdigest()}


def _object_record(item: SceneObject) -> dict[str, Any]:
    return {
        "id": int(item.id),
        "label": item.label,
        "box": item.box.tolist(),
        "attributes": dict(item.attributes),
        "visible_pixels": [int(count) for count in item.visible_pixels],
    }


def _json(value: Any, scene_id: str) -> bytes:
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"), default=_plain).encode()
    except (TypeError, ValueError) as error:
        raise SceneError(
            f"scene '{scene_id}': its facts cannot be written as JSON ({error}); expected finite numbers, "
            "strings, lists and dictionaries in boxes, attributes, annotations and provenance; convert or "
            "remove the value"
        ) from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} {value!r} is not a plain value")


def _file_names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _check_present(path: Path, item: FrameRecord, present: set[str]) -> None:
    wanted = [f"{item.name}.{item.colour.format}"] + ([f"{item.name}.depth.png"] if item.depth else [])
    for name in wanted:
        if name not in present:
            raise FrameError(
                f"{path / 'frames' / name}: listed in scene.json but does not exist; restore the file or "
                "prepare the scene again, or leave the frame out with on_bad_frame='skip'"
            )


def _frame(path: Path, item: FrameRecord, cameras: tuple[Intrinsics, ...], conventions: Conventions) -> Frame:
    camera = cameras[item.camera]
    depth_camera = None if item.depth_camera is None else cameras[item.depth_camera]
    of_depth = depth_camera or camera
    load_depth = None
    if item.depth is not None:
        load_depth = functools.partial(
            read_depth,
            path / "frames" / f"{item.name}.depth.png",
            scale=conventions.depth_scale,
            size=(of_depth.width, of_depth.height),
            sha256=item.depth.sha256,
        )
    return Frame(
        name=item.name,
        T_world_camera=conventions.camera_to_world(np.array(item.T_world_camera)),
        intrinsics=camera,
        load_colour=functools.partial(
            read_colour,
            path / "frames" / f"{item.name}.{item.colour.format}",
            size=(camera.width, camera.height),
            sha256=item.colour.sha256,
        ),
        load_depth=load_depth,
        depth_intrinsics=depth_camera,
    )


def _object(item: ObjectRecord) -> SceneObject:
    return SceneObject(
        id=item.id,
        label=item.label,
        box=np.array(item.box),
        attributes=item.attributes,
        visible_pixels=tuple(item.visible_pixels),
    )


def _read_annotations(file: Path) -> tuple[Annotation, ...]:
    try:
        records = read_json(file)
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            raise TypeError("expected a list of records")
        return tuple(Annotation.from_dict(record) for record in records)
    except FileNotFoundError as error:
        raise SceneError(
            f"{file}: does not exist; expected the scene's annotations (an empty list where it has none); "
            "restore the file or prepare the scene again"
        ) from error
    except (OSError, ValueError, TypeError) as error:
        raise SceneError(
            f"{file}: cannot be read as annotations ({error}); restore the file or prepare the scene again"
        ) from error


def _read_birdseye(path: Path, item: BirdseyeRecord) -> BirdsEyeView:
    size = (item.size, item.size)
    return BirdsEyeView(
        image=read_colour(path / "birdseye.png", size=size, sha256=item.image.sha256),
        void=read_mask(path / "birdseye_void.png", size=size, sha256=item.void.sha256),
        filled=None
        if item.filled is None
        else read_mask(path / "birdseye_filled.png", size=size, sha256=item.filled.sha256),
        origin=item.origin,
        metres_per_pixel=item.metres_per_pixel,
    )
