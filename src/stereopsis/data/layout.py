"""Which position of a token sequence is which cell of which view."""

import dataclasses

import torch
from jaxtyping import Float, Int64
from torch import Tensor


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class VisualLayout:
    """Where every view's token grid lies in a batch of sequences.

    Views of all scenes of a batch are listed one after another (a ragged batch is then nothing special); all
    share one grid size. Newline and separator tokens belong to no cell.

    Attributes:
        index: [views rows cols] position of each cell in the flattened (batch * tokens) sequence.
        scene: [views] which sample of the batch each view belongs to, ascending.
    """

    index: Int64[Tensor, "views rows cols"]
    scene: Int64[Tensor, "views"]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of one view's token grid."""
        return self.index.shape[1], self.index.shape[2]

    def gather(self, sequence: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "views rows cols dim"]:
        """Pick the visual cells out of a batch of hidden states."""
        return sequence.flatten(0, 1)[self.index]

    def views_of(self, scene: int) -> Int64[Tensor, "scene_views"]:
        """Indices of the views that belong to one sample."""
        return torch.nonzero(self.scene == scene).flatten()

    def first_views(self) -> Int64[Tensor, "views"]:
        """Of every view, the index of its scene's first one."""
        return torch.searchsorted(self.scene, self.scene)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "VisualLayout":
        """The same layout on another device."""
        return VisualLayout(
            index=self.index.to(device, non_blocking=non_blocking),
            scene=self.scene.to(device, non_blocking=non_blocking),
        )
