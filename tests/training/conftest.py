"""What the tests of training read back from a run."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))  # tiny models of every family: families.py


def _log(folder: Path) -> list[dict[str, Any]]:
    """The steps' log lines, without wall-clock time and without the summary that ends a run."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in line.items() if key != "seconds"} for line in lines if "train_runtime" not in line
    ]


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    """Every stored tensor of a model folder."""
    files = ("model", "spatial", "training_heads")
    return {
        f"{name}/{key}": tensor for name in files for key, tensor in load_file(folder / f"{name}.safetensors").items()
    }


@pytest.fixture(scope="session")
def log_of() -> Callable[[Path], list[dict[str, Any]]]:
    return _log


@pytest.fixture(scope="session")
def weights_of() -> Callable[[Path], dict[str, torch.Tensor]]:
    return _weights
