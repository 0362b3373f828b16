"""The denoiser J of the reconstruction objectives: a diffusion transformer conditioned on visual tokens.

Ross3D section 3: Ross's architecture with an input embedding and a condition pooler for views, another pair
for the bird's-eye view, and shared blocks. Module names equal the released ones, so that a state dict of the
released `model.mm_inv_projector` loads with `strict=True` once the prefix up to and including `net.` is cut
off. The input embedding is stored as a convolution with a 1x1 kernel, weight [width channels 1 1], as there.
"""

import contextlib
import dataclasses
import math
from typing import Literal

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor, nn
from torch.nn import functional

from stereopsis.objective_sections import DenoiserSection
from stereopsis.objectives.noise_process import Process, process_of

Kind = Literal["view", "birdseye"]

FREQUENCIES = 256
"""Features of the timestep sinusoid."""

DEFAULT = DenoiserSection()


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenoiserConfig:
    """Sizes of the denoiser; the released one is 1024 wide and 3 deep, with 16 heads.

    Attributes:
        condition_dim: width of the visual tokens (the language model's hidden size).
        channels: latent channels per cell after space-to-depth (64 for FLUX's 16-channel VAE).
        width: transformer width; divisible by 4 (sin-cos positions) and by `heads`.
        depth: transformer blocks.
        heads: attention heads of the blocks.
        pooler_heads: attention heads of the condition poolers; None = as many as in the blocks (released: 16 each).
        mlp_ratio: hidden width of the blocks' MLP over `width`.
        view_grid: rows and columns of a view's latent cells.
        birdseye_grid: rows and columns of the bird's-eye view's latent cells; None builds no bird's-eye part.
        compute_dtype: "float32" switches autocast off inside, as released; "autocast" leaves it on.
        diffusion: the process that it is trained for: "cosine" (released) or "flow".
        times: how "flow" draws its times; see `RectifiedFlow`.
        dropout: share of the targets that are trained without a condition; released: 0.
    """

    condition_dim: int
    channels: int
    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    view_grid: tuple[int, int] = (14, 14)
    birdseye_grid: tuple[int, int] | None = (27, 27)
    pooler_heads: int | None = None
    compute_dtype: str = "float32"
    diffusion: str = DEFAULT.diffusion
    times: str = DEFAULT.times
    dropout: float = DEFAULT.dropout

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width % (self.pooler_heads or self.heads) or self.width % 4:
            raise ValueError(
                f"denoiser width {self.width} must be divisible by its heads ({self.heads}; pooler: "
                f"{self.pooler_heads or self.heads}) and by 4 (sin-cos positions)"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"denoiser dropout must lie in [0, 1), got {self.dropout}")
        if self.compute_dtype not in ("float32", "autocast"):
            raise ValueError(f"denoiser compute_dtype '{self.compute_dtype}' is unknown; use 'float32' or 'autocast'")


def sincos_grid(grid: tuple[int, int], width: int) -> Float[Tensor, "1 cells width"]:
    """Fixed 2-D sine-cosine position embedding, row-major cells.

    The first half of the features encodes the column, the second half the row; each half is all sines, then
    all cosines, with frequencies 10000^(-i / (width / 4)).

    Args:
        grid: rows and columns.
        width: number of features, divisible by 4.
    """
    omega = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    rows, cols = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid), indexing="ij")
    angles = [axis.reshape(-1, 1) * omega for axis in (cols, rows)]
    features = torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], dim=1)
    return features.float()[None]


