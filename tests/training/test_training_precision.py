"""A run computes in what was decided when it was started, says so, and goes on in it."""

import dataclasses
import io
import json
import shutil

import pytest
import torch
from rich.console import Console

from stereopsis.training.engines import training_precision
from stereopsis.training.train_run import train


@pytest.fixture
def cpu_with(monkeypatch):
    """Pretend that this CPU computes bfloat16, or that it does not."""

    def pretend(native):
        answer = (native, "this CPU has AVX512-BF16" if native else "this CPU has neither AVX512-BF16 nor AMX", None)
        monkeypatch.setattr("stereopsis.precision._bfloat16", lambda device: answer)
        monkeypatch.setattr("stereopsis.precision.bfloat16_speed", lambda device: 1 / 80)

    return pretend


def _noted(folder):
    return json.loads((folder / "environment.json").read_text())["precision"]


@pytest.mark.parametrize(("native", "name", "dtype"), [(True, "bf16", torch.bfloat16), (False, "fp32", torch.float32)])
def test_the_decision_reaches_everything_that_computes(
    make_recipe, cpu_with, tmp_path, monkeypatch, native, name, dtype
):
    cpu_with(native)
    from stereopsis.training import optimizer

    seen, original = [], optimizer.orthogonalised
    monkeypatch.setattr(
        optimizer, "orthogonalised", lambda matrix, **o: seen.append(matrix.dtype) or original(matrix, **o)
    )
    recipe = make_recipe("text", training__precision="auto", training__optimizer="muon", training__steps=1)
    products = []
    linear = torch.nn.functional.linear
    monkeypatch.setattr(torch.nn.functional, "linear", lambda *a: products.append((out := linear(*a)).dtype) or out)
    out = io.StringIO()
    train(recipe, tmp_path / "run", console=Console(file=out, width=200))
    assert _noted(tmp_path / "run")["name"] == name
    assert _noted(tmp_path / "run")["asked"] == "auto"
    assert f"Precision: {name} (this CPU has" in out.getvalue()
    assert out.getvalue().count("Precision:") == 1
    assert set(seen) == (set() if native else {torch.float32})  # in bfloat16 torch's own does it
    assert dtype in products
    assert (torch.bfloat16 in products) == native


def test_a_run_that_is_resumed_elsewhere_keeps_its_precision(make_recipe, cpu_with, tmp_path, log_of, weights_of):
    recipe = make_recipe("text", training__precision="auto", training__save_every=2)
    cpu_with(True)
    train(recipe, tmp_path / "run", progress=False)
    shutil.copytree(tmp_path / "run", tmp_path / "copy", ignore=shutil.ignore_patterns("model", "checkpoint-4"))
    cpu_with(False)
    train(recipe, tmp_path / "copy", resume=True, progress=False)
    assert _noted(tmp_path / "copy")["name"] == "bf16"
    assert log_of(tmp_path / "copy") == log_of(tmp_path / "run")
    train(recipe, tmp_path / "new", progress=False)
    assert _noted(tmp_path / "new")["name"] == "fp32"
    assert log_of(tmp_path / "new") != log_of(tmp_path / "run")


def test_bf16_where_it_is_emulated_runs_with_one_warning(make_recipe, cpu_with, tmp_path):
    cpu_with(False)
    out = io.StringIO()
    recipe = make_recipe("text", training__precision="bf16", training__steps=1)
    train(recipe, tmp_path / "run", console=Console(file=out, width=200))
    assert out.getvalue().count("Warning: precision bf16") == 1
    assert "80 times as long" in out.getvalue()
    assert _noted(tmp_path / "run") | {"reason": ""} == {"asked": "bf16", "name": "bf16", "ratio": 1 / 80, "reason": ""}


def test_weights_kept_in_half_precision_want_bfloat16_anywhere(make_recipe, cpu_with):
    cpu_with(False)
    recipe = make_recipe("text", training__precision="auto", model__dtype="bfloat16", model__lora={})
    assert training_precision(recipe, "cpu").name == "bf16"


def test_processes_agree_on_what_all_can_compute(make_recipe, cpu_with, tmp_path, monkeypatch):
    from stereopsis.training.processes import Processes
    from stereopsis.training.train_run import _agreed_precision

    cpu_with(True)
    recipe = make_recipe("text", training__precision="auto")
    monkeypatch.setattr(Processes, "said_by_all", lambda self, word: [word, "fp32"])
    agreed = _agreed_precision(recipe, tmp_path, dataclasses.replace(Processes(), count=2), resume=False)
    assert (agreed.name, agreed.reason) == ("fp32", "as others need")
