"""Two processes train what one trains: the same losses and weights, whatever the engine and what their scenes lack."""

import dataclasses
import json
import os
import runpy
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stereopsis.errors import RecipeError
from stereopsis.packs.batch_sampler import Deal, DealtBatches
from stereopsis.packs.dataset import ShuffledSampler
from stereopsis.scenes.stored import read_scene, write_scene
from stereopsis.training.checkpoints import newest_checkpoint
from stereopsis.training.engines import find_engine
from stereopsis.training.recipe import find_recipe, parse_recipe
from stereopsis.training.train_run import deal_of, train

WORKER = Path(__file__).with_name("distributed_worker.py")
SOURCE = Path(__file__).parents[2] / "src"
WORKER_ENGINES = runpy.run_path(str(WORKER))["ENGINES"]
OBJECTIVES = {
    "text": {},
    "grounding": {},
    "vanilla": {},
    "cross_view": {"every": 2},
    "birds_eye": {"every": 3},
    "alignment": {},
    "contrastive": {"voxel": 0.5, "hard_negatives": 4},
    "consistency": {"voxel": 0.5},
    "relational": {},
}
STEPS, CUT = 4, 2
ENGINES = ("ddp", "fsdp")


def launch(jobs: list[dict[str, Any]], folder: Path, processes: int = 2) -> None:
    """Do some jobs with several processes, as torchrun would start them."""
    folder.mkdir()
    file = folder / "jobs.json"
    file.write_text(json.dumps(jobs))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(processes):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        environment = os.environ | {key: str(value) for key, value in place.items()}
        environment |= {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(SOURCE),
        }
        with (folder / f"{rank}.txt").open("w") as said:
            started.append(
                subprocess.Popen([sys.executable, str(WORKER), str(file)], env=environment, stdout=said, stderr=said)
            )
    try:
        codes = [process.wait(timeout=280) for process in started]
    finally:
        for process in started:
            process.kill()
    said = "\n".join((folder / f"{rank}.txt").read_text()[-3000:] for rank in range(processes))
    assert set(codes) == {0}, said


@pytest.fixture(scope="module")
def content(recipe_content, tiny_rooms, tmp_path_factory) -> dict[str, Any]:
    """Two scenes with words, one without, and one that has a single view and nothing seen from above."""
    bare = read_scene(sorted(tiny_rooms.iterdir())[3])
    assert bare.birdseye is not None
    nothing = dataclasses.replace(bare.birdseye, void=np.ones_like(bare.birdseye.void))
    folder = tmp_path_factory.mktemp("bare") / bare.id
    write_scene(bare.replace(frames=bare.frames[:1], annotations=(), birdseye=nothing), folder)
    rooms = sorted(tiny_rooms.iterdir())
    return recipe_content(
        objectives=OBJECTIVES,
        data={
            "sources": [
                {"path": str(rooms[0])},
                {"path": str(rooms[1])},
                {"path": str(rooms[2]), "text": False},
                {"path": str(folder), "text": False},
            ],
            "views": 4,
            "conversations": 100,
            "cache": str(tmp_path_factory.mktemp("cache")),
        },
        training__steps=STEPS,
        training__batch=4,
        training__scenes=1,
        training__save_every=1,
        training__keep=10,
    )


@pytest.fixture(scope="module")
def one(content, tmp_path_factory) -> Path:
    """One process, never interrupted."""
    return train(parse_recipe(content), tmp_path_factory.mktemp("one") / "run", progress=False).folder


def cut(folder: Path, copy: Path) -> Path:
    """A copy of a run as if it had died after the step `CUT`."""
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("model"))
    for checkpoint in (copy / "checkpoints").iterdir():
        if int(checkpoint.name.rpartition("-")[2]) > CUT:
            shutil.rmtree(checkpoint)
    return copy


