"""What a run shows while it trains: a line per logged step on disk, a progress bar with the latest losses."""

import json
import time
from pathlib import Path
from typing import Any

from transformers import ProgressCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stereopsis.files import write_whole

METRICS_FILE = "metrics.jsonl"


class MetricsLog(TrainerCallback):
    """Appends every log line to ``metrics.jsonl``; a resumed run first drops the lines it will repeat."""

    def __init__(self, folder: Path) -> None:
        self.path, self.start = folder / METRICS_FILE, time.monotonic()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Forget lines past the step that the run resumes from."""
        if self.path.is_file() and state.is_world_process_zero:
            lines = [line for line in self.path.read_text().splitlines() if _step_of(line) <= state.global_step]
            write_whole(self.path, "".join(f"{line}\n" for line in lines))

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
            record = {"step": state.global_step, "seconds": round(time.monotonic() - self.start, 2), **logs}
            with self.path.open("a") as file:
                file.write(json.dumps(record) + "\n")


class LossBar(ProgressCallback):
    """The Trainer's progress bar with the latest losses at its end, instead of a printed dictionary per line."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Show each objective's loss."""
        if state.is_world_process_zero and self.training_bar is not None and logs:
            shown = {key.removeprefix("loss/"): f"{value:.3f}" for key, value in logs.items() if "loss/" in key}
            self.training_bar.set_postfix(shown, refresh=False)


def _step_of(line: str) -> float:
    """The step of a log line; a line that a kill cut short counts as never written."""
    try:
        return float(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return float("inf")
