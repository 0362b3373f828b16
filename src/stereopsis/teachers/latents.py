"""Frozen latent tokenizers: the F of Ross3D's L = D(J(x), F(T_o(I))), from pictures to a grid of targets.

A tokenizer maps uint8 pictures to latents at 1/8 of their size (for a KL autoencoder: a Gaussian for each
latent), scales them to about unit spread, and folds each 2x2 block of latents into one cell: a view of
216 px becomes 14x14 cells and a bird's-eye view of 432 px becomes 27x27 (Ross3D section 3 and released code).
"""

import abc
import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

Self = TypeVar("Self", bound="LatentTokenizer")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LatentPosterior:
    """What a tokenizer says about pictures, already scaled: (z - shift) * scale.

    Attributes:
        mean: [n c h w] mean of each latent.
        std: [n c h w] its standard deviation; None for a tokenizer without uncertainty.
    """

    mean: Float[Tensor, "n c h w"]
    std: Float[Tensor, "n c h w"] | None = None

    def sample(self, generator: torch.Generator) -> Float[Tensor, "n c h w"]:
        """Draw latents; noise comes from the generator's own device, so a CPU seed means the same anywhere.

        Without a standard deviation the mean is the only possible draw, and the generator is left untouched.
        """
        if self.std is None:
            return self.mean
        noise = torch.randn(self.mean.shape, generator=generator, device=generator.device)
        return self.mean + self.std * noise.to(self.mean)


