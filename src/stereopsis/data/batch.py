"""What a model sees in one step: packed sequences, views, proposals and the objectives' targets."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from stereopsis.data.layout import VisualLayout


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SceneProposals:
    """One scene's candidate boxes and the encoder cells that see them.

    Attributes:
        boxes: [proposals 6] cx cy cz dx dy dz, aligned frame, metres.
        cells: [proposals views enc_rows enc_cols] True where at least half of an encoder cell's pixels lie inside
            the box (Video-3D-LLM's rule, docs/papers.md).
        token_cells: [proposals views rows cols] the same on the language model's grid, an eighth of the pixels, rounded
            down (3DRS's code); None where grounding does not look there.
    """

    boxes: Float[Tensor, "proposals 6"]
    cells: Bool[Tensor, "proposals views enc_rows enc_cols"]
    token_cells: Bool[Tensor, "proposals views rows cols"] | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "SceneProposals":
        """The same proposals on another device."""
        return self._edited(lambda cells: cells.to(device), boxes=self.boxes.to(device))

    def select_views(self, chosen: Int64[Tensor, "chosen"]) -> "SceneProposals":
        """The same proposals as some of the views see them."""
        return self._edited(lambda cells: cells[:, chosen])

    def without(self, hidden: Bool[Tensor, "views"]) -> "SceneProposals":
        """The same proposals, seen by no hidden view."""
        return self._edited(lambda cells: cells & ~hidden[None, :, None, None])

    def unseen(self) -> "SceneProposals":
        """The same boxes, seen by no view."""
        return self._edited(torch.zeros_like)

    def _edited(self, edit: Callable[[Tensor], Tensor], boxes: Tensor | None = None) -> "SceneProposals":
        return SceneProposals(
            boxes=self.boxes if boxes is None else boxes,
            cells=edit(self.cells),
            token_cells=None if self.token_cells is None else edit(self.token_cells),
        )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Packed scenes: each row is one scene's visual prefix followed by its conversations.

    Attributes:
        input_ids: [batch tokens].
        position_ids: [batch tokens], or [batch tokens axes] in a family whose rotary positions have several axes; every
            conversation counts on from the end of the prefix, as if it were alone.
        segments: [batch tokens]; -1 padding, 0 the shared prefix, k >= 1 the k-th conversation.
        labels: [batch tokens]; the token to be predicted FROM this position (already shifted), -100 elsewhere.
        layout: where the views' cells are.
        images: [views 3 height width] uint8 RGB.
        coordinates: [views rows cols 3] mean aligned-frame coordinate of each cell, metres.
        coordinates_valid: [views rows cols] False where no pixel of the cell has depth.
        cameras: [views 4 4] camera to aligned frame.
        intrinsics: [views 3 3] of the images.
        encoder_tokens: [views enc_rows enc_cols enc_dim] cached output of the frozen vision tower, or None.
        proposals: one entry per sample.
        query_index: [queries] flattened position of each <ground> token.
        query_scene: [queries] which sample each query belongs to.
        query_targets: [queries max_proposals] True for the proposals that are right; all False = the zero target.
        coord_index: [coords] flattened position of each <coord> token.
        coord_xyz: [coords 3] aligned-frame point that each of them stands for, metres.
        targets: what the teachers say: "view_latents" [views r c channels], "birdseye_latents" [batch r c channels],
            "birdseye_valid" [batch r c] bool, "view_features" [views rows cols channels],
            "view_features_valid" [views rows cols] bool, ... Objectives name the keys that they need.
        scene_ids: one per sample.
        conversation_ids: per sample, the annotation id of each packed conversation.
    """

    input_ids: Int64[Tensor, "batch tokens"]
    position_ids: Int64[Tensor, "batch tokens *axes"]
    segments: Int64[Tensor, "batch tokens"]
    labels: Int64[Tensor, "batch tokens"]
    layout: VisualLayout
    images: UInt8[Tensor, "views 3 height width"]
    coordinates: Float[Tensor, "views rows cols 3"]
    coordinates_valid: Bool[Tensor, "views rows cols"]
    cameras: Float[Tensor, "views 4 4"]
    intrinsics: Float[Tensor, "views 3 3"]
    encoder_tokens: Float[Tensor, "views enc_rows enc_cols enc_dim"] | None
    proposals: tuple[SceneProposals, ...]
    query_index: Int64[Tensor, "queries"]
    query_scene: Int64[Tensor, "queries"]
    query_targets: Bool[Tensor, "queries max_proposals"]
    coord_index: Int64[Tensor, "coords"]
    coord_xyz: Float[Tensor, "coords 3"]
    targets: dict[str, Tensor]
    scene_ids: tuple[str, ...]
    conversation_ids: tuple[tuple[str, ...], ...]

    @property
    def has_text(self) -> bool:
        """Whether any token carries a language-model label (False for vision-only batches)."""
        return bool((self.labels != -100).any())

    def other_rooms(self) -> "Batch":
        """The same pass, but every scene has the truth about the one before it: targets, cameras and boxes.

        What the model sees (tokens, pictures, coordinates) and how much there is of everything stay as they are.

        Raises:
            ValueError: the pass holds one scene only, or scenes of different numbers of views.
        """
        scenes = len(self.scene_ids)
        views = torch.bincount(self.layout.scene, minlength=scenes)
        if scenes < 2 or bool((views != views[0]).any()):
            raise ValueError(
                f"shuffled targets need at least two scenes in a pass, all with as many views; found {scenes} with "
                f"{views.tolist()} views: raise 'training.scenes', or take scenes of one size"
            )
        step = int(views[0])
        return dataclasses.replace(
            self,
            targets={
                key: value.roll(step if len(value) == scenes * step else 1, 0) for key, value in self.targets.items()
            },
            cameras=self.cameras.roll(step, 0),
            intrinsics=self.intrinsics.roll(step, 0),
            proposals=(self.proposals[-1], *self.proposals[:-1]) if self.proposals else (),
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """The same batch on another device."""
        moved: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, (Tensor, VisualLayout)):
                moved[field.name] = value.to(device, non_blocking=non_blocking)
        moved["proposals"] = tuple(p.to(device) for p in self.proposals)
        moved["targets"] = {k: v.to(device, non_blocking=non_blocking) for k, v in self.targets.items()}
        return dataclasses.replace(self, **moved)
