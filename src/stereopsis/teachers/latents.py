"""Frozen latent tokenizers: the F of Ross3D's L = D(J(x), F(T_o(I))), from pictures to a grid of targets.

A tokenizer maps uint8 pictures to latents at 1/8 of their size (for a KL autoencoder: a Gaussian for each
latent), scales them to about unit spread, and folds each 2x2 block of latents into one cell: a view of
216 px becomes 14x14 cells and a bird's-eye view of 432 px becomes 27x27 (Ross3D section 3 and released code).
"""

import abc
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from stereopsis.weights.fingerprint import fingerprint

Self = TypeVar("Self", bound="LatentTokenizer")
# what every tokenizer does to pictures and latents; part of its fingerprint
PREPARED = {"range": [-1, 1], "resize": "bilinear antialias", "odd_side": "bilinear to even", "cell": "2x2"}


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


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CellPosterior:
    """What a tokenizer says about pictures, folded into target cells: what a cache keeps so that training can draw.

    `mean` is exact: resizing and folding are linear. `std` is exact for every latent on its own, too; but where a
    latent side was odd, resizing also makes neighbouring latents depend on each other, of which only the part that
    the resizing weights determine is kept (see `sample`).

    Attributes:
        mean: [n rows cols channels] mean of each latent, scaled.
        std: [n rows cols channels] its standard deviation; None for a tokenizer without uncertainty.
        latent_size: height and width of the latents before their sides were made even; None: 2 rows x 2 cols.
    """

    mean: Float[Tensor, "n rows cols channels"]
    std: Float[Tensor, "n rows cols channels"] | None = None
    latent_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.latent_size is None:
            return
        cells = tuple((side + 1) // 2 for side in self.latent_size)
        if cells != tuple(self.mean.shape[1:3]):
            raise ValueError(
                f"latents of {self.latent_size} fold into {cells} cells, but there are {tuple(self.mean.shape[1:3])}"
            )

    def sample(self, generator: torch.Generator) -> Float[Tensor, "n rows cols channels"]:
        """Draw cells; the same generator gives the same noise as in `LatentTokenizer.encode_cells`.

        The noise is drawn at the latents' own size, resized like them and brought back to unit spread. Hence the
        draw is that of `encode_cells` where the latent sides are even (to rounding), and with odd sides where
        neighbouring latents have equal standard deviations; otherwise each latent's distribution is still exact
        and only the correlation between neighbours is approximate.
        """
        if self.std is None:
            return self.mean
        n, rows, cols, channels = self.mean.shape
        height, width = self.latent_size or (2 * rows, 2 * cols)
        noise = torch.randn((n, channels // 4, height, width), generator=generator, device=generator.device)
        even = even_sides(noise.to(self.mean)) / even_sides_std(torch.ones(1, 1, height, width).to(self.mean))
        return self.mean + self.std * space_to_depth(even)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CellScaling:
    """A normalisation per channel of a cell, (cell - shift) * scale: FLUX.2's; others scale the latents before.

    Attributes:
        shift: [channels].
        scale: [channels] positive.
    """

    shift: Float[Tensor, "channels"]
    scale: Float[Tensor, "channels"]


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

    @property
    def cell_scaling(self) -> CellScaling | None:
        """What is still to be done to cells when the latents carry their own scale: mostly nothing."""
        return None

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
        return self._scaled(space_to_depth(even_sides(latents)))

    def encode_posterior_cells(
        self, images: UInt8[Tensor, "n 3 height width"], size: int | None = None
    ) -> CellPosterior:
        """Mean and spread of the target cells of pictures, in the layout of `encode_cells`.

        Args:
            images: RGB.
            size: resize to size x size pixels first; None keeps the size.

        Raises:
            ValueError: a side (after resizing) is not a multiple of `downsampling`.
        """
        posterior = self._posterior(images, size)
        mean, std = self._scaled(space_to_depth(even_sides(posterior.mean))), None
        if posterior.std is not None:
            std = space_to_depth(even_sides_std(posterior.std))
            scaling = self.cell_scaling
            std = std if scaling is None else std * scaling.scale.to(std)
        height, width = posterior.mean.shape[-2:]
        return CellPosterior(mean=mean, std=std, latent_size=(height, width))

    def decode_cells(self, cells: Float[Tensor, "n rows cols channels"]) -> UInt8[Tensor, "n 3 height width"]:
        """Pictures of cells: height = 2 * rows * downsampling (a side made even on the way in stays so)."""
        if cells.shape[-1] != self.channels:
            raise ValueError(f"cells of tokenizer '{self.name}' have {self.channels} channels, got {cells.shape[-1]}")
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            cells = cells.detach().to(self.device, torch.float32)
            if self.cell_scaling is not None:
                cells = cells / self.cell_scaling.scale.to(cells) + self.cell_scaling.shift.to(cells)
            latents = depth_to_space(cells)
            if not len(latents):
                height, width = (side * self.downsampling for side in latents.shape[-2:])
                return torch.zeros(0, 3, height, width, dtype=torch.uint8, device=self.device)
            unit = torch.cat([self._decode(part).float() for part in latents.split(self.chunk)])
            images = unit.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
        return images.clone()

    def _scaled(self, cells: Float[Tensor, "n rows cols channels"]) -> Float[Tensor, "n rows cols channels"]:
        scaling = self.cell_scaling
        return cells if scaling is None else (cells - scaling.shift.to(cells)) * scaling.scale.to(cells)

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


def even_sides_std(std: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c even_h even_w"]:
    """Standard deviations of `even_sides(z)` for independent z of these deviations: sqrt(sum weight^2 std^2)."""
    height, width = std.shape[-2], std.shape[-1]
    if height % 2 == 0 and width % 2 == 0:
        return std
    variance = torch.einsum("yh,nchw,xw->ncyx", _even_weights(height, std) ** 2, std**2, _even_weights(width, std) ** 2)
    return variance.sqrt()


def _even_weights(side: int, like: Tensor) -> Float[Tensor, "even_side side"]:
    """Weights by which one side is resized: row k gives the new sample k."""
    if side % 2 == 0:
        return torch.eye(side).to(like)
    identity = torch.eye(side)[None, None]
    return functional.interpolate(identity, size=(side + 1, side), mode="bilinear", align_corners=False)[0, 0].to(like)


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
