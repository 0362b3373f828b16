"""Floating-point operations of one training pass, counted from the model's own modules and the batch's lengths.

A matrix of m entries costs 2 m operations per token forwards, as many for the gradient of its input, and as many for
its own gradient where it is trained. Attention costs 4 x width per pair of tokens that may see each other forwards,
twice that backwards. Norms, activations, rotary positions, softmax and the losses themselves are left out: they are
memory traffic rather than arithmetic. So are the pairwise similarities of the contrastive, consistency and
relational objectives, which compare a few hundred tokens.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import nn

from stereopsis.models.spatial import SpatialModel
from stereopsis.objectives.alignment import FeatureAlignment
from stereopsis.objectives.reconstruction import BirdsEye
from stereopsis.objectives.reconstruction_base import ReconstructionObjective
from stereopsis.training.cost.head_flops import grounding_cost, hidden_views, objective_cost
from stereopsis.training.cost.units import Flops, Matrix, SceneLoad, StepFlops, matrices_cost, matrices_of

Attention = Literal["masked", "dense"]


def step_flops(
    model: SpatialModel,
    scenes: Sequence[SceneLoad],
    *,
    due: Mapping[str, float] | None = None,
    vision: bool = True,
    checkpointing: bool = False,
    attention: Attention = "masked",
) -> StepFlops:
    """Operations of one pass over packed scenes, forwards and backwards.

    Args:
        model: on any device, also the meta device; what requires a gradient decides about the backward pass.
        scenes: what the pass holds (`scene_loads` of a batch).
        due: objectives and the share of passes in which each is active; None = all of the model's, as often as their
            ``every`` says.
        vision: whether the vision tower runs (False: its output is cached).
        checkpointing: whether the layers are computed again for the backward pass.
        attention: "masked" counts pairs that may see each other; "dense" every pair of a padded row, which is what
            attention with a dense mask computes.
    """
    views, tokens = sum(s.views for s in scenes), sum(s.tokens for s in scenes)
    if attention == "dense":
        tokens = len(scenes) * max(s.tokens for s in scenes)
    parts: dict[str, Flops] = {}
    if vision:
        parts["vision tower"] = _tower(model, views, checkpointing)
    parts["projector"] = _projector(model, views)
    layers = matrices_cost(matrices_of(decoder_layers(model)), tokens, input_gradient=True)
    parts["language model"] = _twice(layers, checkpointing)
    parts["attention"] = _twice(_attention(model, scenes, attention), checkpointing)
    head = model.backbone.get_output_embeddings()  # type: ignore[operator]
    parts["logits"] = matrices_cost(
        [(head.weight, head.weight.requires_grad)], sum(s.labelled for s in scenes), input_gradient=True
    )
    parts["grounding"] = grounding_cost(model, scenes)
    full_precision = set()
    members = dict(model.objectives or ())
    shares = {name: (1 / m.every) if due is None else due.get(name, 0.0) for name, m in members.items()}
    visible = [dataclasses.replace(s, views=s.views - hidden_views(members, s)) for s in scenes]
    masking = shares.get("cross_view", 0.0)
    for name, member in members.items():
        cost = objective_cost(model, member, scenes)
        if masking and isinstance(member, (BirdsEye, FeatureAlignment)):  # what is hidden takes no part
            cost = cost * (1 - masking) + objective_cost(model, member, visible) * masking
        cost = cost * shares[name]
        if cost.forward:
            parts[name] = cost
            if isinstance(member, ReconstructionObjective) and member.denoiser.config.compute_dtype == "float32":
                full_precision.add(name)
    return StepFlops(parts=parts, full_precision=frozenset(full_precision))


def _twice(cost: Flops, checkpointing: bool) -> Flops:
    return dataclasses.replace(cost, recompute=cost.forward) if checkpointing else cost


def decoder_layers(model: SpatialModel) -> list[nn.Module]:
    """The layers of the language model."""
    return list(model.backbone.get_decoder().layers)  # type: ignore[operator]


# ---- the vision tower and the projector


def tower_tokens(model: SpatialModel) -> tuple[int, int]:
    """Tokens of one view inside the tower (class token included), and how many of them merge into one."""
    vision = model.adapter.model.config.vision_config
    patch = vision.patch_size if isinstance(vision.patch_size, int) else vision.patch_size[0]
    side = model.adapter.image_size // patch
    classes = sum(
        name.endswith(("cls_token", "class_embedding")) for name, _ in model.adapter.vision_tower.named_parameters()
    )
    merge = getattr(vision, "spatial_merge_size", 1)
    return side * side + classes, merge * merge


def _tower(model: SpatialModel, views: int, checkpointing: bool) -> Flops:
    tokens, merge = tower_tokens(model)
    whole: list[Matrix] = []
    merged: list[Matrix] = []
    for name, module in model.adapter.vision_tower.named_modules():
        own = matrices_of([module]) if not list(module.children()) else []
        if name.startswith("head."):
            continue  # SigLIP's pooling head is never asked
        (merged if "merger" in name else whole).extend(own)
    trained = any(p.requires_grad for p in model.adapter.vision_tower.parameters())
    cost = matrices_cost(whole, tokens * views, input_gradient=False)
    cost += matrices_cost(merged, tokens // merge * views, input_gradient=trained)
    pairs, width = _tower_pairs(model, tokens)
    forward = 4.0 * width * pairs * views
    cost += Flops(forward=forward, backward=2 * forward * trained)
    return _twice(cost, checkpointing and trained)


def _tower_pairs(model: SpatialModel, tokens: int) -> tuple[int, int]:
    """Pairs of tokens that see each other in one view, over all layers, and the attention's width."""
    vision: Any = model.adapter.model.config.vision_config
    width = getattr(vision, "embed_dim", None) or vision.hidden_size
    layers = getattr(vision, "depth", None) or vision.num_hidden_layers
    whole = getattr(vision, "fullatt_block_indexes", None)
    if whole is None:
        return layers * tokens**2, width
    cells, merge = model.adapter.view_grid[0], vision.spatial_merge_size
    window = vision.window_size // merge // vision.patch_size
    sides = [min(window, cells - start) * merge for start in range(0, cells, window)]
    windowed = sum(side**2 for side in sides) ** 2
    return len(whole) * tokens**2 + (layers - len(whole)) * windowed, width


