"""A small multi-view geometry network: point maps, depths and cameras from RGB views alone.

After VGGT (Wang et al. 2025, section 3): each view's tokens attend to each other, then all views' tokens do, in
turns; a camera token per view carries its pose; the first view's is another one, as everything is told in that
view's frame. Nothing else tells views apart, so the order of the others does not matter. Far smaller than VGGT,
with a convolutional stem in place of DINOv2 and one convolutional decoder for depth and points.
"""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeometryConfig:
    """Sizes of a `GeometryNetwork`.

    Attributes:
        image_size: side of the square views, pixels.
        patch_size: side of a token, pixels; the stem is made for 8.
        width: of the tokens.
        pairs: blocks of per-view attention, each followed by one of attention over all views.
        heads: of every attention.
        mlp_ratio: hidden width of the blocks' MLPs over their width.
        stem: channels at 1/2 and at 1/4 of the image size.
    """

    image_size: int = 96
    patch_size: int = 8
    width: int = 192
    pairs: int = 4
    heads: int = 3
    mlp_ratio: int = 3
    stem: tuple[int, int] = (32, 64)

    def __post_init__(self) -> None:
        if self.patch_size != 8:
            raise ValueError(f"patch_size is {self.patch_size}, but the stem halves the image three times: give 8")
        if self.image_size < 8 or self.image_size % 8:
            raise ValueError(f"image_size is {self.image_size}, expected a positive multiple of 8")
        if self.width % 4 or self.width % self.heads:
            raise ValueError(
                f"width {self.width} cannot be split into 4 waves or {self.heads} heads; choose a multiple"
            )

    @property
    def grid(self) -> int:
        """Tokens along each side of a view."""
        return self.image_size // self.patch_size


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ViewTokens:
    """Tokens after the last pair of blocks, each half normalised.

    Attributes:
        patches: [scenes views rows cols 2*width] per-view attention's output, then global attention's.
        cameras: [scenes views 2*width] the same of the camera tokens.
    """

    patches: Float[Tensor, "scenes views rows cols channels"]
    cameras: Float[Tensor, "scenes views channels"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Geometry:
    """What the network says of some views, in metres, OpenCV axes, in the first view's camera frame.

    Attributes:
        log_depth: [scenes views height width] ln of the z-depth in the view's own camera.
        points: [scenes views height width 3] where each pixel's surface point lies.
        rotation: [scenes views 3 3] from the view's camera frame to the first view's.
        translation: [scenes views 3] the view's camera centre.
        log_focal: [scenes views] ln of focal length over image width.
        tokens: what the features are taken from.
    """

    log_depth: Float[Tensor, "scenes views height width"]
    points: Float[Tensor, "scenes views height width 3"]
    rotation: Float[Tensor, "scenes views 3 3"]
    translation: Float[Tensor, "scenes views 3"]
    log_focal: Float[Tensor, "scenes views"]
    tokens: ViewTokens


class GeometryNetwork(nn.Module):
    """See the module's docstring.

    Args:
        config: sizes.
    """

    def __init__(self, config: GeometryConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.stem = _Stem(config)
        self.position = nn.Parameter(_waves(config.grid, width))
        self.view_kind = nn.Parameter(torch.randn(2, width) * 0.3)  # the first view's patches, all others'
        self.camera_token = nn.Parameter(torch.randn(2, width) * 0.3)
        self.within = nn.ModuleList(_Block(config) for _ in range(config.pairs))
        self.across = nn.ModuleList(_Block(config, matching=True) for _ in range(config.pairs))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.camera_head = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, 10))
        self.decoder = _Decoder(config)

    def forward(self, images: Float[Tensor, "scenes views 3 height width"]) -> Geometry:
        """Geometry of some scenes with the same number of views.

        Args:
            images: RGB, 0..1, `image_size` squared.

        Raises:
            ValueError: views of another size.
        """
        encoded = self.stem(self._checked(images))
        tokens = self._attend(encoded.coarse, *images.shape[:2])
        return self._decoded(tokens, encoded)

    def tokens(self, images: Float[Tensor, "scenes views 3 height width"]) -> ViewTokens:
        """The tokens alone: what a feature teacher needs."""
        return self._attend(self.stem(self._checked(images)).coarse, *images.shape[:2])

    def _checked(self, images: Tensor) -> Tensor:
        size = self.config.image_size
        if images.shape[-2:] != (size, size):
            raise ValueError(f"views of {tuple(images.shape[-2:])} pixels, but the network takes {size} x {size}")
        return images.flatten(0, 1)

    def _attend(self, coarse: Tensor, scenes: int, views: int) -> ViewTokens:
        kind = (torch.arange(views, device=coarse.device) > 0).long().repeat(scenes)
        patches = coarse.flatten(2).transpose(1, 2) + self.position + self.view_kind[kind][:, None]
        cameras = self.camera_token[kind][:, None].to(patches.dtype)
        x = torch.cat([cameras, patches], dim=1)
        count = x.shape[1]
        own = x
        for within, across in zip(self.within, self.across, strict=True):
            own = within(x)
            x = across(own.reshape(scenes, views * count, -1)).reshape(own.shape)
        both = torch.cat([norm(half) for norm, half in zip(self.norms, (own, x), strict=True)], dim=-1)
        both = both.unflatten(0, (scenes, views))
        grid = self.config.grid
        return ViewTokens(patches=both[:, :, 1:].unflatten(2, (grid, grid)), cameras=both[:, :, 0])

    def _decoded(self, tokens: ViewTokens, encoded: "_Encoded") -> Geometry:
        scenes, views = tokens.cameras.shape[:2]
        maps = self.decoder(tokens.patches.flatten(0, 1).permute(0, 3, 1, 2), encoded).float()
        maps = maps.unflatten(0, (scenes, views))
        camera = self.camera_head(tokens.cameras).float()
        turn = camera[..., :6] + camera.new_tensor([1.0, 0, 0, 0, 1, 0])
        return Geometry(
            log_depth=maps[:, :, 0] + 0.7,  # ln 2 m, about where training starts
            points=maps[:, :, 1:].movedim(2, -1),
            rotation=rotation_of(turn),
            translation=camera[..., 6:9],
            log_focal=camera[..., 9] - 0.5,
            tokens=tokens,
        )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Encoded:
    """Convolutional features of n views at 1/2, 1/4 and 1/8 of their size."""

    fine: Float[Tensor, "n c2 h2 w2"]
    middle: Float[Tensor, "n c4 h4 w4"]
    coarse: Float[Tensor, "n c8 h8 w8"]


