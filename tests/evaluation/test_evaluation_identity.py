"""Which options make an evaluation another one: every option of recipe and command is classified."""

import dataclasses
from pathlib import Path

import pydantic
import pytest

from stereopsis.errors import RunFolderError
from stereopsis.evaluation.evaluate_run import Request, model_predictor
from stereopsis.evaluation.predictors import NO_PART_OF_ANSWERS, ModelPredictor
from stereopsis.evaluation.questions import questions
from stereopsis.evaluation.resumable import run_evaluation, settings_of
from stereopsis.evaluation.stream import differences
from stereopsis.packs.build import PackConfig
from stereopsis.training.recipe import load_recipe

# What a recipe may change about the answers of a model that is there already; its questions come from
# evaluation.sources and evaluation.tasks, which `settings_of` sees as questions.
DECIDES_ANSWERS = {
    "seed",
    "data.views",
    "data.selection",
    "data.coverage",
    "evaluation.proposals",
    "model.blind",
}
DECIDES_QUESTIONS = {"evaluation.sources", "evaluation.tasks"}

# Must another value make another evaluation?
COMMAND = {
    "model": True,
    "overrides": True,  # as far as the recipe's keys above go
    "benchmarks": True,
    "limit": True,
    "scenes": True,
    "annotations": True,
    "protocols": True,
    "rooms": True,
    "precision": True,
    "meteor": False,  # nothing is asked otherwise; a figure more
    "output": False,
    "overwrite": False,
}


@pytest.fixture(scope="module")
def recipe():
    return load_recipe("baseline-tiny", ["data.selection=coverage"])


def leaves(section, prefix=""):
    """Every key of a recipe, sections within sections included: (path of names, value)."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, pydantic.BaseModel):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def another(value):
    """A value of the same type that is not this one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, Path):
        return value / "another"
    return {"coverage": "uniform", "detector": "objects"}.get(value, "another") if isinstance(value, str) else None


def with_key(section, key, value):
    name, _, rest = key.partition(".")
    return section.model_copy(update={name: with_key(getattr(section, name), rest, value) if rest else value})


def settings_without_weights(model, recipe, asked, monkeypatch):
    monkeypatch.setattr(ModelPredictor, "checkpoint", "weights")
    return settings_of(model_predictor(model, recipe), asked)


def test_every_recipe_key_is_part_of_the_identity_or_has_no_say(trained, recipe, monkeypatch):
    base = settings_without_weights(trained, recipe, [], monkeypatch)
    deciding, keys = set(), dict(leaves(recipe))
    for key, value in keys.items():
        if differences(base, settings_without_weights(trained, with_key(recipe, key, another(value)), [], monkeypatch)):
            deciding.add(key)
    assert deciding == DECIDES_ANSWERS
    assert set(keys) >= DECIDES_QUESTIONS


def test_every_field_of_a_pack_decides_answers_or_is_named(trained, recipe, monkeypatch):
    """Whatever a new field does to what the model sees, it is part of the identity from its first day."""
    predictor = model_predictor(trained, recipe)
    monkeypatch.setattr(ModelPredictor, "checkpoint", "weights")
    fields = {field.name for field in dataclasses.fields(PackConfig)}
    assert fields - set(predictor.identity) == set(NO_PART_OF_ANSWERS) < fields


def test_every_option_of_the_command_is_classified():
    assert {field.name for field in dataclasses.fields(Request)} == set(COMMAND)


@pytest.mark.parametrize("change", ["benchmarks", "limit", "protocols"])
def test_options_that_ask_otherwise_make_another_evaluation(trained, recipe, rooms, change, monkeypatch):
    assert COMMAND[change]
    monkeypatch.setattr(ModelPredictor, "checkpoint", "weights")
    tasks, limit, protocols = recipe.evaluation.tasks, None, {}
    base = settings_of(model_predictor(trained, recipe, protocols), questions(rooms, tasks, limit), limit)
    if change == "benchmarks":
        tasks = tasks[:1]
    elif change == "limit":
        limit = 1
    else:
        protocols = {"scan2cap": "released"}
    other = settings_of(model_predictor(trained, recipe, protocols), questions(rooms, tasks, limit), limit)
    assert differences(base, other)


def test_a_finished_evaluation_of_other_views_is_not_taken_for_this_one(trained, config, asked_few, tmp_path: Path):
    run_evaluation(ModelPredictor(trained, config), asked_few, tmp_path)
    covering = dataclasses.replace(config, selection="coverage", coverage=0.9)
    with pytest.raises(RunFolderError, match="selection: uniform there, coverage now"):
        run_evaluation(ModelPredictor(trained, covering), asked_few, tmp_path)


@pytest.fixture
def asked_few(rooms):
    return questions(rooms[:1], ("sqa3d",), 1)
