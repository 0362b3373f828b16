"""A transformers Trainer whose loss is a set of objectives, each normalised by its own global count."""

import contextlib
import shutil
from collections.abc import Iterable
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from stereopsis.data.batch import Batch
from stereopsis.errors import CheckpointError, DivergenceError
from stereopsis.files import full_disks_told, replacing_folder
from stereopsis.models.spatial import SpatialModel
from stereopsis.models.storage import save_model
from stereopsis.packs.batch_sampler import Deal, DealtBatches, EpochOrder
from stereopsis.packs.build import name_seed
from stereopsis.packs.dataset import EvenSampler, PackDataset, ShuffledSampler
from stereopsis.packs.length_grouping import GroupedSampler
from stereopsis.reading import read_torch
from stereopsis.training.checkpoints import (
    COMPLETE_MARK,
    MODEL_SHARDS,
    OPTIMIZER_FILE,
    OPTIMIZER_SHARDS,
    SCHEDULER_FILE,
    load_optimizer,
    load_whole,
    tie,
)
from stereopsis.training.divergence import OnNonFinite, StepWatch, blame, diverged, first_not_finite, grads_finite
from stereopsis.training.engines import autocast, shard_on_cpu_too
from stereopsis.training.optimizer import build_optimizer
from stereopsis.weights.manifest import write_manifest


