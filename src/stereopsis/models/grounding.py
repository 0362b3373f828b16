"""The grounding head: which proposal does the <ground> token mean, or none?"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from stereopsis.objectives.base import GroundingScores

TEMPERATURE = 0.07


def _mlp(dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.LayerNorm(dim), nn.Linear(dim, dim))


class GroundingHead(nn.Module):
    """Two MLPs on proposals and query, L2-normalised dot product over a temperature, and a learned zero target.

    The zero target is one more object feature, appended before the MLP, and means "no such object"
    (Video-3D-LLM, InfoNCE head).

    Args:
        dim: hidden size of the language model.
        temperature: divisor of the cosine similarity.
    """

    def __init__(self, dim: int, temperature: float = TEMPERATURE) -> None:
        super().__init__()
        self.objects, self.query = _mlp(dim), _mlp(dim)
        self.zero_target = nn.Parameter(torch.randn(dim))
        self.temperature = temperature

    def forward(
        self,
        queries: Float[Tensor, "queries dim"],
        query_scene: Int64[Tensor, "queries"],
        objects: list[Float[Tensor, "_ dim"]],
    ) -> GroundingScores:
        """Score every query against its own scene's objects.

        Args:
            queries: last hidden state at each <ground> token.
            query_scene: which entry of ``objects`` each query belongs to.
            objects: per scene, its object features.

        Returns:
            logits [queries, widest + 1]; padding is -inf, the last column is the zero target.
        """
        queries = queries.to(self.zero_target.dtype)
        widest = max(len(o) for o in objects)
        padded = queries.new_zeros(len(objects), widest + 1, queries.shape[-1])
        absent = torch.ones(len(objects), widest + 1, dtype=torch.bool, device=queries.device)
        for number, features in enumerate(objects):
            padded[number, : len(features)] = features.to(padded.dtype)
            absent[number, : len(features)] = False
        padded[:, -1] = self.zero_target.to(padded.dtype)
        absent[:, -1] = False
        keys = _unit(self.objects(padded))[query_scene]
        logits = torch.einsum("qd,qpd->qp", _unit(self.query(queries)), keys) / self.temperature
        return GroundingScores(logits=logits.masked_fill(absent[query_scene], float("-inf")))

    def object_keys(self, objects: Float[Tensor, "proposals dim"]) -> Float[Tensor, "candidates dim"]:
        """Unit vectors that one scene's queries are compared with, the zero target last; computed once a scene."""
        objects = objects.to(self.zero_target.dtype)
        return _unit(self.objects(torch.cat([objects, self.zero_target[None]])))

    def cosines(
        self, queries: Float[Tensor, "queries dim"], keys: Float[Tensor, "candidates dim"]
    ) -> Float[Tensor, "queries candidates"]:
        """Similarity of each query with each of `object_keys`: `forward`'s logits times the temperature."""
        return _unit(self.query(queries.to(self.zero_target.dtype))) @ keys.T


def _unit(vectors: Float[Tensor, "*some dim"]) -> Float[Tensor, "*some dim"]:
    """Vectors of length 1, in float32 or finer."""
    return nn.functional.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=-1)


def object_features(
    tokens: Float[Tensor, "views rows cols dim"], cells: Bool[Tensor, "proposals views rows cols"]
) -> Float[Tensor, "proposals dim"]:
    """Mean token over the cells that see each proposal; zeros for one that no view sees."""
    cells = cells.flatten(1).to(tokens.dtype)
    return cells @ tokens.flatten(0, 2) / cells.sum(1, keepdim=True).clamp(min=1)
