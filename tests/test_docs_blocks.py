"""Code in README and docs: Python parses, finds what it imports and runs; commands and recipes are ones that exist."""

import ast
import importlib
import re
import shutil
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml

from docs_pages import PAGES, ROOT, SHELLS, blocks, commands
from stereopsis.training.recipe import Recipe, load_recipe, parse_recipe

NOT_RUN = {
    "docs/formats/front3d.md": "needs a house of 3D-FRONT",
    "docs/formats/scannet.md": "needs a scan of ScanNet",
    "docs/formats/video3dllm.md": "needs Video-3D-LLM's data folder",
    "docs/benchmarks.md#0": "needs the benchmarks' own files",
    "docs/extending.md#0": "the outline of a class; examples/06 is whole",
    "docs/extending.md": "trains for minutes",
    "docs/teachers.md": "needs the weights of FLUX",
    "docs/caches.md": "makes twenty rooms",
    "docs/views_and_proposals.md#1": "needs Mask3D's detections",
    "docs/capture.md#1": "needs the reader's own picture",
    "docs/serve.md#1": "needs a server; tests/serve asks one in the same words",
}
"""Pages (or the n-th Python block of one) that are parsed, and whose imports are tried, but that are not run."""


PYTHON = blocks("python")


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.key)
def test_python_parses_and_finds_what_it_imports(block):
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("stereopsis"):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")


@pytest.fixture(scope="module")
def place(finished_run, tiny_rooms, capture, tmp_path_factory) -> Path:
    """A folder in which the pages' paths exist: a run, rooms, a capture, a mesh."""
    trimesh = pytest.importorskip("trimesh")
    folder = tmp_path_factory.mktemp("reader")
    room = sorted(tiny_rooms.iterdir())[0]
    for name in ("data/rooms/room-20000000", "data/few/room-00000000", "data/kitchen"):
        shutil.copytree(room, folder / name)
    shutil.copytree(capture, folder / "scans" / "kitchen")
    shutil.copytree(finished_run.folder, folder / "runs" / "first")
    walls = trimesh.creation.box((6, 6, 2.5))
    walls.visual.vertex_colors = [120, 110, 100, 255]
    walls.export(folder / "scan.ply")
    return folder


def _names(page: str, place: Path) -> dict[str, Any]:
    """What a page's text has introduced before its block."""
    from stereopsis.objectives import Denoiser, DenoiserConfig, released_state_dict
    from stereopsis.scenes import open_scene

    scene = open_scene(place / "data/few/room-00000000")
    names: dict[str, Any] = {"scene": scene, "scenes": [scene], "folder": place / "evaluation"}
    names["annotation"] = next(a for a in scene.annotations if a.task == "scanqa")
    if page == "docs/objectives.md":
        import torch

        denoiser = Denoiser(DenoiserConfig(condition_dim=8, channels=4, width=16, depth=1, heads=16, view_grid=(2, 2)))
        names |= {"state_dict": released_state_dict(denoiser), "x": torch.zeros(1, 4, 2, 2), "t": torch.zeros(1)}
        names["context"] = torch.zeros(1, 8, 2, 2)
    return names


RUN = [block for block in PYTHON if block.page not in NOT_RUN and block.key not in NOT_RUN]


@pytest.mark.parametrize("block", RUN, ids=lambda block: block.key)
def test_python_runs(block, place, monkeypatch):
    monkeypatch.chdir(place)
    exec(compile(block.text, block.key, "exec"), _names(block.page, place))


def test_what_is_not_run_is_there():
    assert set(NOT_RUN) <= {block.page for block in PYTHON} | {block.key for block in PYTHON}


def _command(arguments: list[str]) -> click.Context:
    """The context that parsing makes; nothing is done."""
    from stereopsis.cli import app

    command: Any = typer.main.get_command(app)
    found = command.get_command(click.Context(command), arguments[0])
    assert found is not None, f"there is no command '{arguments[0]}'"
    return found.make_context(arguments[0], arguments[1:])


SHELL = blocks(*SHELLS)


@pytest.mark.parametrize("page", sorted({block.page for block in SHELL}))
def test_commands_and_their_options_exist(page):
    count = 0
    for block in SHELL:
        if block.page != page:
            continue
        for words in commands(block):
            if words and not words[0].startswith("-"):
                context = _command(words)
                count += 1
                overrides = context.params.get("overrides") or []
                recipe = context.params.get("recipe")
                if isinstance(recipe, str) and not recipe.endswith((".yaml", ".yml")) and "MINE" not in recipe:
                    load_recipe(recipe, overrides)
    assert count or page in ("CONTRIBUTING.md",) or not any("stereopsis " in b.text for b in SHELL if b.page == page)


YAML = [b for b in blocks("yaml") if set(yaml.safe_load(b.text)) & set(Recipe.model_fields)]


@pytest.mark.parametrize("block", YAML, ids=lambda block: block.key)
def test_parts_of_recipes_are_valid(block):
    content = {"name": "page", "objectives": {"text": {}}, **yaml.safe_load(block.text)}
    content.pop("extends", None)
    content["objectives"] = {"text": {}, **(content["objectives"] or {})}
    parse_recipe(content, block.key)


@pytest.mark.parametrize("page", [page for page in PAGES if "`tests/" in page.read_text()], ids=lambda page: page.stem)
def test_tests_that_pages_name_are_there(page):
    named = re.findall(r"`(tests/[\w./]+)`", page.read_text())
    assert [name for name in named if "NAME" not in name and not (ROOT / name).exists()] == []
