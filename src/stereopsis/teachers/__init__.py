"""Frozen teachers: latent tokenizers for reconstruction and 3D features for alignment."""

from stereopsis.teachers.feature_teachers import load_feature_teacher
from stereopsis.teachers.features import FeatureTeacher, TeacherViews, ViewFeatures
from stereopsis.teachers.latent_tokenizers import (
    Flux2Tokenizer,
    KLTokenizer,
    PixelTokenizer,
    TinyTokenizer,
    load_latent_tokenizer,
    rooms_autoencoder_folder,
)
from stereopsis.teachers.latents import CellPosterior, LatentPosterior, LatentTokenizer, psnr, valid_cells
from stereopsis.teachers.point_map import PointMapTeacher

__all__ = [
    "CellPosterior",
    "FeatureTeacher",
    "Flux2Tokenizer",
    "KLTokenizer",
    "LatentPosterior",
    "LatentTokenizer",
    "PixelTokenizer",
    "PointMapTeacher",
    "TeacherViews",
    "TinyTokenizer",
    "ViewFeatures",
    "load_feature_teacher",
    "load_latent_tokenizer",
    "psnr",
    "rooms_autoencoder_folder",
    "valid_cells",
]
