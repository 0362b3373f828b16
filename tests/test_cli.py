"""The command line as people meet it: help with examples, whole small round trips, and errors in one line."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from stereopsis import __version__, cli
from stereopsis.benchmarks import trained_benchmarks
from stereopsis.scenes.stored import read_scene

COMMANDS = ("demo", "prepare", "train", "evaluate", "score", "compare", "probe", "cache", "engine", "report", "info")


class Said(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """Everything that was printed, however it was wrapped."""
        return " ".join(self.out.split())


@pytest.fixture
def stereopsis(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., Said]:
    """Runs the command line in this process."""

    def call(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["stereopsis", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        return Said(int(end.value.code or 0), said.out, said.err)

    return call


@pytest.fixture
def tiny_recipe(recipe_content, tmp_path: Path) -> Path:
    """A recipe file with every objective, two steps."""
    path = tmp_path / "tiny.yaml"
    path.write_text(json.dumps(recipe_content(training__steps=2)))
    return path


def test_help_names_every_command(stereopsis):
    said = stereopsis("--help")
    assert said.code == 0
    assert all(command in said.out for command in COMMANDS)
    assert "supervising what it outputs" in said.words


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example_of_itself(stereopsis, command):
    said = stereopsis(command, "--help")
    assert said.code == 0
    assert "Example" in said.out
    assert f"stereopsis {command}" in said.words.split("Example")[1]
    assert stereopsis(command, "-h") == said


def test_version(stereopsis):
    assert stereopsis("--version").out == f"stereopsis {__version__}\n"


@pytest.mark.parametrize("arguments", [("trian",), ("train",), ("prepare", "rooms"), ("train", "x", "--steps", "5")])
def test_wrong_usage_ends_with_code_2_and_shows_the_usage(stereopsis, arguments):
    said = stereopsis(*arguments)
    assert said.code == 2
    assert "Usage: stereopsis" in said.err


def test_info_tells_about_anything(stereopsis, finished_run, tiny_rooms, tiny_base):
    said = stereopsis("info")
    assert said.code == 0
    assert "torch" in said.out
    assert "baseline-tiny" in stereopsis("info", "baseline-tiny", "-s", f"model.base={tiny_base}").out
    scene = stereopsis("info", tiny_rooms / "room-00000001")
    assert "room-00000001" in scene.out
    assert '"views": 4' in scene.out
    run = stereopsis("info", finished_run.folder)
    assert "cross_view" in run.out
    for part in ("backbone", "trained", "grounding", "training_heads"):
        assert part in run.out


def test_rooms_are_prepared_once_and_kept(stereopsis, tmp_path):
    pytest.importorskip("embreex")
    said = stereopsis("prepare", "rooms", "--count", 2, "-o", tmp_path / "rooms", "--workers", 1, "--inspect")
    assert said.code == 0, said.err
    assert "2 done, 0 there already, 0 failed" in said.out
    assert f"{tmp_path / 'rooms'}\n" in said.out
    folders = [tmp_path / "rooms" / f"room-{seed:08d}" for seed in range(2)]
    for folder in folders:
        scene = read_scene(folder)
        assert scene.birdseye is not None
        assert {a.task for a in scene.annotations} == {*trained_benchmarks(), "vsibench"}
        for kind in ("contact", "above"):
            assert (tmp_path / "rooms" / f"{folder.name}.{kind}.png").is_file()
            assert f"{folder.name}.{kind}.png\n" in said.out

    before = (folders[0] / "scene.json").stat().st_mtime_ns
    again = stereopsis("prepare", "rooms", "--count", 2, "-o", tmp_path / "rooms", "--workers", 1)
    assert again.code == 0, again.err
    assert "0 done, 2 there already, 0 failed" in again.out
    assert (folders[0] / "scene.json").stat().st_mtime_ns == before


def test_a_capture_is_prepared_inspected_kept_and_replaced(stereopsis, capture, tmp_path):
    out = tmp_path / "out"
    said = stereopsis("prepare", capture, "-o", out, "--inspect")
    assert said.code == 0, said.err
    for words in ("1 done, 0 there already", "10, 10 with depth", '"method": "estimated"', "432 x 432 pixels"):
        assert words in said.out
    scene = read_scene(out / "office")
    assert len(scene.frames) == 10
    there = {path.name for path in out.iterdir()}
    assert there == {"office", "office.contact.png", "office.above.png", "prepare.json"}
    made = (out / "office" / "scene.json").stat().st_mtime_ns
    assert "0 done, 1 there already" in stereopsis("prepare", capture, "-o", out).out
    assert (out / "office" / "scene.json").stat().st_mtime_ns == made
    other = stereopsis("prepare", capture, "-o", out, "--birdseye", 64)
    assert other.code == 1
    assert "was prepared with other settings (birdseye_size: 432 there, 64 now)" in other.err
    assert stereopsis("prepare", capture, "-o", out, "--birdseye", 64, "--overwrite").code == 0
    assert read_scene(out / "office").birdseye.image.shape == (64, 64, 3)


def test_preparing_ends_with_a_verdict_and_tells_programs_everything(stereopsis, capture, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert "Usable: 10 views with poses, vision only (no words)." in stereopsis("prepare", capture, "-o", out).out
    said = stereopsis("prepare", capture, "-o", out, "--json")
    told = json.loads(said.out)
    assert told == json.loads((out / "prepare.json").read_text())
    assert (told["kept"], told["failed"]) == (1, 0)
    (scene,) = told["scenes"]
    assert scene["usable"] is True
    assert scene["frames"] == 10
    assert scene["notes"]["alignment"]["confidence"] == read_scene(out / "office").provenance["alignment"]["confidence"]
    monkeypatch.chdir(tmp_path)
    (facts,) = json.loads(stereopsis("prepare", capture, "--inspect", "--json").out)
    assert facts["frames"] == 10
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # no picture


def test_a_scene_is_inspected_without_being_written(stereopsis, capture, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = stereopsis("prepare", capture, "--inspect")
    assert said.code == 0, said.err
    assert "10, 10 with depth" in said.out
    assert [path.name for path in tmp_path.iterdir()] == ["office.contact.png"]
    assert "--output" in stereopsis("prepare", capture).err


def test_bad_frames_stop_the_preparation_unless_they_may_be_skipped(stereopsis, capture, tmp_path):
    copy = tmp_path / "office"
    shutil.copytree(capture, copy)
    (copy / "frame-000004.pose.txt").write_text("nan " * 16)
    said = stereopsis("prepare", copy, "-o", tmp_path / "out")
    assert said.code == 1
    assert "frame-000004.pose.txt" in said.err
    assert not (tmp_path / "out" / "office").exists()
    said = stereopsis("prepare", copy, "-o", tmp_path / "out", "--skip-bad-frames")
    assert said.code == 0, said.err
    assert "1 frames left out" in said.out
    assert list(read_scene(tmp_path / "out" / "office").provenance["skipped"]) == ["frame-000004"]


def test_one_bad_scene_does_not_stop_the_others(stereopsis, capture, tmp_path):
    for name in ("one", "two", "three"):
        shutil.copytree(capture, tmp_path / "scans" / name)
    (tmp_path / "scans" / "three" / "frame-000001.color.png").unlink()
    arguments = ("prepare", tmp_path / "scans", "-o", tmp_path / "out", "--workers", 1)
    said = stereopsis(*arguments)
    assert said.code == 1
    assert "2 done, 0 there already, 1 failed" in said.out
    summary = json.loads((tmp_path / "out" / "prepare.json").read_text())
    assert [scene["status"] for scene in summary["scenes"]] == ["done", "failed", "done"]
    assert "frame-000001" in summary["scenes"][1]["reason"]
    assert stereopsis(*arguments, "--max-failed", 0.5).code == 0


def test_train_evaluate_report(stereopsis, tiny_recipe, tmp_path, tiny_rooms):
    folder = tmp_path / "run"
    said = stereopsis("train", tiny_recipe, "-o", folder, "-s", "training.steps=3", "--pictures", 1)
    assert said.code == 0, said.err
    assert f"Model:  {folder / 'model'}\n" in said.out
    assert f"Report: {folder / 'report.html'}\n" in said.out
    assert (folder / "pictures" / "pictures.json").is_file()
    trained = (folder / "report.html").read_text()
    said = stereopsis("evaluate", folder, "--no-meteor")
    assert said.code == 0, said.err
    assert "Report: " in said.out
    for words in ("tiny", "SQA3D", "ScanRefer"):
        assert words in said.out
    assert (folder / "report.html").read_text() != trained
    records = (folder / "evaluation" / "records.jsonl").read_text().splitlines()
    asked = [each.task for path in tiny_rooms.iterdir() for each in read_scene(path).annotations]
    assert len(records) == sum(task in trained_benchmarks() for task in asked)
    said = stereopsis("report", folder, "-o", tmp_path / "elsewhere.html")
    assert said.code == 0, said.err
    page = (tmp_path / "elsewhere.html").read_text()
    assert "<html" in page
    assert page == (folder / "report.html").read_text()  # views, boxes and maps as `evaluate` had them


def test_the_dummy_goes_through_everything_without_weights(stereopsis, tiny_rooms, tmp_path, monkeypatch):
    monkeypatch.setattr("stereopsis.models.storage.load_model", pytest.fail)
    out = tmp_path / "dummy"
    arguments = (
        "evaluate",
        "dummy",
        "--scenes",
        tiny_rooms,
        "-o",
        out,
        "--benchmarks",
        "scanrefer,sqa3d",
        "--limit",
        5,
    )
    said = stereopsis(*arguments)
    assert said.code == 0, said.err
    assert "SQA3D" in said.out
    assert f"Report: {out / 'report.html'}\n" in said.out
    records = [json.loads(line) for line in (out / "evaluation" / "records.jsonl").read_text().splitlines()]
    assert sorted(r["task"] for r in records) == ["scanrefer"] * 5 + ["sqa3d"] * 5
    assert stereopsis(*arguments).code == 0  # kept
    other = stereopsis(*arguments[:-1], 6)
    assert other.code == 1
    assert "limit: 5 there, 6 now" in other.err
    assert stereopsis(*arguments[:-1], 6, "--overwrite").code == 0
    assert len((out / "evaluation" / "records.jsonl").read_text().splitlines()) == 12


def test_questions_without_public_answers_end_in_a_submission(stereopsis, tiny_rooms, tmp_path):
    """ScanQA's test splits: asked, told that nothing is scored, and written as the server takes them."""
    rooms = sorted(path.name for path in tiny_rooms.iterdir() if path.is_dir())
    file, out = tmp_path / "ScanQA_v1.0_test_wo_obj.json", tmp_path / "dummy"
    asked = [{"scene_id": room, "question_id": f"test-{n}", "question": "Where?"} for n, room in enumerate(rooms)]
    file.write_text(json.dumps(asked))
    arguments = ("evaluate", "dummy", "--scenes", tiny_rooms, "-o", out, "--annotations", f"scanqa={file}")
    said = stereopsis(*arguments, "--benchmarks", "scanqa")
    assert said.code == 0, said.err
    sent = out / "evaluation" / "submission_scanqa.json"
    assert f"Submission: {sent}\n" in said.out
    assert [each["question_id"] for each in json.loads(sent.read_text())] == [each["question_id"] for each in asked]


