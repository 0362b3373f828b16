"""What the readers of people's own captures share: files that lists name, plain tables, JSON, and frames of them.

Lists inside a capture (rgb.txt, transforms.json, images.txt) name files. They come from elsewhere, so a name that
leads out of the capture's folder is refused. Symbolic links that a person put into the folder are followed.
"""

import collections
import dataclasses
import functools
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from stereopsis.errors import FrameError, SceneError
from stereopsis.geometry.camera import Intrinsics
from stereopsis.scenes.bad_frames import check_frame_pose, check_intrinsics
from stereopsis.scenes.images import MILLIMETRES, read_colour, read_depth, read_header
from stereopsis.scenes.scene import Frame

_ASPECT_TOLERANCE = 0.01
_NAME_LENGTH = 150


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextRow:
    """One line of a table.

    Attributes:
        where: the file and line number, for messages.
        text: the line without surrounding blanks.
        expected: the line's layout, for messages.
    """

    where: str
    text: str
    expected: str

    def numbers(self, count: int) -> Float[np.ndarray, "count"]:
        """The line as numbers.

        Raises:
            SceneError: there are more or fewer, or something else.
        """
        words = self.text.split()
        try:
            values = [float(word) for word in words]
        except ValueError as error:
            raise self.error(str(error)) from error
        if len(values) != count:
            raise self.error(f"found {len(values)} numbers, not {count}")
        return np.array(values, dtype=np.float64)

    def error(self, found: str) -> SceneError:
        """The error that says what is wrong with this line."""
        return SceneError(f"{self.where}: {found}; expected {self.expected}; correct the line, or restore the file")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DepthSource:
    """A depth image that is not decoded yet.

    Attributes:
        path: the file.
        size: (width, height) in pixels.
        load: returns float32 [height, width] metres, 0 = invalid; picklable.
    """

    path: Path
    size: tuple[int, int]
    load: Callable[[], np.ndarray]


def check_folder(path: Path, expected: str) -> None:
    """Refuse what is no folder.

    Raises:
        SceneError: it is not.
    """
    if not path.is_dir():
        raise SceneError(f"{path}: no such folder; expected one that holds {expected}; check the path")


def read_text(path: Path, what: str, *, expected: str, error: type[SceneError] = SceneError) -> str:
    """Read a small text file (UTF-8, a byte-order mark is dropped).

    Args:
        path: the file.
        what: what it is, for messages.
        expected: its layout, for messages.
        error: the class to raise: FrameError where the file belongs to one frame.

    Raises:
        SceneError: the file is absent, unreadable or not text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError) as cause:
        raise error(f"{path}: the {what} file does not exist; expected {expected}; add or restore the file") from cause
    except (OSError, ValueError) as cause:
        raise error(f"{path}: unreadable {what} ({cause}); expected {expected}; restore the file") from cause


def read_rows(
    path: Path, what: str, *, expected: str, error: type[SceneError] = SceneError, empty_lines: bool = False
) -> list[TextRow]:
    """The lines of a table, without comments ("#"); at least one.

    Args:
        path: the file.
        what: what it is, for messages.
        expected: a line's layout, for messages.
        error: the class to raise: FrameError where the file belongs to one frame.
        empty_lines: keep them, where they mean something.

    Raises:
        SceneError: the file is absent, unreadable or holds no lines.
    """
    lines = read_text(path, what, expected=expected, error=error).splitlines()
    rows = [
        TextRow(where=f"{path}, line {number}", text=line.strip(), expected=expected)
        for number, line in enumerate(lines, start=1)
        if not line.lstrip().startswith("#") and (line.strip() or empty_lines)
    ]
    if not any(row.text for row in rows):
        raise error(f"{path}: the {what} file is empty; expected lines with {expected}; restore the file")
    return rows


def read_matrix(
    path: Path, shapes: tuple[tuple[int, int], ...], what: str, error: type[SceneError]
) -> Float[np.ndarray, "rows columns"]:
    """Read a table of numbers separated by blanks.

    Args:
        path: the text file.
        shapes: the (rows, columns) that it may have.
        what: what it is, for messages.
        error: the class to raise: FrameError where the file belongs to one frame.

    Raises:
        SceneError: the file is absent or unreadable, or holds a table of another shape.
    """
    expected = " or ".join(f"{rows}x{columns}" for rows, columns in shapes) + " numbers separated by blanks"
    remedy = "restore the file" if error is SceneError else "restore it, or skip the frame with on_bad_frame='skip'"
    try:
        rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        values = [[float(value) for value in row] for row in rows]
    except FileNotFoundError as cause:
        raise error(f"{path}: the {what} file does not exist; expected {expected}; {remedy}") from cause
    except (OSError, ValueError) as cause:
        raise error(f"{path}: unreadable {what} ({cause}); expected {expected}; {remedy}") from cause
    if not any(len(values) == n and all(len(row) == m for row in values) for n, m in shapes):
        found = f"{len(values)} rows of {sorted({len(row) for row in values})} numbers" if values else "nothing"
        raise error(f"{path}: found {found} as {what}; expected {expected}; {remedy}")
    return np.array(values, dtype=np.float64)


def read_json(path: Path, what: str, *, expected: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        SceneError: the file is absent, unreadable, no JSON, or no object.
    """
    text = read_text(path, what, expected=expected)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as cause:
        raise SceneError(f"{path}: not valid JSON ({cause}); expected {expected}; export the {what} again") from cause
    if not isinstance(content, dict):
        raise SceneError(
            f"{path}: holds a JSON {type(content).__name__}; expected an object with {expected}; export the {what} "
            "again"
        )
    return content


