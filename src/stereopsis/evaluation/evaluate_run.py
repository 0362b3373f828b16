"""What ``stereopsis evaluate`` does: from a run folder and a few options to records and a summary."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from stereopsis.benchmarks import benchmark_names, read_annotations
from stereopsis.errors import RunFolderError, StereopsisError
from stereopsis.evaluation.model_folder import (
    is_model_folder,
    output_of,
    recipe_of_folder,
    require_pointing,
)
from stereopsis.evaluation.predictors import DummyPredictor, ModelPredictor, Predictor, protocol_names
from stereopsis.evaluation.questions import attach, counts, parse_benchmarks, questions, scan_alignments
from stereopsis.evaluation.resumable import run_evaluation
from stereopsis.evaluation.sharding import Processes
from stereopsis.evaluation.stream import SETTINGS_FILE, finished, read_parts
from stereopsis.files import write_atomic
from stereopsis.models.spatial import SpatialModel
from stereopsis.models.storage import load_model
from stereopsis.precision import choose_precision, parse_precision
from stereopsis.progress import say
from stereopsis.reading import json_or, read_text
from stereopsis.scenes.scene import Scene
from stereopsis.training.build import model_changes
from stereopsis.training.model_card import write_card
from stereopsis.training.preflight import told_scenes
from stereopsis.training.recipe import Recipe, load_recipe
from stereopsis.training.run_folder import not_evaluable
from stereopsis.training.sections import SourceSection
from stereopsis.training.sources import missing_rooms, open_folder, prepared_folder, scenes_of
from stereopsis.training.train_run import (
    ENVIRONMENT_FILE,
    MODEL_FOLDER,
    RECIPE_FILE,
    check_finished,
    environment,
    open_run,
)

DUMMY = "dummy"
DUMMY_RECIPE = "baseline-tiny"
EVALUATION_FOLDER = "evaluation"
SCENES_FILE = "scenes.json"
"""Says where the evaluated scenes lie, so that any later report can show them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for on the command line.

    Attributes:
        model: a run folder, a model folder (a converted checkpoint, a plain Hugging Face model), or "dummy".
        overrides: of the run's recipe (the dummy: of `DUMMY_RECIPE`).
        benchmarks: names with commas between; None = the recipe's.
        limit: only the first so many questions of each benchmark.
        scenes: a scene, or a folder of scenes, instead of the recipe's.
        annotations: benchmark -> its annotation file (the authors' or Video-3D-LLM's), asked about the scenes
            instead of what they bring.
        protocols: benchmark -> protocol, where it is not the default.
        meteor: whether benchmarks that report METEOR get it, where Java is there.
        rooms: so many procedural test rooms instead of the recipe's scenes.
        output: folder for the evaluation; None = the run's own.
        precision: of the model's numbers: bf16, fp32, or auto (see `stereopsis.precision`).
        overwrite: replace an evaluation that is there.
    """

    model: str
    overrides: tuple[str, ...] = ()
    benchmarks: str | None = None
    limit: int | None = None
    scenes: Path | None = None
    annotations: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    protocols: Mapping[str, str] = dataclasses.field(default_factory=dict)
    meteor: bool = True
    rooms: int | None = None
    output: Path | None = None
    precision: str = "auto"
    overwrite: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """A request, checked and resolved; no weights are loaded and no room is made for it.

    Attributes:
        request: what was asked for.
        recipe: with everything that it says about evaluation.
        output: the folder whose ``evaluation/`` is written; None only for a dummy that is not to run.
    """

    request: Request
    recipe: Recipe
    output: Path | None

    @property
    def dummy(self) -> bool:
        """Whether no model is asked."""
        return self.request.model == DUMMY

    @property
    def alone(self) -> bool:
        """Whether the model is a folder that belongs to no run's recipe."""
        return not self.dummy and is_model_folder(Path(self.request.model))

    @property
    def evaluation(self) -> Path | None:
        """Where records and summary go."""
        return None if self.output is None else self.output / EVALUATION_FOLDER


