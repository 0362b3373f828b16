"""What the readers of people's own captures share: plain tables, JSON, pose files, and frames made of them."""

import codecs
import dataclasses
import functools
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from stereopsis.errors import FrameError, SceneError
from stereopsis.geometry.camera import Intrinsics
from stereopsis.geometry.lens import NEGLIGIBLE_SHIFT, Lens, pinhole_for, undistort_colour, undistort_nearest
from stereopsis.reading import parse_json, read_bytes
from stereopsis.scenes.bad_frames import check_frame_pose, check_intrinsics
from stereopsis.scenes.conventions import Conventions
from stereopsis.scenes.images import read_colour, read_header
from stereopsis.scenes.readers.depth_files import DepthSource
from stereopsis.scenes.scene import Frame

_ASPECT_TOLERANCE = 0.01
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_BETWEEN_NUMBERS = re.compile(r"[\s,;]+")


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
        words = split_numbers(self.text)
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


def split_numbers(line: str) -> list[str]:
    """The words of a line of numbers, which blanks, commas or semicolons separate."""
    return [word for word in _BETWEEN_NUMBERS.split(line) if word]


def check_folder(path: Path, expected: str) -> None:
    """Refuse what is no folder.

    Raises:
        SceneError: it is not.
    """
    if not path.is_dir():
        raise SceneError(f"{path}: no such folder; expected one that holds {expected}; check the path")


def read_text(
    path: Path, what: str, *, expected: str, error: type[SceneError] = SceneError, remedy: str = "restore the file"
) -> str:
    """Read a small text file: UTF-8, or whatever Unicode encoding its byte-order mark tells.

    Args:
        path: the file.
        what: what it is, for messages.
        expected: its layout, for messages.
        error: the class to raise: FrameError where the file belongs to one frame.
        remedy: what to do, for messages.

    Raises:
        SceneError: the file is absent, unreadable or not text.
    """
    try:
        data = read_bytes(path)
        encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if data.startswith(mark)), "utf-8")
        text = data.decode(encoding)
        if encoding in ("utf-16", "utf-32") and 2 * sum(map(str.isascii, text)) < len(text):
            raise ValueError(f"begins like {encoding.upper()}, but is no text")  # two bytes in front prove little
        return text
    except (FileNotFoundError, NotADirectoryError) as cause:
        raise error(f"{path}: the {what} file does not exist; expected {expected}; {remedy}") from cause
    except (OSError, ValueError) as cause:
        raise error(f"{path}: unreadable {what} ({cause}); expected {expected}; {remedy}") from cause


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
    text = read_text(path, what, expected=expected, error=error, remedy=remedy)
    try:
        rows = [split_numbers(line) for line in text.splitlines() if line.strip()]
        values = [[float(value) for value in row] for row in rows]
    except ValueError as cause:
        raise error(f"{path}: unreadable {what} ({cause}); expected {expected}; {remedy}") from cause
    if not any(len(values) == n and all(len(row) == m for row in values) for n, m in shapes):
        found = f"{len(values)} rows of {sorted({len(row) for row in values})} numbers" if values else "nothing"
        raise error(f"{path}: found {found} as {what}; expected {expected}; {remedy}")
    return np.array(values, dtype=np.float64)


def read_pose(path: Path, conventions: Conventions = Conventions()) -> Float[np.ndarray, "4 4"]:  # noqa: B008
    """Read a pose from a text file of its own, 4x4 numbers.

    Args:
        path: the file.
        conventions: what the numbers mean.

    Returns:
        Camera to world, OpenCV axes, metres.

    Raises:
        FrameError: the file is absent, no such table, not finite, or its rotation is not orthonormal.
    """
    pose = conventions.camera_to_world(read_matrix(path, ((4, 4),), "pose", FrameError))
    check_frame_pose(pose, str(path))
    return pose


