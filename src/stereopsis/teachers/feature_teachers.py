"""Every feature teacher there is, by the name that recipes give it. A new one is a function and a line here."""

import torch

from stereopsis.teachers.features import FeatureTeacher
from stereopsis.teachers.specs import TeacherKind, read_spec, table


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
