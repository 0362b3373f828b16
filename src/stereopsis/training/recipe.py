"""Recipes: one strictly validated YAML file says everything about a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml

from stereopsis.errors import RecipeError, did_you_mean
from stereopsis.scenes.annotations import TASKS, Task
from stereopsis.scenes.prepare import usable_cpus


class _Section(pydantic.BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


class ModelSection(_Section):
    """Which model is tuned, and how its visual tokens learn where they look.

    Attributes:
        base: "tiny" (shipped with the package), or a model folder.
        positions: depth | noisy | none; see `stereopsis.models.spatial.SpatialConfig`.
        view_grid: rows and cols of a view's tokens; left out, the base's own.
        encoding_scale: factor of the 3D encoding; left out, the base's own.
        instruction: words before every question.
        train_vision: whether the vision tower is trained.
        blind: train and answer without looking (one grey view, no coordinates): the language-prior baseline.
    """

    base: str = "tiny"
    positions: Literal["depth", "noisy", "none"] = "depth"
    view_grid: tuple[pydantic.PositiveInt, pydantic.PositiveInt] | None = None
    encoding_scale: float | None = None
    instruction: str = ""
    train_vision: bool = False
    blind: bool = False


class SourceSection(_Section):
    """Where scenes come from: ``rooms`` (how many procedural rooms) or ``path`` (a scene, or a folder of scenes).

    Attributes:
        rooms: number of procedural rooms.
        split: which of the rooms' seed ranges.
        offset: how many rooms of the split to pass over.
        path: a scene folder, or a folder of scene folders.
        text: False = vision only, whatever annotations the scenes have.
    """

    rooms: int | None = pydantic.Field(default=None, ge=1)
    split: Literal["train", "val", "test"] = "train"
    offset: int = pydantic.Field(default=0, ge=0)
    path: Path | None = None
    text: bool = True

    @pydantic.model_validator(mode="after")
    def _one_source(self) -> "SourceSection":
        if (self.rooms is None) == (self.path is None):
            raise ValueError("give exactly one of 'rooms' and 'path'")
        return self


class DataSection(_Section):
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
        cache: folder for generated rooms and for the order in which "coverage" takes views.
    """

    sources: tuple[SourceSection, ...] = pydantic.Field(default=(SourceSection(rooms=200),), min_length=1)
    views: int = pydantic.Field(default=8, ge=1)
    selection: Literal["uniform", "coverage", "random"] = "uniform"
    coverage: float = pydantic.Field(default=1.0, gt=0, le=1)
    subsets: int = pydantic.Field(default=64, ge=1)
    tasks: tuple[Task, ...] = TASKS
    conversations: int = pydantic.Field(default=12, ge=1)
    cache: Path = Path("data/rooms")

    @pydantic.model_validator(mode="after")
    def _coverage_has_a_use(self) -> "DataSection":
        if self.coverage != 1.0 and self.selection != "coverage":
            raise ValueError(f"'coverage' needs 'selection: coverage', found 'selection: {self.selection}'")
        return self

    @property
    def view_options(self) -> dict[str, Any]:
        """How `stereopsis.models.packs.PackConfig` chooses views under this recipe."""
        if self.selection != "coverage":
            return {"selection": "uniform"}
        return {"selection": "coverage", "coverage": self.coverage, "view_cache": self.cache / "views"}


class TeachersSection(_Section):
    """Frozen teachers whose answers the objectives ask for.

    Attributes:
        latent: latent tokenizer of the reconstruction objectives: "rooms", "pixels", "taef1:PATH", "flux:PATH", ...
        view_size: side at which views are encoded, pixels.
        birdseye_size: side at which bird's-eye views are encoded, pixels.
        features: 3D feature teacher of the alignment objective.
    """

    latent: str = "rooms"
    view_size: int = pydantic.Field(default=96, ge=1)
    birdseye_size: int = pydantic.Field(default=128, ge=1)
    features: str = "point_map"


class DenoiserSection(_Section):
    """Size of the diffusion denoiser; the released one is 1024 wide, 3 deep, 16 heads."""

    width: int = pydantic.Field(default=128, ge=4)
    depth: int = pydantic.Field(default=2, ge=1)
    heads: int = pydantic.Field(default=4, ge=1)

    @pydantic.model_validator(mode="after")
    def _divisible(self) -> "DenoiserSection":
        if self.width % self.heads or self.width % 4:
            raise ValueError(f"width {self.width} must be divisible by 4 and by heads ({self.heads})")
        return self


