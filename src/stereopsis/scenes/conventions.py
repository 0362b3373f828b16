"""How a capture stores poses and depth, what a person may say otherwise, and how what is stored becomes a pose here.

Every layout has its conventions; exports depart from them. Whatever a person says (`ReadOptions`) goes before the
layout's own, in every reader alike, and what was used is kept in ``provenance["conventions"]``.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from stereopsis.errors import SceneError

_OPENGL_AXES = np.diag([1.0, -1.0, -1.0, 1.0])
_CHOICES = {
    "axes": ("opencv", "opengl"),
    "pose": ("camera-to-world", "world-to-camera"),
    "quaternion": ("xyzw", "wxyz"),
}
_WXYZ_OF_XYZW = (3, 0, 1, 2)
_XYZW_OF_WXYZ = (1, 2, 3, 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """What a person says about a capture; None leaves it to the layout and its files.

    Attributes:
        axes: of the cameras, "opencv" (y down, z forward) or "opengl" (y up, z backward).
        pose: what the stored poses do with points, "camera-to-world" or "world-to-camera".
        quaternion: order of the stored quaternions, "xyzw" or "wxyz"; only for layouts that store quaternions.
        depth_scale: units of the depth images per metre (1000 where they hold millimetres).
        pose_unit: metres per unit of the stored positions.

    Raises:
        SceneError: an unknown word, or a number that is not positive and finite.
    """

    axes: str | None = None
    pose: str | None = None
    quaternion: str | None = None
    depth_scale: float | int | None = None
    pose_unit: float | int | None = None

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise SceneError(f"{name} '{value}' is unknown; choose {' or '.join(choices)}")
        _check_units(self)

    def said(self) -> dict[str, Any]:
        """What was said, without what was not."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


def _check_units(of: "ReadOptions | Conventions") -> None:
    """Whatever a person or a file says, readers hand it to one of these."""
    for name in ("depth_scale", "pose_unit"):
        value = getattr(of, name)
        if value is not None and not (math.isfinite(value) and 1e-9 <= value <= 1e9):
            raise SceneError(f"{name} is {value}; expected a positive number between 1e-9 and 1e9; correct it")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conventions:
    """How a source stores poses and depth; the attributes mean what they mean in `ReadOptions`.

    Attributes:
        axes: of the cameras.
        pose: what stored poses do with points.
        quaternion: order of stored quaternions; None where rotations are stored otherwise.
        depth_scale: units per metre of the depth images.
        pose_unit: metres per unit of stored positions.
        said: which of these a person said.
    """

    axes: str = "opencv"
    pose: str = "camera-to-world"
    quaternion: str | None = None
    depth_scale: float | int = 1000.0
    pose_unit: float | int = 1.0
    said: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_units(self)

    def with_options(self, options: ReadOptions, where: str) -> "Conventions":
        """The conventions with what a person says.

        Args:
            options: theirs.
            where: the source, for the message.

        Raises:
            SceneError: an order of quaternions is given where there are none.
        """
        said = options.said()
        if "quaternion" in said and self.quaternion is None:
            raise SceneError(f"{where}: this layout stores no quaternions; leave their order (--quaternion) out")
        return dataclasses.replace(self, **said, said=tuple(said))

    def camera_to_world(self, stored: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "4 4"]:
        """The pose of a stored matrix: camera to world, OpenCV axes, metres.

        A matrix that is no rigid transform comes out as none, for the check of poses to find it.
        """
        matrix = np.array(stored, dtype=np.float64)
        if self.pose == "world-to-camera":
            matrix = inverse_where_possible(matrix)
        if self.pose_unit != 1.0:
            matrix[:3, 3] *= self.pose_unit
        return matrix @ _OPENGL_AXES if self.axes == "opengl" else matrix

    def stored(self, T_world_camera: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "4 4"]:
        """The inverse of `camera_to_world`: the matrix that would be stored for this pose."""
        matrix = T_world_camera @ _OPENGL_AXES if self.axes == "opengl" else np.array(T_world_camera, dtype=np.float64)
        matrix[:3, 3] /= self.pose_unit
        return inverse_where_possible(matrix) if self.pose == "world-to-camera" else matrix

    def xyzw(self, quaternion: Float[np.ndarray, "4"]) -> Float[np.ndarray, "4"]:
        """A stored quaternion in the order x y z w."""
        return quaternion[list(_XYZW_OF_WXYZ)] if self.quaternion == "wxyz" else quaternion

    def reread(self, T_world_camera: Float[np.ndarray, "4 4"], other: "Conventions") -> Float[np.ndarray, "4 4"]:
        """What a pose that was read under these conventions would have been under others, without the files."""
        stored = self.stored(T_world_camera)
        if other.quaternion != self.quaternion and self.quaternion is not None and other.quaternion is not None:
            xyzw = Rotation.from_matrix(stored[:3, :3]).as_quat()
            as_stored = xyzw[list(_WXYZ_OF_XYZW)] if self.quaternion == "wxyz" else xyzw
            stored[:3, :3] = Rotation.from_quat(other.xyzw(as_stored)).as_matrix()
        return other.camera_to_world(stored)

    def record(self) -> dict[str, Any]:
        """For the provenance: {"conventions": plain values}, or nothing where they are this package's own."""
        if self == Conventions():
            return {}
        values = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        return {"conventions": {**values, "said": list(self.said)}}

    @staticmethod
    def of_record(record: Mapping[str, Any] | None) -> "Conventions":
        """From a provenance; the defaults where it says nothing."""
        known = {field.name for field in dataclasses.fields(Conventions)}
        values = {name: value for name, value in (record or {}).items() if name in known}
        return Conventions(**{**values, "said": tuple(values.get("said", ()))})

    def __str__(self) -> str:
        words = [f"poses {self.pose}", f"{_AXES_IN_WORDS[self.axes]} axes"]
        words += [f"quaternions {self.quaternion}"] if self.quaternion else []
        return ", ".join([*words, f"{self.depth_scale:g} depth units per metre"])


_AXES_IN_WORDS = {"opencv": "OpenCV", "opengl": "OpenGL"}


def inverse_where_possible(matrix: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "4 4"]:
    """The inverse of a pose; a matrix that has none comes back as it is, to be refused as a pose."""
    try:
        inverse = np.linalg.inv(matrix)
    except np.linalg.LinAlgError:
        return matrix
    if np.abs(matrix[3] - (0.0, 0.0, 0.0, 1.0)).max() <= 1e-6:
        inverse[3] = (0.0, 0.0, 0.0, 1.0)
    return inverse
