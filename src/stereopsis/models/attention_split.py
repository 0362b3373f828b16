"""Packed attention as several plain ones: the prefix causally, then the conversations, a few at a time.

Exact and differentiable on every device. Nothing is computed for the half of the prefix that causality hides, and
conversations meet only the neighbours in their block, so that cost and memory grow with (prefix + block) x
conversations instead of (prefix + conversations) squared.
"""

import dataclasses
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from stereopsis.models.attention import PackedAttention, PackedRows

BLOCK = 256
"""Queries that are attended together: more means fewer calls, and more strangers that are computed and masked."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Block:
    """Neighbouring queries and all keys that any of them sees; without a mask, both begin the row and are causal."""

    queries: slice
    keys: slice | Int64[Tensor, "keys"]
    mask: Float[Tensor, "rows 1 queries keys"] | None = None

    @property
    def pairs(self) -> int:
        """Products of a query and a key that are computed, per row; a causal block computes half of them."""
        queries = self.queries.stop - self.queries.start
        if self.mask is None:
            return queries * (queries + 1) // 2
        return queries * self.mask.shape[-1]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Rows:
    """Rows with equally long prefixes, and how their tokens are divided; behind the last block is padding."""

    rows: Int64[Tensor, "rows"]
    blocks: tuple[_Block, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SplitAttention(PackedAttention):
    """One batch divided; build it with `SplitAttention.of`.

    Attributes:
        full: for layers that look at everything.
        windowed: for layers that look back a window; None where there are none.
    """

    full: tuple[_Rows, ...]
    windowed: tuple[_Rows, ...] | None = None

    @staticmethod
    def of(rows: PackedRows, dtype: torch.dtype, *, block: int = BLOCK) -> "SplitAttention":
        """Divide a batch.

        Args:
            rows: who sees whom.
            dtype: of the masks inside the blocks.
            block: see `BLOCK`.
        """
        return SplitAttention(
            full=_divided(rows, dtype, block, windowed=False),
            windowed=None if rows.window is None else _divided(rows, dtype, block, windowed=True),
        )

    @property
    def pairs(self) -> int:
        """Products of a query and a key that a layer without a window computes, over the batch."""
        return sum(len(group.rows) * block.pairs for group in self.full for block in group.blocks)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, *, scaling: float | None, dropout: float, windowed: bool
    ) -> Tensor:
        """See `PackedAttention.attend`."""
        groups = self.windowed if windowed and self.windowed is not None else self.full
        shared = query.shape[1] // key.shape[1]
        if shared > 1:
            key, value = key.repeat_interleave(shared, dim=1), value.repeat_interleave(shared, dim=1)
        options = {"scale": scaling, "dropout_p": dropout}
        if len(groups) == 1:
            return _attended(groups[0].blocks, query, key, value, options)
        parts = [
            _attended(group.blocks, query[group.rows], key[group.rows], value[group.rows], options) for group in groups
        ]
        return torch.cat(parts)[torch.cat([group.rows for group in groups]).argsort()]


def _attended(
    blocks: tuple[_Block, ...], query: Tensor, key: Tensor, value: Tensor, options: dict[str, Any]
) -> Float[Tensor, "rows heads tokens dim"]:
    """Block after block; zero in the padding behind them."""
    parts = []
    for block in blocks:
        mask = None if block.mask is None else block.mask.to(query.dtype)
        parts.append(
            functional.scaled_dot_product_attention(
                query[:, :, block.queries],
                key[:, :, block.keys],
                value[:, :, block.keys],
                attn_mask=mask,
                is_causal=mask is None,
                **options,
            )
        )
    padding = query.shape[2] - blocks[-1].queries.stop
    if padding:
        parts.append(parts[0].new_zeros(*query.shape[:2], padding, value.shape[-1]))
    return torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]


def _divided(rows: PackedRows, dtype: torch.dtype, block: int, *, windowed: bool) -> tuple[_Rows, ...]:
    prefixes, ends = (rows.segments == 0).sum(1).tolist(), (rows.segments >= 0).sum(1).tolist()
    groups = []
    for prefix in sorted(set(prefixes)):
        members = [number for number, length in enumerate(prefixes) if length == prefix]
        chosen = torch.tensor(members, device=rows.segments.device)
        end = max(ends[number] for number in members)
        causal = rows.views is None and not windowed
        blocks = [_Block(queries=slice(0, prefix), keys=slice(0, prefix))] if causal and prefix else []
        for start in range(prefix if causal else 0, end, block):
            queries = slice(start, min(start + block, end))
            blocks.append(_block(rows, chosen, queries, end, dtype, windowed=windowed))
        groups.append(_Rows(rows=chosen, blocks=tuple(blocks)))
    return tuple(groups)


def _block(
    rows: PackedRows, chosen: Int64[Tensor, "rows"], queries: slice, end: int, dtype: torch.dtype, *, windowed: bool
) -> _Block:
    """A block with those keys alone that one of its queries sees."""
    allowed = rows.allowed(queries, end, rows=chosen, windowed=windowed)
    keys = allowed.any(dim=(0, 1)).nonzero().flatten()
    hidden = ~allowed[..., keys]
    mask = torch.zeros_like(hidden, dtype=dtype).masked_fill(hidden, torch.finfo(dtype).min)[:, None]
    first, last = int(keys[0]), int(keys[-1])
    whole = last - first + 1 == len(keys)
    return _Block(queries=queries, keys=slice(first, last + 1) if whole else keys, mask=mask)
