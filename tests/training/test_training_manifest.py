"""Every damaged file of a model or checkpoint folder is named, with what to do; nothing untrained answers instead."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from stereopsis.errors import CheckpointError, RunFolderError
from stereopsis.files import replacing_folder
from stereopsis.models.storage import load_model
from stereopsis.training.train_run import open_run, train
from stereopsis.weights.manifest import check_manifest, write_manifest


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": lambda file: file.unlink(),
    "empty": lambda file: file.write_bytes(b""),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "longer": lambda file: file.write_bytes(file.read_bytes() + b"\0"),
    "one bit": lambda file: file.write_bytes(flipped(file.read_bytes())),
}


@pytest.fixture(scope="module")
def run(make_recipe, tmp_path_factory) -> Path:
    recipe = make_recipe("text", "grounding", training__steps=2, training__save_every=1)
    return train(recipe, tmp_path_factory.mktemp("run") / "run", progress=False).folder


@pytest.fixture
def copy(run, tmp_path) -> Path:
    return shutil.copytree(run, tmp_path / "copy")


MODEL_FILES = (
    "config.json",
    "model.safetensors",
    "spatial.safetensors",
    "spatial_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)


def test_the_manifest_lists_what_a_model_has(run):
    listed = json.loads((run / "model" / "manifest.json").read_text())["files"]
    assert set(MODEL_FILES) <= set(listed)
    assert set(listed) == {path.name for path in (run / "model").iterdir()} - {"manifest.json", "README.md"}
    load_model(run / "model")


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", MODEL_FILES)
def test_damaged_models(copy, name, damage):
    DAMAGE[damage](copy / "model" / name)
    expected = RunFolderError if damage == "missing" and re.match(r"config|spatial", name) else CheckpointError
    with pytest.raises(expected) as caught:
        open_run(copy)
    assert name in str(caught.value)
    assert re.search("copy|make one with", str(caught.value))


def test_a_model_without_its_spatial_part_never_answers(copy):
    """Also where the manifest went with it, so that the folder looks like a plain backbone."""
    for name in ("manifest.json", "spatial.safetensors"):
        (copy / "model" / name).unlink()
    with pytest.raises(CheckpointError, match=r"spatial\.safetensors is missing: the model's grounding head"):
        load_model(copy / "model")
    (copy / "model" / "spatial_config.json").unlink()
    with pytest.raises(RunFolderError, match=r"spatial_config\.json is missing"):
        open_run(copy)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"files": {"a": 1}}', '{"schema": 2, "files": {}}', "[" * 10**5])
def test_damaged_manifests(copy, content):
    (copy / "model" / "manifest.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        load_model(copy / "model")


@pytest.mark.parametrize(("key", "value"), [("view_grid", 3), ("view_grid", None), ("family", 5), ("schema", "1")])
def test_wrong_values_in_the_settings(copy, key, value):
    (copy / "model" / "manifest.json").unlink()
    file = copy / "model" / "spatial_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(CheckpointError, match=r"spatial_config\.json"):
        load_model(copy / "model")


CHECKPOINT_FILES = (
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
    "model.safetensors",
    "spatial.safetensors",
    "training_heads.safetensors",
    "manifest.json",
)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", CHECKPOINT_FILES)
def test_damaged_checkpoints(copy, make_recipe, name, damage):
    if (name, damage) in {("manifest.json", "longer"), ("manifest.json", "cut")}:  # blanks at its end
        return
    recipe = make_recipe("text", "grounding", training__steps=2, training__save_every=1)
    shutil.rmtree(copy / "model")
    DAMAGE[damage](copy / "checkpoints" / "checkpoint-2" / name)
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError) as caught:
        train(recipe, copy, resume=True, progress=False)
    assert f"checkpoint-2/{name}" in str(caught.value)
    assert "resume from the one before it" in str(caught.value)
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


def test_an_altered_step_counter_is_refused(copy, make_recipe):
    """Even where the manifest was made to agree with it."""
    recipe = make_recipe("text", "grounding", training__steps=2, training__save_every=1)
    folder = copy / "checkpoints" / "checkpoint-2"
    file = folder / "trainer_state.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"global_step": 1}))
    with pytest.raises(CheckpointError, match=r"trainer_state\.json"):
        train(recipe, copy, resume=True, progress=False)
    write_manifest(folder, step=2)
    with pytest.raises(CheckpointError, match="count different steps"):
        train(recipe, copy, resume=True, progress=False)


def test_the_remedy_works(copy, make_recipe, weights_of):
    """Without the damaged checkpoint the run goes on from the one before, to the same weights."""
    recipe = make_recipe("text", "grounding", training__steps=2, training__save_every=1)
    expected = weights_of(copy / "model")
    shutil.rmtree(copy / "checkpoints" / "checkpoint-2")
    shutil.rmtree(copy / "model")
    train(recipe, copy, resume=True, progress=False)
    found = weights_of(copy / "model")
    assert found.keys() == expected.keys()
    assert all(bool((found[key] == expected[key]).all()) for key in found)


def test_folders_without_a_manifest_are_left_alone(tmp_path):
    assert check_manifest(tmp_path, "") is None


def test_subfolders_are_listed_and_notes_are_not(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.bin").write_bytes(b"12")
    (tmp_path / "README.md").write_text("x")
    write_manifest(tmp_path, step=3)
    (tmp_path / "README.md").write_text("other")
    assert check_manifest(tmp_path, "") == {"schema": 1, "step": 3}
    (tmp_path / "a" / "b.bin").write_bytes(b"13")
    with pytest.raises(CheckpointError, match=r"a/b\.bin is not what was written .* delete .*manifest\.json"):
        check_manifest(tmp_path, "copy it again")


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    place = tmp_path / "model"
    place.mkdir()
    (place / "old").write_text("old")
    with pytest.raises(OSError, match="No such file"), replacing_folder(place) as partial:
        (partial / "nowhere" / "new").write_text("new")
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "old"]
    with replacing_folder(place) as partial:
        (partial / "new").write_text("new")
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "new"]
