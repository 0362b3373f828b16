"""Losses and gradients that are no longer numbers: seen before they touch a weight, and whose they are.

A step whose loss or gradient is not finite would make every weight NaN. All processes agree on it before the optimiser
steps; then training stops, or leaves the step out and counts it.
"""

import contextlib
import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from torch import Tensor, nn

from stereopsis.data.batch import Batch
from stereopsis.errors import DivergenceError
from stereopsis.models.spatial import SpatialModel
from stereopsis.training.checkpoints import newest_checkpoint

OnNonFinite = Literal["stop", "skip"]
MOST_IN_A_ROW = 10
"""So many steps left out one after another (or all of a shorter run) are no accident: the weights are beyond help."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One objective whose numbers are not finite.

    Attributes:
        objective: its name.
        what: "loss" or "gradient".
        scenes: of the pass in which it was seen.
        parameter: the first parameter whose gradient is not finite.
    """

    objective: str
    what: Literal["loss", "gradient"]
    scenes: tuple[str, ...]
    parameter: str = ""

    def __str__(self) -> str:
        place = f" of {self.parameter}" if self.parameter else ""
        named = ", ".join(self.scenes[:4]) + (", ..." if len(self.scenes) > 4 else "")
        return f"the {self.what}{place} of objective '{self.objective}' (scenes {named})"


class StepWatch:
    """What has been seen of the optimiser step in hand, and of those before it; the same on all processes.

    Args:
        accelerator: joins the processes.
        on_nonfinite: what happens to a step that is not finite.
        steps: of the whole run.
    """

    def __init__(self, accelerator: Any, on_nonfinite: OnNonFinite, steps: int) -> None:
        self.accelerator, self.on_nonfinite = accelerator, on_nonfinite
        self.left_out: Counter[str] = Counter()
        self._most = min(MOST_IN_A_ROW, steps)
        self.found: list[Finding] = []
        self.scales: dict[str, float] = {}
        self._skipped: Counter[str] = Counter()
        self._in_a_row = 0

    def start(self) -> None:
        """Forget the step before."""
        self.found, self.scales = [], {}

    def loss(self, objective: str, value: float, scale: float, batch: Batch) -> bool:
        """Look at one pass's loss; whether it and its weighted share of the total are finite in float32."""
        self.scales[objective] = scale
        fine = math.isfinite(value) and abs(value * scale) <= torch.finfo(torch.float32).max
        if not fine:
            self.found.append(Finding(objective=objective, what="loss", scenes=tuple(batch.scene_ids)))
        return fine

    def anybody(self, here: bool) -> bool:
        """Whether something is so on any process; all must ask."""
        if self.accelerator.num_processes == 1:
            return here
        flag = torch.tensor(float(here), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, reduction="sum") > 0)

    def everybodys(self, here: list[Finding]) -> list[Finding]:
        """All processes' findings; all must ask."""
        if self.accelerator.num_processes == 1:
            return here
        gathered: list[Any] = [None] * self.accelerator.num_processes
        torch.distributed.all_gather_object(gathered, here)
        return [each for findings in gathered for each in findings]

    def went_well(self) -> None:
        """A step was taken."""
        self._in_a_row = 0

    def skip(self, findings: Sequence[Finding], step: int) -> None:
        """Count a step that is left out.

        Raises:
            DivergenceError: too many in a row.
        """
        self._in_a_row += 1
        names = ["skipped_steps", *(f"skipped/{name}" for name in {each.objective for each in findings})]
        self._skipped.update(names)
        self.left_out.update(names)
        if self._in_a_row >= self._most:
            raise DivergenceError(
                f"{self._in_a_row} steps in a row, up to step {step}, were not finite ({told(findings)}): leaving them "
                "out does not help any more; lower training.learning_rate and head_rate, and start again"
            )

    def counts(self) -> dict[str, int]:
        """What the next log line says of steps that were left out; counting begins anew."""
        found, self._skipped = dict(self._skipped), Counter()
        return found

    def summary(self) -> str:
        """How many steps were left out in all, and for which objectives."""
        names = {key.removeprefix("skipped/"): n for key, n in sorted(self.left_out.items()) if "/" in key}
        parts = f" ({', '.join(f'{name} {n}' for name, n in names.items())})" if names else ""
        return f"{self.left_out['skipped_steps']} optimiser steps were not finite and were left out{parts}"


def diverged(step: int, findings: Sequence[Finding], checkpoints: Path) -> NoReturn:
    """End a training.

    Raises:
        DivergenceError: always; names step, objectives and the checkpoint to go on from.
    """
    kept = newest_checkpoint(checkpoints)
    if kept is None:
        rest = "no checkpoint had been written: -s training.save_every=N writes some"
    else:
        rest = f"the last good checkpoint is {kept}, from which --resume goes on"
    raise DivergenceError(
        f"training diverged at step {step}: {told(findings)} is not finite. The step was not taken and no model was "
        f"written; {rest}. Lower training.learning_rate, head_rate or the objective's weight, or leave such steps out "
        "and count them with -s training.on_nonfinite=skip"
    )


def told(findings: Sequence[Finding]) -> str:
    """Findings in words, each objective once."""
    first: dict[tuple[str, str], Finding] = {}
    for each in findings:
        first.setdefault((each.objective, each.what), each)
    return "; ".join(map(str, first.values())) or "the gradient"


def grads_finite(parameters: Iterable[nn.Parameter]) -> bool:
    """Whether all gradients that are there are numbers; of sharded ones, this process's part."""
    grads = [_local(p.grad) for p in parameters if p.grad is not None]
    grads = [grad for grad in grads if grad.numel()]
    return not grads or bool(torch.isfinite(torch.nn.utils.get_total_norm(grads, norm_type=math.inf)))


def first_not_finite(named: Iterable[tuple[str, Tensor]]) -> str | None:
    """Name of the first tensor with a value that is no number; of sharded ones, in this process's part."""
    for name, tensor in named:
        if tensor.is_floating_point() and not bool(torch.isfinite(_local(tensor.detach())).all()):
            return name
    return None


def blame(
    model: SpatialModel,
    passes: Sequence[tuple[Batch, Sequence[int]]],
    scales: Mapping[str, float],
    context: contextlib.AbstractContextManager,
) -> list[Finding]:
    """Whose gradient is not finite though every loss is: each objective's is taken alone, once more.

    Args:
        model: not sharded.
        passes: batches of the step, and the seeds of their scenes.
        scales: objective -> factor of its sum in the step's loss.
        context: in which the model computes.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    found = []
    with context:
        for batch, seeds in passes:
            losses = model(batch, due=tuple(scales), seed=seeds)
            for name, loss in losses.items():
                if not loss.sum.requires_grad:
                    continue
                grads = torch.autograd.grad(
                    loss.sum * scales[name], [p for _, p in named], retain_graph=True, allow_unused=True
                )
                pairs = [(key, grad) for (key, _), grad in zip(named, grads, strict=True) if grad is not None]
                place = first_not_finite(pairs)
                if place is not None:
                    scenes = tuple(batch.scene_ids)
                    found.append(Finding(objective=name, what="gradient", scenes=scenes, parameter=place))
    return found


def _local(tensor: Any) -> Tensor:
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