def test_probe_joins_scores_with_an_evaluation_and_draws(stereopsis, finished_run, tiny_rooms, tmp_path):
    """Figures by layer on the page, a sheet per scene, quartiles where an evaluation of the same scenes is named."""
    evaluated = stereopsis("evaluate", finished_run.folder, "--scenes", tiny_rooms, "-o", tmp_path / "e", "--no-meteor")
    assert evaluated.code == 0, evaluated.err
    output = tmp_path / "probe"
    arguments = ("--views", 4, "--voxel", 1.0, "--evaluation", tmp_path / "e" / "evaluation", "-o", output)
    said = stereopsis("probe", finished_run.folder, tiny_rooms, *arguments)
    assert said.code == 0, said.err
    result = json.loads((output / "probe.json").read_text())
    assert next(iter(result["layers"])) == "vision"
    assert result["layers"]["0"]["score"]["mean"] <= 1
    assert "sqa3d" in result["downstream"]
    page = (output / "probe.html").read_text()
    assert "Does correspondence predict performance?" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    teacher = stereopsis(
        "probe", finished_run.folder, tiny_rooms, "--teacher", "point_map", "--voxel", 1.0, "-o", output
    )
    assert teacher.code == 0, teacher.err
    assert list(json.loads((output / "probe.json").read_text())["layers"]) == ["point_map"]


