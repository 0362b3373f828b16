"""Files that transformers opens: code that lies beside them is never run, and damage is told in a sentence."""

import ast
import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer

import stereopsis
from stereopsis.errors import CheckpointError
from stereopsis.models.storage import load_model
from stereopsis.weights.pretrained import open_pretrained

CODE = "open({!r}, 'w').close()\nclass C:\n    @classmethod\n    def from_pretrained(cls, *a, **k): return cls()\n"


@pytest.fixture
def with_code(tiny_base: Path, tmp_path: Path) -> Path:
    """A model folder that wants to bring its own classes along."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_base, folder)
    (folder / "own.py").write_text(CODE.format(str(tmp_path / "ran")))
    for name, keys in (
        ("config.json", ("AutoConfig", "AutoModelForImageTextToText")),
        ("tokenizer_config.json", ("AutoTokenizer",)),
    ):
        file = folder / name
        record = json.loads(file.read_text()) | {"model_type": "own", "tokenizer_class": "Own"}
        record["auto_map"] = {key: ["own.C", None] if key == "AutoTokenizer" else "own.C" for key in keys}
        file.write_text(json.dumps(record))
    return folder


@pytest.mark.parametrize("kind", [AutoConfig, AutoTokenizer, AutoModelForImageTextToText])
def test_code_beside_a_model_is_never_run_and_nobody_is_asked(with_code, kind, monkeypatch, tmp_path):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("transformers asked whether it may run code"))
    with pytest.raises(CheckpointError, match="code is never run"):
        open_pretrained(kind, with_code)
    assert not (tmp_path / "ran").exists()


def test_opening_a_model_runs_nothing_of_it(with_code, tmp_path):
    with pytest.raises(CheckpointError):
        load_model(with_code)
    assert not (tmp_path / "ran").exists()


def test_every_opening_goes_through_the_one_that_forbids_code():
    """A call of an Auto class's from_pretrained elsewhere would ask, or run, what it finds."""
    for path in Path(stereopsis.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr == "from_pretrained" and isinstance(node.value, ast.Name):
                assert not node.value.id.startswith("Auto"), f"{path}:{node.lineno}: use open_pretrained"
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert path.name == "pretrained.py"
                assert isinstance(node.value, ast.Constant)
                assert node.value.value is False
            if isinstance(node, ast.keyword) and node.arg == "weights_only" and path.name != "recipe_packs.py":
                assert isinstance(node.value, ast.Constant)
                assert node.value.value is True, f"{path}:{node.value.lineno}: pickles are not unpickled freely"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b"[]"),
        ("config.json", b'{"model_type": "nothing-known"}'),
        ("config.json", b'{"model_type": "llava_onevision", "vision_config": 3}'),
        ("tokenizer.json", b"{}"),
        ("tokenizer.json", b"\xff\xfe"),
        ("tokenizer_config.json", b"{"),
        ("model.safetensors", b""),
        ("model.safetensors", b"\xff" * 100),
    ],
)
def test_damaged_files_are_a_sentence(tiny_base, tmp_path, name, content):
    folder = tmp_path / "model"
    shutil.copytree(tiny_base, folder)
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=str(folder)):
        load_model(folder)
