"""Killed, torn, mixed up and shared: whatever happens on the way, the final file is the same."""

import copy
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from stereopsis.benchmarks import Prediction, benchmark_names, prompt_of
from stereopsis.errors import RunFolderError, StereopsisError
from stereopsis.evaluation.predictors import DummyPredictor, Failure, ModelPredictor, Pass
from stereopsis.evaluation.questions import questions
from stereopsis.evaluation.records import read_results
from stereopsis.evaluation.resumable import run_evaluation, settings_of
from stereopsis.evaluation.stream import Part, differences, read_parts
from stereopsis.models.storage import load_model

FINAL = {"records.jsonl", "summary.json", "timings.jsonl", "settings.json"}


@pytest.fixture(scope="module")
def asked(rooms):
    return questions(rooms, benchmark_names())


@pytest.fixture(scope="module")
def dummy():
    return DummyPredictor(most=5)


@pytest.fixture(scope="module")
def whole(dummy, asked, tmp_path_factory) -> dict[str, bytes]:
    """Every file of an evaluation that nothing interrupted, timings aside."""
    folder = tmp_path_factory.mktemp("whole")
    run_evaluation(dummy, asked, folder)
    return final_files(folder)


def final_files(folder: Path) -> dict[str, bytes]:
    assert {path.name for path in folder.iterdir()} == FINAL
    return {name: (folder / name).read_bytes() for name in FINAL - {"timings.jsonl"}}


class Dies(DummyPredictor):
    """Stops in its n-th pass, as a bug or Ctrl-C would."""

    def __init__(self, at: int, **options) -> None:
        super().__init__(**options)
        self.left = at

    def passes(self, scene, annotations, prepared):
        def dying(one):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
            return one.run()

        made = super().passes(scene, annotations, prepared)
        return [Pass(annotations=one.annotations, run=lambda one=one: dying(one)) for one in made]


def interrupted(folder: Path, asked, at: int = 3) -> Path:
    """The part file of an evaluation that stopped in its ``at``-th pass."""
    with pytest.raises(KeyboardInterrupt):
        run_evaluation(Dies(at, most=5), asked, folder)
    return folder / "parts" / "part-0000.jsonl"


def test_a_stream_holds_everything_that_is_asked_of_a_record(asked, tmp_path, rooms):
    part = interrupted(tmp_path, asked)
    records = [json.loads(line) for line in part.read_text().splitlines()]
    assert [r["id"] for r in records] == [a.id for a in rooms[0].annotations[:10]]
    for record in records:
        assert record["checkpoint"] == "dummy-1"
        assert record["protocol"]
        assert record["seconds"] > 0
        assert record["scene_id"] == rooms[0].id
        if record["task"] in ("scanrefer", "multi3drefer"):
            assert len(record["cosines"]) == len(record["boxes"]) == len(rooms[0].proposals)
            assert record["chosen"] == [] or set(record["chosen"]) <= set(range(len(record["boxes"])))
            assert record["scores"]
        else:
            assert record["normalised"]
            assert record["prompt"]
    scanqa = next(r for r in records if r["task"] == "scanqa")
    assert scanqa["scores"] == {}  # CIDEr is known only when the whole set is


@pytest.mark.parametrize("at", [1, 2, 4, 7])
def test_an_interrupted_evaluation_ends_as_if_nothing_had_happened(dummy, asked, whole, tmp_path, at):
    interrupted(tmp_path, asked, at)
    run_evaluation(dummy, asked, tmp_path)
    assert final_files(tmp_path) == whole


def test_what_was_answered_is_not_asked_again(dummy, asked, tmp_path, monkeypatch):
    kept = interrupted(tmp_path, asked, 3).read_bytes()
    answered = []
    original = DummyPredictor._answer
    monkeypatch.setattr(
        DummyPredictor, "_answer", lambda self, a, *more: answered.append((a.task, a.id)) or original(self, a, *more)
    )
    run_evaluation(dummy, asked, tmp_path)
    before = {(r["task"], r["id"]) for r in map(json.loads, kept.decode().splitlines())}
    assert before.isdisjoint(answered)
    assert len(answered) == len(set(answered)) == sum(len(each.annotations) for each in asked) - len(before)


