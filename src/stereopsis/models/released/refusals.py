"""What must be as it was released before a checkpoint is converted: settings of the forward pass, and every weight."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from stereopsis.errors import CheckpointError
from stereopsis.models.grounding import TEMPERATURE, GroundingHead
from stereopsis.models.position import MAXIMUM, MINIMUM, STEP
from stereopsis.models.released.keys import Destination, released_name
from stereopsis.objectives.released import load_released_denoiser
from stereopsis.weights import Spec

_DENOISER = "denoiser."
_MASK_TOKEN = "members.cross_view.mask_token"
_ALIGNMENT = "members.alignment.head."
_POST_NORM = ("vision_tower.post_layernorm.weight", "vision_tower.post_layernorm.bias")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Setting:
    """A key of config.json that changes the official forward pass.

    Attributes:
        released: its value in the releases, in words.
        same: whether a value gives the released forward pass.
        told: whether its absence is worth a note, since the official code would then take another value.
    """

    released: str
    same: Callable[[Any], bool]
    told: bool = False


def _off(value: Any) -> bool:
    return not value


def _only(value: Any) -> Callable[[Any], bool]:
    return lambda found: found == value


def _numbers(values: tuple[float, ...]) -> Callable[[Any], bool]:
    return lambda found: tuple(found) == values


def _coordinates(kind: Any) -> bool:
    words = str(kind)
    return all(word in words for word in ("avg", "discrete", "sin3d")) and not any(
        other in words for other in ("mlp", "mrope", "sample", "minmax")
    )


_SETTINGS: Mapping[str, _Setting] = {
    "world_position_embedding_type": _Setting(released="avg-discrete-sin3d", same=_coordinates),
    "object_feature_type": _Setting(
        released="patch14-pe", same=lambda kind: "patch14" in str(kind) and "patch27" not in str(kind)
    ),
    "ground_head_type": _Setting(released="infonce", same=_only("infonce")),
    "ground_head_temperature": _Setting(released=str(TEMPERATURE), same=_only(TEMPERATURE)),
    "voxel_size": _Setting(released=str(STEP), same=_only(STEP)),
    "min_xyz_range": _Setting(released=str(list(MINIMUM)), same=_numbers(MINIMUM)),
    "max_xyz_range": _Setting(released=str(list(MAXIMUM)), same=_numbers(MAXIMUM)),
    "mm_newline_position": _Setting(released="grid", same=_only("grid"), told=True),
    "mm_patch_merge_type": _Setting(
        released="spatial_unpad",
        same=lambda kind: str(kind).startswith("spatial") and "unpad" in str(kind),
        told=True,
    ),
    "mm_spatial_pool_mode": _Setting(released="bilinear", same=_only("bilinear"), told=True),
    "mm_spatial_pool_stride": _Setting(released="2", same=_only(2)),
    "mm_vision_select_layer": _Setting(released="-2", same=_only(-2)),
    "mm_vision_select_feature": _Setting(released="patch", same=_only("patch")),
    "mm_projector_type": _Setting(released="mlp2x_gelu", same=_only("mlp2x_gelu")),
    "mm_resampler_type": _Setting(released="null", same=_off),
    "add_faster_video": _Setting(released="false", same=_off),
    "s2": _Setting(released="false", same=_off),
    "mm_use_im_start_end": _Setting(released="false", same=_off),
    "use_sliding_window": _Setting(released="false", same=_off),
    "hidden_act": _Setting(released="silu", same=_only("silu")),
}


def check_settings(config: Mapping[str, Any], source: object) -> tuple[str, ...]:
    """Refuse a config.json that tells of another forward pass than the released one.

    Returns:
        Notes on settings that it leaves open, where the official code would take another value.

    Raises:
        CheckpointError: names every such setting, and what the released models have.
    """
    given = {key: value for key in _SETTINGS if (value := config.get(key)) is not None}
    other = [
        f"{key} {value!r} (released: {_SETTINGS[key].released})"
        for key, value in given.items()
        if not _safely(_SETTINGS[key].same, value)
    ]
    if other:
        raise CheckpointError(
            f"{source} is of a variant whose forward pass is another one: {'; '.join(other)}. Converted as released it "
            "would silently compute something else; only models with the released forward pass can be converted"
        )
    return tuple(
        f"config.json does not say '{key}'; taken as released ({setting.released})"
        for key, setting in _SETTINGS.items()
        if setting.told and key not in given
    )


def check_weights(
    settings: Any,
    config: Mapping[str, Any],
    found: Iterable[tuple[Destination, Spec]],
) -> None:
    """Refuse a checkpoint that lacks a weight of the architecture, or has one of another shape; nothing is written yet.

    Args:
        settings: the Hugging Face configuration that was made for it.
        config: the official config.json.
        found: where its weights go, and what they are.

    Raises:
        CheckpointError: names the first of them.
    """
    parts: dict[str, dict[str, Spec]] = {"backbone": {}, "grounding": {}, "heads": {}}
    for destination, spec in found:
        if destination.part != "dropped":
            parts[destination.part][destination.name] = spec
    _backbone(settings, config, {released_name("backbone", name): spec for name, spec in parts["backbone"].items()})
    _grounding(settings.text_config.hidden_size, config, parts["grounding"])
    _heads(settings.text_config.hidden_size, parts["heads"])


def check_values(shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse weights without a value.

    Raises:
        CheckpointError: names the first.
    """
    empty = [name for name, shape in shapes.items() if 0 in shape]
    if empty:
        raise CheckpointError(
            f"{len(empty)} of {len(shapes)} weights are empty {empty[:3]}: DeepSpeed's ZeRO-3 leaves them so where a "
            "model is saved without gathering it; run the 'zero_to_fp32.py' of its checkpoint, and convert what that "
            "writes"
        )


