"""Weights of the official code: Ross3D's denoiser in, out and computed, and Ross's 2-D one to start from.

Ross3D keeps its denoiser under `model.mm_inv_projector.net.` and one mask token as `model.mask_token`; `Denoiser`
has the same names behind that prefix. Its two-dimensional predecessor Ross has one input embedding, one position
embedding and one condition embedding where Ross3D has two of each.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float, Real
from torch import Tensor
from torch.nn import functional

from stereopsis.errors import CheckpointError
from stereopsis.objectives.denoiser_network import Denoiser, DenoiserConfig, Kind
from stereopsis.weights import read_weights

PREFIX = "model.mm_inv_projector.net."
HEADS = 16
"""Attention heads of every released denoiser; no tensor says so."""

_PREFIXES = (PREFIX, "mm_inv_projector.net.", "net.")
_MASK_TOKEN = ("model.mask_token", "mask_token")
_DROPPED = ("model.mm_pixel_decoder.", "mm_pixel_decoder.")
_REST_OF_THE_MODEL = (
    *("model.embed_tokens.", "model.layers.", "model.norm.", "lm_head.", "model.vision_tower.", "model.mm_projector."),
    *("model.image_newline", "ground_head_", "model.vision_resampler."),
)
_PARTS = ("x_embedder", "pos_embed", "z_embedder", "t_embedder.", "blocks.", "final_layer.")
_TWO_DIMENSIONAL = "x_embedder.proj.weight"

Source = Mapping[str, Tensor] | str | Path


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ReleasedDenoiser:
    """What a released file says about reconstruction.

    Attributes:
        denoiser: with the released weights.
        mask_token: [dim] what stands for hidden views, or None where the file has none.
        passed_over: keys of other parts of the model, which were not read.
    """

    denoiser: Denoiser
    mask_token: Float[Tensor, "dim"] | None
    passed_over: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Weights:
    """The denoiser's tensors without prefix, the mask token, and the keys of other parts."""

    tensors: dict[str, Tensor]
    mask_token: Tensor | None
    passed_over: tuple[str, ...]


def load_released_denoiser(
    source: Source,
    *,
    heads: int = HEADS,
    pooler_heads: int = HEADS,
    view_grid: tuple[int, int] | None = None,
    birdseye_grid: tuple[int, int] | None = None,
    dtype: torch.dtype | None = None,
) -> ReleasedDenoiser:
    """Ross3D's denoiser and mask token from a state dict in the released layout, or from a file of it.

    Sizes are read off the tensors. Keys may have the prefix `model.mm_inv_projector.net.`, `mm_inv_projector.net.`,
    `net.` or none. Every key must be a part of the denoiser, the mask token, a part of the rest of the released model
    (passed over), or of the frozen autoencoder `model.mm_pixel_decoder.` (dropped); nothing may lack.

    Args:
        source: a state dict, or a path (see `stereopsis.weights.read_weights`).
        heads: attention heads of the blocks; the tensors do not say.
        pooler_heads: attention heads of the condition poolers.
        view_grid: rows and columns of a view's cells; None = square, as released.
        birdseye_grid: the same for the bird's-eye view.
        dtype: of the parameters; None = float64 where all tensors are, else float32.

    Raises:
        CheckpointError: keys are unknown, missing or of a wrong shape (they are named), or the file cannot be read.
    """
    weights = _read(source)
    tensors = weights.tensors
    if _TWO_DIMENSIONAL in tensors:
        raise CheckpointError(
            "these are the weights of Ross's two-dimensional denoiser (x_embedder without _view and _bev); start a new "
            "denoiser from them with 'denoiser: {init: PATH}' in a recipe, or with initialise_denoiser"
        )
    if birdseye_grid is None and any("_bev" in key for key in tensors):
        birdseye_grid = _square(_size(tensors, "pos_embed_bev", 1), "name rows and columns with birdseye_grid=")
    config = DenoiserConfig(
        condition_dim=_size(tensors, "z_embedder_view.proj.1.weight", 1),
        channels=_size(tensors, "x_embedder_view.proj.weight", 1),
        width=_size(tensors, "x_embedder_view.proj.weight", 0),
        depth=len({key.split(".")[1] for key in tensors if key.startswith("blocks.")}),
        heads=heads,
        pooler_heads=pooler_heads,
        mlp_ratio=_size(tensors, "blocks.0.mlp.fc1.weight", 0) / _size(tensors, "blocks.0.mlp.fc1.weight", 1),
        view_grid=view_grid or _square(_size(tensors, "pos_embed_view", 1), "name rows and columns with view_grid="),
        birdseye_grid=birdseye_grid,
    )
    with torch.device("meta"):
        denoiser = Denoiser(config)
    _check(tensors, denoiser)
    if dtype is None:
        doubles = all(tensor.dtype == torch.float64 for tensor in tensors.values())
        dtype = torch.float64 if doubles else torch.float32
    denoiser.load_state_dict({key: value.to(dtype, copy=True) for key, value in tensors.items()}, assign=True)
    mask_token = None if weights.mask_token is None else weights.mask_token.to(dtype, copy=True)
    return ReleasedDenoiser(denoiser=denoiser, mask_token=mask_token, passed_over=weights.passed_over)


