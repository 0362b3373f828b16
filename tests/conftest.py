"""Every public signature's shapes are checked while the tests run."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from jaxtyping import install_import_hook
from PIL import Image
from scipy.spatial.transform import Rotation

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
install_import_hook("stereopsis", "beartype.beartype")
torch.set_num_threads(1)

if TYPE_CHECKING:
    from stereopsis.models.spatial import SpatialModel
    from stereopsis.training.recipe import Recipe
    from stereopsis.training.train_run import TrainedRun

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data beside the checkout; tests that need it skip where it is absent."""
    if not DATA.is_dir():
        pytest.skip(f"no real data at {DATA}")
    return DATA


# A model, scenes and a run so small that whole trainings take a second; made once for everything that needs them.

ASKEW = np.eye(4)
"""Pose of the captured room's floor in the world of its frames."""
ASKEW[:3, :3] = Rotation.from_euler("xyz", [50, -20, 30], degrees=True).as_matrix()
ASKEW[:3, 3] = 0.4, -1.1, 2.0
OBJECTIVES = ("text", "grounding", "vanilla", "cross_view", "birds_eye", "alignment")


def _tiny_room(seed: int):
    """A room in 48-pixel views with a handful of annotations of every task, seen from above."""
    from stereopsis.scenes.alignment import with_birdseye
    from stereopsis.scenes.rooms import RoomConfig, make_room
    from stereopsis.scenes.rooms.language import annotate
    from stereopsis.scenes.rooms.language.config import QUOTA, LanguageConfig, Margins

    room = make_room(seed, RoomConfig(views=4, width=48, height=48, min_visible_pixels=6))
    few = {"object_abs_distance": 1, "object_rel_direction_hard": 1}
    language = LanguageConfig(
        quota=dict.fromkeys(QUOTA, 1), captions=2, margins=Margins(clear_pixels=8), video_quota=few
    )
    return with_birdseye(room.replace(annotations=annotate(room, seed, language)), size=48)


@pytest.fixture(scope="session")
def tiny_rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four written rooms."""
    pytest.importorskip("embreex")
    from stereopsis.scenes.stored import write_scene

    folder = tmp_path_factory.mktemp("scenes") / "rooms"
    for seed in range(4):
        room = _tiny_room(seed)
        write_scene(room, folder / room.id)
    return folder


@pytest.fixture(scope="session")
def make_tiny_base(tiny_rooms: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that makes a model folder; keyword arguments change its size."""
    from stereopsis.benchmarks import prompt_of, target_of
    from stereopsis.models.spatial import SpatialConfig, SpatialModel
    from stereopsis.models.storage import adapter_for, save_model
    from stereopsis.models.tiny import TinyConfig, build_tiny_backbone, build_tokenizer
    from stereopsis.training.sources import open_folder

    words = [
        text
        for room in open_folder(tiny_rooms)
        for annotation in room.annotations
        for text in (prompt_of(annotation), target_of(annotation))
    ]

    def make(**changes: int) -> Path:
        sizes = {"vision_dim": 48, "vision_layers": 2, "vision_heads": 4, "dim": 48, "layers": 2, "heads": 4}
        config = TinyConfig(**{"image_size": 48, "mlp": 96, "vocabulary": 400, **sizes, **changes})
        torch.manual_seed(0)
        tokenizer = build_tokenizer(words, config.vocabulary)
        backbone = build_tiny_backbone(tokenizer, config)
        model = SpatialModel(
            backbone=backbone,
            adapter=adapter_for(backbone, (3, 3)),
            tokenizer=tokenizer,
            config=SpatialConfig(view_grid=(3, 3)),
        )
        folder = tmp_path_factory.mktemp("base")
        save_model(model, folder)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_base(make_tiny_base: Callable[..., Path]) -> Path:
    """A model folder: 48-pixel views, 3x3 tokens a view, 48 wide, 2 layers."""
    return make_tiny_base()


@pytest.fixture(scope="session")
def recipe_content(tiny_base: Path, tiny_rooms: Path) -> Callable[..., dict[str, Any]]:
    """A function that gives a small recipe as plain data; arguments are dotted keys with two underscores."""

    def content(*objectives: str, **changes: Any) -> dict[str, Any]:
        plain: dict[str, Any] = {
            "name": "tiny",
            "model": {"base": str(tiny_base)},
            "data": {"sources": [{"path": str(tiny_rooms)}], "views": 4, "conversations": 6},
            "teachers": {"latent": "pixels", "view_size": 32, "birdseye_size": 32},
            "denoiser": {"width": 24, "depth": 1, "heads": 2},
            "objectives": {name: {} for name in objectives or OBJECTIVES},
            "training": {"steps": 4, "scenes": 2, "log_every": 1, "threads": 1, "precision": "fp32"},
            "evaluation": {"sources": [{"path": str(tiny_rooms)}]},
        }
        for key, value in changes.items():
            *sections, last = key.split("__")
            place = plain
            for section in sections:
                place = place.setdefault(section, {})
            place[last] = value
        return plain

    return content


@pytest.fixture(scope="session")
def make_recipe(recipe_content: Callable[..., dict[str, Any]]) -> Callable[..., "Recipe"]:
    """Like ``recipe_content``, validated."""
    from stereopsis.training.recipe import parse_recipe

    def make(*objectives: str, **changes: Any) -> "Recipe":
        return parse_recipe(recipe_content(*objectives, **changes))

    return make


@pytest.fixture(scope="session")
def finished_run(make_recipe: Callable[..., "Recipe"], tmp_path_factory: pytest.TempPathFactory) -> "TrainedRun":
    """A run with every objective, trained for four steps; tests that change its folder copy it first."""
    from stereopsis.training.train_run import train

    recipe = make_recipe(objectives__cross_view={"every": 2}, training__save_every=2)
    return train(recipe, tmp_path_factory.mktemp("runs") / "finished", progress=False)


@pytest.fixture(scope="session")
def trained(finished_run: "TrainedRun") -> "SpatialModel":
    """That run's model."""
    return finished_run.model


def _refuse(word: str) -> None:
    raise AssertionError(f"{word} is not JSON")


@pytest.fixture(scope="session")
def strict_json() -> Callable[[str], Any]:
    """Parses JSON as other programs do: NaN and Infinity are errors."""
    return lambda text: json.loads(text, parse_constant=_refuse)


@pytest.fixture(scope="session")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A room as a hand-held scanner would store it: the 7-Scenes layout, in a world that stands askew."""
    pytest.importorskip("embreex")
    from stereopsis.scenes.rooms import RoomConfig, make_room

    room = make_room(3, RoomConfig(views=10, width=96, height=72))
    folder = tmp_path_factory.mktemp("captures") / "office"
    folder.mkdir()
    np.savetxt(folder / "camera-intrinsics.txt", room.frames[0].intrinsics.matrix)
    np.savetxt(folder / "true-up.txt", ASKEW[:3, 2])
    for number, frame in enumerate(room.frames):
        stem = folder / f"frame-{number:06d}"
        Image.fromarray(frame.colour()).save(f"{stem}.color.png")
        Image.fromarray(np.rint(frame.depth() * 1000).astype(np.uint16)).save(f"{stem}.depth.png")
        np.savetxt(f"{stem}.pose.txt", ASKEW @ frame.T_world_camera)
    return folder
