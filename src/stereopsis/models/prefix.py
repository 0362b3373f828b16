"""A key-value prefix that many questions share: stored once, grown at its end, cut back when they are answered."""

from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

SPARE_TOKENS = 256


class _RoomyLayer(DynamicLayer):
    """One layer's keys and values in buffers with room to spare, so that a step copies only what is new."""

    keys: Any
    values: Any
    _buffers: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        """Write new keys and values [batch heads new dim] behind the cached ones; returns all of them as views."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if self._buffers is None or end > self._buffers[0].shape[-2]:
            room = end + max(SPARE_TOKENS, end // 4)
            cached = (self.keys, self.values)
            self._buffers = (_roomy(key_states, room), _roomy(value_states, room))
            if start:
                for buffer, old in zip(self._buffers, cached, strict=True):
                    buffer[..., :start, :] = old
        keys, values = self._buffers
        keys[..., start:end, :] = key_states
        values[..., start:end, :] = value_states
        self.keys, self.values = keys[..., :end, :], values[..., :end, :]
        return self.keys, self.values

    def buffers(self) -> tuple[Tensor, ...]:
        """What it holds, with the room to spare."""
        return self._buffers or ()

    def keep(self, length: int) -> None:
        """Forget everything after the first ``length`` tokens."""
        self.keys, self.values = self.keys[..., :length, :], self.values[..., :length, :]


def _roomy(like: Tensor, room: int) -> Tensor:
    return like.new_empty(*like.shape[:-2], room, like.shape[-1])


class PrefixCache(Cache):
    """A cache that grows without copying what it holds, and can be cut back to a prefix."""

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=_RoomyLayer)

    def keep(self, length: int) -> None:
        """Forget everything after the first ``length`` tokens, in every layer."""
        for layer in self.layers:
            layer.keep(length)


def packed_allowed(prefix: int, owners: Int64[Tensor, "tail"], new: int) -> Bool[Tensor, "1 new tokens"]:
    """Whom the last ``new`` tokens of a row that several questions share may see.

    Every token sees the whole prefix and, causally, the tokens after it that belong to its own question.

    Args:
        prefix: tokens that all questions share.
        owners: which question each token after the prefix belongs to, in the order in which they were cached.
        new: how many of them are being computed.
    """
    tail = len(owners)
    order = torch.arange(tail, device=owners.device)
    own = (owners[None] == owners[tail - new :, None]) & (order[None] <= order[tail - new :, None])
    return torch.cat([own.new_ones(new, prefix), own], dim=1)[None]
