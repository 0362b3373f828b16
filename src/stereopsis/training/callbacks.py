"""What a run shows while it trains: a line per logged step on disk, steps and latest losses for people."""

import json
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stereopsis.errors import RunFolderError
from stereopsis.files import write_atomic
from stereopsis.progress import Phase
from stereopsis.reading import parse_json, read_text

METRICS_FILE = "metrics.jsonl"


class MetricsLog(TrainerCallback):
    """Appends every log line to ``metrics.jsonl``; a resumed run first drops the lines it will repeat."""

    def __init__(self, folder: Path) -> None:
        self.path, self.start = folder / METRICS_FILE, time.monotonic()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Forget lines past the step that the run resumes from."""
        if self.path.is_file() and state.is_world_process_zero:
            lines = [line for line in read_text(self.path).splitlines() if _step_of(line) <= state.global_step]
            write_atomic(self.path, "".join(f"{line}\n" for line in lines), error=RunFolderError)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A line for every checkpoint, so that the next line means the same whether the run is resumed or not."""
        control.should_log = control.should_log or control.should_save

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Append one line."""
        if logs and state.is_world_process_zero:
            if "train_loss" in logs:  # the Trainer's own mean begins where the run was resumed
                logs["train_loss"] = self._mean_loss(state.global_step)
            record = {"step": state.global_step, "seconds": round(time.monotonic() - self.start, 2), **logs}
            with self.path.open("a") as file:
                file.write(json.dumps(record) + "\n")

    def _mean_loss(self, steps: int) -> float:
        """Mean loss of all steps, of which each line tells the mean since the one before it."""
        total, before = 0.0, 0
        for line in read_text(self.path).splitlines() if self.path.is_file() else []:
            record = parse_json(line)
            if "loss" in record and record["step"] > before:
                total += record["loss"] * (record["step"] - before)
                before = record["step"]
        return total / max(1, steps)


class ShownSteps(TrainerCallback):
    """Tells a `stereopsis.progress.Phase` of steps and of each objective's latest loss."""

    def __init__(self, shown: Phase) -> None:
        self.shown = shown

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """One step more."""
        self.shown.advance(state.global_step - self.shown.done)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Show each objective's loss."""
        losses = {key.removeprefix("loss/"): value for key, value in (logs or {}).items() if key.startswith("loss/")}
        if losses:
            self.shown.show(losses)


def _step_of(line: str) -> float:
    """The step of a log line; a line that a kill cut short counts as never written."""
    try:
        return float(parse_json(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