class LatentTokenizer(abc.ABC):
    """A frozen tokenizer of pictures.

    It is not an `nn.Module`: a model that holds one neither trains nor saves it. Everything runs in inference
    mode and outside any autocast region; what comes back are ordinary tensors on the tokenizer's device.

    Attributes:
        name: short name for recipes, caches and logs.
        latent_channels: channels of one latent.
        downsampling: pixels per latent along each side.
    """

    name: str
    latent_channels: int
    downsampling: int

    def __init__(self, *, chunk: int = 16) -> None:
        if chunk < 1:
            raise ValueError(f"chunk must be at least 1 picture, got {chunk}")
        self.chunk = chunk
        self.device = torch.device("cpu")

    @property
    def channels(self) -> int:
        """Channels of one cell, that is of 2x2 latents."""
        return 4 * self.latent_channels

    @property
    @abc.abstractmethod
    def module(self) -> nn.Module | None:
        """The frozen network, or None where there is none."""

    @property
    @abc.abstractmethod
    def preprocessing(self) -> Mapping[str, Any]:
        """Everything besides the weights that changes the latents, as plain JSON values."""

    @abc.abstractmethod
    def _encode(self, pictures: Float[Tensor, "n 3 height width"]) -> LatentPosterior:
        """Scaled posterior of one chunk of pictures in [-1, 1]."""

    @abc.abstractmethod
    def _decode(self, latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 height width"]:
        """Pictures in [-1, 1] (not yet clamped) of one chunk of scaled latents."""

    @functools.cached_property
    def fingerprint(self) -> str:
        """Sha256 over the weights and the preprocessing; independent of the device and of the chunk size."""
        return fingerprint(self.preprocessing, self.module)

    def to(self: Self, device: torch.device | str) -> Self:
        """Move the tokenizer to a device (in place) and return it."""
        self.device = torch.device(device)
        if self.module is not None:
            self.module.to(self.device)
        return self

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of cells of a picture of this size in pixels.

        Raises:
            ValueError: a side is not a positive multiple of `downsampling`.
        """
        self._check_size(height, width)
        rows, cols = height // self.downsampling, width // self.downsampling
        return (rows + 1) // 2, (cols + 1) // 2

    def posterior(self, images: UInt8[Tensor, "n 3 height width"]) -> LatentPosterior:
        """The scaled latents of pictures: [n c height/8 width/8].

        Raises:
            ValueError: a side is not a multiple of `downsampling`.
        """
        return self._posterior(images, None)

    def encode_cells(
        self,
        images: UInt8[Tensor, "n 3 height width"],
        size: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "n rows cols channels"]:
        """Target cells of pictures.

        Ross3D's order: resize (bilinear; here with antialiasing), encode, scale, bring an odd latent side to
        the next even one by bilinear resizing (27 -> 28 for 216 px), fold 2x2 latents into one cell.

        Args:
            images: RGB.
            size: resize to size x size pixels first; None keeps the size.
            generator: draw from the posterior, as Ross3D's released code does; None takes its mean.

        Raises:
            ValueError: a side (after resizing) is not a multiple of `downsampling`.
        """
        posterior = self._posterior(images, size)
        latents = posterior.mean if generator is None else posterior.sample(generator)
        return space_to_depth(even_sides(latents))

    def decode_cells(self, cells: Float[Tensor, "n rows cols channels"]) -> UInt8[Tensor, "n 3 height width"]:
        """Pictures of cells: height = 2 * rows * downsampling (a side made even on the way in stays so)."""
        if cells.shape[-1] != self.channels:
            raise ValueError(f"cells of tokenizer '{self.name}' have {self.channels} channels, got {cells.shape[-1]}")
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            latents = depth_to_space(cells.detach().to(self.device, torch.float32))
            if not len(latents):
                height, width = (side * self.downsampling for side in latents.shape[-2:])
                return torch.zeros(0, 3, height, width, dtype=torch.uint8, device=self.device)
            unit = torch.cat([self._decode(part).float() for part in latents.split(self.chunk)])
            images = unit.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
        return images.clone()

    def _posterior(self, images: UInt8[Tensor, "n 3 height width"], size: int | None) -> LatentPosterior:
        height, width = (size, size) if size is not None else (images.shape[-2], images.shape[-1])
        self._check_size(height, width)
        if not len(images):
            empty = torch.zeros(0, self.latent_channels, height // self.downsampling, width // self.downsampling)
            return LatentPosterior(mean=empty.to(self.device))
        means: list[Tensor] = []
        stds: list[Tensor] = []
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            for part in images.split(self.chunk):
                unit = resized(part.to(self.device).float(), height, width).div(127.5).sub(1).clamp(-1, 1)
                one = self._encode(unit)
                means.append(one.mean.float())
                if one.std is not None:
                    stds.append(one.std.float())
            mean, std = torch.cat(means), torch.cat(stds) if stds else None
        # clones made outside inference mode may be saved for the student's backward pass
        return LatentPosterior(mean=mean.clone(), std=None if std is None else std.clone())

    def _check_size(self, height: int, width: int) -> None:
        step = self.downsampling
        if height < step or width < step or height % step or width % step:
            raise ValueError(
                f"tokenizer '{self.name}' needs picture sides that are multiples of {step} px, "
                f"got {height}x{width} (height x width); pass size= to resize first"
            )


def resized(
    pictures: Float[Tensor, "n c height width"], height: int, width: int
) -> Float[Tensor, "n c new_height new_width"]:
    """Bilinear resizing with antialiasing; the identity where the size is right already."""
    if pictures.shape[-2:] == (height, width):
        return pictures
    return functional.interpolate(pictures, size=(height, width), mode="bilinear", align_corners=False, antialias=True)


def even_sides(latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c even_h even_w"]:
    """Resize bilinearly so that an odd side becomes the next even one (27 -> 28)."""
    height, width = latents.shape[-2], latents.shape[-1]
    target = (height + height % 2, width + width % 2)
    if target == (height, width):
        return latents
    return functional.interpolate(latents, size=target, mode="bilinear", align_corners=False)


def space_to_depth(latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "n rows cols channels"]:
    """Fold 2x2 latents into one cell, channel-major: channel 4c + 2i + j is channel c at offset (i, j)."""
    n, c, height, width = latents.shape
    blocks = latents.reshape(n, c, height // 2, 2, width // 2, 2)
    return blocks.permute(0, 2, 4, 1, 3, 5).reshape(n, height // 2, width // 2, 4 * c)


def depth_to_space(cells: Float[Tensor, "n rows cols channels"]) -> Float[Tensor, "n c h w"]:
    """The exact inverse of `space_to_depth`."""
    n, rows, cols, channels = cells.shape
    blocks = cells.reshape(n, rows, cols, channels // 4, 2, 2)
    return blocks.permute(0, 3, 1, 4, 2, 5).reshape(n, channels // 4, 2 * rows, 2 * cols)


def valid_cells(void: Bool[Tensor, "n height width"], rows: int, cols: int) -> Bool[Tensor, "n rows cols"]:
    """Which cells of a bird's-eye view count: those of which less than half is void.

    Ross3D's released code shrinks the picture bilinearly and leaves out the cells that come out black, which
    also drops black furniture; the void mask of the rendering tells the two apart. Where a side is no
    multiple of the number of cells, a cell covers every pixel that it touches.
    """
    share = functional.adaptive_avg_pool2d(void.float()[:, None], (rows, cols))[:, 0]
    return share < 0.5


def psnr(
    images: UInt8[Tensor, "n 3 height width"], reconstructions: UInt8[Tensor, "n 3 height width"]
) -> Float[Tensor, "n"]:
    """Peak signal-to-noise ratio of each picture, dB; infinite for equal pictures."""
    error = (images.float() - reconstructions.float()).square().flatten(1).mean(dim=1)
    return 10 * torch.log10(255.0**2 / error)


def fingerprint(preprocessing: Mapping[str, Any], module: nn.Module | None = None) -> str:
    """Sha256 over plain JSON values and, where there is a network, its named weights and buffers."""
    digest = hashlib.sha256(json.dumps(preprocessing, sort_keys=True).encode())
    if module is not None:
        for key, tensor in sorted(module.state_dict().items()):
            raw = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(raw.numpy().tobytes())
    return digest.hexdigest()
