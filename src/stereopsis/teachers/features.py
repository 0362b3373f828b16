"""Frozen 3D feature teachers for alignment objectives (3DRS section 3): per-cell features of posed views."""

import abc
import dataclasses
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

Self = TypeVar("Self", bound="FeatureTeacher")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TeacherViews:
    """What a feature teacher sees of one scene.

    Attributes:
        images: [views 3 height width] RGB.
        points: [views height width 3] aligned frame (z up, floor near 0), metres; anything where invalid.
        points_valid: [views height width] True where the point comes from a valid depth.
        T_aligned_camera: [views 4 4] camera to aligned frame, metres, OpenCV axes.
        rows: cells down, for every view.
        cols: cells across.
        names: frame names, in order; caches are keyed by them, so teacher and student frames cannot differ.
        scene_id: which scene.
        intrinsics: [views 3 3] of the images as they are here, pixels; None where unknown.
    """

    images: UInt8[Tensor, "views 3 height width"]
    points: Float[Tensor, "views height width 3"]
    points_valid: Bool[Tensor, "views height width"]
    T_aligned_camera: Float[Tensor, "views 4 4"]
    rows: int
    cols: int
    names: tuple[str, ...]
    scene_id: str
    intrinsics: Float[Tensor, "views 3 3"] | None = None

    def __post_init__(self) -> None:
        views, height, width = self.points_valid.shape
        if len(self.names) != views:
            raise ValueError(f"scene '{self.scene_id}': {views} views but {len(self.names)} names; give one for each")
        if not (1 <= self.rows <= height and 1 <= self.cols <= width):
            raise ValueError(
                f"scene '{self.scene_id}': cannot lay {self.rows} x {self.cols} cells over {height} x {width} pixels"
            )

    @property
    def field_aspect(self) -> float:
        """Width over height of what the cameras see; that of the image where pixels are square (or K unknown).

        4:3 frames squeezed into squares ("squash") still see 4:3, and their centre crops 1:1.
        """
        height, width = self.points_valid.shape[-2:]
        if self.intrinsics is None:
            return width / height
        K = self.intrinsics.double().mean(dim=0)
        return float((width / K[0, 0]) / (height / K[1, 1]))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ViewFeatures:
    """A teacher's features of the cells.

    Attributes:
        features: [views rows cols channels]; zeros where invalid.
        valid: [views rows cols] False where the teacher has nothing to say.
    """

    features: Float[Tensor, "views rows cols channels"]
    valid: Bool[Tensor, "views rows cols"]


class FeatureTeacher(abc.ABC):
    """A frozen source of per-cell features; no gradient reaches it.

    Attributes:
        name: short name for recipes, caches and logs.
        channels: of one cell's feature.
        per_view: what it says about a view depends on no other view of the scene, so that a cache may be asked for
            some of the views. A network that attends across views must say False.
    """

    name: str
    channels: int
    per_view: bool = False

    @property
    @abc.abstractmethod
    def fingerprint(self) -> str:
        """Sha256 over weights and preprocessing."""

    def to(self: Self, device: torch.device | str) -> Self:
        """Move whatever computes to a device and return the teacher; one without a network computes with the views."""
        return self

    @abc.abstractmethod
    def encode(self, views: TeacherViews) -> ViewFeatures:
        """Features of every cell of every view, float32, on the device of the views."""