@pytest.fixture(scope="module")
def two(content, one, tmp_path_factory) -> Path:
    """Two processes: each engine from the start, and going on with what one process began; one start for all."""
    folder = tmp_path_factory.mktemp("two")
    jobs = [{"recipe": content, "folder": str(folder / engine), "engine": engine} for engine in ENGINES]
    for engine in ENGINES:
        half = cut(one, folder / f"{engine}-from-one")
        jobs.append({"recipe": content, "folder": str(half), "engine": engine, "resume": True})
    checkpointing = {"recipe": content, "folder": str(folder / "checkpointing"), "engine": "fsdp-checkpointing"}
    cached = json.loads(json.dumps(content))
    cached["teachers"]["cache"] = str(folder / "cache")
    jobs += [checkpointing, {"recipe": cached, "folder": str(folder / "cached"), "engine": "ddp"}]
    half = json.loads(json.dumps(content))
    half["training"] |= {"precision": "bf16", "steps": 1}
    jobs += [{"recipe": half, "folder": str(folder / f"{engine}-half"), "engine": engine} for engine in ENGINES]
    for engine in ENGINES:  # the first pass of the second step of the second process
        jobs.append({"recipe": content, "folder": str(folder / f"{engine}-diverges"), "engine": engine, "diverges": 3})
    skips = json.loads(json.dumps(content))
    skips["training"]["on_nonfinite"] = "skip"
    jobs.append({"recipe": skips, "folder": str(folder / "skips"), "engine": "ddp", "diverges": 3})
    launch(jobs, folder / "said")
    return folder


@pytest.fixture
def same(one, log_of, weights_of):
    """A function that asserts that a run had the losses of one process, and ended with its weights."""

    def check(folder: Path, *, logs: float = 1e-4) -> None:
        ours, theirs = log_of(folder), log_of(one)
        assert [line["step"] for line in ours] == [line["step"] for line in theirs] == list(range(1, STEPS + 1))
        for mine, other in zip(ours, theirs, strict=True):
            assert mine.keys() == other.keys()
            for key in (key for key in other if key.startswith("loss") or key in ("grad_norm", "epoch")):
                # float32 sums in another order, then AdamW: measured differences stay below 1e-6
                assert mine[key] == pytest.approx(other[key], rel=logs), key
        stored, expected = weights_of(folder / "model"), weights_of(one / "model")
        assert stored.keys() == expected.keys()
        for key in stored:
            torch.testing.assert_close(stored[key], expected[key], rtol=0, atol=4 * logs, msg=key)

    return check


def test_processes_lacked_different_things(content, one):
    """What the comparisons below rest on: in some passes one process has words and the other none, and so on."""
    items = ["words", "words", "silent", "bare"]
    order = ShuffledSampler(len(items), parse_recipe(content).seed)
    deal = Deal(processes=2, passes=2)
    per_rank = [[items[i] for (i,) in DealtBatches(order, deal, rank=rank, steps=STEPS)] for rank in range(2)]
    passes = {frozenset(pair) for pair in zip(*per_rank, strict=True)}
    assert any("words" in pair and len(pair) == 2 for pair in passes)
    assert any("bare" in pair and len(pair) == 2 for pair in passes)


