"""The sections of a recipe: model, data, teachers, training, evaluation."""

from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from stereopsis.benchmarks import benchmark_named, trained_benchmarks
from stereopsis.errors import StereopsisError
from stereopsis.files import cache_folder
from stereopsis.objective_sections import Section
from stereopsis.precision import Precision


def _known(task: str) -> str:
    try:
        return benchmark_named(task).name
    except StereopsisError as error:
        raise ValueError(str(error)) from error  # pydantic then says where it stands


Benchmarks = tuple[Annotated[str, pydantic.AfterValidator(_known)], ...]
"""Names of benchmarks that are there."""


ASK_LATENTS, ASK_FEATURES = ("vanilla", "cross_view", "birds_eye"), ("alignment", "relational")
"""Objectives that need answers of the latent teacher, and of the feature teacher."""


class LoraSection(Section):
    """Low-rank adapters on the language model's matrices in place of full tuning (package peft).

    Attributes:
        rank: of the adapters.
        alpha: their output is scaled by alpha / rank.
        targets: names of the matrices that get one.
        dropout: share of an adapter's inputs that is dropped in training.
    """

    rank: int = pydantic.Field(default=64, ge=1)
    alpha: float = pydantic.Field(default=128.0, gt=0)
    targets: tuple[str, ...] = pydantic.Field(
        default=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), min_length=1
    )
    dropout: float = pydantic.Field(default=0.0, ge=0, lt=1)


class ModelSection(Section):
    """Which model is tuned, and how its visual tokens learn where they look.

    Attributes:
        base: "tiny" (shipped with the package), or a model folder.
        heads: "fresh", or those of the objectives that the "base" has as well (a run's model) go on from there.
        positions: depth | noisy | none; see `stereopsis.models.spatial.SpatialConfig`.
        view_grid: rows and cols of a view's tokens; left out, the base's own.
        encoding_scale: factor of the 3D encoding; left out, the base's own.
        fit: how images become square: "crop" (Video-3D-LLM, Ross3D) or "squash" (3DRS); left out, the base's own.
        object_features: what grounding candidates are made of; see `stereopsis.models.spatial.SpatialConfig`.
        instruction: words before every question.
        train_vision: whether the vision tower is trained.
        attention: how packed rows are attended: "flex" (GPU) and "split" pass over what conversations do not see of
            each other, "sdpa" and "eager" take a dense mask; "auto" is "flex" on a GPU and "split" elsewhere.
        blind: train and answer without looking (one grey view, no coordinates): the language-prior baseline.
        dtype: how the backbone's weights are kept while training. "bfloat16" halves weights and gradients; small
            updates may be rounded away, so it is meant for frozen weights under LoRA, or where memory leaves no choice.
        lora: train low-rank adapters; left out, the whole backbone is trained.
        load_in: keep the frozen matrices of the backbone in 8 or 4 bits (package bitsandbytes; with ``lora``).
    """

    base: str = "tiny"
    heads: Literal["fresh", "base"] = "fresh"
    positions: Literal["depth", "noisy", "none"] = "depth"
    view_grid: tuple[pydantic.PositiveInt, pydantic.PositiveInt] | None = None
    encoding_scale: float | None = None
    object_features: Literal["encoder", "last_layer", "mean", "box"] | None = None
    fit: Literal["crop", "squash"] | None = None
    instruction: str = ""
    train_vision: bool = False
    attention: Literal["auto", "flex", "split", "sdpa", "eager"] = "auto"
    blind: bool = False
    dtype: Literal["float32", "bfloat16"] = "float32"
    lora: LoraSection | None = None
    load_in: Literal["8bit", "4bit"] | None = None

    @pydantic.model_validator(mode="after")
    def _frozen_weights_stay_frozen(self) -> "ModelSection":
        if self.load_in is not None and self.lora is None:
            raise ValueError(
                f"'load_in: {self.load_in}' freezes the backbone; add 'lora: {{}}' to train adapters on it"
            )
        if self.lora is not None and self.train_vision:
            raise ValueError("'lora' trains the language model's adapters; a trained tower needs full tuning: drop one")
        return self


