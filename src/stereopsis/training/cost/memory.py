"""Memory of one training step on one GPU: what stays, and what the backward pass keeps, part by part.

The activations are those that PyTorch saves for the backward pass of these architectures as Hugging Face writes them:
a norm keeps its input in float32 (and what it normalised, where its weight is trained), a matrix its input where it is
trained or has an adapter (a rounded copy of its own under autocast), attention its queries, keys, values and result, a
gated MLP four times its width. Everything else, down to rotary tables, is left to `RESERVE`.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import nn

from stereopsis.models.spatial import SpatialModel
from stereopsis.objectives.alignment import FeatureAlignment
from stereopsis.objectives.plan import kept_views
from stereopsis.objectives.reconstruction import BirdsEye, CrossView, VanillaReconstruction
from stereopsis.objectives.reconstruction_base import ReconstructionObjective
from stereopsis.objectives.text import CHUNK
from stereopsis.training.cost.flops import Attention, decoder_layers, tower_tokens
from stereopsis.training.cost.gpus import GIB
from stereopsis.training.cost.units import SceneLoad, matrices_of
from stereopsis.training.optimizer import EIGHT_BIT, is_hidden_matrix

Sharding = Literal["none", "zero2", "zero3"]
RESERVE = 1.5 * GIB
"""CUDA's context, workspaces of the matrix products, and what the allocator cannot use."""

