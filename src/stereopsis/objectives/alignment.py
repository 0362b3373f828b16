"""Feature alignment (3DRS): the visual tokens' outputs must predict a 3D foundation model's features."""

from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from stereopsis.data.batch import Batch
from stereopsis.errors import did_you_mean
from stereopsis.objective_sections import AlignmentSection
from stereopsis.objectives.base import BuildContext, Objective
from stereopsis.objectives.dense import CellTargets, DenseObjective

DISTANCES = ("squared", "cosine", "l2")

DEFAULT = AlignmentSection()


def feature_distance(
    student: Float[Tensor, "tokens channels"], teacher: Float[Tensor, "tokens channels"], distance: str
) -> Float[Tensor, "tokens"]:
    """Distance of L2-normalised features, token by token.

    Args:
        student: predicted features.
        teacher: what they should be.
        distance: "squared" = |s - t|^2 summed over channels = 2 - 2cos (released); "cosine" = 1 - cos;
            "l2" = |s - t|.
    """
    student = functional.normalize(student, dim=-1, eps=1e-6)
    teacher = functional.normalize(teacher, dim=-1, eps=1e-6)
    if distance == "cosine":
        return 1 - (student * teacher).sum(dim=-1)
    if distance == "l2":
        return torch.linalg.vector_norm(student - teacher, dim=-1)
    return (student - teacher).square().sum(dim=-1)


class FeatureAlignment(DenseObjective):
    """A head on each visual token predicts the teacher's feature of the same cell (3DRS section 3).

    Tokens count where "view_features_valid" holds.

    Args:
        dim: width of the visual tokens.
        features: channels of the teacher.
        distance: see `feature_distance`.
        normalise: "none" takes the teacher's features as they are, "spatial" what is left of them when each view's
            common part is gone (`spatially_normalised`; iREPA).
        gamma: share of a view's mean feature that "spatial" takes away.
        options: see `DenseObjective`; 3DRS aligns the last layer by an MLP, iREPA by a convolution.

    Raises:
        ValueError: a setting is out of range.
    """

    name = "alignment"
    needs = ("view_features", "view_features_valid")

    def __init__(
        self,
        dim: int,
        features: int,
        *,
        distance: str = DEFAULT.distance,
        normalise: Literal["none", "spatial"] = DEFAULT.normalise,
        gamma: float = DEFAULT.gamma,
        **options,
    ) -> None:
        super().__init__(dim, features, **options)
        if distance not in DISTANCES:
            hint = did_you_mean(distance, DISTANCES)
            raise ValueError(f"objective 'alignment': unknown distance '{distance}'{hint}")
        if not 0 <= gamma <= 1:
            raise ValueError(f"objective 'alignment': gamma must be between 0 and 1, got {gamma}")
        self.distance, self.normalise, self.gamma = distance, normalise, gamma

    @classmethod
    def from_recipe(cls, context: BuildContext, **options: Any) -> Objective:
        """Build it with a head from the model's width to the teacher's channels."""
        return cls(context.dim, context.targets["view_features"].shape[-1], **options)

    def targets(self, batch: Batch) -> CellTargets:
        """The teacher's features."""
        features, valid = batch.targets["view_features"], batch.targets["view_features_valid"]
        if self.normalise == "spatial":
            features = spatially_normalised(features, valid, self.gamma)
        return CellTargets(values=features, valid=valid)

    def errors(
        self, predicted: Float[Tensor, "tokens channels"], wanted: Float[Tensor, "tokens channels"]
    ) -> Float[Tensor, "tokens"]:
        """See `feature_distance`."""
        return feature_distance(predicted, wanted, self.distance)

    def figures(
        self, predicted: Float[Tensor, "tokens channels"], wanted: Float[Tensor, "tokens channels"]
    ) -> dict[str, float]:
        """Mean cosine over the supervised tokens."""
        return {"cosine": float(functional.cosine_similarity(predicted, wanted, dim=-1).mean())}


def spatially_normalised(
    features: Float[Tensor, "views rows cols channels"], valid: Bool[Tensor, "views rows cols"], gamma: float
) -> Float[Tensor, "views rows cols channels"]:
    """Features without what a whole view has in common, every channel of a view with deviation 1 (iREPA).

    (f - gamma x mean) / deviation, mean and deviation over the view's valid cells; what stays is how its places differ.

    Args:
        features: of a teacher.
        valid: which of them there are.
        gamma: share of the mean that is taken away.
    """
    features = features.float().masked_fill(~valid[..., None], 0)
    number = valid.sum((1, 2))[:, None, None, None].clamp(min=1)
    mean = features.sum((1, 2), keepdim=True) / number
    square = (features - mean).square().masked_fill(~valid[..., None], 0).sum((1, 2), keepdim=True) / number
    return (features - gamma * mean) / (square + 1e-6).sqrt()
