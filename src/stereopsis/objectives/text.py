"""Next-token cross entropy on the conversations."""

from typing import Literal, get_args

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.nn import functional

from stereopsis.data.batch import Batch
from stereopsis.objectives.base import Objective, ObjectiveLoss, Randomness, SpatialOutputs

Average = Literal["token", "answer"]


class TextLoss(Objective):
    """The language model's own loss (float32).

    Args:
        average: "token" weighs every labelled token alike (as the published models train); "answer" weighs every
            answer alike, however long, so that captions do not drown one-word answers.
        weight: factor of the normalised loss.
        every: active on optimiser steps that are multiples of this.

    Raises:
        ValueError: unknown average.
    """

    name = "text"

    def __init__(self, *, average: Average = "token", weight: float = 1.0, every: int = 1) -> None:
        super().__init__(weight=weight, every=every)
        if average not in get_args(Average):
            raise ValueError(f"objective 'text': average must be one of {get_args(Average)}, got '{average}'")
        self.average = average

    def count(self, batch: Batch) -> float:
        """Number of labelled tokens, or of answers."""
        if self.average == "token":
            return float((batch.labels != -100).sum())
        return float(len(_answers(batch).unique()))

    def loss(self, outputs: SpatialOutputs, batch: Batch, generator: Randomness) -> ObjectiveLoss:
        """Summed cross entropy; the metric is the share of labelled tokens predicted right.

        Raises:
            ValueError: the model returned logits for another number of tokens than the batch labels.
        """
        labelled = int((batch.labels != -100).sum())
        given = 0 if outputs.text_logits is None else len(outputs.text_logits)
        if given != labelled or (outputs.text_targets is None) != (outputs.text_logits is None):
            raise ValueError(
                f"text objective: the batch labels {labelled} tokens, the model gave logits for {given}; "
                "outputs.text_logits and text_targets must cover exactly the positions with labels != -100"
            )
        if outputs.text_logits is None or outputs.text_targets is None or given == 0:
            return ObjectiveLoss(sum=outputs.visual[:0].float().sum(), count=0.0)
        logits = outputs.text_logits.to(torch.promote_types(outputs.text_logits.dtype, torch.float32))
        correct = logits.detach().argmax(dim=-1) == outputs.text_targets
        each = functional.cross_entropy(logits, outputs.text_targets, reduction="none")
        if self.average == "answer":
            _, answer, length = _answers(batch).unique(return_inverse=True, return_counts=True)
            each = each / length[answer]
        return ObjectiveLoss(
            sum=each.sum(), count=self.count(batch), metrics={"token_accuracy": float(correct.float().mean())}
        )


def _answers(batch: Batch) -> Int64[Tensor, "labels"]:
    """Which answer of the batch each labelled token belongs to."""
    number = batch.segments + (batch.segments.max() + 1) * torch.arange(
        len(batch.segments), device=batch.segments.device
    ).unsqueeze(1)
    return number[batch.labels != -100]
