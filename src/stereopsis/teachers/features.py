"""Frozen 3D feature teachers for alignment objectives (3DRS section 3): per-cell features of posed views."""

import abc
import dataclasses
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from stereopsis.teachers.specs import TeacherKind, read_spec, table

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


def _point_map() -> FeatureTeacher:
    from stereopsis.teachers.point_map import PointMapTeacher

    return PointMapTeacher()


def _rooms_geometry() -> FeatureTeacher:
    from stereopsis.teachers.geometry_teacher import GeometryTeacher

    return GeometryTeacher.from_pretrained()


def _huggingface(source: str) -> FeatureTeacher:
    from stereopsis.teachers.huggingface import load_huggingface_teacher

    return load_huggingface_teacher(source)


def _vggt(source: str) -> FeatureTeacher:
    from stereopsis.teachers.vggt import load_vggt_teacher

    return load_vggt_teacher(source)


def _vggt_archive(source: str) -> FeatureTeacher:
    from stereopsis.teachers.vggt_archive import VggtArchiveTeacher

    return VggtArchiveTeacher(source)


def _depth_anything3(source: str) -> FeatureTeacher:
    from stereopsis.teachers.depth_anything3 import load_depth_anything3_teacher

    return load_depth_anything3_teacher(source)


# every feature teacher there is: a new one is a function above and a line here
FEATURE_TEACHERS = table(
    TeacherKind(form="point_map", what="descriptors of the depth itself, no weights", make=_point_map),
    TeacherKind(form="rooms_geometry", what="a small multi-view network that ships with it", make=_rooms_geometry),
    TeacherKind(form="hf:PATH_OR_ID[@OPTIONS]", what="DINOv2/v3, SigLIP, MAE, CLIP: any such model", make=_huggingface),
    TeacherKind(form="vggt:FOLDER_OR_MODULE[:WEIGHTS]", what="VGGT from your own installation", make=_vggt),
    TeacherKind(form="vggt_npz:FOLDER", what="features that 3DRS's script has extracted", make=_vggt_archive),
    TeacherKind(form="da3:PATH_OR_ID[@OPTIONS]", what="Depth Anything 3 through its package", make=_depth_anything3),
)


def load_feature_teacher(spec: str, device: torch.device | str = "cpu") -> FeatureTeacher:
    """The feature teacher that a recipe names.

    Args:
        spec: a form of `FEATURE_TEACHERS`, such as "point_map" or "hf:facebook/dinov2-large@size=392".
        device: where its network runs.

    Raises:
        RecipeError: unknown spec, or one without its source.
        CheckpointError: missing files, or weights that do not match.
        MissingExtraError: a package that the teacher needs is not installed.
    """
    read = read_spec(spec, FEATURE_TEACHERS, "feature teacher")
    teacher: FeatureTeacher = read.kind.make(read.source) if read.source else read.kind.make()
    return teacher.to(device)