def timestep_sinusoid(t: Real[Tensor, "targets"], dtype: torch.dtype) -> Float[Tensor, "targets 256"]:
    """Cosines, then sines, of t at 128 frequencies from 1 down to almost 1/10000."""
    half = FREQUENCIES // 2
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, dtype=dtype, device=t.device) / half)
    angles = t.to(dtype)[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def modulate(
    x: Float[Tensor, "targets cells width"],
    shift: Float[Tensor, "targets cells width"],
    scale: Float[Tensor, "targets cells width"],
) -> Float[Tensor, "targets cells width"]:
    """Affine-free LayerNorm (eps 1e-6), then per-token scale and shift."""
    return functional.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


class CellEmbedder(nn.Module):
    """Latent cells to the transformer's width; the weight keeps the shape of a 1x1 convolution."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, kernel_size=1)
        nn.init.xavier_uniform_(self.proj.weight.data.view(width, channels))
        nn.init.zeros_(self.get_parameter("proj.bias"))

    def forward(self, x: Float[Tensor, "targets cells channels"]) -> Float[Tensor, "targets cells width"]:
        """Apply the 1x1 convolution cell by cell."""
        return functional.linear(x, self.proj.weight.flatten(1), self.proj.bias)


class ConditionPooler(nn.Module):
    """As many learned queries as target cells, attending to any number of visual tokens."""

    def __init__(self, condition_dim: int, width: int, cells: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.cls_token = nn.Parameter(torch.randn(1, cells, width) * 0.02)
        self.proj = nn.Sequential(nn.SiLU(), nn.Linear(condition_dim, width))
        self.k = nn.Linear(width, width, bias=False)
        self.v = nn.Linear(width, width, bias=False)
        self.linear = nn.Linear(width, width, bias=False)

    def forward(
        self,
        tokens: Float[Tensor, "rows max_tokens dim"],
        valid: Bool[Tensor, "rows max_tokens"],
        *,
        queries: Float[Tensor, "rows queries width"] | None = None,
        keys: Float[Tensor, "rows max_tokens width"] | None = None,
        normalise: bool = True,
    ) -> Float[Tensor, "rows queries width"]:
        """Pool each row's valid tokens; a row without any gives zeros.

        Args:
            tokens: what is pooled.
            valid: False for padding.
            queries: who asks; None = the learned queries, the same for every row.
            keys: what is added to the tokens' keys (where they lie, for example), not to their values.
            normalise: False where the tokens went through an affine-free LayerNorm already.
        """
        # 1. Padding must not reach the result, whatever it holds.
        tokens = torch.where(valid[..., None], tokens, tokens.new_zeros(()))
        x = self.proj(functional.layer_norm(tokens, tokens.shape[-1:]) if normalise else tokens)
        key = self.k(x) if keys is None else self.k(x) + torch.where(valid[..., None], keys, keys.new_zeros(()))
        # 2. A row without valid tokens attends to its zeros, as the softmax of nothing is NaN ...
        some = valid.any(dim=1, keepdim=True)
        allowed = valid | ~some
        mask = None if bool(allowed.all()) else allowed[:, None, None, :]
        query = self.cls_token.expand(len(x), -1, -1) if queries is None else queries
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in (query, key, self.v(x)))
        pooled = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        pooled = self.linear(pooled.transpose(1, 2).flatten(2))
        # 3. ... and its result is dropped.
        return torch.where(some[..., None], pooled, pooled.new_zeros(()))


class TimestepEmbedder(nn.Module):
    """Sinusoid of the timestep through a two-layer SiLU MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Real[Tensor, "targets"], dtype: torch.dtype) -> Float[Tensor, "targets width"]:
        """Embed timesteps, whole or not."""
        return self.mlp(timestep_sinusoid(t, dtype))


class SelfAttention(nn.Module):
    """Multi-head self-attention over the cells of one target."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "targets cells width"]) -> Float[Tensor, "targets cells width"]:
        """Attend within each target."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Linear, tanh-approximated GELU, Linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "targets cells width"]) -> Float[Tensor, "targets cells width"]:
        """Apply it cell by cell."""
        return self.fc2(functional.gelu(self.fc1(x), approximate="tanh"))


class Block(nn.Module):
    """A transformer block modulated and gated by the condition, token by token (adaLN-Zero)."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.attn = SelfAttention(config.width, config.heads)
        self.mlp = Mlp(config.width, int(config.width * config.mlp_ratio))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(config.width, 6 * config.width))

    def forward(
        self, x: Float[Tensor, "targets cells width"], c: Float[Tensor, "targets cells width"]
    ) -> Float[Tensor, "targets cells width"]:
        """Attention, then MLP, each as a gated residual."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.adaLN_modulation(c).chunk(6, dim=-1)
        x = x + gate_a * self.attn(modulate(x, shift_a, scale_a))
        return x + gate_m * self.mlp(modulate(x, shift_m, scale_m))