def read_json(path: Path, what: str, *, expected: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        SceneError: the file is absent, unreadable, no JSON, or no object.
    """
    text = read_text(path, what, expected=expected)
    try:
        content = parse_json(text)
    except (ValueError, RecursionError) as cause:
        raise SceneError(f"{path}: not valid JSON ({cause}); expected {expected}; export the {what} again") from cause
    if not isinstance(content, dict):
        raise SceneError(
            f"{path}: holds a JSON {type(content).__name__}; expected an object with {expected}; export the {what} "
            "again"
        )
    return content


def capture_frame(
    name: str,
    pose: np.ndarray,
    intrinsics: Intrinsics,
    colour: Path,
    depth: DepthSource | None,
    *,
    pose_from: str,
    intrinsics_from: str,
    lens: Lens | None = None,
    depth_intrinsics: Intrinsics | None = None,
) -> Frame:
    """A frame whose headers, pose and intrinsics have been checked.

    Where the lens bends the picture, colour and depth are straightened when they are read, and the frame's intrinsics
    are those of the straight picture: the widest that has been seen everywhere, so that no pixel is made up. A depth
    image of another size than its colour image's, but of the same shape, is taken to show the same view: its
    intrinsics are the colour image's, resized.

    Args:
        name: unique within the scene.
        pose: supposed to be [4, 4] camera to world, metres, OpenCV axes.
        intrinsics: of the colour image.
        colour: the image file.
        depth: None where the source has none.
        pose_from: the file and entry of the pose, for messages.
        intrinsics_from: the same of the intrinsics.
        lens: where the images are distorted; its camera is `intrinsics`.
        depth_intrinsics: of the depth image, where it has a lens of its own.

    Raises:
        FrameError: something is unusable.
    """
    check_frame_pose(pose, pose_from)
    try:
        check_intrinsics(intrinsics, intrinsics_from)
    except SceneError as error:
        raise FrameError(str(error)) from error
    size = (intrinsics.width, intrinsics.height)
    header = read_header(colour)
    if header.size != size:
        turned = header.orientation >= 5 and header.size == size[::-1]
        advice = (
            "" if turned else "; resize images and intrinsics together, or leave the frame out with on_bad_frame='skip'"
        )
        raise FrameError(
            f"{colour}: the image is {header.width}x{header.height}, but {intrinsics_from} speaks of "
            f"{size[0]}x{size[1]} "
            f"pixels{advice}{header.orientation_advice()}"
        )
    frame = Frame(
        name=name,
        T_world_camera=pose,
        intrinsics=intrinsics,
        load_colour=functools.partial(read_colour, colour, size=size),
        load_depth=None if depth is None else depth.load,
        depth_intrinsics=None if depth is None else _depth_intrinsics(intrinsics, depth, depth_intrinsics),
    )
    return frame if lens is None else straightened(frame, lens, intrinsics_from)


def straightened(frame: Frame, lens: Lens, intrinsics_from: str) -> Frame:
    """The frame with distortion taken out of colour and depth; as it is where the lens does next to nothing.

    Args:
        frame: its depth shows what its distorted colour image shows, at whatever size.
        lens: of the colour image.
        intrinsics_from: the file and entry of the lens, for messages.

    Raises:
        FrameError: the coefficients fold the picture.
    """
    if not lens.fisheye and lens.shift() <= NEGLIGIBLE_SHIFT:
        return frame
    try:
        target = _pinhole(lens)
    except ValueError as error:
        raise FrameError(
            f"{intrinsics_from}: unusable lens distortion: {error}; expected OpenCV's or COLMAP's coefficients; "
            "correct "
            "them, or undistort the images first"
        ) from error
    depth, of_depth = frame.load_depth, frame.depth_intrinsics or frame.intrinsics
    if depth is not None:
        size = (of_depth.width, of_depth.height)
        depth = functools.partial(_straight_depth, depth, lens.resized(*size), target.resized(*size))
    return dataclasses.replace(
        frame,
        intrinsics=target,
        load_colour=functools.partial(_straight_colour, frame.load_colour, lens, target),
        load_depth=depth,
        depth_intrinsics=None if frame.depth_intrinsics is None else target.resized(of_depth.width, of_depth.height),
    )


def distortion_note(lenses: Iterable[Lens]) -> dict[str, str]:
    """What a provenance says of a capture's lenses; nothing where they are pinholes."""
    bent = [lens for lens in lenses if not lens.straight]
    if not bent:
        return {}
    if any(lens.fisheye for lens in bent):
        return {"distortion": "removed: fisheye images were straightened, to the widest that was seen everywhere"}
    shift = max(lens.shift() for lens in bent)
    if shift <= NEGLIGIBLE_SHIFT:
        return {"distortion": f"not removed; it moves no pixel by more than {shift:.1f} pixels"}
    return {"distortion": f"removed: it moved pixels by up to {shift:.1f}; the widest that was seen everywhere is kept"}


_pinhole = functools.lru_cache(maxsize=256)(pinhole_for)


def _straight_colour(load: Callable[[], np.ndarray], lens: Lens, target: Intrinsics) -> np.ndarray:
    return undistort_colour(load(), lens, target)


def _straight_depth(load: Callable[[], np.ndarray], lens: Lens, target: Intrinsics) -> np.ndarray:
    return undistort_nearest(load(), lens, target)


def _depth_intrinsics(intrinsics: Intrinsics, depth: DepthSource, own: Intrinsics | None) -> Intrinsics | None:
    width, height = depth.size
    if own is not None:
        if (width, height) != (own.width, own.height):
            raise FrameError(
                f"{depth.path}: depth is {width}x{height}, but its intrinsics speak of {own.width}x{own.height} "
                "pixels; "
                "restore the original, or leave the frame out with on_bad_frame='skip'"
            )
        return own
    if (width, height) == (intrinsics.width, intrinsics.height):
        return None
    if abs(width * intrinsics.height / (height * intrinsics.width) - 1.0) > _ASPECT_TOLERANCE:
        raise FrameError(
            f"{depth.path}: depth is {width}x{height}, the colour image {intrinsics.width}x{intrinsics.height}: not "
            "the same shape, so not the same view; expected depth that is registered to colour; export both together, "
            "or leave the frame out with on_bad_frame='skip'"
        )
    return intrinsics.resized(width, height)