def released_state_dict(
    denoiser: Denoiser, mask_token: Float[Tensor, "dim"] | None = None, *, prefix: str = PREFIX
) -> dict[str, Tensor]:
    """The denoiser (and the mask token) under the released names: what `load_released_denoiser` reads."""
    state = {prefix + key: value.detach().clone() for key, value in denoiser.state_dict().items()}
    if mask_token is not None:
        state[_MASK_TOKEN[0]] = mask_token.detach().clone()
    return state


def released_forward(
    denoiser: Denoiser,
    x: Float[Tensor, "targets channels rows cols"],
    t: Real[Tensor, "targets"],
    context: Float[Tensor, "views dim token_rows token_cols"],
    *,
    bev: bool = False,
) -> Float[Tensor, "targets channels rows cols"]:
    """The denoiser in the official network's own terms: pictures in, pictures out.

    Args:
        denoiser: whose prediction.
        x: noisy latents of some targets.
        t: their timesteps.
        context: hidden states at all visible views' tokens of ONE scene, after the released affine-free LayerNorm
            (`ln_pre`), which is outside of the released network.
        bev: whether the targets are bird's-eye views.
    """
    kind: Kind = "birdseye" if bev else "view"
    tokens = context.flatten(2).transpose(1, 2).flatten(0, 1)[None]
    valid = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    condition = denoiser.condition(tokens, valid, kind, normalise=False).expand(len(x), -1, -1)
    predicted = denoiser(x.flatten(2).transpose(1, 2), t, condition, kind)
    return predicted.transpose(1, 2).unflatten(2, x.shape[2:])


@torch.no_grad()
def initialise_denoiser(denoiser: Denoiser, source: Source) -> Float[Tensor, "dim"] | None:
    """Start a denoiser from released weights: Ross3D's, or those of Ross's two-dimensional denoiser.

    Which one, the keys say. Position embeddings and learned queries are resized to the denoiser's grids (bilinear, as
    in the released code). A two-dimensional file fills both the view's and the bird's-eye view's part from its one
    input embedding, position embedding and condition embedding; Ross's condition embedding is one linear layer
    (`z_embedder.1`) without queries and attention, which then keep their fresh values.

    Args:
        denoiser: changed in place.
        source: a state dict, or a path (see `stereopsis.weights.read_weights`).

    Returns:
        The mask token, if the source has one.

    Raises:
        CheckpointError: the sizes differ, or keys are unknown or missing (they are named).
    """
    if (denoiser.config.heads, denoiser.config.pooler_heads or denoiser.config.heads) != (HEADS, HEADS):
        raise CheckpointError(
            f"released denoisers have {HEADS} attention heads, this one {denoiser.config.heads}; set 'denoiser: "
            f"{{heads: {HEADS}}}' in the recipe"
        )
    weights = _read(source)
    tensors = weights.tensors
    if _TWO_DIMENSIONAL in tensors:
        tensors = _doubled(tensors)
    if denoiser.config.birdseye_grid is None:
        tensors = {key: value for key, value in tensors.items() if "_bev" not in key}
    tensors = {key: _resized(key, value, denoiser) for key, value in tensors.items()}
    own = denoiser.state_dict()
    if not any(key.endswith((".k.weight", ".cls_token")) for key in tensors):
        fresh = ("cls_token", "k.weight", "v.weight", "linear.weight")
        tensors |= {key: own[key] for key in own if key.startswith("z_embedder") and key.endswith(fresh)}
    _check(tensors, denoiser)
    denoiser.load_state_dict(tensors)
    return weights.mask_token


