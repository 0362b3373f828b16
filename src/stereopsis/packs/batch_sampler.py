"""How the scenes of an optimiser step are dealt to processes and passes: the same scenes, whoever takes them."""

import dataclasses
from collections.abc import Iterator

import torch

from stereopsis.errors import RecipeError


class EpochOrder(torch.utils.data.Sampler[int]):
    """An order of all items that depends on a seed and the epoch alone: the same on every process, after a resume too.

    Args:
        total: number of items.
        seed: of the order.
    """

    def __init__(self, total: int, seed: int) -> None:
        self.total, self.seed, self.epoch = total, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.total


@dataclasses.dataclass(frozen=True, kw_only=True)
class Deal:
    """Who takes which scenes of an optimiser step.

    Attributes:
        processes: that train together.
        passes: of every process.
        scenes: in each of them.
    """

    processes: int = 1
    passes: int = 1
    scenes: int = 1

    @property
    def batch(self) -> int:
        """Scenes per optimiser step, over all passes and processes."""
        return self.processes * self.passes * self.scenes

    @staticmethod
    def of(batch: int, *, processes: int, most: int) -> "Deal":
        """Share a step evenly, in as few passes as may be.

        Args:
            batch: scenes per optimiser step, over all passes and processes.
            processes: that train together.
            most: scenes that one pass may hold.

        Raises:
            RecipeError: the step cannot be shared evenly.
        """
        share, rest = divmod(batch, processes)
        if rest or not share:
            fitting = [str(count) for count in range(1, batch + 1) if batch % count == 0]
            raise RecipeError(
                f"an optimiser step of {batch} scenes cannot be shared evenly by {processes} processes; start "
                f"{', '.join(fitting)} of them, or change 'batch' (or 'scenes' and 'accumulation') under 'training:'"
            )
        passes = next(count for count in range(-(-share // most), share + 1) if share % count == 0)
        return Deal(processes=processes, passes=passes, scenes=share // passes)

    def indices(self, rank: int, number: int) -> range:
        """Which of a step's scenes a process takes in its pass of this number: neighbours, pass after pass."""
        first = (number * self.processes + rank) * self.scenes
        return range(first, first + self.scenes)


class DealtBatches(torch.utils.data.Sampler[list[int]]):
    """One process's passes of a whole run.

    Epochs follow each other without a gap: a step that begins at the end of one is filled from the next. So every step
    has the same number of scenes, none is left out or taken twice, and step t takes the same ones whatever the number
    of processes and passes.

    Args:
        order: of the items in every epoch.
        deal: who takes what.
        rank: which process this is.
        steps: optimiser steps of the run.
    """

    def __init__(self, order: EpochOrder, deal: Deal, *, rank: int, steps: int) -> None:
        self.order, self.deal, self.rank, self.steps = order, deal, rank, steps

    def __len__(self) -> int:
        return self.steps * self.deal.passes

    def __iter__(self) -> Iterator[list[int]]:
        stream = self._stream()
        for _ in range(self.steps):
            items = [next(stream) for _ in range(self.deal.batch)]
            for number in range(self.deal.passes):
                yield [items[index] for index in self.deal.indices(self.rank, number)]

    def _stream(self) -> Iterator[int]:
        epoch = 0
        while True:
            self.order.set_epoch(epoch)
            yield from list(self.order)
            epoch += 1