@pytest.mark.parametrize("tail", ['{"task": "sqa3d", "id": "x", "sc', "{", "\n", '{"task": "sqa3d"\n', "\x00\x00\x00"])
def test_a_torn_line_is_dropped_and_asked_again(dummy, asked, whole, tmp_path, tail):
    part = interrupted(tmp_path, asked, 4)
    lines = part.read_bytes().splitlines(keepends=True)
    part.write_bytes(b"".join(lines[:-1]) + (lines[-1][:50] if tail == "{" else b"") + tail.encode())
    run_evaluation(dummy, asked, tmp_path)
    assert final_files(tmp_path) == whole


def test_every_cut_through_the_stream_is_survived(dummy, asked, tmp_path):
    """At any byte: what is read back is the whole lines before it."""
    part = interrupted(tmp_path, asked, 2)
    content = part.read_bytes()
    for cut in range(0, len(content), 97):
        part.write_bytes(content[:cut])
        assert len(read_parts(tmp_path)) == content[:cut].count(b"\n")
        with Part(tmp_path, 0):
            assert part.read_bytes() == content[: content[:cut].rfind(b"\n") + 1]


def test_a_damaged_line_in_the_middle_is_named(dummy, asked, tmp_path):
    part = interrupted(tmp_path, asked, 3)
    lines = part.read_text().splitlines()
    part.write_text("\n".join([lines[0], "{oh no", *lines[1:]]) + "\n")
    with pytest.raises(RunFolderError, match=r"part-0000.jsonl, line 2: not a record .*delete this line"):
        run_evaluation(dummy, asked, tmp_path)
    part.write_text("\n".join([lines[0], lines[0].replace('"prediction": "', '"prediction": "not ')]) + "\n")
    with pytest.raises(RunFolderError, match="was answered before, differently"):
        run_evaluation(dummy, asked, tmp_path)


KILLED = """
import os, signal, sys
from pathlib import Path
from stereopsis.benchmarks import benchmark_named, benchmark_names
from stereopsis.evaluation.predictors import ModelPredictor
from stereopsis.evaluation.questions import questions
from stereopsis.evaluation.resumable import run_evaluation
from stereopsis.evaluation.stream import Part
from stereopsis.packs.build import PackConfig
from stereopsis.models.storage import load_model
from stereopsis.training.sources import open_folder
import torch

torch.set_num_threads(1)
model = load_model(sys.argv[1])
predictor = ModelPredictor(model, model.pack_config(views=4, proposals="detector"), most=6)
append, left = Part.append, [int(sys.argv[4])]

def die(self, records):
    left[0] -= 1
    if not left[0]:  # half of a line, as a kill in the middle of a write leaves it
        os.write(self._file.fileno(), b'{"id": "half a rec')
        os.kill(os.getpid(), signal.SIGKILL)
    append(self, records)

Part.append = die
run_evaluation(predictor, questions(open_folder(Path(sys.argv[2])), benchmark_names()), Path(sys.argv[3]))
"""


def test_a_model_killed_in_the_middle_of_a_line_ends_with_the_same_files(
    finished_run, tiny_rooms, asked, config, tmp_path
):
    """SIGKILL in another process, half a line on disk, then a restart here."""
    arguments = [str(finished_run.folder / "model"), str(tiny_rooms), str(tmp_path / "killed"), "6"]
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    part = tmp_path / "killed" / "parts" / "part-0000.jsonl"
    assert part.read_bytes().endswith(b"half a rec")
    before = read_parts(tmp_path / "killed")
    assert 0 < len(before) < sum(len(each.annotations) for each in asked)
    model = load_model(finished_run.folder / "model")
    predictor = ModelPredictor(model, config, most=6)
    for name in ("killed", "undisturbed"):
        run_evaluation(predictor, asked, tmp_path / name)
    assert final_files(tmp_path / "killed") == final_files(tmp_path / "undisturbed")


