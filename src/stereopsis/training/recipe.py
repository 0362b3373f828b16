"""Recipes: one strictly validated YAML file says everything about a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import pydantic
import yaml

from stereopsis.errors import RecipeError, did_you_mean
from stereopsis.objective_sections import DenoiserSection, ObjectivesSection
from stereopsis.reading import parse_yaml, read_yaml
from stereopsis.training.sections import (
    DataSection,
    EvaluationSection,
    ModelSection,
    Section,
    TeachersSection,
    TrainingSection,
)

ENGINE_FOLDER = "accelerate"
"""Folder beside the recipes that holds accelerate's configuration files; see `stereopsis.training.engines`."""


class Recipe(Section):
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

    @pydantic.model_validator(mode="after")
    def _half_precision_weights_need_autocast(self) -> "Recipe":
        if self.training.precision == "fp32" and (self.model.dtype != "float32" or self.model.load_in is not None):
            raise ValueError("'model.dtype: bfloat16' and 'model.load_in' need 'training.precision: bf16' (or 'auto')")
        return self

    def to_yaml(self) -> str:
        """The recipe with every default written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def recipe_folders() -> list[Path]:
    """Where recipes are looked for by name: the working directory's, the checkout's, the installed package's."""
    package = Path(__file__).resolve().parent.parent
    return [Path("recipes"), package.parent.parent / "recipes", package / "_recipes"]


def find_recipe(name: str | Path) -> Path:
    """A recipe file by path, or by name in the recipe folders and the folders in them.

    Raises:
        RecipeError: no such recipe; names the nearest.
    """
    if Path(name).is_file():
        return Path(name)
    known: dict[str, Path] = {}
    for folder in recipe_folders():
        for path in sorted(folder.rglob("*.yaml"), key=lambda found: (len(found.parts), found)):
            if path.parent.name != ENGINE_FOLDER:
                known.setdefault(path.stem, path)
    stem = Path(name).name.removesuffix(".yaml")
    if stem in known:
        return known[stem]
    raise RecipeError(f"no recipe '{name}'{did_you_mean(stem, known)}")


def load_recipe(name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, what it extends, and dotted overrides such as ``training.steps=50``.

    Raises:
        RecipeError: not YAML, an unknown key (names the nearest), a wrong value, or recipes that extend each other.
    """
    path = find_recipe(name)
    content = _extended(path, ())
    content.setdefault("name", path.stem)
    return recipe_with(content, overrides, str(path))


def recipe_with(content: dict[str, Any], overrides: Sequence[str], source: str) -> Recipe:
    """Lay dotted overrides over a recipe given as plain data, and validate it.

    Raises:
        RecipeError: an override is wrong, or the recipe is.
    """
    for override in overrides:
        _apply(content, override)
    return parse_recipe(content, source)


def _extended(path: Path, below: tuple[Path, ...]) -> dict[str, Any]:
    """A recipe file's content, laid over that of the recipe that its ``extends:`` names.

    Args:
        path: the file.
        below: files that extend this one, from the outermost inwards.
    """
    if path.resolve() in (each.resolve() for each in below):
        chain = " -> ".join(each.name for each in (*below, path))
        raise RecipeError(f"{path}: recipes extend each other: {chain}; take one 'extends:' out")
    try:
        content = read_yaml(path)
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path} must hold a mapping of sections, found {type(content).__name__}")
    if "extends" not in content:
        return content
    parent = content.pop("extends")
    if not isinstance(parent, str):
        raise RecipeError(f"{path}: extends: expected the name or the path of one recipe, found {parent!r}")
    beside = next((p for n in (parent, f"{parent}.yaml") if (p := path.parent / n).is_file()), None)
    try:
        inherited = _extended(beside or find_recipe(parent), (*below, path))
    except RecipeError as error:
        raise RecipeError(f"{path}: extends: {error}") from error
    inherited.pop("name", None)
    return _laid_over(inherited, content)


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Mappings are merged key by key, everything else is replaced; null takes away what is below."""
    merged = dict(below)
    for key, value in above.items():
        if value is None and key in below:
            del merged[key]
        elif isinstance(value, dict) and isinstance(below.get(key), dict):
            merged[key] = _laid_over(below[key], value)
        else:
            merged[key] = value
    return merged


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
            key = ".".join(str(part) for part in problem["loc"])
            if problem["type"] == "extra_forbidden":
                known = _fields_at(problem["loc"][:-1])
                lines.append(f"unknown key '{key}'{did_you_mean(str(problem['loc'][-1]), known)}")
            else:
                found = "" if isinstance(problem["input"], dict) else f", found {problem['input']!r}"
                lines.append(f"{key or 'recipe'}: {problem['msg']}{found}")
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
    node: Any = content
    *parents, last = key.split(".")
    for part in parents:
        if isinstance(node, dict) and node.get(part) is None:
            node[part] = {}
        try:
            node = node[int(part) if isinstance(node, list) else part]
        except (IndexError, ValueError) as error:
            raise RecipeError(f"override '{override}': no entry '{part}'") from error
        if not isinstance(node, (dict, list)):
            raise RecipeError(f"override '{override}': '{part}' is a value, not a section")
    try:
        read = parse_yaml(value)
    except ValueError as error:
        raise RecipeError(f"override '{override}': '{value}' is not valid YAML") from error
    try:
        node[int(last) if isinstance(node, list) else last] = read
    except (IndexError, ValueError) as error:
        raise RecipeError(f"override '{override}': no entry '{last}'") from error


def cpu_threads(requested: int) -> int:
    """Threads to use: as asked, or all that the process may run on."""
    from stereopsis.scenes.prepare import usable_cpus  # brings all readers, which a look at a recipe need not wait for

    return requested or usable_cpus()
