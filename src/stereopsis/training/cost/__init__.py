"""What a recipe will cost: parameters, tokens, operations, memory and time, from shapes alone.

Nothing is loaded or run. Operations and memory are counted from the real modules (`flops`, `memory`), and
checked against measurement in the tests; time is operations over a GPU's data-sheet peak and an assumed utilisation.
Not counted: communication between processes, reading data, teachers' answers (they are made once, before the first
step), evaluation.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from stereopsis.benchmarks import benchmark_named
from stereopsis.data.prompt import chat_template
from stereopsis.errors import RecipeError
from stereopsis.models.spatial import SpatialModel
from stereopsis.packs.batch_sampler import Deal
from stereopsis.training.build import ParameterCount, count_parameters
from stereopsis.training.cost.flops import Attention, step_flops
from stereopsis.training.cost.gpus import GIB, GPUS, Gpu, gpu_named
from stereopsis.training.cost.memory import MemoryOptions, Sharding, StepMemory, step_memory
from stereopsis.training.cost.meta_model import StandInTokenizer, assumed_shapes, planned_model
from stereopsis.training.cost.units import Flops, SceneLoad, StepFlops, scene_loads
from stereopsis.training.recipe import Recipe

__all__ = [
    "GPUS",
    "Assumptions",
    "CostEstimate",
    "Flops",
    "Gpu",
    "OnGpu",
    "SceneLoad",
    "StepFlops",
    "planned_model",
    "predict",
    "scene_loads",
    "step_flops",
]

_OPENING, _PER_WORD = 24, 1.3
"""Tokens of a chat template around the views, and per word of the instruction, where no tokenizer is at hand."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Assumptions:
    """What a recipe does not say.

    Attributes:
        question: tokens of a question, with what leads to its answer.
        answer: tokens of an answer in words, with its end.
        proposals: boxes per scene.
        utilisation: share of the GPU's peak that the model's operations reach.
        processes: GPUs that share the work.
        sharding: what they divide: "none" (DDP), "zero2", or "zero3" (also FSDP).
    """

    question: int = 40
    answer: int = 8
    proposals: int = 30
    utilisation: float = 0.4
    processes: int = 1
    sharding: Sharding = "none"

    def __post_init__(self) -> None:
        if not 0 < self.utilisation <= 1:
            raise RecipeError(f"utilisation must lie in (0, 1], found {self.utilisation}; 0.4 is usual")
        if self.processes < 1:
            raise RecipeError(f"processes must be at least 1, found {self.processes}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnGpu:
    """A prediction for one kind of GPU.

    Attributes:
        name: of the GPU.
        memory: GiB that programs can use.
        fits: whether the step's memory does.
        step_seconds: of an optimiser step.
        run_hours: of all steps.
    """

    name: str
    memory: float
    fits: bool
    step_seconds: float
    run_hours: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class CostEstimate:
    """What a recipe will cost.

    Attributes:
        recipe: its name.
        parameters: by part.
        scene: tokens of one packed scene.
        view_grid: rows and columns of a view's tokens.
        tokens_per_view: separators included.
        conversations_per_step: over all processes.
        flops: of one optimiser step of one process.
        memory: of one GPU, at the worst moment.
        gpus: per GPU, whether it fits and how long it takes.
        assumptions: what the recipe does not say.
        notes: what had to be assumed about things that are not at hand.
    """

    recipe: str
    parameters: ParameterCount
    scene: SceneLoad
    view_grid: tuple[int, int]
    tokens_per_view: int
    conversations_per_step: int
    flops: StepFlops
    memory: StepMemory
    gpus: Mapping[str, OnGpu]
    assumptions: Assumptions
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain data, totals included; bytes and operations as they are."""
        plain = dataclasses.asdict(self)
        plain["flops"]["full_precision"] = sorted(self.flops.full_precision)
        plain["flops"]["total"] = dataclasses.asdict(self.flops.total)
        plain["flops"]["model"] = self.flops.total.model
        plain["memory"]["total"] = self.memory.total
        plain["scene"]["tokens"] = self.scene.tokens
        return plain


def predict(
    recipe: Recipe, assumptions: Assumptions | None = None, *, model: SpatialModel | None = None
) -> CostEstimate:
    """Predict what training a recipe will cost.

    Args:
        recipe: what would be trained; its base need not be there if it is a known one.
        assumptions: what the recipe does not say.
        model: its `planned_model`, where several predictions share it; None = made here.

    Raises:
        CheckpointError: the base's sizes are not known.
        MissingExtraError: the recipe asks for adapters, and peft is not installed.
        RecipeError: so many processes cannot share a step evenly.
    """
    assumed = assumptions or Assumptions()
    model, training = model or planned_model(recipe), recipe.training
    scene = planned_scene(recipe, model, assumed)
    deal = Deal.of(training.step_scenes(assumed.processes), processes=assumed.processes, most=training.scenes)
    scenes = [scene] * deal.scenes
    vision = recipe.model.train_vision or not training.cache_vision
    attention: Attention = "dense" if recipe.model.attention in ("sdpa", "eager") else "masked"
    one = step_flops(model, scenes, vision=vision, checkpointing=training.checkpointing, attention=attention)
    flops = dataclasses.replace(one, parts={name: part * float(deal.passes) for name, part in one.parts.items()})
    options = MemoryOptions(
        optimizer=training.optimizer,
        autocast=training.precision != "fp32",
        checkpointing=training.checkpointing,
        vision=vision,
        load_in=recipe.model.load_in,
        attention=attention,
        processes=assumed.processes,
        sharding=assumed.sharding,
    )
    memory = step_memory(model, scenes, options)
    return CostEstimate(
        recipe=recipe.name,
        parameters=count_parameters(model),
        scene=scene,
        view_grid=model.settings.view_grid,
        tokens_per_view=len(model.adapter.view_template(model.tokenizer).token_ids),
        conversations_per_step=deal.batch * len(scene.conversations),
        flops=flops,
        memory=memory,
        gpus={
            name: _on(gpu, flops, memory, training.steps, assumed.utilisation, options.autocast)
            for name, gpu in GPUS.items()
        },
        assumptions=assumed,
        notes=tuple(assumed_shapes(recipe)),
    )


def planned_scene(recipe: Recipe, model: SpatialModel, assumed: Assumptions) -> SceneLoad:
    """A scene of average length with all the conversations that the recipe packs."""
    views = 1 if recipe.model.blind else recipe.data.views
    per_view = len(model.adapter.view_template(model.tokenizer).token_ids)
    if isinstance(model.tokenizer, StandInTokenizer):
        around = _OPENING + round(_PER_WORD * len(recipe.model.instruction.split()))
    else:
        chat = chat_template(model.tokenizer, model.adapter.image_token, recipe.model.instruction)
        around = len(chat.before_views) + len(chat.after_views)
    trained = [benchmark_named(task) for task in recipe.data.tasks]
    samples = {each: each.splits.get("train", 0) for each in trained}  # the mixture of Video-3D-LLM's training set
    pointing = sum(count for each, count in samples.items() if each.points) / max(1, sum(samples.values()))
    worded = any(source.text for source in recipe.data.sources)
    count = recipe.data.conversations if worded and samples else 0
    queries = round(count * pointing)
    return SceneLoad(
        views=views,
        prefix=around + per_view * views,
        conversations=(assumed.question + 1,) * queries + (assumed.question + assumed.answer,) * (count - queries),
        labelled=(count - queries) * assumed.answer,
        queries=queries,
        proposals=assumed.proposals,
    )


def step_seconds(flops: StepFlops, memory: StepMemory, gpu: Gpu, utilisation: float, *, autocast: bool) -> float:
    """Operations at the assumed share of the peak, and the update, which reads and writes what it updates once.

    The denoiser's parts are computed in float32, at that precision's peak.
    """
    exact = sum(f.executed for name, f in flops.parts.items() if name in flops.full_precision or not autocast)
    rounded = flops.total.executed - exact
    arithmetic = rounded / (gpu.bf16 * 1e12) + exact / (gpu.fp32 * 1e12)
    moved = 3 * memory.gradients + 2 * memory.optimizer  # gradients read, weights and state read and written
    return arithmetic / utilisation + moved / (gpu.bandwidth * 1e9)


def _on(gpu: Gpu, flops: StepFlops, memory: StepMemory, steps: int, utilisation: float, autocast: bool) -> OnGpu:
    seconds = step_seconds(flops, memory, gpu, utilisation, autocast=autocast)
    return OnGpu(
        name=gpu.name,
        memory=gpu.memory,
        fits=memory.total <= gpu.memory * GIB,
        step_seconds=seconds,
        run_hours=steps * seconds / 3600,
    )


def facts(prediction: CostEstimate, gpu: str | None = None) -> dict[str, Any]:
    """A prediction in lines for people.

    Args:
        prediction: what to tell.
        gpu: only this GPU; None = all.

    Raises:
        RecipeError: unknown GPU.
    """
    p, total = prediction, prediction.flops.total
    chosen = list(GPUS) if gpu is None else [gpu_named(gpu).name]
    per_step = {name: _tera(f.model) for name, f in sorted(p.flops.parts.items(), key=lambda item: -item[1].model)}
    kept = {field.name: _gib(getattr(p.memory, field.name)) for field in dataclasses.fields(p.memory)}
    lines: dict[str, Any] = {
        "views per scene": p.scene.views,
        "tokens per view": f"{p.tokens_per_view} ({p.view_grid[0]} x {p.view_grid[1]} cells)",
        "visual tokens per scene": p.tokens_per_view * p.scene.views,
        "tokens per packed scene": f"{p.scene.tokens} with {len(p.scene.conversations)} conversations",
        "conversations per step": f"{p.conversations_per_step} on {p.assumptions.processes} GPU(s)",
        **dataclasses.asdict(p.parameters),
        "TFLOP per step and GPU": f"{_tera(total.model)} (forward {_tera(total.forward)}, backward "
        f"{_tera(total.backward)}" + (f"; {_tera(total.recompute)} more computed again)" if total.recompute else ")"),
        "of that": ", ".join(f"{name} {value}" for name, value in per_step.items()),
        "memory per GPU": f"{_gib(p.memory.total)} GiB predicted ("
        + ", ".join(f"{n} {v}" for n, v in kept.items())
        + ")",
    }
    for name in chosen:
        on = p.gpus[name]
        lines[f"on {name}"] = (
            f"fits in {on.memory:g} GiB: {'yes' if on.fits else 'no'}, {_gib(p.memory.total)} GiB predicted"
            + (f"; {on.step_seconds:.3g} s a step, {on.run_hours:.3g} h in all" if on.fits else "")
        )
    a = p.assumptions
    lines["assumed"] = (
        f"{a.utilisation:g} of the peak, {a.question} + {a.answer} tokens a conversation, {a.proposals} boxes a scene, "
        f"sharding {a.sharding}; communication, reading and teachers not counted"
    )
    if p.notes:
        lines["not at hand"] = "; ".join(p.notes)
    return lines


def _tera(operations: float) -> str:
    return f"{operations / 1e12:.3g}"


def _gib(size: float) -> str:
    return f"{size / GIB:.2f}" if size < 10 * GIB else f"{size / GIB:.1f}"