_BITS = {"8bit": 1.0, "4bit": 0.53}
"""Bytes per entry of a quantised matrix, scales included."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryOptions:
    """What decides about memory besides the model and the batch.

    Attributes:
        optimizer: name in the recipe.
        autocast: whether matrices multiply in bfloat16.
        checkpointing: whether layers are computed again for the backward pass.
        vision: whether the vision tower runs.
        load_in: "8bit", "4bit" or None.
        attention: "masked" needs no mask in memory; "dense" has one number per pair of tokens.
        processes: how many share the work.
        sharding: what they divide among each other: nothing, gradients and optimizer state ("zero2"), or the weights
            as well ("zero3", FSDP).
    """

    optimizer: str = "adamw"
    autocast: bool = True
    checkpointing: bool = False
    vision: bool = True
    load_in: str | None = None
    attention: Attention = "masked"
    processes: int = 1
    sharding: Sharding = "none"

    @property
    def computed(self) -> int:
        """Bytes of a number that a matrix product takes and gives."""
        return 2 if self.autocast else 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepMemory:
    """Bytes on one GPU at the worst moment of a step.

    Attributes:
        weights: parameters as they are kept.
        copies: rounded copies that autocast makes of trained matrices, or layers gathered from other processes.
        gradients: of what is trained.
        optimizer: its state.
        activations: what the backward pass keeps, or what the tower or the update needs where that is more.
        reserve: see `RESERVE`.
    """

    weights: float
    copies: float
    gradients: float
    optimizer: float
    activations: float
    reserve: float = RESERVE

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.copies + self.gradients + self.optimizer + self.activations + self.reserve


def step_memory(model: SpatialModel, scenes: Sequence[SceneLoad], options: MemoryOptions) -> StepMemory:
    """Memory of one step with every objective due.

    Args:
        model: on any device, also the meta device.
        scenes: what a pass holds; rows are padded to the longest.
        options: see `MemoryOptions`.
    """
    shared = options.processes if options.sharding == "zero3" else 1
    divided = options.processes if options.sharding != "none" else 1
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    gradients = float(sum(p.numel() * p.element_size() for p in trained.values()))
    buckets = 2 if options.processes > 1 and options.sharding == "none" else 1  # DDP's own copy
    update = 0.0 if options.optimizer in EIGHT_BIT else gradients / divided
    kept = saved_activations(model, scenes, options)
    return StepMemory(
        weights=_weights(model, options.load_in) / shared,
        copies=_copies(model, options),
        gradients=gradients * buckets / divided,
        optimizer=_optimizer(trained, options.optimizer) / divided,
        activations=max(kept, _tower_in_passing(model, scenes, options), update),
    )


# ---- what stays


def _weights(model: SpatialModel, load_in: str | None) -> float:
    quantised = set()
    if load_in is not None:
        linear = [m for m in model.backbone.get_decoder().modules() if isinstance(m, nn.Linear)]  # type: ignore[operator]
        quantised = {id(m.weight) for m in linear if not m.weight.requires_grad}
    bits = 0.0 if load_in is None else _BITS[load_in]
    return sum((p.numel() * (bits if id(p) in quantised else p.element_size()) for p in model.parameters()), 0.0)


def _copies(model: SpatialModel, options: MemoryOptions) -> float:
    layers = decoder_layers(model)
    sizes = [sum(w.numel() for w, _ in matrices_of([layer])) for layer in layers]
    embedding = model.backbone.get_input_embeddings().weight.numel()  # type: ignore[operator]
    if options.sharding == "zero3" and options.processes > 1:
        return 2.0 * (2 * max(sizes) + 2 * embedding)  # this layer and the next, table and head, in bfloat16
    if not options.autocast or options.load_in is not None:
        return 0.0
    head: nn.Module = model.backbone.get_output_embeddings()  # type: ignore[operator]
    wide = [(weight, on) for weight, on in matrices_of([*layers, head]) if weight.element_size() == 4]
    if options.checkpointing:  # copies of frozen matrices go with their layer; those of trained ones stay in the cache
        return 2.0 * max(sum(w.numel() for w, on in wide if on), max(sizes) if wide else 0)
    return 2.0 * sum(w.numel() for w, _ in wide)


def _optimizer(trained: Mapping[str, nn.Parameter], name: str) -> float:
    """Bytes of the state; a paged one is on the host where the GPU is full, and counts nothing."""
    if name == "paged_adamw8bit":
        return 0.0
    total = 0.0
    for key, parameter in trained.items():
        if name == "adamw8bit":
            total += parameter.numel() * (2.0 + 8 / 256 if parameter.numel() >= 4096 else 8.0)
        else:
            states = 1 if name == "muon" and is_hidden_matrix(key, parameter) else 2
            total += states * parameter.numel() * parameter.element_size()
    return total


# ---- what the backward pass keeps


def saved_activations(model: SpatialModel, scenes: Sequence[SceneLoad], options: MemoryOptions) -> float:
    """Bytes that the forward pass leaves for the backward pass, at their most."""
    rows, longest = len(scenes), max(s.tokens for s in scenes)
    tokens, wide = rows * longest, torch.finfo(model.dtype).bits // 8
    dim = model.adapter.dim
    layers = [layer_activations(layer, model, options) * tokens for layer in decoder_layers(model)]
    if options.attention == "dense":  # every layer rounds the mask for itself
        layers = [layer + options.computed * rows * longest**2 * options.autocast for layer in layers]
    ends = tokens * dim * (wide + 4.0) + _projected(model, scenes, options)  # last norm
    ends += wide * rows * longest**2 if options.attention == "dense" else 0
    heads = _heads(model, scenes, options)
    vocabulary = model.backbone.get_output_embeddings().weight.shape[0]  # type: ignore[operator]
    heads += min(sum(s.labelled for s in scenes), max(1, CHUNK // vocabulary)) * vocabulary * (options.computed + 12.0)
    tower = _tower_saved(model, scenes, options)
    if options.checkpointing:
        return wide * dim * tokens * len(layers) + ends + tower + max(heads, max(layers))
    return sum(layers) + ends + tower + heads


def layer_activations(layer: nn.Module, model: SpatialModel, options: MemoryOptions) -> float:
    """Bytes per token that one layer of the language model keeps without checkpointing."""
    text = model.adapter.model.config.get_text_config()
    dim, computed, wide = text.hidden_size, options.computed, torch.finfo(model.dtype).bits // 8
    width = text.num_attention_heads * (getattr(text, "head_dim", None) or dim // text.num_attention_heads)
    total = 0.0
    for name, module in layer.named_modules():
        weight = getattr(module, "weight", None)
        if "norm" in name.rpartition(".")[2] and isinstance(weight, torch.Tensor):
            across = dim if weight.numel() == dim else _normed_width(name, text, weight.numel())
            total += across * (4 + wide * weight.requires_grad)
    inputs: dict[tuple[str, int], list[int]] = {}
    for name, module in layer.named_modules():
        if not isinstance(module, nn.Linear) or "lora_B" in name:
            continue
        if module.weight.requires_grad:
            part = name.partition(".")[0]
            inputs.setdefault((part, module.in_features), []).append(module.in_features)
        if "lora_A" in name:
            total += computed * module.out_features
    for (_, size), members in inputs.items():
        # rounded once per matrix where weights and products differ in precision; the attention's result and the
        # MLP's product are in the products' precision already
        own = size == dim and computed != wide
        total += computed * (sum(members) if own else size)
    total += 3 * computed * width + 4 * text.num_attention_heads  # queries, keys and values, as many heads of each
    if not any(size == width and part.startswith("self_attn") for part, size in inputs) or width == dim:
        total += computed * width  # the result, which the output matrix shares where it keeps its input
    total += 3 * computed * text.intermediate_size  # gate, its activation, and what it multiplies
    return total


def _normed_width(name: str, text: object, size: int) -> int:
    heads = text.num_key_value_heads if "k_norm" in name else text.num_attention_heads  # type: ignore[attr-defined]
    return size * heads


def _projected(model: SpatialModel, scenes: Sequence[SceneLoad], options: MemoryOptions) -> float:
    """The projector's own inputs and outputs."""
    rows, cols = model.adapter.encoder_grid
    cells = rows * cols * sum(s.views for s in scenes)
    tower = {id(module) for module in model.adapter.vision_tower.modules()}
    text = {id(module) for module in model.backbone.get_decoder().modules()}  # type: ignore[operator]
    own = [m for m in model.adapter.base.modules() if id(m) not in tower | text and isinstance(m, nn.Linear)]
    trained = [m for m in own if m.weight.requires_grad]
    return float(cells * options.computed * sum(m.in_features + m.out_features for m in trained))


