"""`perf/train.py` on its smallest sizes: the same loss both ways, or it says no."""

import importlib.util
import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch

PERF = Path(__file__).resolve().parents[2] / "perf"
FEW = ["--random", "tiny", "--conversations", "4", "--repeats", "1", "--sweep-repeats", "1"]


@pytest.fixture(scope="module")
def script():
    """The script as a module; it reads its neighbours."""
    sys.path.insert(0, str(PERF))
    try:
        spec = importlib.util.spec_from_file_location("perf_train", PERF / "train.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(PERF))


def test_both_ways_train_the_same(script, tmp_path, monkeypatch, capsys):
    """All objectives, views encoded anew and cached, both sweeps and the figure."""
    sweeps = ["--sweep-conversations", "1,2", "--sweep-views", "2,4"]
    monkeypatch.setattr(sys, "argv", ["train.py", *FEW, *sweeps, "--objectives", "all", "--results", str(tmp_path)])
    script.main()
    record = json.loads((tmp_path / "perf_train.json").read_text())
    assert record["attention"] == "split"
    assert record["tokens"]["visual"] == 4 * 4 * 5
    for found in record["packed_against_loop"]:
        assert set(found["losses"]["packed"]) == set(script.ALL)
        assert found["losses"]["packed"] == pytest.approx(found["losses"]["loop"], rel=1e-4)
        assert found["faster"] == pytest.approx(found["seconds_per_step"]["loop"] / found["seconds_per_step"]["packed"])
    assert [each["conversations"] for each in record["by_conversations"]] == [1, 2]
    assert [each["views"] for each in record["by_views"]] == [2, 4]
    svg = ElementTree.fromstring((tmp_path / "perf_train.svg").read_text())
    assert len(list(svg.iter("{http://www.w3.org/2000/svg}circle"))) == 4 + 4
    assert "times as fast" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_adapters_checkpointing_and_an_optimizer(script, tmp_path, monkeypatch):
    pytest.importorskip("peft")
    options = [
        "--lora",
        "2",
        "--optimizer",
        "adamw",
        "--checkpointing",
        "--dtype",
        "bf16",
        "--only-step",
        "--name",
        "lora",
    ]
    monkeypatch.setattr(sys, "argv", ["train.py", *FEW, *options, "--results", str(tmp_path)])
    script.main()
    record = json.loads((tmp_path / "lora.json").read_text())
    assert [found["views"] for found in record["packed_against_loop"]] == ["cached tower output"]
    assert not (tmp_path / "lora.svg").exists()


def test_utilisation_counts_what_the_step_needs(script):
    """Packed and loop sum the same words; the loop's views are counted as often as they are computed."""
    args = script.parsed([*FEW, "--gpu", "H200", "--only-step"])
    trainer = script.Trainer(args, script.TINY)
    found = {
        name: script.utilisation(
            trainer, trainer.batches(4, 4, packed=name == "packed", cached=True), script.WORDS, 2.0, cached=True
        )
        for name in ("packed", "loop")
    }
    assert found["packed"]["tflop_per_second"] == found["packed"]["model_tflop"] / 2
    assert found["packed"]["share_of_peak"] == pytest.approx(found["packed"]["tflop_per_second"] / 989.4)
    assert 1.5 < found["loop"]["model_tflop"] / found["packed"]["model_tflop"] < 4


def test_a_sweep_ends_where_memory_does(script, capsys):
    def measured(views: int) -> dict[str, int]:
        if views > 16:
            raise torch.OutOfMemoryError
        return {"views": views}

    assert script.while_memory_lasts(measured, (8, 16, 32, 64)) == [{"views": 8}, {"views": 16}]
    assert capsys.readouterr().out == "no room for 32: the figure ends before it\n"


def test_other_losses_are_refused(script):
    assert script.same_loss({"text": 2.0}, {"text": 2.0001}, 1e-3) == pytest.approx(5e-5, rel=1e-3)
    with pytest.raises(RuntimeError, match=r"differ by 1\.0e-01"):
        script.same_loss({"text": 1.1}, {"text": 1.0}, 1e-3)