def test_a_finished_evaluation_is_kept(dummy, asked, whole, tmp_path):
    first = run_evaluation(dummy, asked, tmp_path)
    stamp = (tmp_path / "records.jsonl").stat().st_mtime_ns
    (tmp_path / "parts").mkdir()  # killed just before the parts were removed
    assert run_evaluation(Dies(1, most=5), asked, tmp_path) == first
    assert (tmp_path / "records.jsonl").stat().st_mtime_ns == stamp
    run_evaluation(dummy, asked, tmp_path, overwrite=True)
    assert (tmp_path / "records.jsonl").stat().st_mtime_ns != stamp
    assert final_files(tmp_path) == whole


def test_other_settings_are_refused_by_name(dummy, asked, rooms, tmp_path, trained, config):
    interrupted(tmp_path, asked)
    few = questions(rooms, ("sqa3d",), 3)
    with pytest.raises(RunFolderError) as told:
        run_evaluation(dummy, few, tmp_path, limit=3)
    for words in ("unfinished evaluation with other settings", "limit: null there, 3 now", "--overwrite", "--output"):
        assert words in str(told.value)
    assert "benchmarks.sqa3d: " in str(told.value)
    with pytest.raises(RunFolderError, match=r"predictor\.questions_per_pass: 5 there, 6 now"):
        run_evaluation(DummyPredictor(most=6), asked, tmp_path)
    with pytest.raises(RunFolderError, match=r"predictor\.checkpoint: dummy-1 there"):
        run_evaluation(ModelPredictor(trained, config), asked, tmp_path)
    run_evaluation(dummy, few, tmp_path, limit=3, overwrite=True)
    assert len(read_results(tmp_path)[0]) == 3
    with pytest.raises(RunFolderError, match="a finished evaluation with other settings"):
        run_evaluation(dummy, asked, tmp_path)


def test_settings_change_with_whatever_changes_answers(trained, config, rooms, asked):
    base = settings_of(ModelPredictor(trained, config), asked)
    assert settings_of(ModelPredictor(trained, config), asked) == base

    def changed(predictor=None, questions=asked) -> list[str]:
        here = settings_of(predictor or ModelPredictor(trained, config), questions)
        return [text.split(":")[0] for text in differences(base, here)]

    assert changed(ModelPredictor(trained, dataclasses.replace(config, views=2))) == ["predictor.views"]
    assert changed(ModelPredictor(trained, config, max_new_tokens=5)) == ["predictor.max_new_tokens"]
    assert changed(questions=asked[::-1]) == ["questions"]
    first = rooms[0].annotations[0]
    other = rooms[0].replace(annotations=(dataclasses.replace(first, answers=("new",)), *rooms[0].annotations[1:]))
    assert changed(questions=questions([other, *rooms[1:]], benchmark_names())) == ["questions"]
    moved = rooms[0].replace(T_aligned_world=np.diag([-1.0, -1.0, 1.0, 1.0]))
    assert changed(questions=questions([moved, *rooms[1:]], benchmark_names())) == ["questions"]


def test_the_checkpoint_is_known_by_every_weight(trained, config, make_tiny_base):
    folder = make_tiny_base()
    model = load_model(folder)
    first = ModelPredictor(model, config).checkpoint
    assert ModelPredictor(load_model(folder), config).checkpoint == first
    with torch.no_grad():
        model.grounding.zero_target[0] += 1e-3
    second = ModelPredictor(model, config).checkpoint
    with torch.no_grad():
        next(model.backbone.parameters()).view(-1)[-1] += 1e-3
    assert len({first, second, ModelPredictor(model, config).checkpoint}) == 3


def test_two_evaluations_never_share_a_folder(dummy, asked, tmp_path):
    interrupted(tmp_path, asked)
    with Part(tmp_path, 0), pytest.raises(RunFolderError, match="being evaluated by another process"):
        run_evaluation(dummy, asked, tmp_path)
    run_evaluation(dummy, asked, tmp_path)


class Ill(DummyPredictor):
    """Has no answer to one question, and cannot enter one scene."""

    def __init__(self, question=None, scene=None, **options) -> None:
        super().__init__(**options)
        self.question, self.scene = question, scene

    def prepare(self, scene):
        if scene.id == self.scene:
            raise StereopsisError("frame '3' cannot be decoded")

    def _answer_all(self, scene, boxes, asked):
        made = super()._answer_all(scene, boxes, asked)
        return [
            Failure(annotation=a, reason="NaN") if a.id == self.question else outcome
            for a, outcome in zip(asked, made, strict=True)
        ]


