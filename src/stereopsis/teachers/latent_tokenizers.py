"""The latent tokenizers at hand, and how a recipe names them."""

from pathlib import Path

import torch

import stereopsis.assets
from stereopsis.teachers.diffusers_files import hub_source
from stereopsis.teachers.kl import CONVENTIONS, Flux2Tokenizer, KLTokenizer
from stereopsis.teachers.latents import LatentTokenizer
from stereopsis.teachers.pixels import PixelTokenizer
from stereopsis.teachers.specs import TeacherKind, read_spec, table
from stereopsis.teachers.tiny import TAESD_CHANNELS, TinyTokenizer

__all__ = [
    "LATENT_TOKENIZERS",
    "Flux2Tokenizer",
    "KLTokenizer",
    "PixelTokenizer",
    "TinyTokenizer",
    "load_latent_tokenizer",
    "rooms_autoencoder_folder",
]


def rooms_autoencoder_folder() -> Path:
    """Where the shipped autoencoder lies."""
    return Path(stereopsis.assets.__file__).parent / "rooms_autoencoder"


def _rooms(name: str, source: str, dtype: torch.dtype) -> LatentTokenizer:
    return KLTokenizer.from_pretrained(rooms_autoencoder_folder(), name=name, dtype=dtype)


def _pixels(name: str, source: str, dtype: torch.dtype) -> LatentTokenizer:
    return PixelTokenizer()


def _tiny(name: str, source: str, dtype: torch.dtype) -> LatentTokenizer:
    where = hub_source(source)
    tokenizer = TinyTokenizer.from_pretrained(where.source, subfolder=where.subfolder, name=name, dtype=dtype)
    if name in TAESD_CHANNELS:
        tokenizer.check_channels(TAESD_CHANNELS[name], source)
    return tokenizer


def _kl(name: str, source: str, dtype: torch.dtype) -> LatentTokenizer:
    where = hub_source(source, default="vae" if name in CONVENTIONS else "")
    tokenizer = KLTokenizer.from_pretrained(where.source, subfolder=where.subfolder, name=name, dtype=dtype)
    if name in CONVENTIONS:
        tokenizer.check_convention(CONVENTIONS[name], source)
    return tokenizer


def _flux2(name: str, source: str, dtype: torch.dtype) -> LatentTokenizer:
    where = hub_source(source, default="vae")
    return Flux2Tokenizer.from_pretrained(where.source, subfolder=where.subfolder, name=name, dtype=dtype)


LATENT_TOKENIZERS = table(
    TeacherKind(form="rooms", what="the small autoencoder that ships with this package", make=_rooms),
    TeacherKind(form="pixels", what="patchified pixels, a control without any network", make=_pixels),
    TeacherKind(form="taef1:PATH", what="TAEF1, FLUX.1's latents at a fraction of the cost", make=_tiny),
    TeacherKind(form="taesd:PATH", what="TAESD, Stable Diffusion 1's latents likewise", make=_tiny),
    TeacherKind(form="taesdxl:PATH", what="TAESDXL, SDXL's latents likewise", make=_tiny),
    TeacherKind(form="taesd3:PATH", what="TAESD3, Stable Diffusion 3's latents likewise", make=_tiny),
    TeacherKind(form="tiny:PATH_OR_ID", what="any other diffusers AutoencoderTiny", make=_tiny),
    TeacherKind(form="flux:PATH_OR_ID", what="FLUX.1's autoencoder, Ross3D's teacher", make=_kl),
    TeacherKind(form="flux2:PATH_OR_ID", what="FLUX.2's autoencoder", make=_flux2),
    TeacherKind(form="sd3:PATH_OR_ID", what="Stable Diffusion 3's autoencoder", make=_kl),
    TeacherKind(form="sdxl:PATH_OR_ID", what="SDXL's autoencoder", make=_kl),
    TeacherKind(form="sd1:PATH_OR_ID", what="Stable Diffusion 1's and 2's autoencoder", make=_kl),
    TeacherKind(form="kl:PATH_OR_ID", what="any other diffusers AutoencoderKL", make=_kl),
)


def load_latent_tokenizer(
    spec: str, device: torch.device | str = "cpu", *, dtype: torch.dtype = torch.float32
) -> LatentTokenizer:
    """The tokenizer that a recipe names.

    Args:
        spec: a form of `LATENT_TOKENIZERS`, such as "rooms" or "flux:PATH_OR_ID". A hub id may end in a subfolder
            ("org/name/vae"); pipelines' autoencoders ("flux:org/name") are looked for in "vae" by themselves.
        device: where it runs.
        dtype: of weights and computation; latents come back as float32 either way.

    Raises:
        RecipeError: unknown spec, or one without its path.
        CheckpointError: missing files, weights that do not match, or an autoencoder of another family.
    """
    read = read_spec(spec, LATENT_TOKENIZERS, "latent tokenizer")
    tokenizer: LatentTokenizer = read.kind.make(read.kind.name, read.source, dtype)
    return tokenizer.to(device)