class ObjectiveSection(_Section):
    """What every objective can set: its weight, and that it is active every n-th optimiser step."""

    weight: float = 1.0
    every: int = pydantic.Field(default=1, ge=1)


class TextSection(ObjectiveSection):
    """Next-token loss; ``average`` weighs every token or every answer alike."""

    average: Literal["token", "answer"] = "token"


class VanillaSection(ObjectiveSection):
    """Reconstruct a share of the views from their own tokens."""

    ratio: float = pydantic.Field(default=0.25, gt=0, le=1)


class CrossViewSection(ObjectiveSection):
    """Reconstruct hidden views from the others (Ross3D)."""

    every: int = pydantic.Field(default=4, ge=1)
    ratio: float = pydantic.Field(default=0.25, gt=0, lt=1)
    conditioning: Literal["released", "masked_positions"] = "masked_positions"
    repeats: int | None = pydantic.Field(default=None, ge=1)


class BirdsEyeSection(ObjectiveSection):
    """Reconstruct the view from above (Ross3D)."""

    repeats: int = pydantic.Field(default=1, ge=1)


class AlignmentSection(ObjectiveSection):
    """Align visual tokens to a 3D teacher's features (3DRS)."""

    distance: Literal["squared", "cosine", "l2"] = "squared"


class ObjectivesSection(_Section):
    """Which objectives train the model; an objective that is left out is off."""

    text: TextSection | None = None
    grounding: ObjectiveSection | None = None
    vanilla: VanillaSection | None = None
    cross_view: CrossViewSection | None = None
    birds_eye: BirdsEyeSection | None = None
    alignment: AlignmentSection | None = None

    def active(self) -> dict[str, ObjectiveSection]:
        """The objectives that are on, by name."""
        return {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}