def test_probe_asks_for_scenes_or_rooms(stereopsis, finished_run, tmp_path):
    said = stereopsis("probe", finished_run.folder, "-o", tmp_path / "p")
    assert said.code == 1
    assert "--rooms N" in said.err
    said = stereopsis("probe", finished_run.folder, tmp_path, "--layers", "last", "-o", tmp_path / "p")
    assert "numbers with commas" in said.err


def test_a_dry_run_of_training_lists_what_is_missing(stereopsis, tiny_recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = stereopsis("train", "ross3d-7b", "--dry-run")
    assert said.code == 1
    assert "https://huggingface.co/lmms-lab/LLaVA-Video-7B-Qwen2" in said.out
    assert "things missing; nothing was made" in said.out
    assert [path.name for path in tmp_path.iterdir()] == [tiny_recipe.name]
    there = stereopsis("train", tiny_recipe, "--dry-run")
    assert there.code == 0, there.out
    assert "Everything that tiny needs is there" in there.out
    assert stereopsis("train", tiny_recipe).code == 2


def test_a_dry_run_tells_and_touches_nothing(stereopsis, finished_run, tiny_rooms, tmp_path, monkeypatch):
    monkeypatch.setattr("stereopsis.models.storage.load_model", pytest.fail)
    run = tmp_path / "run"
    shutil.copytree(finished_run.folder, run)
    before = sorted(path.relative_to(run) for path in run.rglob("*"))
    said = stereopsis("evaluate", run, "--benchmarks", "sqa3d,scan2cap", "--limit", 3, "--dry-run")
    assert said.code == 0, said.err
    for words in ("scenes from", "3 questions, protocol 'strict'", "views per scene 4", "there already nothing"):
        assert words in said.words
    rooms = ("evaluate", "dummy", "--rooms", 7, "-s", f"data.cache={tmp_path / 'cache'}", "--dry-run")
    said = stereopsis(*rooms)
    assert said.code == 0, said.err
    assert "7 (their questions are not counted above)" in said.words
    assert not (tmp_path / "cache").exists()
    assert sorted(path.relative_to(run) for path in run.rglob("*")) == before


def test_a_run_is_resumed_and_replaced_from_the_command_line(stereopsis, tiny_recipe, tmp_path):
    folder, options = tmp_path / "run", ("-s", "training.save_every=1", "--pictures", 0)
    train = ("train", tiny_recipe, "-o", folder, *options)
    assert stereopsis(*train).code == 0
    refused = stereopsis(*train)
    assert refused.code == 1
    assert "--resume" in refused.err
    assert "--overwrite" in refused.err
    shutil.rmtree(folder / "checkpoints" / "checkpoint-2")
    shutil.rmtree(folder / "model")
    assert stereopsis(*train, "--resume").code == 0
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 2]
    assert (folder / "model" / "config.json").is_file()
    assert stereopsis(*train, "--overwrite", "-s", "training.steps=1").code == 0


