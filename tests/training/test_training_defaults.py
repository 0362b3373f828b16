"""A recipe that leaves a key out and a constructor that is not given it mean the same."""

import dataclasses
import inspect
from typing import Any

import pydantic
import pytest

from stereopsis.models.lora import LoraConfig
from stereopsis.models.spatial import SpatialConfig
from stereopsis.objective_sections import DenoiserSection, ObjectivesSection
from stereopsis.objectives.denoiser_network import DenoiserConfig
from stereopsis.packs.build import PackConfig
from stereopsis.packs.targets import Teachers
from stereopsis.training.build import OBJECTIVES
from stereopsis.training.sections import DataSection, LoraSection, ModelSection, TeachersSection


def in_recipe(section: type[pydantic.BaseModel]) -> dict[str, Any]:
    return {name: f.get_default(call_default_factory=True) for name, f in section.model_fields.items()}


def in_constructor(cls: type) -> dict[str, Any]:
    """Every keyword's default, with those that a base class takes as ``**shared``."""
    found: dict[str, Any] = {}
    for each in cls.__mro__:
        if "__init__" not in vars(each):
            continue
        parameters = inspect.signature(each.__init__).parameters
        found = {name: p.default for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY} | found
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            break
    return found


@pytest.mark.parametrize("name", sorted(ObjectivesSection.model_fields))
def test_an_objective_and_its_section_agree_on_every_key(name):
    (section,) = [a for a in ObjectivesSection.model_fields[name].annotation.__args__ if a is not type(None)]
    recipe, constructor = in_recipe(section), in_constructor(OBJECTIVES[name])
    constructor["shuffle"] = OBJECTIVES[name].shuffle
    assert recipe == {key: constructor[key] for key in recipe}


@pytest.mark.parametrize(
    ("section", "config"),
    [
        (DenoiserSection, DenoiserConfig),
        (LoraSection, LoraConfig),
        (DataSection, PackConfig),
        (TeachersSection, Teachers),
        (ModelSection, SpatialConfig),
    ],
)
def test_settings_and_their_section_agree(section, config):
    """On what both have a value for; None in a recipe leaves the choice to somebody else."""
    recipe = {key: value for key, value in in_recipe(section).items() if value is not None}
    settings = {f.name: f.default for f in dataclasses.fields(config) if f.default is not dataclasses.MISSING}
    shared = (recipe.keys() & settings.keys()) - {"tasks", "latent", "features"}  # what is left out there: none of them
    assert {key: recipe[key] for key in shared} == {key: settings[key] for key in shared}


def test_the_check_sees_defaults_behind_shared_keywords():
    class Base:
        def __init__(self, *, weight: float = 1.0, every: int = 1) -> None: ...

    class Own(Base):
        def __init__(self, *, every: int = 4, **shared: Any) -> None: ...

    assert in_constructor(Own) == {"every": 4, "weight": 1.0}
