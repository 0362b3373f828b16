"""The objectives of one run, and the denoiser that the reconstruction members share."""

from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.data.batch import Batch
from stereopsis.data.layout import VisualLayout
from stereopsis.errors import RecipeError
from stereopsis.objectives.base import Masking, Objective, ObjectiveLoss, Randomness, SpatialOutputs


def require_targets(name: str, needs: Iterable[str], targets: Mapping[str, Tensor]) -> None:
    """Refuse an objective whose targets are not all there.

    Raises:
        RecipeError: names the objective, the first missing target, what there is, and the remedy.
    """
    for key in needs:
        if key not in targets:
            raise RecipeError(
                f"objective '{name}' needs the target '{key}', but the data provide only "
                f"{sorted(targets) or 'none'}; name a teacher that makes it under 'teachers:' and scenes that have "
                f"what it looks at (a blind model's have nothing), or leave '{name}' out of 'objectives:'"
            )


class ObjectiveSet(nn.Module):
    """Several objectives trained together; owns their heads, all of which inference leaves behind.

    Args:
        members: objectives by name.
        denoiser: the head that reconstruction objectives hold without owning, or None.
    """

    def __init__(self, members: Mapping[str, Objective], denoiser: nn.Module | None = None) -> None:
        super().__init__()
        self.members = nn.ModuleDict(dict(members))
        self.denoiser = denoiser

    def __iter__(self):
        return iter(self.members.items())

    def __getitem__(self, name: str) -> Objective:
        return self.members[name]  # type: ignore[return-value]

    def __contains__(self, name: str) -> bool:
        return name in self.members

    def due(self, step: int) -> tuple[str, ...]:
        """Names of the objectives that are active at this optimiser step."""
        return tuple(name for name, member in self if member.due(step))

    def layers(self, due: tuple[str, ...]) -> tuple[int, ...]:
        """Hidden layers that the due objectives read."""
        return tuple(sorted({layer for name in due for layer in self[name].layers}))

    def check(self, batch: Batch) -> None:
        """Refuse to start when a target that an objective needs is absent.

        Raises:
            RecipeError: names the objective, the missing target and what the batch holds.
        """
        for name, member in self:
            require_targets(name, member.needs, batch.targets)

    def mask(
        self,
        tokens: Float[Tensor, "views rows cols dim"],
        layout: VisualLayout,
        due: tuple[str, ...],
        generator: Randomness,
        batch: Batch | None = None,
    ) -> Masking:
        """Apply the T_i of every objective that is due, one after another.

        Args:
            tokens: visual tokens.
            layout: which scene each view belongs to.
            due: names of the active objectives.
            generator: decides what is hidden; one, or one per scene.
            batch: asked which views an objective protects; None = none.
        """
        hidden = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
        for name in due:
            masking = self[name].mask(tokens, layout, generator)
            if masking is None:
                continue
            edited, touched = masking.tokens, masking.hidden
            protected = None if batch is None else self[name].protected_views(batch)
            if protected is not None:
                edited, touched = torch.where(protected[:, None, None, None], tokens, edited), touched & ~protected
            tokens, hidden = edited, hidden | touched
        return Masking(tokens=tokens, hidden=hidden)

    def losses(
        self, outputs: SpatialOutputs, batch: Batch, due: tuple[str, ...], generator: Randomness
    ) -> dict[str, ObjectiveLoss]:
        """The loss of every objective that is due."""
        shuffled = batch.other_rooms() if any(self[name].shuffle for name in due) else batch
        return {name: self[name].loss(outputs, shuffled if self[name].shuffle else batch, generator) for name in due}
