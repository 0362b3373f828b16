"""What costs are counted in: scenes of so many tokens, matrices, operations forwards and backwards."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn

from stereopsis.data.batch import Batch

Matrix = tuple[torch.Tensor, bool]
"""A weight that multiplies tokens, and whether it is trained."""
_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SceneLoad:
    """What one packed scene of a pass holds.

    Attributes:
        views: how many.
        prefix: tokens that all conversations share, those of the views included.
        conversations: tokens of each conversation.
        labelled: tokens that the language-model head scores.
        queries: <ground> tokens.
        proposals: boxes that they choose from.
    """

    views: int
    prefix: int
    conversations: tuple[int, ...] = ()
    labelled: int = 0
    queries: int = 0
    proposals: int = 0

    @property
    def tokens(self) -> int:
        """Length of its row, without padding."""
        return self.prefix + sum(self.conversations)


def scene_loads(batch: Batch) -> list[SceneLoad]:
    """What the scenes of a batch hold."""
    views = torch.bincount(batch.layout.scene, minlength=len(batch.scene_ids)).tolist()
    queries = torch.bincount(batch.query_scene, minlength=len(batch.scene_ids)).tolist()
    labelled = (batch.labels != -100).sum(1).tolist()
    loads = []
    for row, segments in enumerate(batch.segments):
        lengths = torch.bincount(segments[segments >= 0]).tolist()
        loads.append(
            SceneLoad(
                views=views[row],
                prefix=lengths[0],
                conversations=tuple(lengths[1:]),
                labelled=labelled[row],
                queries=queries[row],
                proposals=len(batch.proposals[row].boxes),
            )
        )
    return loads


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flops:
    """Operations of one part.

    Attributes:
        forward: of the forward pass.
        backward: of the backward pass.
        recompute: of the parts of the forward pass that checkpointing does twice.
    """

    forward: float = 0.0
    backward: float = 0.0
    recompute: float = 0.0

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(
            forward=self.forward + other.forward,
            backward=self.backward + other.backward,
            recompute=self.recompute + other.recompute,
        )

    def __mul__(self, factor: float) -> "Flops":
        return Flops(forward=self.forward * factor, backward=self.backward * factor, recompute=self.recompute * factor)

    @property
    def model(self) -> float:
        """What the result needs: forwards and backwards. Model FLOPs utilisation divides this by time and peak."""
        return self.forward + self.backward

    @property
    def executed(self) -> float:
        """What is computed: `model` and what is computed twice."""
        return self.model + self.recompute


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepFlops:
    """Operations of one pass, by part.

    Attributes:
        parts: "vision tower", "projector", "language model", "attention", "logits", "grounding", and every objective
            that has a head.
        full_precision: names of the parts that are computed in float32 whatever the training precision.
    """

    parts: Mapping[str, Flops]
    full_precision: frozenset[str] = frozenset()

    @property
    def total(self) -> Flops:
        """All parts together."""
        return sum(self.parts.values(), Flops())


def matrices_of(modules: Iterable[nn.Module]) -> list[Matrix]:
    """The weights that multiply tokens in some modules, in order, and whether each is trained."""
    found: list[Matrix] = []
    for module in modules:
        for part in module.modules():
            for name, parameter in part.named_parameters(recurse=False):
                linear = name == "weight" and isinstance(part, (nn.Linear, *_CONVOLUTIONS))
                if linear or name.endswith("projection_weight"):
                    found.append((parameter, parameter.requires_grad))
    return found


def matrices_cost(matrices: Sequence[Matrix], tokens: int, *, input_gradient: bool) -> Flops:
    """Cost of matrices that all see the same number of tokens, one after another.

    Args:
        matrices: as `matrices_of` gives them.
        tokens: how many each multiplies.
        input_gradient: whether a gradient is wanted of what goes into the first one.
    """
    forward = backward = 0.0
    flows = input_gradient
    for weight, trained in matrices:
        cost = 2.0 * weight.numel() * tokens
        forward += cost
        backward += cost * (flows + trained)
        flows = flows or trained
    return Flops(forward=forward, backward=backward)
