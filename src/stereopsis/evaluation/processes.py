"""Which of several processes this is: ``accelerate launch`` and ``torchrun`` start them, accelerate connects them."""

import dataclasses
import datetime
import os
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True, kw_only=True)
class Processes:
    """This process among all.

    Attributes:
        rank: its number.
        count: how many there are.
        local_rank: its number on this machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0

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
        if self.count > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()


def join() -> Processes:
    """Meet the other processes that a launcher started; alone where none did.

    They exchange files and wait for each other, nothing else; so they are joined over the CPU's backend (gloo) whatever
    they compute on, and may wait for days.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes()
    from accelerate import PartialState

    state = PartialState(cpu=True, backend="gloo", timeout=datetime.timedelta(days=7))
    return Processes(rank=state.process_index, count=state.num_processes, local_rank=state.local_process_index)


def share(weights: Sequence[int], count: int) -> list[list[int]]:
    """Divide items over processes so that the heaviest load is small: largest first, each to the least loaded.

    Args:
        weights: of the items.
        count: of the processes.

    Returns:
        Per process its items, ascending. The same on every process.
    """
    loads = [0] * count
    shares: list[list[int]] = [[] for _ in range(count)]
    for item in sorted(range(len(weights)), key=lambda i: (-weights[i], i)):
        least = loads.index(min(loads))
        loads[least] += weights[item]
        shares[least].append(item)
    return [sorted(items) for items in shares]