def test_the_demo_compares_three_arms(stereopsis, tiny_base, tiny_rooms, tmp_path):
    small = {
        "model.base": tiny_base,
        "data.sources": f"[{{path: {tiny_rooms}}}]",
        "data.views": 4,
        "evaluation.sources": f"[{{path: {tiny_rooms}}}]",
        "teachers": "{latent: pixels, view_size: 32, birdseye_size: 32}",
        "denoiser": "{width: 24, depth: 1, heads: 2}",
        "training": "{steps: 2, scenes: 2, threads: 1, log_every: 1}",
    }
    overrides = [part for key, value in small.items() for part in ("-s", f"{key}={value}")]
    said = stereopsis("demo", "-o", tmp_path / "demo", *overrides)
    assert said.code == 0, said.err
    for words in ("blind", "text + grounding", "SQA3D"):
        assert words in said.out
    assert f"{tmp_path / 'demo' / 'report.html'}\n" in said.out
    comparison = json.loads((tmp_path / "demo" / "comparison.json").read_text())
    assert [arm["name"] for arm in comparison["arms"]] == ["blind", "baseline", "stereopsis"]
    assert "majority" in (tmp_path / "demo" / "report.html").read_text()


@pytest.fixture
def broken(tmp_path: Path, finished_run, tiny_rooms, recipe_content) -> dict[str, object]:
    """What the failing commands are about."""
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("years of work")
    (tmp_path / "bare").mkdir()
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe_content("text", training__steps=1)))
    return {"tmp": tmp_path, "run": finished_run.folder, "rooms": tiny_rooms, "recipe": tmp_path / "recipe.yaml"}


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("info stereopsis-tinny", "no recipe 'stereopsis-tinny' (did you mean 'stereopsis-tiny'?)"),
        ("info {tmp}/bare", "is in no known scene layout"),
        ("train nothing -o {tmp}/out", "no recipe 'nothing'"),
        ("train {recipe} -o {tmp}/out -s training.stepps=5", "'training.stepps' (did you mean 'steps'?)"),
        ("train {recipe} -o {tmp}/out -s training", "override 'training' must look like section.key=value"),
        ("train {recipe} -o {tmp}/out -s [/bold]", "override '[/bold]' must look like section.key=value"),
        ("train {recipe} -o {tmp}/out -s model.positions=[red]", "found ['red']"),
        ("train {recipe} -o {tmp}/out -s model.base=nowhere", "base 'nowhere': no such folder"),
        ("train {recipe} -o {tmp}/out -s data.sources=[{{path:nowhere}}]", "data.sources"),
        ("train {recipe} -o {tmp}/out -s data.sources.0.path={tmp}/nowhere", "nowhere; make it with"),
        ("train {recipe} -o {tmp}/out -s training.schedule=cosinus", "training.schedule"),
        ("train {recipe} -o {tmp}/out -s objectives.vanilla={{}} -s teachers.latent=taef1:nowhere", "nowhere"),
        ("train {recipe} -o {run}", "already holds a run; add --resume to continue it, --overwrite to replace it"),
        ("train {recipe} -o {run} --resume", "holds a run of another recipe"),
        ("train {recipe} -o {tmp}/foreign --overwrite", "is not empty and holds no run"),
        ("train {recipe} -o {tmp}/out --resume", "holds no run to resume"),
        ("evaluate {tmp}/nowhere", "holds no finished run"),
        ("evaluate {run} --benchmarks sqa3d,scanref", "unknown benchmark 'scanref' (did you mean 'scanrefer'?)"),
        ("evaluate {run} --protocol scan2cap=loose", "scan2cap has no protocol 'loose'"),
        ("evaluate {run} --benchmarks sqa3d --protocol scan2cap=released", "scan2cap, which is not evaluated here"),
        ("evaluate {run} --limit 0", "--limit must be at least 1"),
        ("evaluate {run} --precision fp8", "precision must be one of auto, bf16, fp32, found 'fp8'"),
        ("evaluate {run} --scenes {rooms} --rooms 3", "--scenes and --rooms exclude each other"),
        ("evaluate {run} --scenes {tmp}/missing", "missing; make it with"),
        ("evaluate dummy --scenes {rooms}", "say with --output where its evaluation goes"),
        ("evaluate dummy --scenes {rooms} -o {tmp}/foreign", "is not empty and holds no evaluation"),
        ("evaluate dummy --scenes {rooms} -o {run}", "holds another run; choose another --output"),
        ("evaluate {run} -s evaluation.proposal=x", "'evaluation.proposal' (did you mean 'proposals'?)"),
        ("report {tmp}/bare", "holds neither a run"),
        ("prepare {tmp}/nowhere -o {tmp}/out", "nowhere: does not exist"),
        ("prepare {tmp}/foreign -o {tmp}/out", "is in no known scene layout"),
        ("prepare rooms -o {tmp}/out --split trian", "unknown split 'trian' (did you mean 'train'?)"),
        ("demo -o {tmp}/foreign", "is not empty and holds no earlier demo"),
    ],
)
def test_what_people_get_wrong_is_told_without_a_traceback(stereopsis, broken, command, words):
    said = stereopsis(*command.format(**broken).split())
    assert said.code == 1
    assert said.err.startswith("error: ")
    assert words in said.err
    assert "Traceback" not in said.err + said.out
    if "known scene layout" not in said.err:  # that one lists the layouts
        assert said.err.count("\n") == 1
    assert not (broken["tmp"] / "out").exists()
    assert [path.name for path in (broken["tmp"] / "foreign").iterdir()] == ["thesis.tex"]


