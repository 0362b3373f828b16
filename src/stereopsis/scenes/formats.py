"""The scene layouts that can be opened: one row each, tried in order."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stereopsis.errors import SceneError, did_you_mean
from stereopsis.scenes.bad_frames import MAX_BAD_FRACTION, OnBadFrame, check_cameras
from stereopsis.scenes.conventions import ReadOptions
from stereopsis.scenes.readers.arkitscenes import EXPECTED_FILES as ARKITSCENES_FILES
from stereopsis.scenes.readers.arkitscenes import is_arkitscenes, read_arkitscenes
from stereopsis.scenes.readers.colmap import EXPECTED_FILES as COLMAP_FILES
from stereopsis.scenes.readers.colmap import is_colmap, read_colmap
from stereopsis.scenes.readers.front3d import EXPECTED_FILES as FRONT3D_FILES
from stereopsis.scenes.readers.front3d import front3d_scene_paths, is_front3d, open_front3d
from stereopsis.scenes.readers.listed_files import given_name
from stereopsis.scenes.readers.matterport import EXPECTED_FILES as MATTERPORT_FILES
from stereopsis.scenes.readers.matterport import is_matterport, read_matterport
from stereopsis.scenes.readers.open3d_log import EXPECTED_FILES as OPEN3D_FILES
from stereopsis.scenes.readers.open3d_log import is_open3d_log, read_open3d_log
from stereopsis.scenes.readers.polycam import EXPECTED_FILES as POLYCAM_FILES
from stereopsis.scenes.readers.polycam import is_polycam, read_polycam
from stereopsis.scenes.readers.posed_images import EXPECTED_FILES as POSED_IMAGES_FILES
from stereopsis.scenes.readers.posed_images import is_posed_images, read_posed_images
from stereopsis.scenes.readers.record3d import EXPECTED_FILES as RECORD3D_FILES
from stereopsis.scenes.readers.record3d import is_record3d, read_record3d, record3d_paths, recording_name
from stereopsis.scenes.readers.replica import EXPECTED_FILES as REPLICA_FILES
from stereopsis.scenes.readers.replica import is_replica, read_replica
from stereopsis.scenes.readers.rosbag import EXPECTED_FILES as ROSBAG_FILES
from stereopsis.scenes.readers.rosbag import is_rosbag, read_rosbag, rosbag_name, rosbag_paths
from stereopsis.scenes.readers.scannet import EXPECTED_FILES as SCANNET_FILES
from stereopsis.scenes.readers.scannet import is_scannet, read_scannet, scan_id
from stereopsis.scenes.readers.scannetpp import EXPECTED_FILES as SCANNETPP_FILES
from stereopsis.scenes.readers.scannetpp import is_scannetpp, read_scannetpp, recording_id, scannetpp_paths
from stereopsis.scenes.readers.seven_scenes import EXPECTED_FILES as SEVEN_SCENES_FILES
from stereopsis.scenes.readers.seven_scenes import is_seven_scenes, read_seven_scenes
from stereopsis.scenes.readers.stray_scanner import EXPECTED_FILES as STRAY_FILES
from stereopsis.scenes.readers.stray_scanner import is_stray_scanner, read_stray_scanner
from stereopsis.scenes.readers.threerscan import EXPECTED_FILES as THREERSCAN_FILES
from stereopsis.scenes.readers.threerscan import is_3rscan, read_3rscan, scan_name
from stereopsis.scenes.readers.transforms_json import EXPECTED_FILES as TRANSFORMS_FILES
from stereopsis.scenes.readers.transforms_json import is_transforms_json, read_transforms_json
from stereopsis.scenes.readers.tum import EXPECTED_FILES as TUM_FILES
from stereopsis.scenes.readers.tum import is_tum, read_tum
from stereopsis.scenes.readers.video import EXPECTED_FILES as VIDEO_FILES
from stereopsis.scenes.readers.video import is_video, read_video, video_id, video_paths
from stereopsis.scenes.scene import Scene
from stereopsis.scenes.stored import is_stored, read_scene, stored_id
from stereopsis.scenes.stored_schema import EXPECTED_FILES as STORED_FILES


@dataclasses.dataclass(frozen=True, kw_only=True)
class SceneFormat:
    """A layout of scene folders.

    Attributes:
        name: for ``open_scene(path, format=name)``.
        files: the files that it expects, in words.
        matches: whether a folder (or file, which need not exist) is in this layout; cheap.
        read: opens it: (path, on_bad_frame=..., max_bad_fraction=..., options=...) -> Scene.
        scenes: the paths of its scenes, where one source holds several; None: the path is the one scene.
        scene_id: the id that its scene will have, cheaply told: the name that a person gave to the folder, or what its
            files are named after; None where only reading it tells.
        takes_options: whether what a person says of poses and depth can be heeded.
    """

    name: str
    files: str
    matches: Callable[[Path], bool]
    read: Callable[..., Scene]
    scenes: Callable[[Path], Sequence[Path]] | None = None
    scene_id: Callable[[Path], str] | None = given_name
    takes_options: bool = True


FORMATS = (
    SceneFormat(name="stored", files=STORED_FILES, matches=is_stored, read=read_scene, scene_id=stored_id),
    SceneFormat(name="3rscan", files=THREERSCAN_FILES, matches=is_3rscan, read=read_3rscan, scene_id=scan_name),
    SceneFormat(
        name="scannetpp",
        files=SCANNETPP_FILES,
        matches=is_scannetpp,
        read=read_scannetpp,
        scenes=scannetpp_paths,
        scene_id=recording_id,
    ),
    SceneFormat(
        name="record3d",
        files=RECORD3D_FILES,
        matches=is_record3d,
        read=read_record3d,
        scenes=record3d_paths,
        scene_id=recording_name,
    ),
    SceneFormat(
        name="rosbag",
        files=ROSBAG_FILES,
        matches=is_rosbag,
        read=read_rosbag,
        scenes=rosbag_paths,
        scene_id=rosbag_name,
    ),
    SceneFormat(name="stray_scanner", files=STRAY_FILES, matches=is_stray_scanner, read=read_stray_scanner),
    SceneFormat(name="polycam", files=POLYCAM_FILES, matches=is_polycam, read=read_polycam),
    SceneFormat(name="replica", files=REPLICA_FILES, matches=is_replica, read=read_replica),
    SceneFormat(name="matterport3d", files=MATTERPORT_FILES, matches=is_matterport, read=read_matterport),
    SceneFormat(name="seven_scenes", files=SEVEN_SCENES_FILES, matches=is_seven_scenes, read=read_seven_scenes),
    SceneFormat(name="scannet", files=SCANNET_FILES, matches=is_scannet, read=read_scannet, scene_id=scan_id),
    SceneFormat(name="posed_images", files=POSED_IMAGES_FILES, matches=is_posed_images, read=read_posed_images),
    SceneFormat(name="tum", files=TUM_FILES, matches=is_tum, read=read_tum),
    SceneFormat(name="open3d", files=OPEN3D_FILES, matches=is_open3d_log, read=read_open3d_log),
    SceneFormat(name="transforms_json", files=TRANSFORMS_FILES, matches=is_transforms_json, read=read_transforms_json),
    SceneFormat(name="arkitscenes", files=ARKITSCENES_FILES, matches=is_arkitscenes, read=read_arkitscenes),
    SceneFormat(name="colmap", files=COLMAP_FILES, matches=is_colmap, read=read_colmap),
    SceneFormat(
        name="video",
        files=VIDEO_FILES,
        matches=is_video,
        read=read_video,
        scenes=video_paths,
        scene_id=video_id,
        takes_options=False,
    ),
    SceneFormat(
        name="front3d",
        files=FRONT3D_FILES,
        matches=is_front3d,
        read=open_front3d,
        scenes=front3d_scene_paths,
        scene_id=None,
        takes_options=False,
    ),
)


def detect_format(path: str | Path) -> str:
    """The name of the layout of a scene folder.

    Raises:
        SceneError: the folder does not exist or is in no known layout; the message lists the known ones.
    """
    path = Path(path)
    for known in FORMATS:
        if known.matches(path):
            return known.name
    if not path.is_dir():
        found = "is a file" if path.exists() else "does not exist"
        raise SceneError(f"{path}: {found}; expected a scene folder; check the path")
    layouts = "\n  ".join(f"{known.name}: {known.files}" for known in FORMATS)
    raise SceneError(
        f"{path}: is in no known scene layout; expected one of these, by the files it holds:\n  {layouts}\n"
        "check the path, or name the layout with format=..."
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoundScenes:
    """What `open_scene` takes for every scene of a source: their paths, and the name of their layout."""

    format: str
    paths: tuple[Path, ...]


def scenes_at(path: str | Path, *, format: str | None = None) -> FoundScenes:
    """A source's scenes: the path itself, or one path per room of a house.

    Args:
        path: the source.
        format: its layout's name; None detects it.

    Raises:
        SceneError: unknown layout, or a source whose list of scenes cannot be read.
    """
    path = Path(path)
    known = _named(detect_format(path) if format is None else format)
    return FoundScenes(format=known.name, paths=(path,) if known.scenes is None else tuple(known.scenes(path)))


def scene_id_at(path: str | Path, *, format: str) -> str | None:
    """The id that the scene at this path will have; None where that shows only when it is read.

    Args:
        path: of one scene (see `scenes_at`).
        format: its layout's name.
    """
    tell = _named(format).scene_id
    try:
        return None if tell is None else tell(Path(path))
    except (SceneError, OSError):  # reading it will tell what is wrong
        return None


def open_scene(
    path: str | Path,
    *,
    format: str | None = None,
    options: ReadOptions = ReadOptions(),  # noqa: B008
    on_bad_frame: OnBadFrame = "raise",
    max_bad_fraction: float = MAX_BAD_FRACTION,
) -> Scene:
    """Open a scene folder of any known layout; pixels are read when asked for.

    Args:
        path: the scene's folder.
        format: the layout's name; None detects it.
        options: what a person says of its poses and depth; goes before what the layout and its files say.
        on_bad_frame: "raise" stops at the first bad frame; "skip" leaves bad frames out, counts them in
            ``provenance["skipped"]`` and stops past a threshold.
        max_bad_fraction: that threshold, a share of all frames.

    Raises:
        FrameError: a frame is bad and the policy is "raise".
        SceneError: unknown layout, unreadable scene, or too many bad frames.
    """
    path = Path(path)
    known = _named(detect_format(path) if format is None else format)
    more: dict[str, Any] = {"options": options} if options.said() else {}
    if more and not known.takes_options:
        raise SceneError(
            f"{path}: views of the layout '{known.name}' are made here, so that there is nothing to say about their "
            f"poses and depth; leave {', '.join(options.said())} out"
        )
    if max_bad_fraction != MAX_BAD_FRACTION:
        more["max_bad_fraction"] = max_bad_fraction
    scene = known.read(path, on_bad_frame=on_bad_frame, **more)
    check_cameras(scene, str(path))
    return scene


def _named(name: str) -> SceneFormat:
    for known in FORMATS:
        if known.name == name:
            return known
    names = [known.name for known in FORMATS]
    raise SceneError(f"scene format '{name}' is unknown{did_you_mean(name, names)}; known are {', '.join(names)}")