class SourceSection(Section):
    """Where scenes come from: ``rooms`` (how many procedural rooms) or ``path`` (a scene, or a folder of scenes).

    Attributes:
        rooms: number of procedural rooms.
        split: which of the rooms' seed ranges.
        offset: how many rooms of the split to pass over.
        path: a scene folder, or a folder of scene folders.
        annotations: names of processed files of Video-3D-LLM ("BENCHMARK_train", ...): then ``path`` is that system's
            data folder, and the source is every scene that they speak of, with boxes and detections.
        text: False = vision only, whatever annotations the scenes have.
        frame: in which frame boxes and points are given: the "aligned" one of the source, or that of the
            "first_view", which a model without poses can know; see `stereopsis.scenes.first_view`.
    """

    rooms: int | None = pydantic.Field(default=None, ge=1)
    split: Literal["train", "val", "test"] = "train"
    offset: int = pydantic.Field(default=0, ge=0)
    path: Path | None = None
    annotations: tuple[str, ...] = ()
    text: bool = True
    frame: Literal["aligned", "first_view"] = "aligned"

    @pydantic.model_validator(mode="after")
    def _one_source(self) -> "SourceSection":
        if (self.rooms is None) == (self.path is None):
            raise ValueError("give exactly one of 'rooms' and 'path'")
        if self.annotations and self.path is None:
            raise ValueError("'annotations' are files in a data folder of Video-3D-LLM; give its 'path'")
        return self


class DataSection(Section):
    """Scenes, views and how conversations are packed.

    Attributes:
        sources: where scenes come from.
        views: views per scene.
        selection: "uniform" over the frame list, "coverage" (those that together see most of the room), or "random"
            subsets (``subsets`` of them per scene and epoch; evaluation takes uniform views then).
        coverage: with "coverage", stop as soon as this share of the room is covered (Video-3D-LLM: 0.95 or 0.9).
        subsets: number of random subsets.
        tasks: which benchmarks' conversations to train on.
        conversations: at most this many conversations behind one visual prefix.
        text_share: share of the scenes with words that keep them in training, exact to one scene; the others are seen
            without.
        vision_only: share of the training samples that are vision-only passes, exact to one sample; left out, what the
            scenes give.
        group_by_length: put samples of like length into the same optimiser step, so that less is padded.
        cache: folder for generated rooms and for the order in which "coverage" takes views; left out, ``rooms`` in the
            user's cache folder (`stereopsis.files.cache_folder`).
    """

    sources: tuple[SourceSection, ...] = pydantic.Field(default=(SourceSection(rooms=200),), min_length=1)
    views: int = pydantic.Field(default=8, ge=1)
    selection: Literal["uniform", "coverage", "random"] = "uniform"
    coverage: float = pydantic.Field(default=1.0, gt=0, le=1)
    subsets: int = pydantic.Field(default=64, ge=1)
    tasks: Benchmarks = pydantic.Field(default_factory=trained_benchmarks)
    conversations: int = pydantic.Field(default=12, ge=1)
    text_share: float = pydantic.Field(default=1.0, ge=0, le=1)
    vision_only: float | None = pydantic.Field(default=None, ge=0, le=1)
    group_by_length: bool = False
    cache: Path | None = None

    @pydantic.model_validator(mode="after")
    def _coverage_has_a_use(self) -> "DataSection":
        if self.coverage != 1.0 and self.selection != "coverage":
            raise ValueError(f"'coverage' needs 'selection: coverage', found 'selection: {self.selection}'")
        return self

    @property
    def view_options(self) -> dict[str, Any]:
        """How `stereopsis.packs.build.PackConfig` chooses views under this recipe."""
        if self.selection != "coverage":
            return {"selection": "uniform"}
        return {"selection": "coverage", "coverage": self.coverage, "view_cache": self.cache_folder / "views"}

    @property
    def cache_folder(self) -> Path:
        """``cache``, or where it is by default."""
        return self.cache or cache_folder() / "rooms"


class TeachersSection(Section):
    """Frozen teachers whose answers the objectives ask for.

    Attributes:
        latent: latent tokenizer of the reconstruction objectives: "rooms", "pixels", "taef1:PATH", "flux:PATH", ...
        view_size: side at which views are encoded, pixels.
        birdseye_size: side at which bird's-eye views are encoded, pixels.
        features: 3D feature teacher of the alignment objective.
        cache: folder in which teachers' answers, views and the frozen tower's output are kept, so that host memory
            stays flat; left out, everything is in memory.
        online: whether teachers may answer now; false: only what the cache holds, and what it lacks is refused.
    """

    latent: str = "rooms"
    view_size: int = pydantic.Field(default=96, ge=1)
    birdseye_size: int = pydantic.Field(default=128, ge=1)
    features: str = "point_map"
    cache: Path | None = None
    online: bool = True

    @pydantic.model_validator(mode="after")
    def _somebody_answers(self) -> "TeachersSection":
        if self.cache is None and not self.online:
            raise ValueError("'online: false' needs a 'cache' to read from, or nobody answers")
        return self