def test_one_bad_answer_or_scene_loses_nothing_else(dummy, asked, whole, rooms, tmp_path):
    bad = rooms[1].annotations[7]
    total = sum(len(each.annotations) for each in asked)
    with pytest.raises(StereopsisError, match=rf"1 questions got no .*{bad.task} '{bad.id}' of scene .*: NaN") as told:
        run_evaluation(Ill(bad.id, most=5), asked, tmp_path)
    assert f"other {total - 1} are kept" in str(told.value)
    assert not (tmp_path / "records.jsonl").exists()
    with pytest.raises(StereopsisError, match="NaN"):  # again: nothing is doubled
        run_evaluation(Ill(bad.id, most=5), asked, tmp_path)
    run_evaluation(dummy, asked, tmp_path)
    assert final_files(tmp_path) == whole
    other = tmp_path / "scene"
    lost = len(rooms[2].annotations)
    with pytest.raises(StereopsisError, match=rf"{lost} questions got no .*frame '3' cannot be decoded.*; and"):
        run_evaluation(Ill(scene=rooms[2].id, most=5), asked, other)
    run_evaluation(dummy, asked, other)
    assert final_files(other) == whole


def test_nan_from_the_grounding_head_names_the_samples_and_keeps_the_words(trained, config, asked, rooms, tmp_path):
    model = copy.deepcopy(trained)
    with torch.no_grad():
        model.grounding.query[0].weight.fill_(float("nan"))
    only = questions(rooms[:1], ("sqa3d", "scanrefer"))
    pointed = [a for a in only[0].annotations if a.task == "scanrefer"]
    with pytest.raises(
        StereopsisError, match=rf"{len(pointed)} questions .*'{pointed[0].id}'.*proposals' scores are NaN"
    ):
        run_evaluation(ModelPredictor(model, config), only, tmp_path)
    assert {key[0] for key in read_parts(tmp_path)} == {"sqa3d"}


def test_nan_for_one_question_is_its_own(trained, config, rooms, tmp_path):
    """One word's embedding is NaN: whoever shares a pass with it is answered all the same, and as before."""
    only = questions(rooms[:1], ("sqa3d", "scanqa"))
    run_evaluation(ModelPredictor(trained, config), only, tmp_path / "healthy")
    expected = {r["id"]: r["prediction"] for r in read_results(tmp_path / "healthy")[0]}
    tokenize = trained.collator().tokenize
    askers: dict[int, set[str]] = {}
    for annotation in only[0].annotations:
        for token in tokenize(prompt_of(annotation)):
            askers.setdefault(token, set()).add(annotation.id)
    said = {token for text in expected.values() for token in (*tokenize(text), *tokenize(f" {text}"))}
    token, victim = next((t, *names) for t, names in askers.items() if len(names) == 1 and t not in said)
    model = copy.deepcopy(trained)
    model.backbone.lm_head.weight = torch.nn.Parameter(model.backbone.lm_head.weight.detach().clone())
    with torch.no_grad():
        model.backbone.get_input_embeddings().weight[token] = float("nan")
    with pytest.raises(StereopsisError, match=rf"1 questions got no usable answer .*'{victim}'.*word 1 are NaN"):
        run_evaluation(ModelPredictor(model, config), only, tmp_path / "ill")
    kept = {key[1]: record["prediction"] for key, record in read_parts(tmp_path / "ill").items()}
    assert kept == {name: text for name, text in expected.items() if name != victim}


def test_a_scene_that_is_nan_itself_is_told_as_such(trained, config, rooms, tmp_path):
    model = copy.deepcopy(trained)
    with torch.no_grad():
        model.backbone.model.image_newline.fill_(float("nan"))
    with pytest.raises(StereopsisError, match="computes NaN for the scene itself"):
        run_evaluation(ModelPredictor(model, config), questions(rooms[:1], ("sqa3d",)), tmp_path)


