"""Tiny distilled autoencoders (TAESD and its kin), whose latents are those of the big one at a fraction of the cost."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.errors import CheckpointError
from stereopsis.reading import read_tensors
from stereopsis.teachers.autoencoders import ScaledTokenizer
from stereopsis.teachers.diffusers_files import load_all, load_diffusers
from stereopsis.teachers.latents import PREPARED, LatentPosterior

TAESD_CHANNELS = {"taesd": 4, "taesdxl": 4, "taesd3": 16, "taef1": 16}  # of the pairs of files, by their names
_PARTS = ("encoder", "decoder")


class TinyTokenizer(ScaledTokenizer):
    """A diffusers `AutoencoderTiny` such as TAEF1: its latents come scaled and have no spread.

    The published ones have scaling_factor 1 and shift_factor 0, because they imitate latents that are scaled
    already; other values in a config are applied as diffusers' pipelines apply them.
    """

    def __init__(self, vae: nn.Module, *, name: str = "tiny", chunk: int = 16) -> None:
        config: Any = vae.config
        super().__init__(vae, config.encoder_block_out_channels, name=name, chunk=chunk)

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        """Kind, scale and shift besides the conventions that all tokenizers share."""
        return {**PREPARED, "kind": "tiny", "shift": self._shift.item(), "scale": self._scale.item()}

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        subfolder: str = "",
        name: str = "tiny",
        dtype: torch.dtype = torch.float32,
        chunk: int = 16,
    ) -> "TinyTokenizer":
        """Load a diffusers folder or hub id, or a folder with, for instance, taef1_encoder and taef1_decoder.

        Args:
            source: folder or id. Pairs of .safetensors files are looked for under `name`: "taesd", "taesdxl",
                "taesd3" or "taef1".
            subfolder: where the autoencoder lies in a hub repository.
            name: short name for recipes, caches and logs.
            dtype: of weights and computation.
            chunk: pictures at a time.

        Raises:
            CheckpointError: no such folder, no such file in it, or weights that do not match.
        """
        from diffusers import AutoencoderTiny

        folder = Path(source).expanduser()
        if name in TAESD_CHANNELS and folder.is_dir() and not (folder / "config.json").is_file():
            tiny: Any = AutoencoderTiny(latent_channels=TAESD_CHANNELS[name], scaling_factor=1.0, shift_factor=0.0)
            load_all(tiny, _taesd_pair(folder, name), folder)
            if dtype != torch.float32:
                tiny.to(dtype)
            return cls(tiny, name=name, chunk=chunk)
        return cls(load_diffusers(AutoencoderTiny, source, subfolder, dtype), name=name, chunk=chunk)

    def check_channels(self, expected: int, source: str) -> None:
        """Refuse an autoencoder whose latents are not those of its name.

        Raises:
            CheckpointError: another number of latent channels.
        """
        if self.latent_channels != expected:
            raise CheckpointError(
                f"'{self.name}' has {expected} latent channels, but '{source}' has {self.latent_channels}; "
                f"use 'tiny:{source}' for another AutoencoderTiny"
            )

    def _encode(self, pictures: Float[Tensor, "n 3 height width"]) -> LatentPosterior:
        latents = self._vae.encode(pictures.to(self._vae.dtype)).latents.float()
        return LatentPosterior(mean=(latents - self._shift.to(latents)) * self._scale.to(latents))


def _taesd_pair(folder: Path, name: str) -> dict[str, Tensor]:
    """The pair of files in taesd's key names, renamed to diffusers'.

    The decoder's first layer (a clamp) has no place in diffusers' list, so its numbers move down by one.
    """
    state: dict[str, Tensor] = {}
    for part, offset in zip(_PARTS, (0, 1), strict=True):
        path = folder / f"{name}_{part}.safetensors"
        if not path.is_file():
            raise CheckpointError(
                f"'{path}' does not exist; '{folder}' should hold {name}_encoder.safetensors and "
                f"{name}_decoder.safetensors, or config.json and weights in diffusers' layout"
            )
        for key, value in read_tensors(path).items():
            number, _, rest = key.partition(".")
            if not number.isdigit() or int(number) < offset:
                raise CheckpointError(f"'{path}' holds the unknown weight '{key}'; expected names such as '1.weight'")
            state[f"{part}.layers.{int(number) - offset}.{rest}"] = value.float()
    return state
