"""Plain pixels in place of latents: the control that tells what a learned latent space adds."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from stereopsis.teachers.latents import PREPARED, LatentPosterior, LatentTokenizer


class PixelTokenizer(LatentTokenizer):
    """Patches of pixels in [-1, 1] as "latents".

    The round trip is exact where the number of patches along each side is even.
    """

    def __init__(self, *, patch: int = 8, chunk: int = 16) -> None:
        super().__init__(chunk=chunk)
        self.name = "pixels"
        self.downsampling = patch
        self.latent_channels = 3 * patch * patch

    @property
    def module(self) -> None:
        """No network."""
        return None

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        """The patch size besides the conventions that all tokenizers share."""
        return {**PREPARED, "kind": "pixels", "patch": self.downsampling}

    def _encode(self, pictures: Float[Tensor, "n 3 height width"]) -> LatentPosterior:
        return LatentPosterior(mean=functional.pixel_unshuffle(pictures, self.downsampling))

    def _decode(self, latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 height width"]:
        return functional.pixel_shuffle(latents, self.downsampling)
