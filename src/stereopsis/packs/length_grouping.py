"""Samples of like length beside each other, so that batches hold little padding."""

import itertools
from collections.abc import Iterator, Sequence

import torch

from stereopsis.packs.batch_sampler import EpochOrder
from stereopsis.packs.build import name_seed
from stereopsis.packs.dataset import EvenSampler, PackDataset, ShuffledSampler

WINDOW = 32
"""Optimiser steps among which samples change places: more means less padding, and an order that is less random."""


class GroupedSampler(EpochOrder):
    """Another sampler's order, in which samples change places until each optimiser step holds samples of like length.

    They move inside a window of so many steps, and with ``vision_only`` only to places of their own kind: every sample
    still comes once, and every step keeps its share. Which step gets the short ones is random, and inside a step they
    come by length, so that its passes, on whatever rank, are alike too. Epochs follow each other without a gap (see
    `stereopsis.packs.batch_sampler.DealtBatches`), so one may begin in the middle of a step; windows begin with whole
    steps. The order depends on the seed, the epoch and the number of samples per optimiser step: it is the same on
    every rank, and for every division of a step into processes and passes.

    Args:
        dataset: with the lengths of its items (``measure`` is given).
        seed: of the order.
        step: samples of an optimiser step, over all passes and processes.
        window: see `WINDOW`.

    Raises:
        ValueError: the dataset has measured nothing.
    """

    def __init__(self, dataset: PackDataset, seed: int, *, step: int, window: int = WINDOW) -> None:
        if dataset.lengths is None:
            raise ValueError("the dataset does not know its items' lengths; make it with measure=model.collator()")
        super().__init__(len(dataset), seed)
        self.lengths, self.step, self.window = dataset.lengths, step, window
        self.even = dataset.vision_only is not None
        self.texts = dataset.texts if self.even else len(dataset)
        self.base = EvenSampler(dataset, seed) if self.even else ShuffledSampler(len(dataset), seed)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch."""
        super().set_epoch(epoch)
        self.base.set_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(name_seed(f"groups of epoch {self.epoch}", self.seed))
        order = list(self.base)
        cuts = [0, *range(self.rest, len(order), self.step * self.window), len(order)]
        for first, last in itertools.pairwise(cuts):
            yield from self._grouped(order[first:last], generator)

    @property
    def rest(self) -> int:
        """How many of the epoch's samples fill the step that the epoch before began."""
        return min(-self.epoch * self.total % self.step, self.total)

    def _grouped(self, order: Sequence[int], generator: torch.Generator) -> list[int]:
        """One window: samples by length, dealt to the steps in random turn."""
        by_length = sorted(order, key=lambda item: (self.lengths[item], item))
        waiting = {kind: iter([item for item in by_length if (item >= self.texts) == kind]) for kind in (False, True)}
        dealt = [0] * len(order)
        steps = -(-len(order) // self.step)
        for turn in torch.randperm(steps, generator=generator).tolist():
            for index in range(turn * self.step, min((turn + 1) * self.step, len(order))):
                dealt[index] = next(waiting[order[index] >= self.texts])
        return dealt