class TrainingSection(Section):
    """Optimisation.

    Attributes:
        steps: optimiser steps.
        scenes: scenes per pass and process.
        accumulation: passes per optimiser step.
        batch: scenes per optimiser step over all passes and processes, whatever their number; ``scenes`` is then the
            most that one pass holds, and accumulation follows. Left out: scenes x accumulation x processes.
        optimizer: "adamw"; "adamw8bit" with its state in 8 bits, "paged_adamw8bit" with that state moved to the host
            where the GPU is full (package bitsandbytes); "muon" for the hidden matrices with AdamW for the rest.
        learning_rate: peak rate of the backbone.
        head_rate: peak rate of everything that starts untrained (grounding head, objectives' heads).
        vision_rate: peak rate of the vision tower, where it is trained; left out, the backbone's.
        weight_decay: AdamW's.
        warmup: share of the steps spent warming up.
        schedule: name of a transformers schedule.
        clip: largest gradient norm.
        on_nonfinite: what a loss or gradient does that is NaN or infinite: "stop" ends the run with an error before it
            touches a weight, "skip" leaves that optimiser step out and counts it (not with DeepSpeed).
        precision: of products: "bf16" autocast, "fp32", or "auto": bf16 where the device computes it, float32 where it
            would be emulated (see `stereopsis.precision`).
        log_every: steps between log lines.
        save_every: steps between checkpoints; 0 = only the final model.
        keep: how many checkpoints stay; at least 2, so that a kill while one is written leaves a whole one.
        threads: CPU threads; 0 = torch's default.
        report_to: experiment trackers that get every logged value and the pictures of reconstructions.
        cache_vision: keep the frozen tower's output in memory instead of computing it in every step.
        checkpointing: keep only each layer's input for the backward pass and compute the layer again there.
    """

    steps: int = pydantic.Field(default=300, ge=1)
    scenes: int = pydantic.Field(default=8, ge=1)
    accumulation: int = pydantic.Field(default=1, ge=1)
    batch: int | None = pydantic.Field(default=None, ge=1)
    optimizer: Literal["adamw", "adamw8bit", "paged_adamw8bit", "muon"] = "adamw"
    learning_rate: float = pydantic.Field(default=1e-3, ge=0)
    head_rate: float = pydantic.Field(default=1e-3, ge=0)
    vision_rate: float | None = pydantic.Field(default=None, ge=0)
    weight_decay: float = pydantic.Field(default=0.0, ge=0)
    warmup: float = pydantic.Field(default=0.03, ge=0, lt=1)
    schedule: Literal["cosine", "linear", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt"] = "cosine"
    clip: float = pydantic.Field(default=1.0, ge=0)
    on_nonfinite: Literal["stop", "skip"] = "stop"
    precision: Precision = "auto"
    log_every: int = pydantic.Field(default=10, ge=1)
    save_every: int = pydantic.Field(default=0, ge=0)
    keep: int = pydantic.Field(default=2, ge=2)
    threads: int = pydantic.Field(default=0, ge=0)
    report_to: tuple[Literal["mlflow", "tensorboard", "trackio", "wandb"], ...] = ()
    cache_vision: bool = True
    checkpointing: bool = False

    @pydantic.model_validator(mode="after")
    def _one_step_size(self) -> "TrainingSection":
        if self.batch is not None and self.accumulation != 1:
            raise ValueError("'accumulation' follows from 'batch' and the number of processes; give one of the two")
        return self

    def step_scenes(self, processes: int) -> int:
        """Scenes per optimiser step over all passes of so many processes."""
        return self.batch or self.scenes * self.accumulation * processes


class EvaluationSection(Section):
    """What `stereopsis evaluate` and `demo` measure.

    Attributes:
        sources: scenes to evaluate on.
        tasks: which benchmarks.
        proposals: boxes that grounding chooses from: the detector stand-in, or ground truth.
    """

    sources: tuple[SourceSection, ...] = pydantic.Field(default=(SourceSection(rooms=50, split="test"),), min_length=1)
    tasks: Benchmarks = pydantic.Field(default_factory=trained_benchmarks)
    proposals: Literal["detector", "objects"] = "detector"
