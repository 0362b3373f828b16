"""The files of a COLMAP model, in text or binary form: cameras, images and points.

Text is COLMAP's documented format; binary holds the same numbers, little endian (``cameras.bin``, ``images.bin``,
``points3D.bin``), and is what COLMAP writes unless told otherwise.
"""

import dataclasses
import struct
from pathlib import Path

import numpy as np
from jaxtyping import Float

from stereopsis.errors import FrameError, SceneError
from stereopsis.geometry.lens import Lens
from stereopsis.reading import read_bytes
from stereopsis.scenes.readers.capture_files import TextRow, read_rows
from stereopsis.scenes.readers.colmap_cameras import lens_of, model_of

CAMERA_LINE = "CAMERA_ID MODEL WIDTH HEIGHT PARAMS[]"
IMAGE_LINE = "IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, and a second line with its points (may be empty)"
_POINT_LINE = "POINT3D_ID X Y Z R G B ERROR TRACK[]"
_POINTS_OF_IMAGE = "X Y POINT3D_ID per point"
_MOST_NAME = 4096


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ImageEntry:
    """An image of the model.

    Attributes:
        where: the file and line or number, for messages.
        name: of the image file.
        camera: its camera's id.
        values: QW QX QY QZ TX TY TZ as words or numbers.
        points: what the image observes, [n, 3] X Y POINT3D_ID; as text where it has not been parsed yet.
    """

    where: str
    name: str
    camera: str
    values: tuple[str | float, ...]
    points: str | np.ndarray

    def pose(self) -> Float[np.ndarray, "7"]:
        """QW QX QY QZ TX TY TZ.

        Raises:
            FrameError: they are no numbers.
        """
        try:
            return np.array([float(value) for value in self.values])
        except ValueError as error:
            raise FrameError(
                f"{self.where}: unusable pose: {error}; expected {IMAGE_LINE}; correct the line, or leave the frame "
                "out "
                "with on_bad_frame='skip'"
            ) from error

    def observations(self) -> Float[np.ndarray, "n 3"]:
        """X Y POINT3D_ID of each observed point, pixels.

        Raises:
            SceneError: the text holds something else.
        """
        if not isinstance(self.points, str):
            return self.points
        try:
            return np.array([float(word) for word in self.points.split()]).reshape(-1, 3)
        except ValueError as error:
            raise SceneError(
                f"{self.where}: {error}; expected {_POINTS_OF_IMAGE} in the second line; export the model again"
            ) from error


def is_model(folder: Path) -> bool:
    """Whether a folder holds a model in either form."""
    return any(all((folder / f"{name}.{form}").is_file() for name in ("cameras", "images")) for form in ("txt", "bin"))


def read_cameras(folder: Path) -> dict[str, Lens]:
    """{camera id: its lens}; text goes before binary.

    Raises:
        SceneError: the file is damaged, or a camera is of a model that cannot be used.
    """
    if (folder / "cameras.txt").is_file():
        return _text_cameras(folder / "cameras.txt")
    source = _Binary(folder / "cameras.bin")
    cameras = {}
    for _ in range(source.count(24)):
        number, model_number, width, height = source.take("<iiQQ")
        where = f"{source.path}: camera {number}"
        model = model_of(model_number, where)
        cameras[str(number)] = lens_of(model, (width, height), source.take(f"<{model.count}d"), where)
    source.end()
    return cameras


def read_images(folder: Path) -> list[ImageEntry]:
    """The model's images in the file's order; text goes before binary.

    Raises:
        SceneError: the file is damaged.
    """
    if (folder / "images.txt").is_file():
        return _text_images(folder / "images.txt")
    source = _Binary(folder / "images.bin")
    entries = []
    for _ in range(source.count(73)):
        number, *values, camera = source.take("<i7di")
        name = source.text()
        points = source.array(np.dtype([("x", "<f8"), ("y", "<f8"), ("id", "<i8")]), source.take("<Q")[0])
        table = np.stack([points["x"], points["y"], points["id"].astype(np.float64)], axis=1)
        entries.append(
            ImageEntry(
                where=f"{source.path}: image {number} ('{name}')",
                name=name,
                camera=str(camera),
                values=tuple(values),
                points=table,
            )
        )
    source.end()
    return entries


def read_points(folder: Path) -> dict[int, Float[np.ndarray, "3"]] | None:
    """{point id: place in the model's unit}; None where the model has no points' file.

    Raises:
        SceneError: the file is damaged.
    """
    if (folder / "points3D.txt").is_file():
        return _text_points(folder / "points3D.txt")
    if not (folder / "points3D.bin").is_file():
        return None
    source = _Binary(folder / "points3D.bin")
    points = {}
    for _ in range(source.count(51)):
        number, x, y, z, _, _, _, _, track = source.take("<Q3d3BdQ")
        points[int(number)] = np.array([x, y, z])
        source.skip(8 * track)
    source.end()
    return points