def _heads(model: SpatialModel, scenes: Sequence[SceneLoad], options: MemoryOptions) -> float:
    total = 0.0
    per_view = math.prod(model.adapter.view_grid)
    tokens = per_view * sum(s.views for s in scenes)
    for _, member in model.objectives or ():
        if isinstance(member, ReconstructionObjective):
            total += sum(_denoised(model, member, scene) for scene in scenes)
        elif isinstance(member, FeatureAlignment):
            for weight, _ in matrices_of([member]):
                total += tokens * (weight.shape[1] * (options.computed + 0.0) + weight.shape[0] * options.computed)
            heads = (member.head, *member.more_heads)
            total += tokens * 12.0 * sum(list(head.parameters())[-1].numel() for head in heads)  # the last is a bias
        else:
            total += sum(tokens * options.computed * sum(w.shape) for w, _ in matrices_of([member]))
    return total


def _denoised(model: SpatialModel, member: ReconstructionObjective, scene: SceneLoad) -> float:
    """Saved by the denoiser for one scene, in float32."""
    config, per_view = member.denoiser.config, math.prod(model.adapter.view_grid)
    cells = math.prod(member.denoiser.grid(member.kind))
    if isinstance(member, CrossView):
        hidden = scene.views - kept_views(scene.views, member.ratio)
        if not hidden:
            return 0.0
        targets = hidden * member.repeats_of(scene.views, hidden)
        views = hidden if member.conditioning == "masked_positions" else scene.views - hidden
    elif isinstance(member, VanillaReconstruction):
        targets = views = member.chosen_views(scene.views)
    else:
        assert isinstance(member, BirdsEye)
        targets, views = member.repeats, scene.views
    block = (16 + 3 * config.mlp_ratio + 1) * config.width
    network = targets * cells * (config.depth * block + 8 * config.width + 3 * config.channels)
    pooled = views * per_view * (2 * model.adapter.dim + 4 * config.width) + targets * cells * 2 * config.width
    return 4.0 * (network + pooled)


# ---- the vision tower


def _tower_saved(model: SpatialModel, scenes: Sequence[SceneLoad], options: MemoryOptions) -> float:
    """What a trained tower keeps for its backward pass."""
    if not options.vision or not any(p.requires_grad for p in model.adapter.vision_tower.parameters()):
        return 0.0
    vision = model.adapter.model.config.vision_config
    hidden = getattr(vision, "embed_dim", None) or vision.hidden_size
    inner = getattr(vision, "intermediate_size", None) or int(hidden * vision.mlp_ratio)
    layers = getattr(vision, "depth", None) or vision.num_hidden_layers
    wide, computed = torch.finfo(model.dtype).bits // 8, options.computed
    tokens = tower_tokens(model)[0] * sum(s.views for s in scenes)
    layer = tokens * ((2.0 * wide + 8 * computed) * hidden + 2 * computed * inner)
    return tokens * wide * hidden * layers + layer if options.checkpointing else layer * layers


def _tower_in_passing(model: SpatialModel, scenes: Sequence[SceneLoad], options: MemoryOptions) -> float:
    """What a frozen tower holds while it runs: every layer's output, and one layer's inside."""
    if not options.vision:
        return 0.0
    vision = model.adapter.model.config.vision_config
    hidden = getattr(vision, "embed_dim", None) or vision.hidden_size
    inner = getattr(vision, "intermediate_size", None) or int(hidden * vision.mlp_ratio)
    layers = getattr(vision, "depth", None) or vision.num_hidden_layers
    wide = torch.finfo(model.dtype).bits // 8
    tokens = tower_tokens(model)[0] * sum(s.views for s in scenes)
    return tokens * (wide * hidden * (layers + 1) + options.computed * (4.0 * hidden + 2 * inner))