def make_plan(request: Request) -> EvaluationPlan:
    """Resolve a request.

    Raises:
        StereopsisError: no finished run, an unknown benchmark or recipe key, or options that exclude each other.
    """
    inside = Path(request.model)
    if inside.name == MODEL_FOLDER and (inside.parent / RECIPE_FILE).is_file():  # a run's own model
        request = dataclasses.replace(request, model=str(inside.parent))
    if request.limit is not None and request.limit < 1:
        raise StereopsisError(f"--limit must be at least 1 (questions per benchmark), found {request.limit}")
    if request.scenes is not None and request.rooms:
        raise StereopsisError("--scenes and --rooms exclude each other; give one of them")
    parse_precision(request.precision)
    changes: dict[str, Any] = {}
    if request.annotations:
        changes["tasks"] = tuple(task for task in benchmark_names() if task in request.annotations)
    if request.benchmarks is not None:
        changes["tasks"] = parse_benchmarks(request.benchmarks)
    if request.scenes is not None:
        changes["sources"] = (SourceSection(path=request.scenes),)
    elif request.rooms:
        changes["sources"] = (SourceSection(rooms=request.rooms, split="test"),)
    if request.model == DUMMY:
        recipe, output = load_recipe(DUMMY_RECIPE, request.overrides), request.output
        recipe = recipe.model_copy(update={"name": DUMMY})
    else:
        run = Path(request.model)
        if is_model_folder(run):
            recipe, output = recipe_of_folder(run, request.overrides), request.output or output_of(run)
        elif (run / RECIPE_FILE).is_file():
            check_finished(run)
            recipe, output = load_recipe(run / RECIPE_FILE, request.overrides), request.output or run
        else:
            raise not_evaluable(run)
    section = recipe.evaluation.model_copy(update=changes)
    idle = [task for task in request.protocols if task not in section.tasks]
    if idle:
        raise StereopsisError(
            f"--protocol names {', '.join(idle)}, which is not evaluated here ({', '.join(section.tasks)}); add it to "
            "--benchmarks, or leave its protocol out"
        )
    recipe = recipe.model_copy(update={"evaluation": section})
    plan = EvaluationPlan(request=request, recipe=recipe, output=output)
    if plan.alone:
        require_pointing(Path(request.model), recipe)
    return plan


def dry_run(plan: EvaluationPlan) -> dict[str, str]:
    """What an evaluation would do, in words, without loading weights, making rooms or writing anything."""
    section, cache = plan.recipe.evaluation, plan.recipe.data.cache_folder
    absent = [missing_rooms(source, cache) for source in section.sources]
    ready = [source for source, number in zip(section.sources, absent, strict=True) if not number]
    scenes = [s for source in ready for s in (open_folder(source.path) if source.path else scenes_of(source, cache))]
    scenes = _annotated(scenes, plan.request)
    asked = questions(scenes, section.tasks, plan.request.limit)
    found, rules = counts(asked), protocol_names(plan.request.protocols)
    told: dict[str, str] = {
        "model": plan.request.model,
        "scenes": str(len(asked)),
        **{str(task): f"{found.get(task, 0)} questions, protocol '{rules[task]}'" for task in section.tasks},
        "limit per benchmark": str(plan.request.limit or "none"),
        "proposals": section.proposals,
        "scenes from": ", ".join(str(prepared_folder(source, cache)) for source in section.sources),
        "records to": str(plan.evaluation or "give --output"),
        "there already": _state(plan.evaluation, sum(found.values())),
    }
    if not plan.dummy:
        told["views per scene"] = str(plan.recipe.data.views)
        told["precision"] = plan.request.precision
    if any(absent):
        told["rooms to make first"] = f"{sum(absent)} (their questions are not counted above)"
    return told


