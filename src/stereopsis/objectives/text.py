"""Next-token cross entropy on the conversations."""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from stereopsis.data.batch import Batch
from stereopsis.objective_sections import TextSection
from stereopsis.objectives.base import Objective, ObjectiveLoss, Randomness, SpatialOutputs

Average = Literal["token", "answer"]
CHUNK = 2**25
"""Scores that are held at a time: 128 MiB in float32, 220 tokens of Qwen2's vocabulary."""

DEFAULT = TextSection()


def chunked_cross_entropy(
    states: Float[Tensor, "labels dim"],
    targets: Int64[Tensor, "labels"],
    head: Callable[[Tensor], Tensor],
    *,
    tokens: int,
) -> tuple[Float[Tensor, "labels"], Bool[Tensor, "labels"]]:
    """Each token's cross entropy (at least float32) and whether its target has the highest score.

    Scores exist for one chunk at a time: going back, they are computed again. Where one chunk holds all, they are kept.

    Args:
        states: last hidden states.
        targets: right words.
        head: states to scores [tokens vocab].
        tokens: length of a chunk.
    """

    def scored(states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = head(states)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return functional.cross_entropy(logits, targets, reduction="none"), logits.detach().argmax(dim=-1) == targets

    if len(states) <= tokens:
        return scored(states, targets)
    parts = [
        checkpoint(scored, *chunk, use_reentrant=False, preserve_rng_state=False)
        for chunk in zip(states.split(tokens), targets.split(tokens), strict=True)
    ]
    return torch.cat([each for each, _ in parts]), torch.cat([right for _, right in parts])


class TextLoss(Objective):
    """The language model's own loss (float32), computed without holding all scores at once.

    Args:
        average: "token" weighs every labelled token alike (as the published models train); "answer" weighs every
            answer alike, however long, so that captions do not drown one-word answers.
        weight: factor of the normalised loss.
        every: active on optimiser steps that are multiples of this.

    Raises:
        ValueError: unknown average.
    """

    name = "text"

    def __init__(
        self, *, average: Average = DEFAULT.average, weight: float = DEFAULT.weight, every: int = DEFAULT.every
    ) -> None:
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
            ValueError: the model gave states for another number of tokens than the batch labels.
        """
        labelled = int((batch.labels != -100).sum())
        text = outputs.text
        given = 0 if text is None else len(text.states)
        if given != labelled:
            raise ValueError(
                f"text objective: the batch labels {labelled} tokens, the model gave states for {given}; "
                "outputs.text must cover exactly the positions with labels != -100"
            )
        if text is None or given == 0:
            return ObjectiveLoss(sum=outputs.visual[:0].float().sum(), count=0.0)
        each, correct = chunked_cross_entropy(
            text.states, text.targets, text.head, tokens=max(1, CHUNK // text.vocabulary)
        )
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
