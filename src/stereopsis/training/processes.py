"""The processes that train together: a launcher starts them, accelerate connects them, this says who does what."""

import dataclasses
import datetime
import os
from collections.abc import Callable
from typing import Any

PATIENCE = datetime.timedelta(days=7)
"""How long a process may wait for work that another one does alone (rooms, teachers' answers)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Processes:
    """This process among all.

    Attributes:
        rank: its number.
        count: how many there are.
        local_rank: its number on this machine.
        local_count: how many there are on this machine.
        group: over which they wait for each other; None: the one that they compute with.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1
    group: Any = None

    @property
    def main(self) -> bool:
        """Whether this is the process that merges, writes and prints."""
        return self.rank == 0

    @property
    def device(self) -> str:
        """A GPU of its own where there are any, else the CPU."""
        import torch

        if not torch.cuda.is_available():
            return "cpu"
        return f"cuda:{self.local_rank % torch.cuda.device_count()}"

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.count == 1:
            return
        if self.group is not None:
            import torch

            torch.distributed.barrier(self.group)
            return
        from accelerate import PartialState

        PartialState().wait_for_everyone()

    def said_by_all(self, word: str) -> list[str]:
        """What every process says, by rank; every process must come here."""
        if self.count == 1:
            return [word]
        import torch

        said: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(said, word, group=self.group)
        return said

    def said_by_first_here(self, say: Callable[[], str]) -> str:
        """What the first process of this machine says; every process must ask."""
        import torch

        said: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(said, say() if self.local_rank == 0 else None, group=self.group)
        return said[self.rank - self.local_rank]


def launched() -> int:
    """How many processes a launcher started; 1 where none did."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join_training() -> Processes:
    """Meet the other processes that a launcher started, over the backend that they will share gradients with.

    That one gives up after half an hour of silence. So they wait for each other's long work over a group of their own,
    on the CPU's backend (gloo).
    """
    if launched() == 1:
        return Processes()
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())
    return Processes(
        rank=state.process_index,
        count=state.num_processes,
        local_rank=state.local_process_index,
        local_count=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        group=torch.distributed.new_group(backend="gloo", timeout=PATIENCE),
    )


def leave() -> None:
    """Part from the other processes; one that still has work of its own may go on alone."""
    if launched() > 1:
        import torch

        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
