"""What a command does first: wrong words and missing folders are found without torch, and something is said at once."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stereopsis.errors import MissingExtraError
from stereopsis.extras import PACKAGES, missing_packages, require_extras

WITHOUT_TORCH = """
import importlib.abc, json, sys
class Forbidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "transformers", "diffusers", "accelerate"):
            raise ImportError(f"{name} is imported too early")
sys.meta_path.insert(0, Forbidden())
from typer.testing import CliRunner
from stereopsis.cli.commands import app
found = []
for command in json.loads(sys.argv[1]):
    done = CliRunner().invoke(app, command, env={"COLUMNS": "300"})
    found.append([done.exit_code, done.output, type(done.exception).__name__, str(done.exception)])
print(json.dumps(found))
"""

WRONG = [
    ("train nothing -o out", "no recipe 'nothing'"),
    ("train stereopsis-tiny -o out -s training.stepps=3", "did you mean 'steps'?"),
    ("train stereopsis-tiny -o full", "is not empty and holds no run"),
    ("train stereopsis-tiny -o out --resume", "holds no run to resume"),
    ("train stereopsis-tiny -o out -s model.base=models/none", "base 'models/none': no such folder"),
    ("train capture-tiny -o out -s data.sources.0.path=data/none", "data.sources.0.path: there is no data/none"),
    ("train ross3d-tiny -o out -s denoiser.init=none.pt", "denoiser.init: there is no none.pt"),
    ("train ross3d-tiny -o out -s teachers.latent=flux:./none", "teachers.latent: there is no ./none"),
    ("demo -o out -s training.stepps=3", "did you mean 'steps'?"),
    ("evaluate none", "none holds no finished run"),
    ("evaluate full", "full holds no finished run"),
    ("evaluate dummy -o out --scenes none", "there is no none"),
    ("evaluate dummy -o out --scenes full --annotations sqa3d=none.json", "there is no file none.json"),
    ("reconstruct none --rooms 2", "none holds no finished run"),
    ("probe tiny none -o out", "there is no none"),
    ("probe none --rooms 2 -o out", "holds neither a run"),
    ("probe tiny --rooms 2 --layers last -o out", "numbers with commas"),
    ("cache nothing", "no recipe 'nothing'"),
    ("report none", "there is no folder none"),
    ("convert none out", "none: no such folder"),
    ("merge none out", "there is no folder none"),
    ("prepare none -o out", "does not exist"),
    ("score none.json -b sqa3d -a none.json", "none.json"),
    ("info none-such", "no recipe 'none-such'"),
]


def test_what_is_wrong_is_found_before_torch_is_imported(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    commands = json.dumps([command.split() for command, _ in WRONG])
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, commands], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 0, done.stderr
    for (command, words), (code, output, kind, message) in zip(WRONG, json.loads(done.stdout), strict=True):
        assert code != 0, command
        assert words in message + output, f"{command}: {kind} {message} {output}"
        assert "Import" not in kind, f"{command}: {message}"
    assert {path.name for path in tmp_path.iterdir()} == {"full"}  # nothing was made


def test_help_waits_for_no_library():
    """What help is made of imports neither arrays nor readers; perf/startup.py measures the seconds."""
    heavy = ("numpy", "scipy", "torch", "PIL", "pydantic")
    code = f"import sys, stereopsis.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_missing_packages_are_named_before_any_work(tmp_path, monkeypatch):
    for name in ("embreex", "plotly"):
        monkeypatch.setitem(sys.modules, name, None)
    assert missing_packages("rooms") == ("embreex",)
    with pytest.raises(MissingExtraError) as caught:
        require_extras("The demo", "report", "rooms", "lora" if not missing_packages("lora") else "report")
    assert str(caught.value) == (
        "The demo needs the packages 'plotly', 'embreex', which are not installed; install them with: "
        "pip install 'stereopsis[report,rooms]'"
    )
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(MissingExtraError, match="needs the package 'scikit-image', which is not installed"):
        require_extras("Fusing", "fusion")


def test_every_extra_of_the_package_is_known():
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text())["project"]
    assert PACKAGES.keys() == project["optional-dependencies"].keys() - {"all", "dev", "docs"}


def start(*arguments: object, cwd: Path, script: str = "from stereopsis.cli import main; main()") -> subprocess.Popen:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )


def interrupted(child: subprocess.Popen) -> tuple[str, float]:
    """What an interrupted program says, and how long it takes to leave."""
    began = time.monotonic()
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=20)
    took = time.monotonic() - began
    assert child.returncode == 130, said
    assert "Traceback" not in said
    return said, took


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_command_says_how_to_go_on(tmp_path, workers):
    pytest.importorskip("embreex")
    child = start("prepare", "rooms", "--count", 900, "-o", "rooms", "--workers", workers, cwd=tmp_path)
    assert child.stdout is not None
    assert "900" in child.stdout.readline()
    time.sleep(1.0)
    said, took = interrupted(child)
    assert "interrupted; run the same command again to go on" in said.splitlines()
    assert took < 4.0  # 2 s, and some for a machine that is busy with other tests


def test_an_interruption_does_not_wait_for_a_library_that_looks_at_no_signal(tmp_path):
    script = (
        "import hashlib\nfrom stereopsis.cli.interrupts import interruptible\n"
        "with interruptible():\n"
        "    print('deep', flush=True)\n"
        "    hashlib.pbkdf2_hmac('sha512', b'a', b'b', 200_000_000)\n"
    )
    child = start(cwd=tmp_path, script=script)
    assert child.stdout is not None
    child.stdout.readline()
    time.sleep(0.3)
    said, took = interrupted(child)
    assert said == "interrupted; run the same command again to go on\n"
    assert took < 4.0


def test_a_run_says_what_its_command_lacks_to_go_on(make_recipe, tmp_path):
    from stereopsis.training.run_folder import how_to_go_on

    assert how_to_go_on(tmp_path, make_recipe()) == ""
    (tmp_path / "recipe.yaml").touch()
    assert "--overwrite" in how_to_go_on(tmp_path, make_recipe())
    assert "save_every" in how_to_go_on(tmp_path, make_recipe())
    assert "no checkpoint yet" in how_to_go_on(tmp_path, make_recipe(training__save_every=2))
    (tmp_path / "checkpoints" / "checkpoint-2").mkdir(parents=True)
    assert how_to_go_on(tmp_path, make_recipe(training__save_every=2)) == ", with --resume"
