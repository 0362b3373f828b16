"""What the official code calls each weight, and where it belongs here (docs/checkpoints.md)."""

import dataclasses
import re
from collections.abc import Iterable
from typing import Literal

from stereopsis.errors import CheckpointError

Kind = Literal["llava_video", "video_3d_llm", "ross3d", "3drs"]
Part = Literal["backbone", "grounding", "heads", "dropped"]
KINDS: tuple[Kind, ...] = ("llava_video", "video_3d_llm", "ross3d", "3drs")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Destination:
    """Where a weight belongs.

    Attributes:
        part: backbone, grounding head, training heads, or dropped (the official code does not use it either).
        name: its name there; empty where it is dropped.
    """

    part: Part
    name: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Rule:
    """A prefix of official names and what takes its place."""

    released: str
    part: Part
    ours: str = ""


_RULES = (
    _Rule(released="model.embed_tokens.", part="backbone", ours="language_model.model.embed_tokens."),
    _Rule(released="model.layers.", part="backbone", ours="language_model.model.layers."),
    _Rule(released="model.norm.", part="backbone", ours="language_model.model.norm."),
    _Rule(released="lm_head.", part="backbone", ours="language_model.lm_head."),
    _Rule(released="model.vision_tower.vision_tower.vision_model.head.", part="dropped"),
    _Rule(released="model.vision_tower.vision_tower.vision_model.", part="backbone", ours="vision_tower."),
    _Rule(released="model.mm_projector.0.", part="backbone", ours="multi_modal_projector.linear_1."),
    _Rule(released="model.mm_projector.2.", part="backbone", ours="multi_modal_projector.linear_2."),
    _Rule(released="model.image_newline", part="backbone", ours="image_newline"),
    _Rule(released="ground_head_obj.", part="grounding", ours="objects."),
    _Rule(released="ground_head_query.", part="grounding", ours="query."),
    _Rule(released="ground_head_zero_target", part="grounding", ours="zero_target"),
    _Rule(released="model.mask_token", part="heads", ours="members.cross_view.mask_token"),
    _Rule(released="model.mm_inv_projector.net.", part="heads", ours="denoiser."),
    _Rule(released="model.mm_pixel_decoder.", part="dropped"),
    _Rule(released="model.proj_3d.", part="heads", ours="members.alignment.head."),
    *(
        _Rule(released=f"{prefix}{name}", part="dropped")
        for prefix in ("", "model.")
        for name in ("corres_linear", "linear_dc", "geometric_linear")
    ),
)
_COMPUTED = re.compile(r"\.(rotary_emb\.inv_freq|self_attn\.masked_bias|embeddings\.position_ids)$")
"""Tables that older versions of transformers saved beside the weights; newer ones compute them."""
_IN_MEMORY = (
    (re.compile(r"^model\.language_model\."), "language_model.model."),
    (re.compile(r"^lm_head\."), "language_model.lm_head."),
    (re.compile(r"^model\.(vision_tower|multi_modal_projector|image_newline)"), r"\1"),
    (re.compile(r"^vision_tower\.vision_model\."), "vision_tower."),
)
"""Names that transformers has used for the same backbone weight, and the one that it writes now."""


def our_name(released: str) -> Destination:
    """Where an official weight belongs.

    Raises:
        CheckpointError: the official layouts have no such weight.
    """
    if _COMPUTED.search(released):
        return Destination(part="dropped")
    for rule in _RULES:
        if released.startswith(rule.released):
            rest = released.removeprefix(rule.released)
            return Destination(part=rule.part, name="" if rule.part == "dropped" else rule.ours + rest)
    raise CheckpointError(
        f"weight '{released}' is in none of the layouts of LLaVA-Video, Video-3D-LLM, Ross3D and 3DRS; is this another "
        "model's checkpoint? Hugging Face's own LLaVA-OneVision folders need no conversion"
    )


def released_name(part: Part, name: str) -> str:
    """What the official code calls a weight of ours.

    Args:
        part: of the model.
        name: in that part; a backbone's weight under any name that transformers gives it.

    Raises:
        CheckpointError: the official code has no such weight.
    """
    if part == "backbone":
        for pattern, replacement in _IN_MEMORY:
            name = pattern.sub(replacement, name)
    for rule in _RULES:
        if rule.part == part and name.startswith(rule.ours) and rule.part != "dropped":
            return rule.released + name.removeprefix(rule.ours)
    raise CheckpointError(
        f"weight '{name}' ({part}) has no counterpart in the official code: it knows the reconstruction denoiser, the "
        "cross-view mask token and the alignment head, on the LLaVA-OneVision family"
    )


def kind_of(names: Iterable[str]) -> Kind:
    """Which of the official models has these weights."""
    names = list(names)

    def holds(*prefixes: str) -> bool:
        return any(name.startswith(prefixes) for name in names)

    if holds("model.mask_token", "model.mm_inv_projector."):
        return "ross3d"
    if holds("model.proj_3d."):
        return "3drs"
    return "video_3d_llm" if holds("ground_head_") else "llava_video"
