"""One training run, from recipe to model folder."""

import contextlib
import dataclasses
import datetime
import json
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import PrinterCallback, TrainingArguments

from stereopsis.data.pack import ScenePack
from stereopsis.errors import RunFolderError
from stereopsis.files import write_atomic
from stereopsis.model_files import HEADS_FILE
from stereopsis.models.spatial import SpatialModel
from stereopsis.models.storage import load_common_tensors, load_model, load_tensors
from stereopsis.packs.batch_sampler import Deal
from stereopsis.packs.dataset import PackDataset
from stereopsis.precision import ComputePrecision
from stereopsis.progress import phase, say
from stereopsis.reading import json_or
from stereopsis.training.build import build_model, build_objectives, build_teachers, try_out
from stereopsis.training.callbacks import METRICS_FILE, MetricsLog, ShownSteps
from stereopsis.training.checkpoints import MODEL_SHARDS, check_checkpoint, newest_checkpoint
from stereopsis.training.engines import check_engine, sharding, training_precision
from stereopsis.training.model_card import write_card
from stereopsis.training.processes import Processes, join_training, launched
from stereopsis.training.recipe import Recipe, cpu_threads, load_recipe
from stereopsis.training.recipe_packs import build_packs, shared_packs
from stereopsis.training.run_folder import (
    CHECKPOINTS,
    ENVIRONMENT_FILE,
    MODEL_FOLDER,
    RECIPE_FILE,
    base_folder,
    check_finished,
    check_run_folder,
    claimed,
    empty_run_folder,
)
from stereopsis.training.trackers import PROJECT, tracker_callbacks
from stereopsis.training.trainer import SpatialTrainer


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TrainedRun:
    """What a run leaves behind.

    Attributes:
        folder: the run folder.
        model: the trained model, training heads still attached.
        packs: the training packs, for pictures.
        processes: that trained; only the first has a model to work with where an engine sharded it.
    """

    folder: Path
    model: SpatialModel
    packs: Sequence[ScenePack]
    processes: Processes = dataclasses.field(default_factory=Processes)


def start_run_folder(
    folder: Path, recipe: Recipe, *, resume: bool, overwrite: bool, precision: ComputePrecision
) -> None:
    """Make the run folder; nothing of an earlier run stays unless it is resumed.

    Called when everything that can fail for a wrong recipe has been tried, so that a failed start leaves nothing.
    """
    if resume:
        write_atomic(folder / RECIPE_FILE, recipe.to_yaml(), error=RunFolderError)
        return
    empty_run_folder(folder, overwrite=overwrite)
    (folder / RECIPE_FILE).write_text(recipe.to_yaml())
    engine = sharding() or ("ddp" if launched() > 1 else None)
    record = environment() | {"processes": launched(), "engine": engine, "precision": precision.record()}
    (folder / ENVIRONMENT_FILE).write_text(json.dumps(record, indent=2) + "\n")


def environment() -> dict[str, object]:
    """Date, hardware, command and versions, kept beside every result."""
    packages = ("stereopsis", "torch", "transformers", "diffusers", "accelerate", "numpy")
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(sys.argv),
        "machine": platform.processor() or platform.machine(),
        "cpu": torch.cpu.get_capabilities().get("cpu_name"),
        "cpu_kernels": torch.backends.cpu.get_cpu_capability(),
        "cpu_threads": cpu_threads(0),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
    }


def train(
    recipe: Recipe,
    folder: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    packs: Sequence[ScenePack] | None = None,
    console: Console | None = None,
    progress: bool = True,
) -> TrainedRun:
    """Train a recipe and save the model.

    Started by torchrun or ``accelerate launch``, all processes come here; the first one writes, the others wait for it.

    Args:
        recipe: what to do.
        folder: run folder to make.
        resume: continue from the newest complete checkpoint in ``folder``.
        overwrite: replace a run that is there.
        packs: training packs that were built before (they must fit the recipe).
        console: where to show progress; None = a console of its own.
        progress: False = quiet.

    Raises:
        RunFolderError: the folder is in the way, or another process trains into it.
        CheckpointError: the newest checkpoint is damaged.
        RecipeError: an objective lacks a target, the engine cannot do what the recipe asks for, or a step cannot be
            shared evenly by the processes.
    """
    folder = Path(folder)
    check_engine(recipe)
    check_run_folder(folder, recipe, resume=resume, overwrite=overwrite)
    newest = newest_checkpoint(folder / CHECKPOINTS) if resume else None
    if newest is not None:
        check_checkpoint(newest)
    processes = join_training()
    with claimed(folder) if processes.main else contextlib.nullcontext():
        return _train(
            recipe,
            folder,
            processes,
            resume=resume,
            overwrite=overwrite,
            packs=packs,
            console=console,
            progress=progress,
        )


