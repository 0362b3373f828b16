"""Every command of the README and of the quick start is run as it stands there, one after the other, only smaller."""

import json
import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from docs_pages import ROOT, SHELLS, blocks, commands
from stereopsis import cli

pytest.importorskip("embreex")
SMALL = {
    "demo": "--processes 1 -s training.threads=1 -s training.steps=1 -s data.sources.0.rooms=2 "
    "-s 'evaluation.sources=[{rooms: 1}]'",
    "train": "-s training.steps=1 -s training.threads=1 --pictures 1",
    "evaluate": "--rooms 2 --limit 2",
    "probe": "--rooms 2",
    "prepare rooms": "--count 2 --workers 1",
    "prepare": "--workers 1 --birdseye 96",
    "reconstruct": "--samples 1 --by-steps 1 --steps 2",
}
"""Added to a command: the same with fewer steps and rooms."""
FEW_ROOMS = "-s data.sources.0.rooms=2"
ELSEWHERE = {
    "train ross3d-7b": "needs GPUs and a model of seven billion parameters",
    "prepare ~/scannet/scans": "needs ScanNet; its reader meets hand-made scans in tests/scenes/scannet",
}
"""Commands that are not run, by how they begin; that their options exist is tested all the same."""
PLACEHOLDERS = {"data/kitchen/SCENE": "data/kitchen/kitchen", "taef1:FOLDER": "taef1:taef1"}


def _commands(page: str) -> list[str]:
    (demo,) = re.findall(r"^demo: install\n\t\$\(BIN\)/stereopsis (.*)$", (ROOT / "Makefile").read_text(), re.M)
    lines = []
    for block in (block for block in blocks(*SHELLS) if block.page == page):
        lines += [demo] * bool(re.search("^make demo", block.text, re.M))
        lines += [shlex.join(words) for words in commands(block)]
    return [line for line in lines if not line.replace("'", "").startswith(tuple(ELSEWHERE))]


README, QUICKSTART = _commands("README.md"), _commands("docs/quickstart.md")


@pytest.fixture(scope="module")
def home(capture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's home: a capture, weights of TAEF1's shape, and somebody's predictions; work is done in it, too."""
    from diffusers import AutoencoderTiny

    folder = tmp_path_factory.mktemp("home")
    (folder / "scans").mkdir()
    (folder / "scans" / "kitchen").symlink_to(capture)
    AutoencoderTiny(latent_channels=16).save_pretrained(folder / "taef1")
    said = [{"from": "human", "value": "<image>\\nI stand. How many?"}, {"from": "gpt", "value": "two"}]
    record = {"id": 7, "video": "scannet/scene0000_00", "conversations": said, "metadata": {"question_type": "what"}}
    (folder / "test.json").write_text(json.dumps([record]))
    (folder / "answers.jsonl").write_text(json.dumps({"sample_id": 7, "pred_response": "two"}) + "\n")
    return folder


def _run(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> str:
    for placeholder, path in {**PLACEHOLDERS, "~": os.environ["HOME"]}.items():
        line = line.replace(placeholder, path)
    words = shlex.split(line)
    kind = "prepare rooms" if line.startswith("prepare rooms") else words[0]
    words += shlex.split(SMALL.get(kind, ""))
    if kind == "train" and "capture" not in line:
        words += shlex.split(FEW_ROOMS)
    monkeypatch.setattr(sys, "argv", ["stereopsis", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    said = capsys.readouterr()
    assert not end.value.code, f"stereopsis {shlex.join(words)}\n{said.out}\n{said.err}"
    return said.out


@pytest.mark.parametrize("line", [*README])
def test_the_readme(line, home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    monkeypatch.setenv("HOME", str(home))
    _run(line, monkeypatch, capsys)


@pytest.mark.parametrize("line", [*QUICKSTART])
def test_the_quick_start(line, home, monkeypatch, capsys):
    (home / "quick").mkdir(exist_ok=True)
    monkeypatch.chdir(home / "quick")
    monkeypatch.setenv("HOME", str(home))
    _run(line, monkeypatch, capsys)