def _projector(model: SpatialModel, views: int) -> Flops:
    """Everything of the base that belongs neither to the tower nor to the language model."""
    tower = {id(module) for module in model.adapter.vision_tower.modules()}
    text = {id(module) for module in model.backbone.get_decoder().modules()}  # type: ignore[operator]
    own = [m for m in model.adapter.base.modules() if id(m) not in tower | text]
    found = [part for m in own if not list(m.children()) for part in matrices_of([m])]
    direct = [(n, p) for m in own if list(m.children()) for n, p in m.named_parameters(recurse=False)]
    found += [(p, p.requires_grad) for n, p in direct if n.endswith("projection_weight")]
    leaves = [m for m in own if not list(m.children()) and list(m.parameters())]
    normed = bool(leaves) and not matrices_of(leaves[:1])  # a norm stands first, and wants a gradient if it is trained
    wanted = normed and any(p.requires_grad for p in leaves[0].parameters())
    wanted = wanted or any(p.requires_grad for p in model.adapter.vision_tower.parameters())
    rows, cols = model.adapter.encoder_grid
    return matrices_cost(found, views * rows * cols, input_gradient=wanted)


# ---- attention of the language model


def seen_pairs(scene: SceneLoad, window: int | None = None, view: int = 0) -> int:
    """Pairs of a token and one that it may see in a packed scene.

    Args:
        scene: its lengths.
        window: how many positions a token looks back, itself included; None = all.
        view: cells of a view that see each other in both directions; 0 = causal.
    """
    pairs = _causal(0, scene.prefix, window)
    pairs += sum(_causal(scene.prefix, length, window) for length in scene.conversations)
    if view:
        later = view * (view - 1) // 2
        near = view if window is None else min(window, view)
        # a window hides the farther half of what lies behind within a view; its view shows it again
        behind = 0 if near == view else (view - near) * (view - near + 1) // 2
        pairs += scene.views * (later + behind)
    return pairs


def _causal(before: int, tokens: int, window: int | None) -> int:
    """Pairs of ``tokens`` tokens that see themselves and everything before within a window."""
    if window is None or before + tokens <= window:
        return tokens * before + tokens * (tokens + 1) // 2
    growing = max(0, min(tokens, window - before))
    return _causal(before, growing, None) + (tokens - growing) * window


def _attention(model: SpatialModel, scenes: Sequence[SceneLoad], attention: Attention) -> Flops:
    text = model.adapter.model.config.get_text_config()
    width = text.num_attention_heads * (getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)
    kinds = getattr(text, "layer_types", None) or ["full_attention"] * text.num_hidden_layers
    cells = math.prod(model.adapter.view_grid) if model.adapter.views_see_themselves else 0
    longest = max(s.tokens for s in scenes)
    forward = 0.0
    for kind in kinds:
        window = text.sliding_window if kind == "sliding_attention" else None
        pairs = sum(longest**2 if attention == "dense" else seen_pairs(s, window, cells) for s in scenes)
        forward += 4.0 * width * pairs
    return Flops(forward=forward, backward=2 * forward)