def _train(
    recipe: Recipe,
    folder: Path,
    processes: Processes,
    *,
    resume: bool,
    overwrite: bool,
    packs: Sequence[ScenePack] | None,
    console: Console | None,
    progress: bool,
) -> TrainedRun:
    """`train`, when the folder is ours."""
    deal = deal_of(recipe, folder, processes.count, resume=resume)
    console = (console or Console()) if progress and processes.main else None
    precision = _agreed_precision(recipe, folder, processes, resume=resume)
    say(console, precision.sentence)
    torch.set_num_threads(recipe.training.threads or max(1, cpu_threads(0) // processes.local_count))
    model = build_model(recipe)
    teachers = build_teachers(recipe)
    try_out(recipe, model, teachers)
    if packs is None:
        packs = shared_packs(recipe, model, teachers, processes, console=console)
    teachers.to("cpu")  # they have answered; the GPU's memory is the model's now
    dataset = PackDataset(
        packs,
        conversations=recipe.data.conversations,
        views=recipe.data.views if recipe.data.selection == "random" else None,
        subsets=recipe.data.subsets,
        text_share=recipe.data.text_share,
        vision_only=recipe.data.vision_only,
        seed=recipe.seed,
        measure=model.collator() if recipe.data.group_by_length else None,
    )
    probe = model.collator()([dataset[0]])
    model.objectives = build_objectives(recipe, model.adapter.dim, probe.targets)
    if recipe.model.heads == "base" and not resume:
        load_common_tensors(model.objectives, base_folder(recipe) / HEADS_FILE)
    model.objectives.check(probe)
    processes.wait()  # all have looked at the folder as it was
    if processes.main:
        start_run_folder(folder, recipe, resume=resume, overwrite=overwrite, precision=precision)
    processes.wait()
    trainer = fit(recipe, model, dataset, folder, deal=deal, precision=precision, resume=resume, console=console)
    trainer.export(folder / MODEL_FOLDER)
    if processes.main:
        write_card(folder)
    if trainer.watch.left_out and console is not None:
        console.print(f"[yellow]note:[/yellow] {trainer.watch.summary()}", highlight=False, soft_wrap=True)
    if trainer.sharded and processes.main:
        objectives = build_objectives(recipe, model.adapter.dim, probe.targets)
        model = load_model(folder / MODEL_FOLDER)
        model.objectives = objectives
        load_tensors(objectives, folder / MODEL_FOLDER / HEADS_FILE)
    return TrainedRun(folder=folder, model=model.eval(), packs=packs, processes=processes)


def _agreed_precision(recipe: Recipe, folder: Path, processes: Processes, *, resume: bool) -> ComputePrecision:
    """What all processes compute in: float32 where one of them has nothing else; a resumed run keeps its own."""
    begun = _begun_with(folder).get("precision", {}).get("name") if resume else None
    mine = training_precision(recipe, processes.device, decided=begun)
    if mine.asked == "auto" and "fp32" in processes.said_by_all(mine.name):
        return dataclasses.replace(mine, name="fp32", reason=mine.reason if mine.name == "fp32" else "as others need")
    return mine


def _begun_with(folder: Path) -> dict[str, Any]:
    """What was noted when a run was started."""
    path = folder / ENVIRONMENT_FILE
    return json_or(path, RunFolderError, "copy the run again, or replace it with --overwrite") if path.is_file() else {}


def deal_of(recipe: Recipe, folder: Path, processes: int, *, resume: bool = False) -> Deal:
    """Who takes which scenes of an optimiser step.

    A step is what the recipe says it is, or what it was when the run was started: a run that is resumed by another
    number of processes goes on with the same scenes in the same steps.

    Raises:
        RecipeError: so many processes cannot share a step evenly.
    """
    section, started = recipe.training, processes
    if resume:
        started = _begun_with(folder).get("processes", 1)
    return Deal.of(section.step_scenes(started), processes=processes, most=section.scenes)


def fit(
    recipe: Recipe,
    model: SpatialModel,
    dataset: PackDataset,
    folder: Path,
    *,
    deal: Deal | None = None,
    precision: ComputePrecision | None = None,
    resume: bool = False,
    console: Console | None = None,
) -> SpatialTrainer:
    """Train what requires a gradient of a model with objectives; logs and checkpoints go into ``folder``.

    Args:
        recipe: how.
        model: with objectives.
        dataset: of packed scenes.
        folder: the run folder.
        deal: who takes which scenes of a step; None: one process, the recipe's passes.
        precision: of products; None: the recipe's, here.
        resume: continue from the newest complete checkpoint.
        console: where to show progress; None = quiet.
    """
    deal = deal or deal_of(recipe, folder, 1)
    precision = precision or training_precision(recipe, Processes().device)
    half = precision.name == "bf16"
    trainer = SpatialTrainer(
        model,
        _arguments(recipe, folder, deal, half=half),
        deal=deal,
        half=half and sharding() is not None,
        orthogonal=precision.dtype,
        head_rate=recipe.training.head_rate,
        vision_rate=recipe.training.vision_rate,
        optimizer=recipe.training.optimizer,
        on_nonfinite=recipe.training.on_nonfinite,
        train_dataset=dataset,
        data_collator=model.collator(),
        callbacks=[MetricsLog(folder), *tracker_callbacks(recipe.training.report_to, folder)],
    )
    trainer.remove_callback(PrinterCallback)
    checkpoint = newest_checkpoint(folder / CHECKPOINTS) if resume else None
    done = checkpoint is not None and checkpoint.name == f"checkpoint-{recipe.training.steps}"
    if checkpoint is not None and (done or (trainer.is_fsdp_enabled and not (checkpoint / MODEL_SHARDS).is_dir())):
        trainer._load_from_checkpoint(str(checkpoint))  # before an engine takes the model
    if not done:  # else the Trainer would take one step more
        before = 0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2])
        with phase(f"Training {recipe.name}", recipe.training.steps, "steps", console=console, done=before) as shown:
            trainer.add_callback(ShownSteps(shown))
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    return trainer


