"""The scene layouts that can be opened: one row each, tried in order."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from stereopsis.errors import SceneError, did_you_mean
from stereopsis.scenes.bad_frames import OnBadFrame
from stereopsis.scenes.front3d import EXPECTED_FILES as FRONT3D_FILES
from stereopsis.scenes.front3d import is_front3d, open_front3d
from stereopsis.scenes.scene import Scene
from stereopsis.scenes.seven_scenes import EXPECTED_FILES as SEVEN_SCENES_FILES
from stereopsis.scenes.seven_scenes import is_seven_scenes, read_seven_scenes
from stereopsis.scenes.stored import is_stored, read_scene
from stereopsis.scenes.stored_schema import EXPECTED_FILES as STORED_FILES


@dataclasses.dataclass(frozen=True, kw_only=True)
class SceneFormat:
    """A layout of scene folders.

    Attributes:
        name: for ``open_scene(path, format=name)``.
        files: the files that it expects, in words.
        matches: whether a folder (or file, which need not exist) is in this layout; cheap.
        read: opens it: (path, on_bad_frame) -> Scene.
    """

    name: str
    files: str
    matches: Callable[[Path], bool]
    read: Callable[[Path, OnBadFrame], Scene]


FORMATS = (
    SceneFormat(
        name="stored",
        files=STORED_FILES,
        matches=is_stored,
        read=lambda path, on_bad_frame: read_scene(path, on_bad_frame=on_bad_frame),
    ),
    SceneFormat(
        name="seven_scenes",
        files=SEVEN_SCENES_FILES,
        matches=is_seven_scenes,
        read=lambda path, on_bad_frame: read_seven_scenes(path, on_bad_frame=on_bad_frame),
    ),
    SceneFormat(
        name="front3d",
        files=FRONT3D_FILES,
        matches=is_front3d,
        read=lambda path, on_bad_frame: open_front3d(path, on_bad_frame=on_bad_frame),
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
    name = detect_format(path) if format is None else format
    for known in FORMATS:
        if known.name == name:
            return known.read(path, on_bad_frame)
    names = [known.name for known in FORMATS]
    raise SceneError(f"scene format '{name}' is unknown{did_you_mean(name, names)}; known are {', '.join(names)}")
