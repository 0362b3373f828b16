"""Which of several processes this is: ``accelerate launch`` and ``torchrun`` start them, accelerate connects them."""

from collections.abc import Sequence

from stereopsis.training.processes import PATIENCE, Processes, launched


def join() -> Processes:
    """Meet the other processes that a launcher started; alone where none did.

    They exchange files and wait for each other, nothing else; so they are joined over the CPU's backend (gloo) whatever
    they compute on, and may wait for days.
    """
    if launched() == 1:
        return Processes()
    from accelerate import PartialState

    state = PartialState(cpu=True, backend="gloo", timeout=PATIENCE)
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