def listed_file(folder: Path, name: object, where: str) -> Path:
    """The path of a file that a list inside the folder names.

    Args:
        folder: the capture's folder.
        name: as listed; relative to the folder, with "/" between parts.
        where: the list and line, for messages.

    Raises:
        FrameError: no name, an absolute one, or one that leads out of the folder.
    """
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise FrameError(f"{where}: found {name!r}, expected the name of a file inside {folder}; correct the entry")
    relative = os.path.normpath(name)
    if os.path.isabs(name) or os.path.splitdrive(name)[0] or relative.split(os.sep)[0] == os.pardir:
        raise FrameError(
            f"{where}: the name '{name}' leads out of the scene's folder; expected a file inside {folder}, named "
            "relative to it; copy the file into the folder and correct the entry, or leave the frame out with "
            "on_bad_frame='skip'"
        )
    return folder / relative


def frame_names(files: Sequence[str]) -> list[str]:
    """Names for frames from their files' names: without folder and suffix where that tells them apart.

    Characters other than letters, digits and ``_ - .`` become ``_``, so that a name can name a file again.
    """
    paths = [Path(os.path.normpath(file)) for file in files]
    stems = [path.stem for path in paths]
    if len(set(stems)) < len(set(paths)):
        stems = ["_".join(path.with_suffix("").parts) for path in paths]
    return [re.sub(r"[^\w.-]", "_", stem, flags=re.ASCII).lstrip(".")[-_NAME_LENGTH:] or "frame" for stem in stems]


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """A sorting key that puts 9.png before 10.png (and digits before letters, as usual)."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return tuple((0, int(part), "") if part[0] in "0123456789" else (1, 0, part) for part in parts)


def common_size(folder: Path, names: Sequence[str], where: str) -> tuple[int, int]:
    """The (width, height) that most of up to nine evenly spread colour images have.

    Args:
        folder: the capture's folder.
        names: of the images, as its list gives them.
        where: the list, for messages.

    Raises:
        FrameError: none of them can be read; the first one's error.
    """
    sizes: collections.Counter[tuple[int, int]] = collections.Counter()
    errors: list[FrameError] = []
    for index in sorted({round(position) for position in np.linspace(0, len(names) - 1, 9)}):
        try:
            sizes[read_header(listed_file(folder, names[index], where)).size] += 1
        except FrameError as error:
            errors.append(error)
    if not sizes:
        raise errors[0]
    return sizes.most_common(1)[0][0]


def depth_png(path: Path, *, units_per_metre: float = MILLIMETRES) -> DepthSource:
    """A 16-bit depth image, of which only the header is read.

    Raises:
        FrameError: the file is absent, no image, or not 16-bit greyscale.
    """
    size = read_header(path, kind="depth").size
    return DepthSource(path=path, size=size, load=functools.partial(read_depth, path, scale=units_per_metre, size=size))


def capture_frame(
    name: str,
    pose: np.ndarray,
    intrinsics: Intrinsics,
    colour: Path,
    depth: DepthSource | None,
    *,
    pose_from: str,
    intrinsics_from: str,
) -> Frame:
    """A frame whose headers, pose and intrinsics have been checked.

    A depth image of another size than its colour image's, but of the same shape, is taken to show the same view:
    its intrinsics are the colour image's, resized.

    Args:
        name: unique within the scene.
        pose: supposed to be [4, 4] camera to world, metres, OpenCV axes.
        intrinsics: of the colour image.
        colour: the image file.
        depth: None where the source has none.
        pose_from: the file and entry of the pose, for messages.
        intrinsics_from: the same of the intrinsics.

    Raises:
        FrameError: something is unusable.
    """
    check_frame_pose(pose, pose_from)
    try:
        check_intrinsics(intrinsics, intrinsics_from)
    except SceneError as error:
        raise FrameError(str(error)) from error
    size = (intrinsics.width, intrinsics.height)
    found = read_header(colour).size
    if found != size:
        raise FrameError(
            f"{colour}: the image is {found[0]}x{found[1]}, but {intrinsics_from} speaks of {size[0]}x{size[1]} "
            "pixels; resize images and intrinsics together, or leave the frame out with on_bad_frame='skip'"
        )
    return Frame(
        name=name,
        T_world_camera=pose,
        intrinsics=intrinsics,
        load_colour=functools.partial(read_colour, colour, size=size),
        load_depth=None if depth is None else depth.load,
        depth_intrinsics=None if depth is None else _depth_intrinsics(intrinsics, depth),
    )


def _depth_intrinsics(intrinsics: Intrinsics, depth: DepthSource) -> Intrinsics | None:
    width, height = depth.size
    if (width, height) == (intrinsics.width, intrinsics.height):
        return None
    if abs(width * intrinsics.height / (height * intrinsics.width) - 1.0) > _ASPECT_TOLERANCE:
        raise FrameError(
            f"{depth.path}: depth is {width}x{height}, the colour image {intrinsics.width}x{intrinsics.height}: not "
            "the same shape, so not the same view; expected depth that is registered to colour; export both together, "
            "or leave the frame out with on_bad_frame='skip'"
        )
    return intrinsics.resized(width, height)