def check_finite(name: str, tensor: Tensor) -> None:
    """Refuse a weight with values that are no numbers.

    Raises:
        CheckpointError: names it.
    """
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
        raise CheckpointError(
            f"weight '{name}' holds NaN or infinite values: the checkpoint is damaged, or its training diverged; take "
            "another one"
        )


def _backbone(settings: Any, config: Mapping[str, Any], have: Mapping[str, Spec]) -> None:
    from transformers import LlavaOnevisionForConditionalGeneration

    with torch.device("meta"):
        model = LlavaOnevisionForConditionalGeneration(settings)
    wanted = {released_name("backbone", name): tuple(value.shape) for name, value in model.state_dict().items()}
    optional = {released_name("backbone", name) for name in _POST_NORM}
    if settings.tie_word_embeddings:
        optional.add("lm_head.weight")
    lacking = sorted(wanted.keys() - optional - have.keys())
    unknown = sorted(have.keys() - wanted.keys() - optional)
    rows = have["model.embed_tokens.weight"].shape[:1] if "model.embed_tokens.weight" in have else ()
    for table in ("model.embed_tokens.weight", "lm_head.weight"):  # these grow, and must have grown alike
        wanted[table] = (*rows, *wanted.get(table, ())[1:])
    wrong = [name for name in sorted(have) if name in wanted and have[name].shape != wanted[name]]
    if lacking or unknown or wrong:
        shapes = [f"{name} {list(have[name].shape)}, expected {list(wanted[name])}" for name in wrong[:3]]
        raise CheckpointError(
            f"the checkpoint does not fit its config.json: {len(lacking)} weights are missing {lacking[:3]}, "
            f"{len(unknown)} have no place {unknown[:3]}, {len(wrong)} are of another shape {shapes}; "
            f"{_remedy(lacking, config)}"
        )
    if config.get("vocab_size") not in (None, *rows):
        raise CheckpointError(
            f"the embedding table has {rows[0]} rows, but config.json's vocab_size is {config['vocab_size']}: the two "
            "belong to different checkpoints; copy it again"
        )


def _remedy(lacking: list[str], config: Mapping[str, Any]) -> str:
    if lacking == ["lm_head.weight"]:
        return (
            "config.json says that the output layer is not tied to the embeddings "
            f"(tie_word_embeddings {config.get('tie_word_embeddings', 'absent')}), so it cannot be made up; copy the "
            "checkpoint again, or say 'tie_word_embeddings: true' where the two are one"
        )
    return "copy the checkpoint again"


def _grounding(dim: int, config: Mapping[str, Any], have: Mapping[str, Spec]) -> None:
    with torch.device("meta"):
        wanted = {name: tuple(value.shape) for name, value in GroundingHead(dim).state_dict().items()}
    if not have and not config.get("ground_head_type"):
        return
    wrong = sorted(name for name in wanted.keys() | have.keys() if have.get(name) is None or name not in wanted)
    wrong += sorted(name for name in have.keys() & wanted.keys() if have[name].shape != wanted[name])
    if wrong:
        raise CheckpointError(
            f"the grounding head is not whole: {len(wrong)} of its {len(wanted)} weights are missing or of another "
            f"shape {[released_name('grounding', name) for name in wrong[:3]]}; copy the checkpoint again"
        )


def _heads(dim: int, have: Mapping[str, Spec]) -> None:
    """The mask token, the denoiser and the alignment head, where there are some."""
    token = have.get(_MASK_TOKEN)
    if token is not None and token.shape != (dim,):
        raise CheckpointError(
            f"model.mask_token has shape {list(token.shape)}, expected [{dim}]; copy the checkpoint again"
        )
    denoiser = {
        name.removeprefix(_DENOISER): torch.empty(spec.shape, device="meta")
        for name, spec in have.items()
        if name.startswith(_DENOISER)
    }
    if denoiser:
        cells = {key: denoiser[f"pos_embed_{key}"].shape for key in ("view", "bev") if f"pos_embed_{key}" in denoiser}
        grids = {key: (1, int(shape[1])) for key, shape in cells.items() if len(shape) == 3}
        load_released_denoiser(
            denoiser,
            heads=1,  # no shape depends on them
            pooler_heads=1,
            view_grid=grids.get("view"),
            birdseye_grid=grids.get("bev"),
        )
    shapes = {n.removeprefix(_ALIGNMENT): spec.shape for n, spec in have.items() if n.startswith(_ALIGNMENT)}
    if not shapes:
        return
    whole = {"0.weight", "0.bias", "2.weight", "2.bias"} == shapes.keys()
    if not whole or any(0 in shape for shape in shapes.values()) or shapes["0.weight"][0] != shapes["2.weight"][1]:
        raise CheckpointError(
            f"3DRS's alignment head is not whole: it has {dict(shapes)} under model.proj_3d; copy the checkpoint again"
        )


def _safely(same: Callable[[Any], bool], value: Any) -> bool:
    try:
        return bool(same(value))
    except TypeError:
        return False