class TrainingSection(_Section):
    """Optimisation.

    Attributes:
        steps: optimiser steps.
        scenes: scenes per pass and process.
        accumulation: passes per optimiser step.
        optimizer: "adamw", or "muon" for the hidden matrices with AdamW for the rest.
        learning_rate: peak rate of the backbone.
        head_rate: peak rate of everything that starts untrained (grounding head, objectives' heads).
        weight_decay: AdamW's.
        warmup: share of the steps spent warming up.
        schedule: name of a transformers schedule.
        clip: largest gradient norm.
        precision: "bf16" autocast or "fp32".
        log_every: steps between log lines.
        save_every: steps between checkpoints; 0 = only the final model.
        keep: how many checkpoints stay; at least 2, so that a kill while one is written leaves a whole one.
        threads: CPU threads; 0 = torch's default.
        cache_vision: keep the frozen tower's output in memory instead of computing it in every step.
    """

    steps: int = pydantic.Field(default=300, ge=1)
    scenes: int = pydantic.Field(default=8, ge=1)
    accumulation: int = pydantic.Field(default=1, ge=1)
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = pydantic.Field(default=1e-3, ge=0)
    head_rate: float = pydantic.Field(default=1e-3, ge=0)
    weight_decay: float = pydantic.Field(default=0.0, ge=0)
    warmup: float = pydantic.Field(default=0.03, ge=0, lt=1)
    schedule: Literal["cosine", "linear", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt"] = "cosine"
    clip: float = pydantic.Field(default=1.0, ge=0)
    precision: Literal["bf16", "fp32"] = "bf16"
    log_every: int = pydantic.Field(default=10, ge=1)
    save_every: int = pydantic.Field(default=0, ge=0)
    keep: int = pydantic.Field(default=2, ge=2)
    threads: int = pydantic.Field(default=0, ge=0)
    cache_vision: bool = True


class EvaluationSection(_Section):
    """What `stereopsis evaluate` and `demo` measure.

    Attributes:
        sources: scenes to evaluate on.
        tasks: which benchmarks.
        proposals: boxes that grounding chooses from: the detector stand-in, or ground truth.
    """

    sources: tuple[SourceSection, ...] = pydantic.Field(default=(SourceSection(rooms=50, split="test"),), min_length=1)
    tasks: tuple[Task, ...] = TASKS
    proposals: Literal["detector", "objects"] = "detector"


class Recipe(_Section):
    """A whole run."""

    name: str
    seed: int = 0
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    teachers: TeachersSection = TeachersSection()
    denoiser: DenoiserSection = DenoiserSection()
    objectives: Annotated[ObjectivesSection, pydantic.Field()] = ObjectivesSection()
    training: TrainingSection = TrainingSection()
    evaluation: EvaluationSection = EvaluationSection()

    @pydantic.model_validator(mode="after")
    def _something_to_train(self) -> "Recipe":
        if not self.objectives.active():
            raise ValueError("no objective is on; add at least one under 'objectives:', for example 'text: {}'")
        if all(section.every > 1 for section in self.objectives.active().values()):
            raise ValueError("no objective is active on every step; set 'every: 1' for at least one of them")
        return self

    def to_yaml(self) -> str:
        """The recipe with every default written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def recipe_folders() -> list[Path]:
    """Where recipes are looked for by name: the working directory's, the checkout's, the installed package's."""
    package = Path(__file__).resolve().parent.parent
    return [Path("recipes"), package.parent.parent / "recipes", package / "_recipes"]


def find_recipe(name: str | Path) -> Path:
    """A recipe file by path, or by name in the recipe folders.

    Raises:
        RecipeError: no such recipe; names the nearest.
    """
    if Path(name).is_file():
        return Path(name)
    known: dict[str, Path] = {}
    for folder in recipe_folders():
        for path in sorted(folder.glob("*.yaml")):
            known.setdefault(path.stem, path)
    stem = Path(name).name.removesuffix(".yaml")
    if stem in known:
        return known[stem]
    raise RecipeError(f"no recipe '{name}'{did_you_mean(stem, known)}")


def load_recipe(name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply dotted overrides such as ``training.steps=50``.

    Raises:
        RecipeError: not YAML, an unknown key (names the nearest), or a wrong value.
    """
    path = find_recipe(name)
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path} must hold a mapping of sections, found {type(content).__name__}")
    content.setdefault("name", path.stem)
    for override in overrides:
        _apply(content, override)
    return parse_recipe(content, str(path))


def parse_recipe(content: dict[str, Any], source: str = "recipe") -> Recipe:
    """Validate a recipe given as plain data.

    Raises:
        RecipeError: every problem on its own line, with the key's dotted place.
    """
    try:
        return Recipe.model_validate(content)
    except pydantic.ValidationError as error:
        lines = []
        for problem in error.errors():
            place = ".".join(str(part) for part in problem["loc"])
            if problem["type"] == "extra_forbidden":
                known = _fields_at(problem["loc"][:-1])
                lines.append(f"unknown key '{place}'{did_you_mean(str(problem['loc'][-1]), known)}")
            else:
                found = "" if isinstance(problem["input"], dict) else f", found {problem['input']!r}"
                lines.append(f"{place or 'recipe'}: {problem['msg']}{found}")
        raise RecipeError(f"{source}: " + "; ".join(lines)) from error


def _fields_at(location: Sequence[Any]) -> list[str]:
    """Names of the fields of the section at a place in the recipe."""
    section: Any = Recipe
    for part in location:
        if isinstance(part, int):
            continue
        section = section.model_fields[part].annotation
        options = [*getattr(section, "__args__", ()), section]
        section = next(o for o in options if isinstance(o, type) and issubclass(o, pydantic.BaseModel))
    return list(section.model_fields)


def _apply(content: dict[str, Any], override: str) -> None:
    """Set one dotted key; the value is read as YAML."""
    key, sign, value = override.partition("=")
    if not sign or not key:
        raise RecipeError(f"override '{override}' must look like section.key=value, e.g. training.steps=50")
    place: Any = content
    *parents, last = key.split(".")
    for part in parents:
        if isinstance(place, dict) and place.get(part) is None:
            place[part] = {}
        try:
            place = place[int(part) if isinstance(place, list) else part]
        except (IndexError, ValueError) as error:
            raise RecipeError(f"override '{override}': no entry '{part}'") from error
        if not isinstance(place, (dict, list)):
            raise RecipeError(f"override '{override}': '{part}' is a value, not a section")
    try:
        place[int(last) if isinstance(place, list) else last] = yaml.safe_load(value)
    except (IndexError, ValueError) as error:
        raise RecipeError(f"override '{override}': no entry '{last}'") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"override '{override}': '{value}' is not valid YAML") from error


def cpu_threads(requested: int) -> int:
    """Threads to use: as asked, or all that the process may run on."""
    return requested or usable_cpus()
