"""Next-token cross entropy on the conversations."""

import torch
from torch.nn import functional

from stereopsis.data.batch import Batch
from stereopsis.objectives.base import Objective, ObjectiveLoss, SpatialOutputs


class TextLoss(Objective):
    """The language model's own loss, summed over labelled tokens (float32)."""

    name = "text"

    def count(self, batch: Batch) -> float:
        """Number of labelled tokens."""
        return float((batch.labels != -100).sum())

    def loss(self, outputs: SpatialOutputs, batch: Batch, generator: torch.Generator) -> ObjectiveLoss:
        """Summed cross entropy; the metric is the share of labelled tokens predicted right.

        Raises:
            ValueError: the model returned logits for another number of tokens than the batch labels.
        """
        count = self.count(batch)
        given = 0 if outputs.text_logits is None else len(outputs.text_logits)
        if given != count or (outputs.text_targets is None) != (outputs.text_logits is None):
            raise ValueError(
                f"text objective: the batch labels {count:.0f} tokens, the model gave logits for {given}; "
                "outputs.text_logits and text_targets must cover exactly the positions with labels != -100"
            )
        if outputs.text_logits is None or outputs.text_targets is None or given == 0:
            return ObjectiveLoss(sum=outputs.visual[:0].float().sum(), count=0.0)
        logits = outputs.text_logits.to(torch.promote_types(outputs.text_logits.dtype, torch.float32))
        correct = logits.detach().argmax(dim=-1) == outputs.text_targets
        return ObjectiveLoss(
            sum=functional.cross_entropy(logits, outputs.text_targets, reduction="sum"),
            count=count,
            metrics={"token_accuracy": float(correct.float().mean())},
        )