class SpatialTrainer(Trainer):
    """Trains a `SpatialModel` on packed scenes.

    Every objective's loss is the sum over all passes and processes of an optimiser step, divided by the global
    count of its terms. Which objectives are due depends on the optimiser step alone, and all randomness of a scene on
    the seed, the step and the scene's index in it. So accumulation and the number of processes change nothing, ranks
    agree, and a resumed run repeats the interrupted one.

    Args:
        model: with objectives.
        args: the Trainer's arguments.
        deal: who takes which scenes of a step.
        head_rate: learning rate of what starts untrained (grounding head, objectives' heads).
        vision_rate: learning rate of the vision tower, where it is trained; None = the backbone's.
        optimizer: one of `stereopsis.training.optimizer.OPTIMIZERS`.
        half: bfloat16 autocast where the engine must keep weights as they are (its own half precision would take the
            heads along).
        orthogonal: what Muon orthogonalises in.
        on_nonfinite: whether a loss or gradient that is no number ends the training, or the step is left out.
        options: the Trainer's other arguments.
    """

    def __init__(
        self,
        model: SpatialModel,
        args: TrainingArguments,
        *,
        deal: Deal,
        head_rate: float,
        vision_rate: float | None = None,
        optimizer: str = "adamw",
        half: bool = False,
        orthogonal: torch.dtype = torch.float32,
        on_nonfinite: OnNonFinite = "stop",
        **options: Any,
    ) -> None:
        super().__init__(model=model, args=args, **options)
        self.deal, self.head_rate, self.vision_rate = deal, head_rate, vision_rate
        self.optimizer_name, self.half, self.orthogonal = optimizer, half, orthogonal
        self.model_accepts_loss_kwargs = True  # losses are already divided by the step's global counts
        self.optimizer: torch.optim.Optimizer | None
        self._pass = 0
        self._pass_step = -1
        self._sums: dict[str, float] = {}
        self._counts: dict[str, float] = {}
        self.watch = StepWatch(self.accelerator, on_nonfinite, args.max_steps)
        self._passes: list[Batch] = []
        self._norm: float | torch.Tensor | None = None
        self.add_callback(_BeforeStep(self))

    @property
    def spatial(self) -> SpatialModel:
        """The model without wrappers."""
        return self.accelerator.unwrap_model(self.model)

    @property
    def sharded(self) -> bool:
        """Whether a process holds only its part of the parameters, or of what the optimiser remembers."""
        return self.is_fsdp_enabled or self.is_deepspeed_enabled

    def create_accelerator_and_postprocess(self) -> None:
        """Accelerate's own choice of engine, with FSDP on CPUs too."""
        super().create_accelerator_and_postprocess()
        shard_on_cpu_too(self.accelerator)
        self.is_fsdp_enabled = getattr(self.accelerator.state, "fsdp_plugin", None) is not None

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
                orthogonal=self.orthogonal,
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
        self._passes = batches
        return batches, dict(zip(due, counts.tolist(), strict=True))

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        """This process's passes of the whole run, which the Trainer takes for one epoch."""
        dataset = self.train_dataset
        assert isinstance(dataset, PackDataset)
        order = self._order(dataset, self.args.data_seed or self.args.seed)
        batches = DealtBatches(order, self.deal, rank=self.args.process_index, steps=self.args.max_steps)
        return torch.utils.data.DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def _order(self, dataset: PackDataset, seed: int) -> EpochOrder:
        """Lengths grouped where the dataset has measured them, shares of vision-only items kept where it has some."""
        if dataset.lengths is not None:
            return GroupedSampler(dataset, seed, step=self.deal.batch)
        if dataset.vision_only is not None:
            return EvenSampler(dataset, seed)
        return ShuffledSampler(len(dataset), seed)

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
        if self._pass == 0:
            self.watch.start()
        objectives = self.spatial.objectives
        assert objectives is not None
        counts: dict[str, float] = num_items_in_batch
        losses = model(inputs, due=tuple(counts), seed=self._seeds(step, self._pass))
        total: torch.Tensor | None = None
        for name, loss in losses.items():
            scale = objectives[name].weight * self.accelerator.num_processes / max(counts[name], 1.0)
            part = loss.sum * scale
            total = part if total is None else total + part
            value = float(loss.sum.detach())
            if not self.watch.loss(name, value, scale, inputs):
                continue
            self._remember(f"loss/{name}", value, loss.count)
            for key, measured in loss.metrics.items():
                self._remember(f"{name}/{key}", measured * loss.count, loss.count)
        if total is None:
            raise RuntimeError(f"no objective is due at step {step}: give one of them every=1")
        if self.is_deepspeed_enabled and self.watch.anybody(bool(self.watch.found)):  # it steps in its backward pass
            diverged(step + 1, self.watch.everybodys(self.watch.found), Path(str(self.args.output_dir)))
        return total

    def _get_grad_norm(self, *args: Any, **options: Any) -> Any:
        self._norm = super()._get_grad_norm(*args, **options)
        return None if self._norm is None or not isfinite(float(self._norm)) else self._norm

    def look_before_step(self) -> None:
        """Stop, or leave the step out, where a loss or a gradient of it is no number; every process comes here.

        Raises:
            DivergenceError: it is not, and training is to stop.
        """
        watch, step = self.watch, self.state.global_step
        fine = not watch.found and (self._norm is None or isfinite(float(self._norm)))
        if not watch.anybody(not (fine and grads_finite(self.model.parameters()))):
            watch.went_well()
            return
        found = watch.everybodys(watch.found)
        if not found and not self.sharded:
            passes = [(self._prepare_inputs(b), self._seeds(step, n)) for n, b in enumerate(self._passes)]
            found = watch.everybodys(blame(self.spatial, passes, watch.scales, self.compute_loss_context_manager()))
        if watch.on_nonfinite == "stop":
            diverged(step + 1, found, Path(str(self.args.output_dir)))
        self.model.zero_grad(set_to_none=True)  # the optimiser passes over what has no gradient
        watch.skip(found, step + 1)

    def require_finite_weights(self) -> None:
        """Refuse to keep weights that are no numbers; every process comes here.

        Raises:
            DivergenceError: names one.
        """
        place = first_not_finite(self.model.named_parameters())
        if self.watch.anybody(place is not None):
            raise DivergenceError(
                f"after step {self.state.global_step} {place or 'a weight on another process'} is not finite: the "
                "optimiser's last step was too large, nothing was written; lower training.learning_rate and head_rate"
            )

    def _seeds(self, step: int, number: int) -> list[int]:
        """One per scene of a pass: it is the same scene in the same place however the step is dealt."""
        indices = self.deal.indices(self.args.process_index, number)
        return [name_seed(f"{step}/{index}", self.args.seed) for index in indices]

    def compute_loss_context_manager(self) -> contextlib.ExitStack:
        """The Trainer's, and half precision where the engine does not see to it."""
        stack = super().compute_loss_context_manager()
        if self.half:
            stack.enter_context(autocast(self.args.device))
        return stack

    def _remember(self, key: str, total: float, count: float) -> None:
        self._sums[key] = self._sums.get(key, 0.0) + total
        self._counts[key] = self._counts.get(key, 0.0) + count

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add each objective's mean loss since the last line, over all processes."""
        parts = [(self._sums, self._counts)]
        if self.args.world_size > 1:
            gathered: list[Any] = [None] * self.args.world_size
            torch.distributed.all_gather_object(gathered, parts[0])
            parts = gathered
        self._sums, self._counts = {}, {}
        sums: dict[str, float] = {}
        counts: dict[str, float] = {}
        for some_sums, some_counts in parts:
            for key, count in some_counts.items():
                sums[key] = sums.get(key, 0.0) + some_sums[key]
                counts[key] = counts.get(key, 0.0) + count
        means = {key: sums[key] / count for key, count in counts.items() if count > 0}
        means |= self.watch.counts()
        dataset = self.train_dataset
        assert isinstance(dataset, PackDataset)
        self.state.epoch = self.state.global_step * self.deal.batch / len(dataset)
        super().log({**logs, **means}, start_time)

    def export(self, folder: Path) -> None:
        """Write one plain model folder, whatever the engine; every process must come here.

        Raises:
            DivergenceError: a weight is not finite.
        """
        self.require_finite_weights()
        state = self.accelerator.get_state_dict(self.model_wrapped) if self._wrapped else None
        if self.is_world_process_zero():
            if state is not None:
                tie(state, self.spatial)
            with full_disks_told(), replacing_folder(folder) as partial:
                save_model(self.spatial, partial, state=state)
        self.accelerator.wait_for_everyone()

    @property
    def _wrapped(self) -> bool:
        """Whether the engine has taken the model already."""
        return self.sharded and self.model_wrapped is not None and self.optimizer is not None

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if not self.args.should_save:
            return  # the Trainer asks every process
        folder = Path(str(output_dir or self.args.output_dir))
        save_model(self.spatial, folder, state=state_dict)
        torch.save(self.args, folder / "training_args.bin")

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.require_finite_weights()
        folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        try:
            with full_disks_told():
                super()._save_checkpoint(model, trial)
                self.accelerator.wait_for_everyone()
                if self.args.should_save and folder.is_dir():
                    write_manifest(folder, step=self.state.global_step)
                    (folder / COMPLETE_MARK).write_text("")
        except OSError as error:
            if self.args.should_save:
                shutil.rmtree(folder, ignore_errors=True)  # what is left of it would fill the disk for nothing
            raise OSError(error.errno, error.strerror or str(error), str(folder)) from error

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        if not self._wrapped:
            load_whole(self.spatial, folder)
        elif (folder / MODEL_SHARDS).is_dir():
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        folder = None if checkpoint is None else Path(checkpoint)
        if folder is None or self.is_deepspeed_enabled:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        shards, whole = (folder / OPTIMIZER_SHARDS).is_dir(), (folder / OPTIMIZER_FILE).is_file()
        if shards is whole:
            raise CheckpointError(
                f"{folder} holds neither {OPTIMIZER_FILE} nor {OPTIMIZER_SHARDS}: DeepSpeed wrote it, or it is "
                "damaged; resume it with the engine that wrote it"
            )
        if shards == self.is_fsdp_enabled:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        optimizer: Any = self.optimizer
        load_optimizer(self.model, optimizer.optimizer, folder)
        self.lr_scheduler.load_state_dict(read_torch(folder / SCHEDULER_FILE))


class _BeforeStep(TrainerCallback):
    """Lets the trainer look at a step's losses and gradients before the optimiser uses them."""

    def __init__(self, trainer: SpatialTrainer) -> None:
        self.trainer = trainer

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Look."""
        self.trainer.look_before_step()
