"""The scene layouts that can be opened: one row each, tried in order."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from stereopsis.errors import SceneError, did_you_mean
from stereopsis.scenes.bad_frames import OnBadFrame
from stereopsis.scenes.readers.arkitscenes import EXPECTED_FILES as ARKITSCENES_FILES
from stereopsis.scenes.readers.arkitscenes import is_arkitscenes, read_arkitscenes
from stereopsis.scenes.readers.colmap import EXPECTED_FILES as COLMAP_FILES
from stereopsis.scenes.readers.colmap import is_colmap, read_colmap
from stereopsis.scenes.readers.front3d import EXPECTED_FILES as FRONT3D_FILES
from stereopsis.scenes.readers.front3d import front3d_scene_paths, is_front3d, open_front3d
from stereopsis.scenes.readers.open3d_log import EXPECTED_FILES as OPEN3D_FILES
from stereopsis.scenes.readers.open3d_log import is_open3d_log, read_open3d_log
from stereopsis.scenes.readers.posed_images import EXPECTED_FILES as POSED_IMAGES_FILES
from stereopsis.scenes.readers.posed_images import is_posed_images, read_posed_images
from stereopsis.scenes.readers.scannet import EXPECTED_FILES as SCANNET_FILES
from stereopsis.scenes.readers.scannet import is_scannet, read_scannet
from stereopsis.scenes.readers.seven_scenes import EXPECTED_FILES as SEVEN_SCENES_FILES
from stereopsis.scenes.readers.seven_scenes import is_seven_scenes, read_seven_scenes
from stereopsis.scenes.readers.transforms_json import EXPECTED_FILES as TRANSFORMS_FILES
from stereopsis.scenes.readers.transforms_json import is_transforms_json, read_transforms_json
from stereopsis.scenes.readers.tum import EXPECTED_FILES as TUM_FILES
from stereopsis.scenes.readers.tum import is_tum, read_tum
from stereopsis.scenes.scene import Scene
from stereopsis.scenes.stored import is_stored, read_scene
from stereopsis.scenes.stored_schema import EXPECTED_FILES as STORED_FILES


@dataclasses.dataclass(frozen=True, kw_only=True)
class SceneFormat:
    """A layout of scene folders.

    Attributes:
        name: for ``open_scene(path, format=name)``.
        files: the files that it expects, in words.
        matches: whether a folder (or file, which need not exist) is in this layout; cheap.
        read: opens it: (path, on_bad_frame=...) -> Scene.
        scenes: the paths of its scenes, where one source holds several; None: the path is the one scene.
    """

    name: str
    files: str
    matches: Callable[[Path], bool]
    read: Callable[..., Scene]
    scenes: Callable[[Path], Sequence[Path]] | None = None


FORMATS = (
    SceneFormat(name="stored", files=STORED_FILES, matches=is_stored, read=read_scene),
    SceneFormat(name="seven_scenes", files=SEVEN_SCENES_FILES, matches=is_seven_scenes, read=read_seven_scenes),
    SceneFormat(name="scannet", files=SCANNET_FILES, matches=is_scannet, read=read_scannet),
    SceneFormat(name="posed_images", files=POSED_IMAGES_FILES, matches=is_posed_images, read=read_posed_images),
    SceneFormat(name="tum", files=TUM_FILES, matches=is_tum, read=read_tum),
    SceneFormat(name="open3d", files=OPEN3D_FILES, matches=is_open3d_log, read=read_open3d_log),
    SceneFormat(name="transforms_json", files=TRANSFORMS_FILES, matches=is_transforms_json, read=read_transforms_json),
    SceneFormat(name="arkitscenes", files=ARKITSCENES_FILES, matches=is_arkitscenes, read=read_arkitscenes),
    SceneFormat(name="colmap", files=COLMAP_FILES, matches=is_colmap, read=read_colmap),
    SceneFormat(name="front3d", files=FRONT3D_FILES, matches=is_front3d, read=open_front3d, scenes=front3d_scene_paths),
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


def open_scene(path: str | Path, *, format: str | None = None, on_bad_frame: OnBadFrame = "raise") -> Scene:
    """Open a scene folder of any known layout; pixels are read when asked for.

    Args:
        path: the scene's folder.
        format: the layout's name; None detects it.
        on_bad_frame: "raise" stops at the first bad frame; "skip" leaves bad frames out, counts them in
            ``provenance["skipped"]`` and stops past a threshold.

    Raises:
        FrameError: a frame is bad and the policy is "raise".
        SceneError: unknown layout, unreadable scene, or too many bad frames.
    """
    path = Path(path)
    return _named(detect_format(path) if format is None else format).read(path, on_bad_frame=on_bad_frame)


def _named(name: str) -> SceneFormat:
    for known in FORMATS:
        if known.name == name:
            return known
    names = [known.name for known in FORMATS]
    raise SceneError(f"scene format '{name}' is unknown{did_you_mean(name, names)}; known are {', '.join(names)}")
