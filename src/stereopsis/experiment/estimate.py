"""How long a comparison of tiny models will take: costs that were measured once, scaled by this machine's speed."""

import dataclasses
import time
from collections.abc import Sequence

import torch

from stereopsis.experiment.arms import Arm
from stereopsis.progress import duration
from stereopsis.scenes.prepare import usable_cpus
from stereopsis.training.recipe import Recipe

REFERENCE = 97.0
"""GFLOP/s of one core where the costs below were measured (`core_speed`; an AMD EPYC with AVX2 kernels, float32)."""
ROOM, PACK, EVALUATED, START = 0.06, 0.31, 0.7, 12.0
"""Core-seconds there: to make a room, to pack a scene with its targets, to ask about a room, to start a process."""
STEP = {"blind": 0.55, "text": 1.0, "objectives": 1.4}
"""Core-seconds there of an optimiser step on four scenes: with no views, words alone, objectives at the views."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """Seconds of a comparison's phases."""

    rooms: float
    packs: float
    arms: float

    @property
    def sentence(self) -> str:
        """For people."""
        rooms, packs, arms = (duration(_rounded(seconds)) for seconds in (self.rooms, self.packs, self.arms))
        total = duration(_rounded(self.rooms + self.packs + self.arms))
        return (
            f"Phases, as this machine's speed suggests: rooms about {rooms}, views and teachers {packs}, training and "
            f"evaluation {arms}; in all about {total}"
        )


def core_speed() -> float:
    """GFLOP/s of one core at a small float32 product, the best of some repeats."""
    side, best, threads = 384, float("inf"), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        matrix = torch.ones(side, side)
        for _ in range(8):
            start = time.perf_counter()
            matrix @ matrix
            best = min(best, time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return 2 * side**3 / best / 1e9


def estimate(arms: Sequence[Arm], processes: int, *, speed: float | None = None) -> Estimate:
    """How long arms of tiny models take, from nothing.

    Args:
        arms: to be compared; all share their scenes.
        processes: arms at the same time.
        speed: of a core, GFLOP/s; None = measured now.
    """
    slower = REFERENCE / (speed or core_speed())
    first = arms[0].recipe
    seen = sum(source.rooms or 0 for source in first.data.sources)
    asked = sum(source.rooms or 0 for source in first.evaluation.sources)
    ends = [0.0] * processes
    for seconds in sorted((_arm_seconds(arm.recipe, asked) for arm in arms), reverse=True):
        ends[ends.index(min(ends))] += seconds
    return Estimate(
        rooms=slower * (seen + asked) * ROOM / usable_cpus(),
        packs=slower * (seen * PACK / processes + START),
        arms=slower * max(ends),
    )


def _arm_seconds(recipe: Recipe, asked: int) -> float:
    kind = "blind" if recipe.model.blind else "objectives" if len(recipe.objectives.active()) > 2 else "text"
    training = recipe.training
    return START + training.steps * training.step_scenes(1) / 4 * STEP[kind] + asked * EVALUATED


def _rounded(seconds: float) -> int:
    """To ten seconds, or to half minutes where it is long: more would be pretended."""
    unit = 10 if seconds < 120 else 30
    return max(unit, unit * round(seconds / unit))
