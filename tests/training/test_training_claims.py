"""Who trains into a folder has it alone; full disks leave nothing half-written; the last line of a log is exact."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stereopsis.errors import RunFolderError, os_sentence
from stereopsis.files import full_disks_told, locked
from stereopsis.scenes.prepare import PrepareSettings, Room, prepare
from stereopsis.training.run_folder import claimed
from stereopsis.training.train_run import train


def test_a_second_training_is_refused_while_the_first_goes_on(make_recipe, tmp_path):
    recipe = make_recipe("text", training__steps=1)
    with claimed(tmp_path / "run"), pytest.raises(RunFolderError, match="another process is training into"):
        train(recipe, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()  # claimed, never begun
    run = train(recipe, tmp_path / "run", progress=False).folder
    assert not list(run.glob(".*"))
    with claimed(run), pytest.raises(RunFolderError, match="another process"):
        train(recipe, run, overwrite=True, progress=False)
    assert (run / "model" / "manifest.json").is_file()


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_appears_while_scenes_are_packed_is_never_removed(make_recipe, tmp_path, monkeypatch, overwrite):
    from stereopsis.training import train_run

    def packs(*arguments, **options):
        (tmp_path / "run" / "notes").mkdir()
        return shared(*arguments, **options)

    shared = train_run.shared_packs
    monkeypatch.setattr(train_run, "shared_packs", packs)
    recipe = make_recipe("text", training__steps=1)
    if overwrite:
        train(recipe, tmp_path / "run", overwrite=True, progress=False)
        assert not (tmp_path / "run" / "notes").exists()
        return
    with pytest.raises(RunFolderError, match=r"notes has appeared .* and was left alone"):
        train(recipe, tmp_path / "run", progress=False)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes"]


def test_locks_exclude_and_go(tmp_path):
    file = tmp_path / "lock"
    with locked(file), pytest.raises(BlockingIOError), locked(file):
        pass
    assert not file.exists()
    file.write_text("left by a killed process")
    with locked(file):
        pass
    assert not file.exists()


def test_two_starts_of_prepare_share_the_work(tmp_path):
    """What another process is at is left to it, and waited for in the end."""
    code = (
        "import sys, stereopsis.scenes.prepare as p\n"
        "r = p.prepare([p.Room(seed=n) for n in range(4)], sys.argv[1], workers=1)\n"
        "print(r.count('done'), r.count('kept'), r.count('failed'))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "rooms")]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    counts = [[int(n) for n in each.communicate(timeout=120)[0].split()] for each in started]
    assert sum(done for done, _, _ in counts) == 4
    assert all(done + kept == 4 and failed == 0 for done, kept, failed in counts)
    assert not list((tmp_path / "rooms").glob("*.lock"))
    assert not list((tmp_path / "rooms").glob(".*"))


def test_a_busy_scene_is_left_for_the_end(tmp_path):
    report = prepare([Room(seed=0)], tmp_path, PrepareSettings(), workers=1)
    assert report.count("busy") == 0
    assert report.count("done") == 1


def children_of(parent: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = path.read_text().split(" ", 1)
        except OSError:
            continue
        if int(rest.rsplit(")", 1)[1].split()[1]) == parent:
            found.append(int(pid))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes as Linux shows them")
def test_workers_end_when_their_parent_is_killed(tmp_path):
    code = (
        "import sys, stereopsis.scenes.prepare as p\n"
        "if __name__ == '__main__':\n"
        "    p.prepare([p.Room(seed=n) for n in range(400)], sys.argv[1], workers=2)\n"
    )
    script = tmp_path / "job.py"
    script.write_text(code)
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path / "rooms")])
    until = time.monotonic() + 120
    while not list((tmp_path / "rooms").glob("room-*")) and time.monotonic() < until:
        time.sleep(0.1)
    workers = children_of(process.pid)
    assert len(workers) >= 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    until = time.monotonic() + 10
    alive = workers
    while alive and time.monotonic() < until:
        time.sleep(0.1)
        alive = [pid for pid in alive if Path(f"/proc/{pid}/stat").exists() and not zombie(pid)]
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
    assert not alive


def zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture
def file_limit() -> Iterator[None]:
    """A disk on which files cannot grow beyond 60 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_ends_training_with_a_sentence_and_leaves_nothing_half_written(make_recipe, tmp_path, file_limit):
    for name, save_every in (("final", 0), ("checkpoints", 1)):
        folder = tmp_path / name
        recipe = make_recipe("text", training__steps=2, training__save_every=save_every)
        with pytest.raises(OSError, match=r"File too large|No space left") as caught:
            train(recipe, folder, progress=False)
        assert "free some space" in os_sentence(caught.value)
        assert not (folder / "model").exists()
        assert not list(folder.glob("checkpoints/checkpoint-*"))
        assert not list(folder.glob(".model*"))


def test_after_a_full_disk_the_run_goes_on_to_the_same_end(make_recipe, tmp_path, weights_of):
    recipe = make_recipe("text", training__steps=3, training__save_every=1)
    whole = train(recipe, tmp_path / "whole", progress=False).folder
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"File too large|No space left"):
            train(recipe, tmp_path / "run", progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    train(recipe, tmp_path / "run", resume=True, progress=False)
    ours, theirs = weights_of(tmp_path / "run" / "model"), weights_of(whole / "model")
    assert all(bool((ours[key] == theirs[key]).all()) for key in theirs)


def test_other_errors_of_libraries_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shapes"), full_disks_told():
        raise RuntimeError("shapes differ")
    with pytest.raises(OSError, match="No space left"), full_disks_told():
        raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos")


def test_the_last_line_of_a_resumed_log_equals_the_uninterrupted_ones(make_recipe, tmp_path):
    """Also where checkpoints and log lines do not fall together."""

    changes = {"training__steps": 7, "training__save_every": 3, "training__log_every": 5, "training__keep": 5}
    recipe = make_recipe("text", "grounding", **changes)
    whole = train(recipe, tmp_path / "whole", progress=False).folder
    copy = shutil.copytree(
        whole, tmp_path / "copy", ignore=shutil.ignore_patterns("model", "checkpoint-6", "checkpoint-7")
    )
    train(recipe, copy, resume=True, progress=False)
    timed = ("seconds", "train_runtime", "train_samples_per_second", "train_steps_per_second")
    lines = [
        [
            {k: v for k, v in json.loads(line).items() if k not in timed}
            for line in (f / "metrics.jsonl").read_text().splitlines()
        ]
        for f in (whole, copy)
    ]
    assert lines[0] == lines[1]
    assert "train_loss" in lines[0][-1]
    weighted = [(line["loss"], line["step"]) for line in lines[0] if "loss" in line]
    steps = [step for _, step in weighted]
    mean = sum(loss * (step - before) for (loss, step), before in zip(weighted, [0, *steps], strict=False)) / 7
    assert lines[0][-1]["train_loss"] == pytest.approx(mean, rel=1e-12)