def _text_cameras(file: Path) -> dict[str, Lens]:
    cameras = {}
    for row in read_rows(file, "cameras", expected=CAMERA_LINE):
        words = row.text.split()
        if len(words) < 4:
            raise row.error(f"found '{row.text}'")
        name, model = words[0], model_of(words[1], row.where)
        numbers = TextRow(where=row.where, text=" ".join(words[2:]), expected=CAMERA_LINE).numbers(2 + model.count)
        if not np.isfinite(numbers).all():
            raise row.error("found NaN or inf")
        cameras[name] = lens_of(model, (int(numbers[0]), int(numbers[1])), numbers[2:].tolist(), row.where)
    return cameras


def _text_images(file: Path) -> list[ImageEntry]:
    """Two lines per image; the second (its points) may be empty, or absent where it is absent everywhere."""
    rows = read_rows(file, "images", expected=IMAGE_LINE, empty_lines=True)
    filled = [row for row in rows if row.text]
    if all(map(_is_image, filled)):
        return [_text_entry(row, "") for row in filled]
    entries, missing = [], None
    lines = iter(rows)
    for row in lines:
        if not row.text:
            continue
        if len(row.text.split(maxsplit=9)) != 10:
            raise row.error(f"found '{row.text[:60]}'")
        points = next(lines, None)
        if points is not None and points.text and _is_image(points):
            missing = missing or points
        entries.append(_text_entry(row, "" if points is None else points.text))
    if missing is not None:
        raise SceneError(
            f"{missing.where}: found '{missing.text[:60]}' where the points of the image before it belong; expected "
            f"{_POINTS_OF_IMAGE}, or an empty line; add the line, or export the model again"
        )
    return entries


def _is_image(row: TextRow) -> bool:
    """Ten words of which nine are numbers; points come three numbers at a time."""
    words = row.text.split()
    return len(words) >= 10 and all(map(_is_number, words[:9])) and not (len(words) % 3 == 0 and _is_number(words[-1]))


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _text_entry(row: TextRow, points: str) -> ImageEntry:
    words = row.text.split(maxsplit=9)
    return ImageEntry(where=row.where, name=words[9], camera=words[8], values=tuple(words[1:8]), points=points)


def _text_points(file: Path) -> dict[int, np.ndarray]:
    points = {}
    for row in read_rows(file, "points", expected=_POINT_LINE):
        try:
            number, x, y, z = row.text.split(maxsplit=4)[:4]
            points[int(number)] = np.array([float(x), float(y), float(z)])
        except ValueError as error:
            raise row.error(f"found '{row.text[:60]}'") from error
    return points


class _Binary:
    """A binary file of the model, read from front to back; what does not fit is said with the place."""

    def __init__(self, path: Path) -> None:
        self.path, self.place = path, 0
        try:
            self.data = read_bytes(path)
        except OSError as error:
            raise SceneError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error

    def count(self, least: int) -> int:
        """How many records follow, each of at least so many bytes."""
        (number,) = self.take("<Q")
        if number * least > len(self.data):
            raise self._damaged(f"speaks of {number} records")
        return number

    def take(self, layout: str) -> tuple:
        size = struct.calcsize(layout)
        if self.place + size > len(self.data):
            raise self._damaged(f"ends at byte {len(self.data)}, in the middle of a record")
        values = struct.unpack_from(layout, self.data, self.place)
        self.place += size
        return values

    def array(self, layout: np.dtype, count: int) -> np.ndarray:
        if self.place + layout.itemsize * count > len(self.data):
            raise self._damaged(f"speaks of {count} points at byte {self.place}")
        values = np.frombuffer(self.data, layout, count, self.place)
        self.place += layout.itemsize * count
        return values

    def text(self) -> str:
        end = self.data.find(b"\0", self.place, self.place + _MOST_NAME)
        if end < 0:
            raise self._damaged(f"has no end of a name after byte {self.place}")
        value = self.data[self.place : end].decode("utf-8", errors="surrogateescape")
        self.place = end + 1
        return value

    def skip(self, size: int) -> None:
        self.place += size

    def end(self) -> None:
        if self.place != len(self.data):
            raise self._damaged(f"is {len(self.data)} bytes long, but its records end at byte {self.place}")

    def _damaged(self, found: str) -> SceneError:
        return SceneError(
            f"{self.path}: {found}; expected one of COLMAP's binary model files; copy it again, or export the model as "
            "text (colmap model_converter --output_type TXT)"
        )