def execute(plan: EvaluationPlan, *, processes: Processes | None = None, console: Console | None = None) -> Path:
    """Evaluate; see `stereopsis.evaluation.resumable.run_evaluation`.

    Returns:
        The folder of the (first source's) scenes, for the report.

    Raises:
        StereopsisError: as `run_evaluation`, or there is no place to write to.
    """
    processes = processes or Processes()
    request, recipe, folder = plan.request, plan.recipe, plan.evaluation
    if plan.output is None or folder is None:
        raise StereopsisError("the dummy has no run folder; say with --output where its evaluation goes")
    if processes.main:
        _start_output(plan, plan.output)
        scenes = _scenes(plan, console)  # makes the rooms that are missing, once for all processes
    processes.wait()
    if not processes.main:
        scenes = _scenes(plan, None)
    asked = questions(scenes, recipe.evaluation.tasks, request.limit)
    told = f"{told_scenes([each.scene.id for each in asked])}, {sum(len(each.annotations) for each in asked)} questions"
    say(console if processes.main else None, f"Asked: {told}")
    predictor: Predictor = DummyPredictor(proposals=recipe.evaluation.proposals, protocols=request.protocols)
    if not plan.dummy:
        decided = None if request.overwrite else _precision_there(folder)
        precision = choose_precision(request.precision, processes.device, decided=decided)
        say(console, precision.sentence)
        if plan.alone:
            model = load_model(Path(request.model), dtype=precision.dtype, **model_changes(recipe))
        else:
            _, model = open_run(Path(request.model), dtype=precision.dtype)
        model.to(processes.device)
        predictor = model_predictor(model, recipe, request.protocols)
    run_evaluation(
        predictor,
        asked,
        folder,
        limit=request.limit,
        facts=facts_of(recipe, predictor),
        processes=processes,
        overwrite=request.overwrite,
        meteor=request.meteor,
        console=console,
    )
    if processes.main:
        (folder / ENVIRONMENT_FILE).write_text(json.dumps(environment(), indent=2) + "\n")
    where = prepared_folder(recipe.evaluation.sources[0], recipe.data.cache_folder)
    if processes.main:
        write_atomic(folder / SCENES_FILE, json.dumps({"folder": str(where.resolve())}) + "\n")
        if not plan.dummy and not plan.alone and folder.resolve() == Path(request.model, EVALUATION_FOLDER).resolve():
            write_card(request.model)
    return where


def model_predictor(model: SpatialModel, recipe: Recipe, protocols: Mapping[str, str] | None = None) -> ModelPredictor:
    """A model that answers as its recipe says, under these protocols (None = the defaults)."""
    config = model.pack_config(
        views=recipe.data.views,
        **recipe.data.view_options,
        proposals=recipe.evaluation.proposals,
        blind=recipe.model.blind,
        seed=recipe.seed,
    )
    return ModelPredictor(model, config, protocols=protocols)


def facts_of(recipe: Recipe, predictor: Predictor) -> dict[str, Any]:
    """What a summary's settings tell about the recipe."""
    return {
        "proposals": recipe.evaluation.proposals,
        "tasks": list(recipe.evaluation.tasks),
        "positions": predictor.identity.get("positions"),
        "blind": recipe.model.blind,
    }


def _scenes(plan: EvaluationPlan, console: Console | None) -> list[Scene]:
    sources, cache = plan.recipe.evaluation.sources, plan.recipe.data.cache_folder
    return _annotated(
        [scene for source in sources for scene in scenes_of(source, cache, console=console)], plan.request
    )


def _annotated(scenes: list[Scene], request: Request) -> list[Scene]:
    """With the questions of annotation files, where such files are named."""
    if not request.annotations:
        return scenes
    given = scan_alignments(scenes)
    files = request.annotations.items()
    return attach(scenes, [a for task, file in files for a in read_annotations(task, file, alignments=given)])


def _state(folder: Path | None, total: int) -> str:
    if folder is None or not (folder / SETTINGS_FILE).is_file():
        return "a finished evaluation of unknown settings" if folder and finished(folder) else "nothing"
    if finished(folder):
        return "a finished evaluation; it is kept where its settings are these"
    return f"an unfinished evaluation, {len(read_parts(folder))} of {total} questions answered"


def _precision_there(folder: Path) -> str | None:
    """What the answers that lie there were computed in, so that the rest goes on in the same; None: there are none."""
    path = folder / SETTINGS_FILE
    if not path.is_file():
        return None
    precision = json_or(path, RunFolderError, "start anew with --overwrite").get("predictor", {}).get("precision")
    return {"bfloat16": "bf16", "float32": "fp32"}.get(precision)


def _start_output(plan: EvaluationPlan, output: Path) -> None:
    """Give an output folder of its own the recipe that a report needs; another run's is never touched."""
    own = not plan.dummy and not plan.alone and output.resolve() == Path(plan.request.model).resolve()
    if own or (plan.request.output is None and not plan.alone):
        return
    file, text = output / RECIPE_FILE, plan.recipe.to_yaml()
    if (output / MODEL_FOLDER).exists():
        raise RunFolderError(f"{output} holds another run; choose another --output")
    if output.is_dir() and any(output.iterdir()) and not file.is_file():
        raise RunFolderError(f"{output} is not empty and holds no evaluation; choose another --output")
    if file.is_file() and read_text(file) != text and not plan.request.overwrite:
        raise RunFolderError(
            f"{output} holds an evaluation by another recipe ({file}); choose another --output, or add --overwrite to "
            "replace it"
        )
    output.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
