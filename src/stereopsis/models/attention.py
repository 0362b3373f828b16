"""Attention of packed rows: who sees whom as a rule about tokens, and the ways to compute it.

A dense mask holds a number for every pair of tokens, and attention is computed for all of them. The two packed ways
compute what the rule allows and little else: `stereopsis.models.attention_flex` (PyTorch's FlexAttention, for GPUs) and
`stereopsis.models.attention_split` (several plain attentions, for any device).
"""

import abc
import dataclasses
import typing
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

Attention = Literal["auto", "flex", "split", "sdpa", "eager"]
"""How the language model computes attention in packed rows: "flex" and "split" pass over what conversations do not see
of each other, "sdpa" and "eager" take a dense mask; "auto" is "flex" on a GPU that can and "split" elsewhere."""

IMPLEMENTATION = "stereopsis_packed"
"""The name under which transformers finds `packed_attention`."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PackedRows:
    """Who sees whom in a packed batch.

    Attributes:
        segments: [batch tokens]; see `stereopsis.data.batch.Batch`.
        views: [batch tokens] which view each token belongs to, -1 for none; None where views are read causally.
        positions: [batch tokens] over which windows are measured; None where no layer has one.
        window: how far back some of the layers look, tokens; None where all look at everything.
    """

    segments: Int64[Tensor, "batch tokens"]
    views: Int64[Tensor, "batch tokens"] | None = None
    positions: Int64[Tensor, "batch tokens"] | None = None
    window: int | None = None

    def allows(self, row: Tensor, query: Tensor, key: Tensor, *, windowed: bool = False) -> Tensor:
        """Whether queries see keys; row numbers and positions are broadcast against each other.

        The same rule as `stereopsis.data.collate.attention_allowed`: causal, a conversation sees the shared prefix and
        itself; tokens of one view see each other where ``views`` are given; everyone sees itself.

        Args:
            row: samples of the batch.
            query: positions in their rows.
            key: positions in their rows.
            windowed: as in the layers that look back a window.
        """
        window = self.window if windowed else None
        return sees(self.segments, self.views, self.positions, window, row, query, key)

    def allowed(
        self, queries: slice, keys: int, *, rows: Int64[Tensor, "rows"], windowed: bool = False
    ) -> Bool[Tensor, "rows queries keys"]:
        """The rule written out for some queries of some rows and the first ``keys`` tokens."""
        device = self.segments.device
        return self.allows(
            rows[:, None, None],
            torch.arange(queries.start, queries.stop, device=device)[None, :, None],
            torch.arange(keys, device=device)[None, None],
            windowed=windowed,
        )


@typing.no_type_check
def sees(segments, views, positions, window, row, query, key):
    """See `PackedRows.allows`; bare, since FlexAttention compiles it into its kernel."""
    of_query, of_key = segments[row, query], segments[row, key]
    seen = (query >= key) & (of_query >= 0) & ((of_key == 0) | (of_key == of_query))
    if window is not None:
        seen = seen & (positions[row, query] - positions[row, key] < window)
    if views is not None:
        seen = seen | ((views[row, query] == views[row, key]) & (views[row, query] >= 0))
    return seen | (query == key)


class PackedAttention(abc.ABC):
    """One batch's attention, prepared once and computed in every layer."""

    @abc.abstractmethod
    def attend(
        self,
        query: Float[Tensor, "batch heads tokens dim"],
        key: Float[Tensor, "batch kv_heads tokens dim"],
        value: Float[Tensor, "batch kv_heads tokens dim"],
        *,
        scaling: float | None,
        dropout: float,
        windowed: bool,
    ) -> Float[Tensor, "batch heads tokens dim"]:
        """The attention of one layer.

        Args:
            query: of all tokens.
            key: of all tokens.
            value: of all tokens.
            scaling: factor of the scores; None = 1 / sqrt(dim).
            dropout: share of the weights that are dropped.
            windowed: whether this layer looks back a window.
        """


def packed_attention(
    module: nn.Module,
    query: Float[Tensor, "batch heads queries dim"],
    key: Float[Tensor, "batch kv_heads keys dim"],
    value: Float[Tensor, "batch kv_heads keys dim"],
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    packing: PackedAttention | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[Float[Tensor, "batch queries heads dim"], None]:
    """What transformers calls in every layer: packed rows as `packing` says, everything else as plain SDPA does.

    Raises:
        ValueError: the layer bounds its scores (``softcap``), which packed rows do not know.
    """
    if packing is None:
        return sdpa_attention_forward(
            module,
            query,
            key,
            value,
            attention_mask,
            dropout=dropout,
            scaling=scaling,
            sliding_window=sliding_window,
            **options,
        )
    if options.get("softcap") is not None:
        raise ValueError("packed attention does not bound scores (softcap); set model.attention to 'eager'")
    windowed = sliding_window is not None
    attended = packing.attend(query, key, value, scaling=scaling, dropout=dropout, windowed=windowed)
    return attended.transpose(1, 2).contiguous(), None


AttentionInterface.register(IMPLEMENTATION, packed_attention)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)


def handed_through(mask: Any) -> dict[str, Any]:
    """The arguments by which a mask, or a packed attention, reaches every layer of a transformers model.

    A mask with four axes passes through as it is; packed rows need none, so an empty one keeps transformers from making
    a dense one.
    """
    if isinstance(mask, PackedAttention):
        return {"attention_mask": torch.empty(1, 1, 0, 0), "packing": mask}
    return {"attention_mask": mask}
