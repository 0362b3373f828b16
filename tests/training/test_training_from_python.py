"""Training from a plain script: nothing needs to know that worker processes would import the script again."""

import subprocess
import sys

import pytest

pytest.importorskip("embreex")

SCRIPT = """
from stereopsis.training.recipe import load_recipe
from stereopsis.training.train_run import train

small = ["training.steps=1", "training.threads=1", "data.sources.0.rooms=5", "data.cache=cache", "teachers.cache=cache"]
run = train(load_recipe("baseline-tiny", small), "run", progress=False)
print(len(run.packs), "packs")
"""


def test_a_script_without_a_guard_trains(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "5 packs\n"  # once: no worker ran the script again
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
