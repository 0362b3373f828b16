"""What tokenizers around diffusers' autoencoders share: the frozen network, the scale of its latents, the way back."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.teachers.latents import LatentTokenizer


class AutoencoderTokenizer(LatentTokenizer):
    """A tokenizer that holds one of diffusers' autoencoders.

    Args:
        vae: frozen here.
        blocks: channels of its encoder's blocks; all but the last halve the picture.
        name: short name for recipes, caches and logs.
        chunk: pictures at a time.
    """

    def __init__(self, vae: nn.Module, blocks: Sequence[int], *, name: str, chunk: int) -> None:
        super().__init__(chunk=chunk)
        config: Any = vae.config
        self.name = name
        self.latent_channels = config.latent_channels
        self.downsampling = 2 ** (len(blocks) - 1)
        self._vae: Any = vae.eval().requires_grad_(False)

    @property
    def module(self) -> nn.Module:
        """The frozen autoencoder, with all its buffers."""
        return self._vae

    def _decode(self, latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 height width"]:
        return self._vae.decode(latents.to(self._vae.dtype)).sample.float()


class ScaledTokenizer(AutoencoderTokenizer):
    """One whose config gives the shift and scale of its latents."""

    def __init__(self, vae: nn.Module, blocks: Sequence[int], *, name: str, chunk: int) -> None:
        super().__init__(vae, blocks, name=name, chunk=chunk)
        affine = Affine.of(vae.config)
        self._shift, self._scale = affine.shift, affine.scale

    def _decode(self, latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 height width"]:
        return super()._decode(latents / self._scale.to(self.device) + self._shift.to(self.device))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Affine:
    """Shift and scale of latents, [1 c 1 1] or [1 1 1 1]: scaled = (z - shift) * scale."""

    shift: Float[Tensor, "1 c 1 1"]
    scale: Float[Tensor, "1 c2 1 1"]

    @staticmethod
    def of(config: Any) -> "Affine":
        """What a config says, in the order of precedence of diffusers' pipelines."""
        scale = torch.tensor([1.0 if config.scaling_factor is None else config.scaling_factor])
        shift = torch.tensor([0.0 if config.shift_factor is None else config.shift_factor])
        if config.get("latents_mean") is not None and config.get("latents_std") is not None:
            shift, scale = torch.tensor(config.latents_mean), scale / torch.tensor(config.latents_std)
        return Affine(shift=shift.float().view(1, -1, 1, 1), scale=scale.float().view(1, -1, 1, 1))