@pytest.mark.parametrize("engine", ENGINES)
def test_two_processes_train_what_one_trains(two, same, engine):
    same(two / engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_two_processes_go_on_with_what_one_began(two, same, engine):
    same(two / f"{engine}-from-one")


@pytest.mark.parametrize("engine", ENGINES)
def test_one_process_goes_on_with_what_two_began(content, two, same, engine, tmp_path):
    folder = cut(two / engine, tmp_path / "run")
    shards = newest_checkpoint(folder / "checkpoints") / "pytorch_model_fsdp_0"
    assert shards.is_dir() == (engine == "fsdp")
    train(parse_recipe(content), folder, resume=True, progress=False)
    same(folder)


def test_half_precision_is_the_same_in_every_engine(two, log_of, one):
    ((ddp,), (fsdp,)), full = (log_of(two / f"{engine}-half") for engine in ENGINES), log_of(one)[0]
    same = {key: value for key, value in ddp.items() if "loss" in key}
    assert {key: fsdp[key] for key in same} == pytest.approx(same)
    assert fsdp["loss"] == pytest.approx(full["loss"], rel=0.01)
    assert fsdp["loss"] != full["loss"]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_loss_that_is_nan_on_one_process_stops_all_of_them(two, engine):
    said = [(two / f"{engine}-diverges-{rank}.txt").read_text() for rank in range(2)]
    assert said[0] == said[1]
    assert "diverged at step 2: the loss of objective 'alignment'" in said[0]
    assert str(two / f"{engine}-diverges" / "checkpoints" / "checkpoint-1") in said[0]
    assert not (two / f"{engine}-diverges" / "model").exists()


def test_a_step_that_is_nan_on_one_process_is_left_out_by_all(two, log_of, one, weights_of):
    ours, theirs = log_of(two / "skips"), log_of(one)
    assert [line.get("skipped_steps") for line in ours] == [None, 1, None, None]
    assert ours[1]["skipped/alignment"] == 1
    assert ours[0]["loss"] == pytest.approx(theirs[0]["loss"], rel=1e-4)
    assert ours[2]["loss"] != pytest.approx(theirs[2]["loss"], rel=1e-4)  # a step behind
    assert all(torch.isfinite(tensor).all() for tensor in weights_of(two / "skips" / "model").values())


def test_layers_may_be_computed_again(two, same):
    same(two / "checkpointing")


def test_each_process_fills_its_share_of_a_cache(content, two, same):
    same(two / "cached", logs=2e-3)  # answers are kept in half precision
    assert len(list((two / "cache" / "packs").glob("*/*.safetensors"))) == 4


def test_the_first_process_writes_alone_and_nothing_stays_behind(two):
    for engine in ENGINES:
        written = {path.name for path in (two / engine).iterdir()}
        assert written == {"recipe.yaml", "environment.json", "metrics.jsonl", "model", "checkpoints"}
        environment = json.loads((two / engine / "environment.json").read_text())
        assert (environment["processes"], environment["engine"]) == (2, engine)
        lines = (two / engine / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == [*range(1, STEPS + 1), STEPS]
        assert all((path / "complete").is_file() for path in (two / engine / "checkpoints").iterdir())
    assert not [path for path in Path(tempfile.gettempdir()).glob("stereopsis-*") if (path / "packs.pt").is_file()]


def test_deepspeed_trains_the_same_in_one_process(content, same, tmp_path):
    """It takes a missing gradient for zero: heads that are not due go on by their momentum, hence the margin."""
    pytest.importorskip("deepspeed", reason="DeepSpeed is not installed")
    everything = json.loads(json.dumps(content))
    everything["training"]["save_every"] = 0
    launch([{"recipe": everything, "folder": str(tmp_path / "run"), "engine": "zero2"}], tmp_path / "said", processes=1)
    same(tmp_path / "run", logs=1e-3)


@pytest.mark.slow
def test_the_command_line_trains_under_accelerate_launch(content, same, tmp_path):
    recipe, folder = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(json.dumps(content))  # JSON is YAML
    engine = f"--config_file {find_engine('fsdp2')} --num_processes 2 --main_process_port 0"
    command = f"-m accelerate.commands.launch {engine} -m stereopsis train {recipe} -o {folder} --pictures 1"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SOURCE), "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, *command.split()], env=environment, capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("Report:") == 1
    assert (folder / "pictures" / "pictures.json").is_file()
    same(folder)


@pytest.mark.slow
def test_a_process_that_fails_takes_the_others_with_it(content, tmp_path):
    """One cannot read its scenes while the other waits for it: torchrun ends both, and says why."""
    jobs = tmp_path / "jobs.json"
    jobs.write_text(json.dumps([{"recipe": content, "folder": str(tmp_path / "run"), "engine": "ddp", "fails": 1}]))
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(
        [sys.executable, *command, str(WORKER), str(jobs)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode != 0
    assert "this process's disk is gone" in done.stderr
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize("name", ["ddp", "fsdp2", "zero2", "zero3"])
def test_accelerate_reads_the_shipped_configurations(name):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(find_engine(name)))
    assert config.mixed_precision == "no"  # the recipe decides, see the comment in each file
    kind, section = {"ddp": ("MULTI_GPU", {}), "fsdp2": ("FSDP", config.fsdp_config)}.get(
        name, ("DEEPSPEED", config.deepspeed_config)
    )
    assert str(config.distributed_type.value) == kind
    if name == "fsdp2":
        tested = {key.lower(): value for key, value in WORKER_ENGINES["fsdp"].items() if key.startswith("FSDP_")}
        assert {key: str(section[key]).lower() for key in tested} == {key: v.lower() for key, v in tested.items()}
    if name.startswith("zero"):
        assert section["zero_stage"] == int(name[-1])


def test_an_engine_is_found_by_its_name_and_is_no_recipe():
    with pytest.raises(RecipeError, match=r"no engine 'fsdp' .did you mean 'fsdp2'.*ddp, fsdp2, zero2, zero3"):
        find_engine("fsdp")
    with pytest.raises(RecipeError, match="no recipe 'fsdp2'"):
        find_recipe("fsdp2")


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, "needs whole matrices, but fsdp shards them"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "needs whole matrices, but deepspeed shards them"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, "fsdp_version: 2"),
        (
            {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"},
            "fsdp_cpu_ram_efficient_loading: false",
        ),
    ],
)
def test_what_an_engine_cannot_do_is_refused_before_any_work(content, tmp_path, monkeypatch, environment, words):
    changed = json.loads(json.dumps(content))
    changed["training"]["optimizer"] = "muon" if "matrices" in words else "adamw"
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(RecipeError, match=words):
        train(parse_recipe(changed), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"dtype": "bfloat16"}, "one precision among all that is trained"),
        ({"load_in": "4bit", "lora": {"rank": 2}}, "a quantised base cannot be sharded by fsdp"),
    ],
)
def test_weights_that_cannot_be_sharded_are_refused_before_any_work(content, tmp_path, monkeypatch, model, words):
    changed = json.loads(json.dumps(content))
    changed["model"] = {**changed.get("model", {}), **model}
    changed["training"]["precision"] = "bf16"
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    with pytest.raises(RecipeError, match=words):
        train(parse_recipe(changed), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_step_that_the_processes_cannot_share_is_refused(content, tmp_path):
    with pytest.raises(RecipeError, match="4 scenes cannot be shared evenly by 3 processes; start 1, 2, 4 of them"):
        deal_of(parse_recipe(content), tmp_path, 3)


def test_a_run_goes_on_with_the_step_that_it_was_started_with(make_recipe, tmp_path):
    (tmp_path / "environment.json").write_text(json.dumps({"processes": 4}))
    recipe = make_recipe("text", training__scenes=2, training__accumulation=3)
    assert deal_of(recipe, tmp_path, 4) == Deal(processes=4, passes=3, scenes=2)
    assert deal_of(recipe, tmp_path, 1, resume=True) == Deal(processes=1, passes=12, scenes=2)
    assert deal_of(recipe, tmp_path, 8, resume=True) == Deal(processes=8, passes=3, scenes=1)
    whole = make_recipe("text", training__scenes=2, training__batch=12)
    assert deal_of(whole, tmp_path, 4) == Deal(processes=4, passes=3, scenes=1)
    with pytest.raises(RecipeError, match="'accumulation' follows from 'batch'"):
        make_recipe("text", training__batch=12, training__accumulation=2)