def test_silence_is_an_answer(asked, tmp_path):
    """Empty predictions are scored, not lost."""

    class Silent(DummyPredictor):
        def _answer(self, annotation, scene, boxes):
            made = super()._answer(annotation, scene, boxes)
            return made if len(made.scores) else Prediction(annotation=annotation, targets=made.targets)

    tasks = run_evaluation(Silent(), asked, tmp_path)
    assert tasks["sqa3d"]["overall"]["em"]["mean"] == 0.0
    assert tasks["scanqa"]["overall"]["em"]["mean"] == 0.0
    assert {r["prediction"] for r in read_results(tmp_path)[0]} == {""}


def test_nothing_asked_is_an_error(dummy, tmp_path):
    with pytest.raises(StereopsisError, match="nothing is asked"):
        run_evaluation(dummy, [], tmp_path)


def _as_streamed(record: dict) -> dict:
    """A line of the final file as it stood in a part."""
    alone = benchmark_named(record["task"]).scored_alone
    sample = {key: record[key] for key in ("id", "scene_id", "task", "type", "scores", "bleu_counts", "protocol")}
    ended = {} if alone else {"scores": {}, "bleu_counts": [], "meteor_counts": []}
    return {**record, **ended, "sample_score": sample if alone else None, "seconds": 1.0}


LAUNCHERS = {
    "torchrun": "-m torch.distributed.run --standalone --nproc-per-node 2",
    "accelerate": "-m accelerate.commands.launch --cpu --num_processes 2 --num_machines 1 --mixed_precision no "
    "--dynamo_backend no --main_process_port 0",
}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_processes_write_what_one_writes(launcher, finished_run, tiny_rooms, tmp_path):
    """Through the command line, with a model; then a restart of half of it with two."""
    run = tmp_path / "run"
    shutil.copytree(finished_run.folder, run)
    source = Path(__file__).parents[2] / "src"
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    command = ["-m", "stereopsis", "evaluate", str(run), "--scenes", str(tiny_rooms), "--no-meteor"]
    both = [*LAUNCHERS[launcher].split(), *command]

    def call(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, check=False, env=environment, timeout=1500
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    call(*command, "-o", str(tmp_path / "one"))
    said = call(*both, "-o", str(tmp_path / "two"))
    assert said.count("Report:") == 1
    names = ("records.jsonl", "summary.json", "settings.json")
    one, two = (
        {name: (tmp_path / place / "evaluation" / name).read_bytes() for name in names} for place in ("one", "two")
    )
    assert one == two
    # one process's half, gone on with by two
    half = tmp_path / "half" / "evaluation"
    shutil.copytree(tmp_path / "one", tmp_path / "half")
    for name in ("summary.json", "records.jsonl", "timings.jsonl"):
        (half / name).unlink()
    (half / "parts").mkdir()
    lines = one["records.jsonl"].decode().splitlines()
    kept = [json.dumps(_as_streamed(json.loads(line))) for line in lines[5:40]]
    (half / "parts" / "part-0003.jsonl").write_text("\n".join(kept) + '\n{"torn')
    call(*both, "-o", str(tmp_path / "half"))
    assert {name: (half / name).read_bytes() for name in names} == one


@pytest.mark.parametrize("begun", ["bf16", "fp32"])
def test_an_evaluation_goes_on_in_the_precision_that_it_was_begun_in(
    finished_run, tiny_rooms, tmp_path, monkeypatch, begun
):
    from stereopsis.evaluation.evaluate_run import Request, execute, make_plan

    def computes(native):
        monkeypatch.setattr("stereopsis.precision._bfloat16", lambda device: (native, "pretended", None))

    def run():
        plan = make_plan(
            Request(model=str(finished_run.folder), scenes=tiny_rooms, output=tmp_path, limit=2, meteor=False)
        )
        execute(plan)
        return json.loads((tmp_path / "evaluation" / "settings.json").read_text())

    computes(begun == "bf16")
    first = run()
    computes(begun != "bf16")  # another machine
    assert run() == first
    assert {"bfloat16": "bf16", "float32": "fp32"}[first["predictor"]["precision"]] == begun
