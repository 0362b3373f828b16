"""Contrastive grounding: each query picks its objects among a scene's proposals and a "nothing" option."""

import torch
from torch.nn import functional

from stereopsis.data.batch import Batch
from stereopsis.objectives.base import Objective, ObjectiveLoss, Randomness, SpatialOutputs


class GroundingLoss(Objective):
    """InfoNCE over proposals with a zero target (Video-3D-LLM; docs/papers.md).

    The loss of a query is -log(sum of its positives' exp / sum of all exp). A query without any right
    proposal has the zero target, the last option, as its positive. Padded proposals have the logit -inf and
    take no part.
    """

    name = "grounding"

    def count(self, batch: Batch) -> float:
        """Number of queries."""
        return float(len(batch.query_index))

    def loss(self, outputs: SpatialOutputs, batch: Batch, generator: Randomness) -> ObjectiveLoss:
        """Summed InfoNCE; the metric is the share of queries whose best option is right.

        Raises:
            ValueError: scores do not fit the queries and proposals, or a padded proposal is marked right.
        """
        count = self.count(batch)
        if count == 0:
            scores = [] if outputs.grounding is None else [outputs.grounding.logits.float().sum()]  # of no query: zero
            return ObjectiveLoss(sum=torch.stack([outputs.visual[:0].float().sum(), *scores]).sum(), count=0.0)
        queries, proposals = batch.query_targets.shape
        given = None if outputs.grounding is None else tuple(outputs.grounding.logits.shape)
        if outputs.grounding is None or given != (queries, proposals + 1):
            raise ValueError(
                f"grounding objective: expected scores of shape {(queries, proposals + 1)} (queries, "
                f"proposals + the zero target), got {given}; the model must score every query of the batch"
            )
        logits = outputs.grounding.logits
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        positive = functional.pad(batch.query_targets, (0, 1))
        positive[:, -1] = ~batch.query_targets.any(dim=1)
        padded = torch.isneginf(logits.detach())
        if bool((positive & padded).any()):
            query = int((positive & padded).any(dim=1).nonzero()[0])
            raise ValueError(
                f"grounding objective: query {query} of the batch has a right proposal whose score is -inf; "
                "query_targets must point at proposals that the scene has"
            )
        losses = logits.logsumexp(dim=1) - logits.masked_fill(~positive, -torch.inf).logsumexp(dim=1)
        best = logits.detach().argmax(dim=1, keepdim=True)
        return ObjectiveLoss(
            sum=losses.sum(),
            count=count,
            metrics={"accuracy": float(positive.gather(1, best).float().mean())},
        )
