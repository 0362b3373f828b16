"""What scene.json may hold: the records of this package's own scene layout, and their checks."""

import unicodedata
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from stereopsis.errors import FrameError, SceneError
from stereopsis.geometry.camera import check_pose
from stereopsis.reading import read_json

SCHEMA = "stereopsis-scene"
SCHEMA_VERSION = 1
EXPECTED_FILES = "scene.json, annotations.json and frames/ (written by Scene.save or 'stereopsis prepare')"
_NAME_BYTES = 200
_REMEDY = "restore the file or prepare the scene again"

_Row = Annotated[list[FiniteFloat], Field(min_length=4, max_length=4)]
_Matrix = Annotated[list[_Row], Field(min_length=4, max_length=4)]
_Box = Annotated[list[FiniteFloat], Field(min_length=6, max_length=6)]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class StrictRecord(BaseModel):
    """Base of the records: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class ImageRecord(StrictRecord):
    """An image file's compression and checksum; its name follows from the frame's."""

    format: Literal["png", "jpg"]
    sha256: _Sha256


class CameraRecord(StrictRecord):
    """Intrinsics in pixels; frames refer to them by their place in the list."""

    fx: FiniteFloat
    fy: FiniteFloat
    cx: FiniteFloat
    cy: FiniteFloat
    width: int = Field(gt=0)
    height: int = Field(gt=0)


class FrameRecord(StrictRecord):
    """One posed view."""

    name: str
    T_world_camera: _Matrix
    camera: int = Field(ge=0)
    depth_camera: int | None = Field(default=None, ge=0)
    colour: ImageRecord
    depth: ImageRecord | None = None


class ObjectRecord(StrictRecord):
    """An object instance; the box is cx cy cz dx dy dz in the aligned frame, metres."""

    id: int
    label: str
    box: _Box
    attributes: dict[str, Any]
    visible_pixels: list[int]


class ProposalRecord(StrictRecord):
    """A detector's box."""

    box: _Box
    score: FiniteFloat
    label: str


class BirdseyeRecord(StrictRecord):
    """The numbers that belong to birdseye.png, birdseye_void.png and (where holes were filled) birdseye_filled.png."""

    origin: tuple[FiniteFloat, FiniteFloat]
    metres_per_pixel: FiniteFloat = Field(gt=0)
    size: int = Field(gt=0)
    image: ImageRecord
    void: ImageRecord
    filled: ImageRecord | None = None


class SceneRecord(StrictRecord):
    """The whole file."""

    format: Literal["stereopsis-scene"] = "stereopsis-scene"
    schema_version: Literal[1] = 1
    id: str
    T_aligned_world: _Matrix
    depth_units_per_metre: FiniteFloat = Field(gt=0)
    cameras: list[CameraRecord]
    frames: list[FrameRecord] = Field(min_length=1)
    objects: list[ObjectRecord]
    proposals: list[ProposalRecord]
    birdseye: BirdseyeRecord | None
    provenance: dict[str, Any]


def read_record(path: Path) -> SceneRecord:
    """Read and check a folder's scene.json.

    Raises:
        FrameError: a frame's name would lead out of the folder.
        SceneError: no such file, not JSON, of another schema or version, or a field is missing, unknown or
            wrong.
    """
    file = path / "scene.json"
    try:
        content = read_json(file)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SceneError(f"{path}: holds no scene.json; expected {EXPECTED_FILES}; check the path") from error
    except (OSError, ValueError) as error:
        raise SceneError(f"{file}: cannot be read as JSON ({error}); {_REMEDY}") from error
    if not isinstance(content, dict) or content.get("format") != SCHEMA:
        raise SceneError(f"{file}: is not a {SCHEMA} file; expected {EXPECTED_FILES}; check the path")
    version = content.get("schema_version")
    if version != SCHEMA_VERSION:
        raise SceneError(
            f"{file}: schema version {version!r}, but this version of stereopsis reads {SCHEMA_VERSION}; "
            "upgrade stereopsis, or prepare the scene again with this version"
        )
    return check_record(content, str(file), _REMEDY)


def check_record(content: dict[str, Any], where: str, remedy: str) -> SceneRecord:
    """Check the content of a scene.json before it is used or written.

    Args:
        content: the decoded file.
        where: the file or scene to name in messages.
        remedy: what to do next, for the message.

    Raises:
        FrameError: a frame's name cannot be a file name inside the folder.
        SceneError: a field is missing, unknown or wrong.
    """
    try:
        record = SceneRecord.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise SceneError(
            f"{where}: field '{key}': {first['msg']} (found {str(first['input'])[:80]}); {remedy}"
        ) from error
    names: set[str] = set()
    for frame in record.frames:
        check_name(frame.name, where)
        if frame.name in names:
            raise SceneError(f"{where}: two frames are named '{frame.name}'; names must differ; {remedy}")
        names.add(frame.name)
        if max(frame.camera, frame.depth_camera or 0) >= len(record.cameras):
            raise SceneError(
                f"{where}: frame '{frame.name}' names a camera that is not among the {len(record.cameras)} "
                f"listed; {remedy}"
            )
    try:
        check_pose(np.array(record.T_aligned_world), "T_aligned_world")
    except ValueError as error:
        raise SceneError(f"{where}: {error}; expected a rigid 4x4 transform, metres; {remedy}") from error
    return record


def is_name_character(character: str) -> bool:
    """Whether a frame's name may hold it: letters, their accents, digits, and a few more."""
    return character in "_-.% " or unicodedata.category(character)[0] in "LMN"


def check_name(name: str, where: str) -> None:
    """Check that a frame's name can be a file's name inside the folder, and is no other frame's depth file.

    Raises:
        FrameError: it cannot.
    """
    plain = all(map(is_name_character, name)) and name[:1] not in (".", " ", "") and name[-1:] != " "
    if not plain or name.endswith(".depth") or len(name.encode()) > _NAME_BYTES:
        raise FrameError(
            f"{where}: frame name {name!r} cannot be a file name inside the scene's folder; expected at most "
            f"{_NAME_BYTES} bytes of letters and digits of any script, blanks, '_', '-', '.' or '%', not beginning "
            "with '.', neither beginning nor ending with a blank, and not ending in '.depth'; rename the frame"
        )