class _Stem(nn.Module):
    def __init__(self, config: GeometryConfig) -> None:
        super().__init__()
        fine, middle = config.stem
        self.fine = nn.Sequential(nn.Conv2d(3, fine, 3, stride=2, padding=1), nn.GELU(), _Residual(fine))
        self.middle = nn.Sequential(nn.Conv2d(fine, middle, 3, stride=2, padding=1), nn.GELU(), _Residual(middle))
        self.coarse = nn.Conv2d(middle, config.width, 2, stride=2)

    def forward(self, images: Tensor) -> _Encoded:
        fine = self.fine((images - 0.5) * 4)
        middle = self.middle(fine)
        return _Encoded(fine=fine, middle=middle, coarse=self.coarse(middle))


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + functional.gelu(self.conv(self.norm(x)))


class _Block(nn.Module):
    """Pre-norm attention (queries and keys normalised, as in VGGT) and MLP.

    ``matching`` blocks start with keys equal to queries: tokens attend to tokens like them, so that learning need
    not discover matching.
    """

    def __init__(self, config: GeometryConfig, *, matching: bool = False) -> None:
        super().__init__()
        width, hidden = config.width, config.mlp_ratio * config.width
        self.heads = config.heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_norm, self.key_norm = (nn.LayerNorm(width // config.heads) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        if matching:
            with torch.no_grad():
                self.qkv.weight[width : 2 * width] = self.qkv.weight[:width]

    def forward(self, x: Float[Tensor, "groups tokens width"]) -> Float[Tensor, "groups tokens width"]:
        q, k, v = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1)).unbind(dim=2)
        q, k = self.query_norm(q).to(v.dtype), self.key_norm(k).to(v.dtype)
        mixed = _attend(*(t.transpose(1, 2) for t in (q, k, v)))
        x = x + self.out(mixed.transpose(1, 2).flatten(-2))
        return x + self.mlp(self.mlp_norm(x))


def _waves(grid: int, width: int) -> Float[Tensor, "cells width"]:
    """Sines and cosines of each cell's row and column at several wavelengths, where learning starts."""
    index = torch.stack(torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij"), dim=-1).flatten(0, 1)
    count = width // 4
    rates = torch.pi / grid * 8 ** (torch.arange(count) / count)
    turns = ((index + 0.5)[..., None] * rates).flatten(1)
    return 0.5 * torch.cat([turns.sin(), turns.cos()], dim=1)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention. In training step by step: torch's fused backward pass takes three times as long on CPUs."""
    if not torch.is_grad_enabled():
        return functional.scaled_dot_product_attention(q, k, v)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return scores.softmax(dim=-1).to(v.dtype) @ v


class _Decoder(nn.Module):
    """Tokens to maps at full size, doubling three times, with the stem's features beside."""

    def __init__(self, config: GeometryConfig) -> None:
        super().__init__()
        fine, middle = config.stem
        self.to_middle = nn.Linear(2 * config.width, 4 * middle)
        self.middle = _Residual(middle)
        self.to_fine = nn.Conv2d(middle, 4 * fine, 1)
        self.fine = _Residual(fine)
        self.to_maps = nn.Conv2d(fine, 16, 1)

    def forward(self, tokens: Tensor, encoded: _Encoded) -> Float[Tensor, "n 4 height width"]:
        x = self.to_middle(tokens.movedim(1, -1)).movedim(-1, 1)
        x = self.middle(functional.pixel_shuffle(x, 2) + encoded.middle)
        x = self.fine(functional.pixel_shuffle(self.to_fine(x), 2) + encoded.fine)
        return functional.pixel_shuffle(self.to_maps(x), 2)


def rotation_of(columns: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation from its first two columns, made orthonormal (Zhou et al. 2019, section 4.2)."""
    first = functional.normalize(columns[..., :3], dim=-1)
    second = columns[..., 3:] - (first * columns[..., 3:]).sum(dim=-1, keepdim=True) * first
    second = functional.normalize(second, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1)