def _arguments(recipe: Recipe, folder: Path, deal: Deal, *, half: bool) -> TrainingArguments:
    section = recipe.training
    arguments = TrainingArguments(
        output_dir=str(folder / CHECKPOINTS),
        max_steps=section.steps,
        per_device_train_batch_size=deal.scenes,
        gradient_accumulation_steps=deal.passes,
        learning_rate=section.learning_rate,
        weight_decay=section.weight_decay,
        warmup_steps=round(section.warmup * section.steps),
        lr_scheduler_type=section.schedule,
        max_grad_norm=section.clip,
        logging_nan_inf_filter=section.on_nonfinite == "skip",  # a step that is left out counts as the mean of others
        bf16=half and sharding() is None,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=section.log_every,
        logging_first_step=True,
        save_strategy="steps" if section.save_every else "no",
        save_steps=section.save_every or 500,
        save_total_limit=section.keep,
        seed=recipe.seed,
        data_seed=recipe.seed,
        report_to=[name for name in section.report_to if name != "tensorboard"],  # which gets our folder
        project=PROJECT,
        run_name=folder.name,
        disable_tqdm=True,  # `stereopsis.progress` shows what goes on
        dataloader_num_workers=0,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        label_names=[],
        ddp_find_unused_parameters=True,  # what no due objective uses has no gradient, as in one process
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # a process drives one GPU: more of them want a launcher
    return arguments


__all__ = ["METRICS_FILE", "TrainedRun", "build_packs", "environment", "train"]


def open_run(folder: str | Path, *, dtype: torch.dtype = torch.float32) -> tuple[Recipe, SpatialModel]:
    """A finished run's recipe and its model, for inference.

    Args:
        folder: written by `train`.
        dtype: of the model's parameters.

    Raises:
        RunFolderError: the folder holds no finished run.
    """
    folder = Path(folder)
    check_finished(folder)
    return load_recipe(folder / RECIPE_FILE), load_model(folder / MODEL_FOLDER, dtype=dtype)
