"""What a recipe or an option says wrongly is found before rooms and packs are made."""

import typing
from pathlib import Path
from typing import Any, Literal

import pydantic
import pytest
from typer.testing import CliRunner

from stereopsis import cli
from stereopsis.errors import CheckpointError, StereopsisError
from stereopsis.models.storage import read_settings
from stereopsis.training import recipe_packs, sources, train_run
from stereopsis.training.preflight import check_places, depth_of
from stereopsis.training.recipe import Recipe, parse_recipe
from stereopsis.training.train_run import train


@pytest.fixture
def nothing_is_made(monkeypatch):
    """Rooms and packs are out of reach: who asks for one fails this test."""

    def made(*_: object, **__: object) -> typing.NoReturn:
        raise AssertionError("scenes were asked for before the mistake was found")

    for place, name in ((train_run, "shared_packs"), (recipe_packs, "build_pack"), (sources, "made_rooms")):
        monkeypatch.setattr(place, name, made)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a layer that the model lacks": (
        {"objectives": {"text": {}, "alignment": {"layers": [99]}}},
        r"no layer 99: it has 2",
    ),
    "one counted from the end": (
        {"objectives": {"text": {}, "depth": {"layers": [-9]}}},
        r"objectives.depth.layers.* -9",
    ),
    "another base": ({"model__base": "nowhere/at/all"}, "no such folder"),
    "a folder of scenes": ({"data__sources": [{"path": "nowhere/at/all"}]}, r"data.sources.0.path: there is no"),
    "a denoiser to start from": ({"denoiser__init": "nowhere.safetensors"}, r"denoiser.init: there is no"),
    "a denoiser of another kind": ({"denoiser__init": "{tmp}/other.safetensors"}, "other.safetensors|denoiser"),
    "a latent teacher": ({"teachers__latent": "rooom"}, r"rooom.*did you mean 'rooms'"),
    "a feature teacher": ({"teachers__features": "point_mat"}, r"point_mat.*did you mean 'point_map'"),
    "a teacher's folder": ({"teachers__latent": "taef1:/nowhere/at/all"}, "nowhere"),
    "a size that a teacher cannot take": ({"teachers__view_size": 4}, r"teachers.view_size"),
    "a matrix that the model lacks": (
        {"model__lora": {"targets": ["q_prog"]}},
        r"model.lora.targets.*'q_prog'|needs the package 'peft'",
    ),
    "a cache that is a file": ({"teachers__cache": "{tmp}/file"}, r"teachers.cache: .* is a file"),
    "rooms in a file": ({"data__cache": "{tmp}/file/rooms"}, r"data.cache: .* is a file"),
    "an instruction with a special token": ({"model__instruction": "look at <image>"}, r"model.instruction"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_recipe_s_mistake_is_found_before_anything_is_made(recipe_content, nothing_is_made, tmp_path, what):
    import torch
    from safetensors.torch import save_file

    (tmp_path / "file").write_text("")
    save_file({"model.layers.0.weight": torch.ones(1)}, tmp_path / "other.safetensors")
    changes, match = WRONG[what]
    changes = {k: v.replace("{tmp}", str(tmp_path)) if isinstance(v, str) else v for k, v in changes.items()}
    recipe = parse_recipe(recipe_content(**changes))

    def begin() -> None:
        check_places(recipe)
        train(recipe, tmp_path / "run", progress=False)

    with pytest.raises(StereopsisError, match=match):
        begin()
    assert not (tmp_path / "run").exists()


def _choices(section: type[pydantic.BaseModel], at: tuple[str, ...] = ()) -> typing.Iterator[tuple[str, ...]]:
    """Dotted keys whose values are one of a few words, in every section of a recipe."""
    for name, field in section.model_fields.items():
        kinds = [field.annotation, *typing.get_args(field.annotation)]
        if any(typing.get_origin(kind) is Literal for kind in kinds):
            yield (*at, name)
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel):
                yield from _choices(kind, (*at, name))


CHOICES = sorted(set(_choices(Recipe)))


def test_the_recipe_has_choices_in_every_section():
    assert {key[0] for key in CHOICES} >= {"model", "data", "denoiser", "objectives", "training", "evaluation"}


@pytest.mark.parametrize("key", CHOICES, ids=".".join)
def test_a_word_that_a_key_does_not_know_is_refused_at_once(key):
    content: dict[str, Any] = {"name": "x", "objectives": {"text": {}}}
    place = content
    for part in key[:-1]:
        if part == "sources":
            place[part] = [{"rooms": 1}]
            place = place[part][0]
        else:
            place = place.setdefault(part, {})
    place[key[-1]] = "nonsense"
    with pytest.raises(StereopsisError, match=rf"{key[-1]}.*nonsense"):
        parse_recipe(content)


@pytest.mark.parametrize(
    "changes",
    [{"positions": "deep"}, {"fit": "stretch"}, {"object_features": "first"}, {"view_grid": (0, 3)}],
)
def test_settings_of_a_model_folder_are_checked(tiny_base, changes):
    with pytest.raises(CheckpointError, match=f"{next(iter(changes))}: expected"):
        read_settings(tiny_base, changes)


def test_the_depth_of_a_base_is_read_without_opening_it(tiny_base, tmp_path):
    assert depth_of(tiny_base) == 2
    assert depth_of(tmp_path) is None


COMMANDS = [
    "probe {base} --rooms 2 --layers 0,99",
    "probe {base} --rooms 2 --positions deep",
    "probe {base} --rooms 2 --voxel 0",
    "probe {base} --rooms 2 --voxel nan",
    "probe {base} --rooms 2 --views 0",
    "probe {base} --rooms 2 --evaluation nowhere",
    "probe {base} --rooms 2 --against nowhere",
    "probe {base} --rooms 2 --teacher point_mat",
    "probe {base} --rooms -2",
    "prepare rooms --count 0 -o {tmp}/out",
    "prepare rooms --count 1 --split tset -o {tmp}/out",
    "prepare rooms --count 1 --birdseye 0 -o {tmp}/out",
    "prepare rooms --count 1 --workers -1 -o {tmp}/out",
    "prepare rooms --count 1 --teacher point_mat -o {tmp}/out",
    "prepare rooms --count 1 --latent rooom -o {tmp}/out",
    "prepare rooms --count 1 --teacher point_map --student nobody -o {tmp}/out",
    "prepare rooms --count 1 --max-failed 2 -o {tmp}/out",
    "evaluate {base} --rooms 2 --benchmarks sqa4d",
    "evaluate {base} --rooms -1",
    "evaluate {base} --rooms 2 --precision fp8",
    "evaluate {base} --rooms 2 -s data.vews=2",
    "info stereopsis-tiny --processes 0",
    "info stereopsis-tiny --gpu H1000",
    "info stereopsis-tiny --sharding zero9",
    "convert {base} {tmp}/out --shard-gigabytes 0",
    "convert {base} {tmp}/out --to elsewhere",
    "convert nowhere {tmp}/out",
]


@pytest.mark.parametrize("words", COMMANDS)
def test_an_option_s_mistake_is_found_before_anything_is_made(words, tiny_base, nothing_is_made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = words.format(base=tiny_base, tmp=tmp_path).split()
    result = CliRunner().invoke(cli.app, arguments)
    refused = isinstance(result.exception, StereopsisError) or (
        isinstance(result.exception, SystemExit) and result.exit_code == 2
    )
    assert refused, (result.exception, result.output)
    assert not list(Path(tmp_path).glob("out/*"))