def test_our_own_mistakes_are_not_hidden(stereopsis, monkeypatch):
    """Only errors that were made for people lose their traceback."""

    def fail(*_, **__):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("stereopsis.cli.info.describe", fail)
    monkeypatch.setattr(sys, "argv", ["stereopsis", "info"])
    with pytest.raises(ZeroDivisionError, match="a bug"):
        cli.main()


def test_the_protocol_is_part_of_an_evaluation_and_missing_java_is_told(stereopsis, tiny_rooms, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    pytest.importorskip("pycocoevalcap.meteor")
    out = tmp_path / "out"
    arguments = ("evaluate", "dummy", "--scenes", tiny_rooms, "--benchmarks", "scan2cap,scanqa", "-o", out)
    told = stereopsis(*arguments, "--protocol", "scan2cap=released", "--dry-run")
    assert "questions, protocol 'released'" in told.out
    assert "questions, protocol 'plain'" in told.out
    said = stereopsis(*arguments, "--protocol", "scan2cap=released")
    assert said.code == 0, said.err
    assert "Scan2Cap has no METEOR@0.5: METEOR needs Java" in " ".join(said.out.split())
    records = [json.loads(line) for line in (out / "evaluation" / "records.jsonl").read_text().splitlines()]
    captions = [record for record in records if record["task"] == "scan2cap"]
    assert {record["protocol"] for record in captions} == {"released"}
    assert {record["prediction"] for record in captions} == {"this is a chair ."}
    assert "METEOR needs Java" in (out / "report.html").read_text()
    table = stereopsis("report", out, "--table", tmp_path / "table.md")
    assert "ScanQA has no METEOR: METEOR needs Java" in table.out
    other = stereopsis(*arguments)
    assert other.code == 1
    assert "protocols.scan2cap: released there, strict now" in other.err


def test_a_benchmarks_own_file_is_asked_about_prepared_scenes(stereopsis, tiny_rooms, tmp_path):
    rooms = sorted(folder.name for folder in tiny_rooms.iterdir() if folder.is_dir())
    entries = [
        {
            "question_id": f"val-{number}",
            "scene_id": rooms[number],
            "question": "What color is the chair?",
            "answers": ["red", "dark red"],
            "object_ids": [],
            "object_names": [],
        }
        for number in range(2)
    ]
    file = tmp_path / "ScanQA_v1.0_val.json"
    file.write_text(json.dumps(entries))
    arguments = ("evaluate", "dummy", "--scenes", tiny_rooms, "--annotations", f"scanqa={file}")
    told = stereopsis(*arguments, "--dry-run")
    assert told.code == 0, told.err
    assert "2 questions, protocol 'plain'" in told.out
    said = stereopsis(*arguments, "-o", tmp_path / "out", "--no-meteor")
    assert said.code == 0, said.err
    records = (tmp_path / "out" / "evaluation" / "records.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in records] == ["val-0", "val-1"]
    assert "expected BENCHMARK=FILE" in stereopsis("evaluate", "dummy", "--annotations", "scanqa").err
    entries[0]["scene_id"] = "scene9999_00"
    file.write_text(json.dumps(entries))
    lost = stereopsis(*arguments, "--dry-run")
    assert lost.code == 1
    assert "scene9999_00" in lost.err
