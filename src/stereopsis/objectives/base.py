"""The interface of every training signal: L = D(J(x_visual), F(T_o(I))) with T_i applied on the way in.

Ross3D section 3 writes this formula for reconstruction; feature alignment, consistency, text and grounding fit it
too, so one interface serves all. Objectives see tensors, the layout and the batch, never a model.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from stereopsis.data.batch import Batch
from stereopsis.data.layout import VisualLayout
from stereopsis.errors import StereopsisError
from stereopsis.objective_sections import ObjectiveSection

DEFAULT = ObjectiveSection()
Randomness = torch.Generator | Sequence[torch.Generator]
"""Where random numbers come from: one CPU generator, drawn scene after scene, or one per scene of the batch."""


def of_scene(generator: Randomness, scene: int) -> torch.Generator:
    """The generator that a scene of the batch draws from.

    With one per scene, what a scene draws does not depend on the scenes that share its pass.
    """
    return generator if isinstance(generator, torch.Generator) else generator[scene]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Masking:
    """The result of an objective's T_i: edited tokens and which views were hidden.

    Attributes:
        tokens: [views rows cols dim] visual tokens after the edit.
        hidden: [views] True for views whose content was replaced.
    """

    tokens: Float[Tensor, "views rows cols dim"]
    hidden: Bool[Tensor, "views"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class GroundingScores:
    """Similarity of each query to its scene's proposals.

    Attributes:
        logits: [queries proposals+1] cosine / temperature; padded proposals are -inf; the LAST column is the zero
            target.
    """

    logits: Float[Tensor, "queries options"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TextStates:
    """The labelled tokens before the language-model head, so that nobody need hold all their scores at once.

    Attributes:
        states: [labels dim] last hidden states at the labelled positions only.
        targets: [labels] the words that they should predict.
        head: states [tokens dim] to scores [tokens vocab].
        vocabulary: number of words that are scored.
    """

    states: Float[Tensor, "labels dim"]
    targets: Int64[Tensor, "labels"]
    head: Callable[[Tensor], Tensor]
    vocabulary: int

    @property
    def logits(self) -> Float[Tensor, "labels vocab"]:
        """All scores, computed anew at every call."""
        return self.head(self.states)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SpatialOutputs:
    """What the model produced in one forward pass.

    Attributes:
        visual: [views rows cols dim] last hidden states at the visual tokens (the paper's x_{i<=N}).
        hidden: [views] True for the views that some objective hid in this pass.
        text: the labelled tokens, or None.
        grounding: scores, or None where the batch has no query.
        layers: hidden states of other layers at the visual tokens, by the layer number that was asked for.
    """

    visual: Float[Tensor, "views rows cols dim"]
    hidden: Bool[Tensor, "views"]
    text: TextStates | None = None
    grounding: GroundingScores | None = None
    layers: Mapping[int, Float[Tensor, "views rows cols dim"]] = dataclasses.field(default_factory=dict)

    @property
    def text_logits(self) -> Float[Tensor, "labels vocab"] | None:
        """Scores of the next word at the labelled positions, computed anew at every call; None without words."""
        return None if self.text is None else self.text.logits

    def at(self, layer: int) -> Float[Tensor, "views rows cols dim"]:
        """Hidden states at the visual tokens after a layer; -1 is the last.

        Raises:
            KeyError: the forward pass was not asked for this layer.
        """
        if layer == -1:
            return self.visual
        if layer not in self.layers:
            raise KeyError(
                f"hidden states of layer {layer} were not kept (kept: {sorted(self.layers)}); name the layer in "
                "`Objective.layers`, or in the `layers` argument of SpatialModel.outputs"
            )
        return self.layers[layer]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class BuildContext:
    """What a run knows and a recipe does not: sizes that an objective's heads must fit.

    Attributes:
        dim: width of the visual tokens (the language model's hidden size).
        targets: `Batch.targets` of any batch of the run.
        denoiser: the head that reconstruction objectives share; None where no target of theirs is there.
    """

    dim: int
    targets: Mapping[str, Tensor]
    denoiser: nn.Module | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ObjectiveLoss:
    """A summed loss, the count that normalises it, and figures worth logging.

    Attributes:
        sum: scalar, connected to the graph even where count is 0.
        count: how many terms were summed; equals `Objective.count(batch)`.
        metrics: detached scalars, already averaged over the batch.
    """

    sum: Float[Tensor, ""]
    count: float
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)


RENAMED = {"corrupt": "mask", "spares": "protected_views"}
"""Methods of objectives by the names that they had before, and their names."""


class Objective(nn.Module, abc.ABC):
    """One training signal.

    Attributes:
        name: key in recipes and logs.
        needs: keys of `Batch.targets` that must be present (checked before the first step).
        weight: factor of the normalised loss.
        every: active on optimiser steps that are multiples of this number; the same on every rank.
        layers: hidden layers besides the last (-1) whose outputs `loss` reads; negative numbers count from the end.
        shuffle: a control: every scene is given the truth about another scene of its pass (`Batch.other_rooms`).
    """

    name: str = ""
    needs: tuple[str, ...] = ()
    layers: tuple[int, ...] = ()
    shuffle: bool = False

    def __init_subclass__(cls, **more: Any) -> None:
        """Refuse a class in the form of earlier versions, whose methods nobody would call any more."""
        super().__init_subclass__(**more)
        for old, new in RENAMED.items():
            if old in vars(cls):
                raise StereopsisError(
                    f"objective {cls.__name__} has a method '{old}', which is called '{new}' now; rename it, as "
                    "nothing would call it (docs/extending.md)"
                )

    def __init__(self, *, weight: float = DEFAULT.weight, every: int = DEFAULT.every) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"objective '{self.name}': every must be >= 1, got {every}")
        self.weight = weight
        self.every = every

    @classmethod
    def from_recipe(cls, context: BuildContext, **options: Any) -> "Objective":
        """Build it from its recipe section's values; the default needs nothing of the context."""
        return cls(**options)

    def due(self, step: int) -> bool:
        """Whether the objective is active at this optimiser step."""
        return step % self.every == 0

    def mask(
        self, tokens: Float[Tensor, "views rows cols dim"], layout: VisualLayout, generator: Randomness
    ) -> Masking | None:
        """T_i: hide something from the model. The default hides nothing and returns None."""
        return None

    def protected_views(self, batch: Batch) -> Bool[Tensor, "views"] | None:
        """Views of this batch that `mask` must not touch; the default protects none and returns None."""
        return None

    @abc.abstractmethod
    def count(self, batch: Batch) -> float:
        """How many terms `loss` will sum on this batch, known before the forward pass."""

    @abc.abstractmethod
    def loss(self, outputs: SpatialOutputs, batch: Batch, generator: Randomness) -> ObjectiveLoss:
        """The summed loss on one batch."""
