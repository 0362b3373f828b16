"""A transformers Trainer whose loss is a set of objectives, each normalised by its own global count."""

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from stereopsis.data.batch import Batch
from stereopsis.models.dataset import EvenSampler, PackDataset
from stereopsis.models.grouping import GroupedSampler
from stereopsis.models.spatial import SpatialModel
from stereopsis.models.storage import HEADS_FILE, SPATIAL_FILE, load_tensors, restore_backbone, save_model
from stereopsis.training.optimizer import build_optimizer

METRICS_FILE = "metrics.jsonl"
COMPLETE_MARK = "complete"


class MetricsLog(TrainerCallback):
    """Appends every log line to ``metrics.jsonl``; a resumed run first drops the lines it will repeat."""

    def __init__(self, folder: Path) -> None:
        self.path, self.start = folder / METRICS_FILE, time.monotonic()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Forget lines past the step that the run resumes from."""
        if self.path.is_file() and state.is_world_process_zero:
            lines = [line for line in self.path.read_text().splitlines() if _step_of(line) <= state.global_step]
            partial = self.path.with_suffix(".partial")
            partial.write_text("".join(f"{line}\n" for line in lines))
            os.replace(partial, self.path)

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


class SpatialTrainer(Trainer):
    """Trains a `SpatialModel` on packed scenes.

    Every objective's loss is the sum over all passes and processes of an optimiser step, divided by the global
    count of its terms, so that accumulation and world size change nothing. Which objectives are due depends on
    the optimiser step alone, and all randomness on (seed, step, pass, rank): ranks agree, and a resumed run
    repeats the interrupted one.

    Args:
        model: with objectives.
        args: the Trainer's arguments.
        head_rate: learning rate of what starts untrained (grounding head, objectives' heads).
        vision_rate: learning rate of the vision tower, where it is trained; None = the backbone's.
        optimizer: one of `stereopsis.training.optimizer.OPTIMIZERS`.
        options: the Trainer's other arguments.
    """

    def __init__(
        self,
        model: SpatialModel,
        args: TrainingArguments,
        *,
        head_rate: float,
        vision_rate: float | None = None,
        optimizer: str = "adamw",
        **options: Any,
    ) -> None:
        super().__init__(model=model, args=args, **options)
        self.head_rate, self.vision_rate = head_rate, vision_rate
        self.optimizer_name = optimizer
        self.model_accepts_loss_kwargs = True  # losses are already divided by the step's global counts
        self.optimizer: torch.optim.Optimizer | None
        self._own_sampler: EvenSampler | GroupedSampler | None = None
        self._pass = 0
        self._pass_step = -1
        self._sums: dict[str, float] = {}
        self._counts: dict[str, float] = {}

    @property
    def spatial(self) -> SpatialModel:
        """The model without wrappers."""
        return self.accelerator.unwrap_model(self.model)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The recipe's optimizer, with a rate of its own for untrained heads."""
        if self.optimizer is None:
            self.optimizer = build_optimizer(
                self.spatial,
                name=self.optimizer_name,
                learning_rate=self.args.learning_rate,
                head_rate=self.head_rate,
                vision_rate=self.vision_rate,
                weight_decay=self.args.weight_decay,
                betas=(self.args.adam_beta1, self.args.adam_beta2),
            )
        return self.optimizer

    def get_batch_samples(
        self, epoch_iterator: Iterable[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], Any]:
        """Collect the passes of one optimiser step and count every objective's terms over all of them."""
        batches = []
        for _ in range(num_batches):
            try:
                batches.append(next(epoch_iterator))  # type: ignore[call-overload]
            except StopIteration:
                break
        objectives = self.spatial.objectives
        assert objectives is not None
        due = objectives.due(self.state.global_step)
        counts = torch.tensor(
            [sum(objectives[name].count(b) for b in batches) for name in due],
            dtype=torch.float64,
            device="cpu",
        )
        if self.accelerator.num_processes > 1:
            counts = self.accelerator.reduce(counts.to(device), reduction="sum").cpu()
        return batches, dict(zip(due, counts.tolist(), strict=True))

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler | None:
        """The Trainer's own, or one that keeps the recipe's share of vision-only items and groups lengths."""
        dataset = self.train_dataset if train_dataset is None else train_dataset
        seed = self.args.data_seed or self.args.seed
        if isinstance(dataset, PackDataset) and dataset.lengths is not None:
            passes = self.args.gradient_accumulation_steps * self.args.world_size
            self._own_sampler = GroupedSampler(dataset, seed, step=self.args.train_batch_size * passes)
        elif isinstance(dataset, PackDataset) and dataset.vision_only is not None:
            self._own_sampler = EvenSampler(dataset, seed)
        else:
            return super()._get_train_sampler(train_dataset)
        return self._own_sampler

    def _run_epoch(self, *args: Any, epoch: int, **options: Any) -> Any:
        # told here, because accelerate's wrappers do not pass an epoch on to every sampler that they skip or share
        if self._own_sampler is not None:
            self._own_sampler.set_epoch(epoch)
        return super()._run_epoch(*args, epoch=epoch, **options)

    def floating_point_ops(self, inputs: Batch) -> int:
        """Not counted: the Trainer's estimate knows nothing of packed scenes."""
        return 0

    def _prepare_inputs(self, inputs: Batch) -> Batch:
        return inputs.to(self.args.device)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> torch.Tensor:
        """Weighted sum of the due objectives, each divided by its global count."""
        step = self.state.global_step
        self._pass = self._pass + 1 if step == self._pass_step else 0
        self._pass_step = step
        objectives = self.spatial.objectives
        assert objectives is not None
        counts: dict[str, float] = num_items_in_batch
        losses = model(inputs, due=tuple(counts), seed=self._seed(step))
        total: torch.Tensor | None = None
        for name, loss in losses.items():
            scale = objectives[name].weight * self.accelerator.num_processes / max(counts[name], 1.0)
            part = loss.sum * scale
            total = part if total is None else total + part
            self._remember(f"loss/{name}", float(loss.sum.detach()), loss.count)
            for key, value in loss.metrics.items():
                self._remember(f"{name}/{key}", value * loss.count, loss.count)
        if total is None:
            raise RuntimeError(f"no objective is due at step {step}: give one of them every=1")
        return total

    def _seed(self, step: int) -> int:
        parts = (self.args.seed, step, self._pass, self.args.process_index)
        value = 0
        for part in parts:
            value = (value * 1_000_003 + part + 1) % 2**63
        return value

    def _remember(self, key: str, total: float, count: float) -> None:
        self._sums[key] = self._sums.get(key, 0.0) + total
        self._counts[key] = self._counts.get(key, 0.0) + count

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add each objective's mean loss since the last line."""
        means = {key: self._sums[key] / count for key, count in self._counts.items() if count > 0}
        self._sums, self._counts = {}, {}
        super().log({**logs, **means}, start_time)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(str(output_dir or self.args.output_dir))
        save_model(self.spatial, folder)
        torch.save(self.args, folder / "training_args.bin")

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save and folder.is_dir():
            (folder / COMPLETE_MARK).write_text("")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder, spatial = Path(resume_from_checkpoint), self.spatial
        restore_backbone(spatial, folder)
        load_tensors(spatial.grounding, folder / SPATIAL_FILE)
        if spatial.objectives is not None:
            load_tensors(spatial.objectives, folder / HEADS_FILE)


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end, or None."""
    found = [p for p in folder.glob("checkpoint-*") if (p / COMPLETE_MARK).is_file()]
    return max(found, key=lambda p: int(p.name.rpartition("-")[2]), default=None)
