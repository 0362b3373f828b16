"""Packed attention with PyTorch's FlexAttention: blocks of 128 x 128 pairs that nobody sees are passed over."""

import dataclasses
import functools
import typing
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from stereopsis.models.attention import PackedAttention, PackedRows, sees

BLOCK = 128
LEAST_DIM = 16
"""The smallest head that the compiled kernel takes."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FlexAttention(PackedAttention):
    """One batch's block masks; build it with `FlexAttention.of`.

    Attributes:
        full: for layers that look at everything.
        windowed: for layers that look back a window; None where there are none.
    """

    full: BlockMask
    windowed: BlockMask | None = None

    @staticmethod
    def of(rows: PackedRows) -> "FlexAttention":
        """Find the blocks that a batch needs."""
        return FlexAttention(
            full=block_mask(rows), windowed=None if rows.window is None else block_mask(rows, windowed=True)
        )

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, *, scaling: float | None, dropout: float, windowed: bool
    ) -> Tensor:
        """See `PackedAttention.attend`.

        Raises:
            ValueError: attention weights are to be dropped, or gradients are wanted on a CPU.
        """
        if dropout:
            raise ValueError(f"FlexAttention drops no weights, got attention dropout {dropout}; set it to 0")
        if query.device.type == "cpu" and torch.is_grad_enabled() and query.requires_grad:
            raise ValueError("FlexAttention has no gradients on a CPU; set model.attention to 'split'")
        mask = self.windowed if windowed and self.windowed is not None else self.full
        attend: Any = flex_attention if query.device.type == "cpu" else _compiled()
        options = {"block_mask": mask, "scale": scaling, "enable_gqa": query.shape[1] != key.shape[1]}
        return attend(*_in_one_dtype(query, key, value), **options)


def _in_one_dtype(*tensors: Tensor) -> tuple[Tensor, ...]:
    """As autocast would cast them for plain attention, which it does not know FlexAttention to be."""
    kind = tensors[0].device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensors[-1].dtype
    return tuple(tensor.to(dtype) for tensor in tensors)


@functools.cache
def _compiled() -> Callable[..., Any]:
    """The kernel; without compilation FlexAttention computes all pairs."""
    return torch.compile(flex_attention)


def block_mask(rows: PackedRows, *, windowed: bool = False) -> BlockMask:
    """Which blocks of a packed batch are seen in part and which as a whole.

    The rule is written out for one row of blocks at a time, so that memory stays linear in the number of tokens.
    """
    batch, tokens = rows.segments.shape
    every = torch.arange(batch, device=rows.segments.device)
    some, whole = [], []
    for start in range(0, tokens, BLOCK):
        allowed = rows.allowed(slice(start, min(start + BLOCK, tokens)), tokens, rows=every, windowed=windowed)
        short = (0, -tokens % BLOCK, 0, BLOCK - allowed.shape[1])
        blocks = torch.nn.functional.pad(allowed, short).unflatten(2, (-1, BLOCK))
        some.append(blocks.any(dim=3).any(dim=1))
        whole.append(blocks.all(dim=3).all(dim=1))
    seen, full = torch.stack(some, dim=1), torch.stack(whole, dim=1)
    segments, views, positions, window = rows.segments, rows.views, rows.positions, rows.window if windowed else None

    @typing.no_type_check
    def rule(row, head, query, key):
        return sees(segments, views, positions, window, row, query, key)

    return BlockMask.from_kv_blocks(
        *_listed(seen & ~full), *_listed(full), BLOCK_SIZE=BLOCK, mask_mod=rule, seq_lengths=(tokens, tokens)
    )


def _listed(blocks: Bool[Tensor, "batch query_blocks key_blocks"]) -> tuple[Tensor, Tensor]:
    """How many blocks each row of blocks has, and their numbers in ascending order, then the others."""
    order = torch.argsort(blocks.to(torch.int8), dim=-1, descending=True, stable=True)
    return blocks.sum(-1).to(torch.int32)[:, None], order.to(torch.int32)[:, None]