class FinalLayer(nn.Module):
    """Modulated norm and the projection back to latent channels."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(
        self, x: Float[Tensor, "targets cells width"], c: Float[Tensor, "targets cells width"]
    ) -> Float[Tensor, "targets cells channels"]:
        """Predict one value per latent channel."""
        return self.linear(modulate(x, *self.adaLN_modulation(c).chunk(2, dim=-1)))


class Denoiser(nn.Module):
    """Predicts the noise in latent cells (or the flow), given what the language model says at its visual tokens.

    It is computed in the parameters' dtype with autocast off (`compute_dtype="float32"`), as released: half
    precision parameters are then refused. With "autocast" the caller's autocast applies inside.
    """

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.t_embedder = TimestepEmbedder(width)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.depth)])
        self.final_layer = FinalLayer(width, config.channels)
        self.x_embedder_view = CellEmbedder(config.channels, width)
        self.z_embedder_view = self._pooler(config.view_grid)
        self.register_buffer("pos_embed_view", sincos_grid(config.view_grid, width))
        if config.birdseye_grid is not None:
            self.x_embedder_bev = CellEmbedder(config.channels, width)
            self.z_embedder_bev = self._pooler(config.birdseye_grid)
            self.register_buffer("pos_embed_bev", sincos_grid(config.birdseye_grid, width))
        self._initialise()

    def _pooler(self, grid: tuple[int, int]) -> ConditionPooler:
        heads = self.config.pooler_heads or self.config.heads
        return ConditionPooler(self.config.condition_dim, self.config.width, math.prod(grid), heads)

    def _initialise(self) -> None:
        """Xavier for linear layers, N(0, 0.02) for embedders, zero for modulations and output."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, ConditionPooler):
                for linear in (module.k, module.v, module.linear):
                    nn.init.normal_(linear.weight, std=0.02)
            elif isinstance(module, TimestepEmbedder):
                for index in (0, 2):
                    nn.init.normal_(module.mlp.get_parameter(f"{index}.weight"), std=0.02)
            elif isinstance(module, (Block, FinalLayer)):
                nn.init.zeros_(module.adaLN_modulation.get_parameter("1.weight"))
        nn.init.zeros_(self.final_layer.linear.weight)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the parameters, to which all inputs are converted."""
        return self.final_layer.linear.weight.dtype

    def grid(self, kind: Kind) -> tuple[int, int]:
        """Rows and columns of the latent cells of this kind of target.

        Raises:
            ValueError: unknown kind, or a bird's-eye view asked of a denoiser that was built without one.
        """
        if kind == "view":
            return self.config.view_grid
        if kind != "birdseye":
            raise ValueError(f"denoiser target kind '{kind}' is unknown; use 'view' or 'birdseye'")
        if self.config.birdseye_grid is None:
            raise ValueError(
                "this denoiser was built without a bird's-eye part; set DenoiserConfig.birdseye_grid to the "
                "latent teacher's grid"
            )
        return self.config.birdseye_grid

    def process(self) -> Process:
        """The diffusion process that it is trained for."""
        return process_of(self.config.diffusion, self.config.times)

    def pooler(self, kind: Kind) -> ConditionPooler:
        """The condition pooler of this kind of target."""
        self.grid(kind)
        return self.z_embedder_view if kind == "view" else self.z_embedder_bev

    def precision(self, device: torch.device) -> contextlib.AbstractContextManager:
        """The context in which its parts compute.

        Raises:
            ValueError: half precision parameters where float32 is asked for.
        """
        if self.config.compute_dtype == "autocast":
            return contextlib.nullcontext()
        if self.dtype in (torch.float16, torch.bfloat16):
            raise ValueError(
                f"the denoiser's parameters are {self.dtype} but its compute_dtype is 'float32'; keep the "
                "training heads in float32, or set compute_dtype to 'autocast'"
            )
        return torch.autocast(device.type, enabled=False)

    def condition(
        self,
        tokens: Float[Tensor, "rows max_tokens dim"],
        valid: Bool[Tensor, "rows max_tokens"],
        kind: Kind = "view",
        *,
        normalise: bool = True,
    ) -> Float[Tensor, "rows cells width"]:
        """Pool visual tokens into one condition vector per target cell (the z of c = t + z).

        Args:
            tokens: last hidden states; a row holds the tokens of one condition (a scene's visible views).
            valid: False for padding. A row without any valid token gives zeros: unconditional denoising.
            kind: which pooler, that is, which target grid.
            normalise: False where the tokens went through an affine-free LayerNorm already.
        """
        with self.precision(tokens.device):
            return self.pooler(kind)(tokens.to(self.dtype), valid, normalise=normalise)

    def forward(
        self,
        noisy: Float[Tensor, "targets cells channels"],
        t: Real[Tensor, "targets"],
        condition: Float[Tensor, "targets cells width"],
        kind: Kind = "view",
    ) -> Float[Tensor, "targets cells channels"]:
        """Predict the noise that was mixed into latent cells (or the velocity of the flow).

        Args:
            noisy: noisy latents, row-major cells.
            t: timestep of each target.
            condition: what `condition` returned, one row per target.
            kind: which input embedding and position embedding.

        Raises:
            ValueError: the number of cells or channels is not what the denoiser was built for.
        """
        cells = math.prod(self.grid(kind))
        if noisy.shape[1:] != (cells, self.config.channels):
            raise ValueError(
                f"denoiser ({kind}) got targets of {noisy.shape[1]} cells x {noisy.shape[2]} channels, but "
                f"was built for {cells} x {self.config.channels}; DenoiserConfig must follow the latent "
                "teacher's grid"
            )
        embed = self.x_embedder_view if kind == "view" else self.x_embedder_bev
        position = self.pos_embed_view if kind == "view" else self.pos_embed_bev
        with self.precision(noisy.device):
            x = embed(noisy.to(self.dtype)) + position
            c = self.t_embedder(t, self.dtype)[:, None] + condition
            for block in self.blocks:
                x = block(x, c)
            return self.final_layer(x, c)
