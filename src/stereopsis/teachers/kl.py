"""KL autoencoders of diffusers as tokenizers, with the normalisation under which each one's denoiser was trained."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.errors import CheckpointError
from stereopsis.teachers.autoencoders import AutoencoderTokenizer, ScaledTokenizer
from stereopsis.teachers.diffusers_files import load_diffusers
from stereopsis.teachers.latents import PREPARED, CellScaling, LatentPosterior


@dataclasses.dataclass(frozen=True, kw_only=True)
class Convention:
    """What a family's config says of its latents: (z - shift) * scale of `channels` channels."""

    family: str
    channels: int
    scale: float
    shift: float


CONVENTIONS = {
    "flux": Convention(family="FLUX.1", channels=16, scale=0.3611, shift=0.1159),
    "sd3": Convention(family="Stable Diffusion 3", channels=16, scale=1.5305, shift=0.0609),
    "sdxl": Convention(family="SDXL", channels=4, scale=0.13025, shift=0.0),
    "sd1": Convention(family="Stable Diffusion 1 and 2", channels=4, scale=0.18215, shift=0.0),
}


class KLTokenizer(ScaledTokenizer):
    """A diffusers `AutoencoderKL`; latents are (z - shift_factor) * scaling_factor of its config.

    FLUX.1's has 16 channels, shift 0.1159 and scale 0.3611. Where the config gives `latents_mean` and
    `latents_std` per channel, (z - mean) * scaling_factor / std takes its place, as in diffusers' pipelines.
    """

    def __init__(self, vae: nn.Module, *, name: str = "kl", chunk: int = 16) -> None:
        config: Any = vae.config
        super().__init__(vae, config.block_out_channels, name=name, chunk=chunk)

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        """Kind, scale and shift besides the conventions that all tokenizers share."""
        return {
            **PREPARED,
            "kind": "kl",
            "shift": self._shift.flatten().tolist(),
            "scale": self._scale.flatten().tolist(),
        }

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        subfolder: str = "",
        name: str = "kl",
        dtype: torch.dtype = torch.float32,
        chunk: int = 16,
    ) -> "KLTokenizer":
        """Load a diffusers folder or Hugging Face id.

        Args:
            source: a folder with config.json (or with vae/config.json, a whole pipeline), or a hub id.
            subfolder: where the autoencoder lies in a hub repository ("vae" in FLUX.1's).
            name: short name for recipes, caches and logs.
            dtype: of weights and computation.
            chunk: pictures at a time.

        Raises:
            CheckpointError: no such folder, no such file in it, or weights that do not match the config.
        """
        from diffusers import AutoencoderKL

        return cls(load_diffusers(AutoencoderKL, source, subfolder, dtype), name=name, chunk=chunk)

    def check_convention(self, convention: Convention, source: str | Path) -> None:
        """Refuse an autoencoder of another family: its latents mean something else.

        Raises:
            CheckpointError: channels, scale or shift are not the family's.
        """
        family, remedy = convention.family, f"use 'kl:{source}' for another AutoencoderKL"
        if self.latent_channels != convention.channels:
            raise CheckpointError(
                f"{family}'s autoencoder has {convention.channels} latent channels, "
                f"but '{source}' has {self.latent_channels}; {remedy}"
            )
        expected = {"shift_factor": (self._shift, convention.shift), "scaling_factor": (self._scale, convention.scale)}
        for what, (found, published) in expected.items():
            if not torch.allclose(found, torch.tensor(published), rtol=1e-5, atol=0):
                raise CheckpointError(
                    f"{family}'s autoencoder has {what} {published}, but '{source}' has "
                    f"{[round(value, 6) for value in found.flatten().tolist()]}; {remedy}"
                )

    def _encode(self, pictures: Float[Tensor, "n 3 height width"]) -> LatentPosterior:
        latent = self._vae.encode(pictures.to(self._vae.dtype)).latent_dist
        shift, scale = self._shift.to(self.device), self._scale.to(self.device)
        return LatentPosterior(mean=(latent.mean.float() - shift) * scale, std=latent.std.float() * scale)


class Flux2Tokenizer(AutoencoderTokenizer):
    """FLUX.2's `AutoencoderKLFlux2`: 2x2 latents are folded into 128 channels first and normalised then.

    The normalisation is that of a batch norm without weights in the checkpoint: (cell - running_mean) /
    sqrt(running_var + eps), one mean and variance per channel of a CELL, whose channel order (channel-major) is
    ours. Hence `posterior` gives raw latents; an odd side is made even before the folding, like everywhere here.
    """

    def __init__(self, vae: nn.Module, *, name: str = "flux2", chunk: int = 16) -> None:
        config: Any = vae.config
        super().__init__(vae, config.block_out_channels, name=name, chunk=chunk)
        if tuple(config.patch_size) != (2, 2):
            raise CheckpointError(
                f"this FLUX.2 autoencoder folds {tuple(config.patch_size)} latents into a cell, expected (2, 2)"
            )

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        """Kind and the batch norm's eps besides the conventions that all tokenizers share."""
        return {**PREPARED, "kind": "flux2", "eps": self._vae.config.batch_norm_eps}

    @functools.cached_property
    def cell_scaling(self) -> CellScaling:
        """The batch norm as shift and scale, computed in float32 (from statistics of the precision loaded)."""
        norm = self._vae.bn
        return CellScaling(
            shift=norm.running_mean.float().cpu(),
            scale=(norm.running_var.float().cpu() + self._vae.config.batch_norm_eps).rsqrt(),
        )

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        subfolder: str = "",
        name: str = "flux2",
        dtype: torch.dtype = torch.float32,
        chunk: int = 16,
    ) -> "Flux2Tokenizer":
        """Load a diffusers folder or Hugging Face id; arguments and errors as in `KLTokenizer.from_pretrained`."""
        from diffusers import AutoencoderKLFlux2

        return cls(load_diffusers(AutoencoderKLFlux2, source, subfolder, dtype), name=name, chunk=chunk)

    def _encode(self, pictures: Float[Tensor, "n 3 height width"]) -> LatentPosterior:
        latent = self._vae.encode(pictures.to(self._vae.dtype)).latent_dist
        return LatentPosterior(mean=latent.mean.float(), std=latent.std.float())