def _read(source: Source) -> _Weights:
    """Sort every key of a source into denoiser, mask token, and the rest."""
    keys = read_weights(source, _belongs) if isinstance(source, (str, Path)) else source
    tensors: dict[str, Tensor] = {}
    mask_token, passed_over, unknown = None, [], []
    for key, tensor in keys.items():
        name = _short(key)
        if key in _MASK_TOKEN:
            mask_token = tensor
        elif name is not None and name not in tensors and tensor is not None:
            tensors[name] = tensor
        elif key.startswith(_REST_OF_THE_MODEL):
            passed_over.append(key)
        elif not key.startswith(_DROPPED):
            unknown.append(key)
    if unknown:
        raise CheckpointError(
            f"{len(unknown)} keys belong to no part of a released model: {_some(unknown)}; expected a denoiser's "
            f"({', '.join(_PARTS)}) behind '{PREFIX}', 'net.' or nothing"
        )
    if not tensors:
        raise CheckpointError(f"no key of a released denoiser was found, such as '{PREFIX}x_embedder_view.proj.weight'")
    return _Weights(tensors=tensors, mask_token=mask_token, passed_over=tuple(passed_over))


def _belongs(key: str) -> bool:
    return key in _MASK_TOKEN or _short(key) is not None


def _short(key: str) -> str | None:
    """The denoiser's own name of a key, or None for a key of something else."""
    for prefix in (*_PREFIXES, ""):
        if key.startswith(prefix) and key[len(prefix) :].startswith(_PARTS):
            return key[len(prefix) :]
    return None


def _check(tensors: Mapping[str, Tensor], denoiser: Denoiser) -> None:
    own = denoiser.state_dict()
    missing, unknown = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    wrong = [
        f"{key} is {tuple(tensors[key].shape)}, expected {tuple(own[key].shape)}"
        for key in sorted(own.keys() & tensors.keys())
        if tensors[key].shape != own[key].shape
    ]
    if missing or unknown or wrong:
        raise CheckpointError(
            f"the weights are not those of this denoiser: {len(missing)} keys missing: {_some(missing)}; "
            f"{len(unknown)} unknown: {_some(unknown)}; {len(wrong)} of another size: {_some(wrong)} (width, depth, "
            "the tokens' width and the latent channels must be those of the file)"
        )


def _some(names: list[str]) -> str:
    return "none" if not names else ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _size(tensors: Mapping[str, Tensor], key: str, axis: int) -> int:
    if key not in tensors or tensors[key].ndim <= axis:
        raise CheckpointError(f"not a released denoiser: it lacks '{key}', from which its sizes are read")
    return tensors[key].shape[axis]


def _square(cells: int, remedy: str) -> tuple[int, int]:
    side = math.isqrt(cells)
    if side * side != cells:
        raise CheckpointError(f"{cells} cells are no square grid; {remedy}")
    return side, side


def _doubled(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The names of a two-dimensional denoiser as those of both kinds of targets."""
    both: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        key = key.replace("z_embedder.1.", "z_embedder.proj.1.")
        part, dot, rest = key.partition(".")
        if part in ("x_embedder", "z_embedder", "pos_embed"):
            both |= {f"{part}_{kind}{dot}{rest}": tensor for kind in ("view", "bev")}
        else:
            both[key] = tensor
    return both


def _resized(key: str, tensor: Tensor, denoiser: Denoiser) -> Tensor:
    """Position embeddings and queries, one row per cell, on the denoiser's own grid; other tensors as they are."""
    if not (key.startswith("pos_embed") or key.endswith("cls_token")) or tensor.ndim != 3:
        return tensor
    grid = denoiser.grid("birdseye" if "_bev" in key else "view")
    if tensor.shape[1] == math.prod(grid):
        return tensor
    old = tensor.transpose(1, 2).unflatten(2, _square(tensor.shape[1], f"'{key}' cannot be resized")).float()
    return functional.interpolate(old, size=grid, mode="bilinear").flatten(2).transpose(1, 2)
