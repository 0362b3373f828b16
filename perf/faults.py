"""The fault campaign: damaged files, mistakes, attacks, full disks and kills; run: python perf/faults.py (make faults).

Every fault is injected into a copy of sound inputs (procedural rooms, five capture layouts, a tiny trained run) and
meets the reader or command that people would use, in a child process of its own, timed and measured. Outcomes:

- error: a sentence of ours, or of the system, as the command line prints it
- counted: something was left out, and the result says how many
- harmless: the result is the one without the fault
- silent, traceback, hang, memory: what must not happen; the script then ends with 1

The table is printed, and ``results/faults.json`` lists every fault with its outcome and words.
"""

import argparse
import collections
import contextlib
import datetime
import hashlib
import json
import os
import pickle
import platform
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stereopsis.errors import StereopsisError, os_sentence
from stereopsis.scenes import open_scene
from stereopsis.scenes.rooms import RoomConfig, make_room
from stereopsis.scenes.scene import Scene

ROOT = Path(__file__).resolve().parents[1]
MOST_SECONDS, MOST_BYTES = 60, 10**9
BAD = ("silent", "traceback", "hang", "memory")
Answer = tuple[str, int]
"""A digest of what was read, and how much was left out, counted."""
Damage = Callable[[Path], object]


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def instead(make: Callable[[Path], object]) -> Damage:
    def damage(file: Path) -> None:
        file.unlink()
        make(file)

    return damage


ANY: dict[str, Damage] = {
    "missing": lambda file: file.unlink(),
    "empty": lambda file: file.write_bytes(b""),
    "cut in half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "garbage": lambda file: file.write_bytes(bytes(range(256)) * 8),
    "a folder": instead(lambda file: file.mkdir()),
    "a pipe": instead(lambda file: os.mkfifo(file)),
    "an endless device": instead(lambda file: file.symlink_to("/dev/zero")),
    "a link to itself": instead(lambda file: file.symlink_to(file.name)),
}
TEXT: dict[str, Damage] = {
    "another encoding": lambda file: file.write_bytes(b"\xff\xfe\x00" + file.read_bytes()),
    "nested 200 000 deep": lambda file: file.write_text("[" * 200_000 + "]" * 200_000),
}
CHECKED: dict[str, Damage] = {"one bit": flip, "longer": lambda file: file.write_bytes(file.read_bytes() + b"\0")}
"""For files that carry a checksum: nothing may pass."""


class Campaign:
    """Runs faults one after the other and keeps their outcomes."""

    def __init__(self, only: str) -> None:
        self.only, self.faults = only, []

    def meet(self, kind: str, name: str, action: Callable[[], Answer], sound: Answer | None = None) -> None:
        """Let a reader meet a fault that lies there already."""
        if self.only not in f"{kind} {name}":
            return
        start = time.monotonic()
        outcome, words, peak = in_child(action, sound)
        fault = {"kind": kind, "fault": name, "outcome": outcome, "words": words}
        self.faults.append({**fault, "seconds": round(time.monotonic() - start, 1), "megabytes": round(peak / 1e6)})
        if outcome in BAD:
            print(f"  {outcome}: {kind}: {name}: {words}", flush=True)

    def each(
        self, kind: str, folder: Path, files: list[str], damages: dict[str, Damage], action: Callable[[Path], Answer]
    ) -> None:
        """Damage every file of a copy in every way."""
        with copied(folder) as copy:
            sound = action(copy)
        for file in files:
            for name, damage in damages.items():
                if self.only not in f"{kind} {file}: {name}":
                    continue
                with copied(folder) as copy:
                    damage(copy / file)
                    self.meet(kind, f"{file}: {name}", lambda copy=copy: action(copy), sound)

    def command(self, kind: str, name: str, words: list[str], *, limit: int | None = None, code: str = "") -> None:
        """The real command line, with at most so many bytes a file; a traceback is what must not be."""
        if self.only not in f"{kind} {name}":
            return
        start = time.monotonic()
        limits = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) if limit else None
        try:
            done = subprocess.run(
                [sys.executable, "-m", "stereopsis", *words],
                capture_output=True,
                text=True,
                timeout=MOST_SECONDS,
                preexec_fn=limits,
                check=False,
            )
        except subprocess.TimeoutExpired:
            outcome, said = "hang", ""
        else:
            said = done.stderr.strip()
            outcome = "traceback" if "Traceback" in said else "error" if done.returncode else "silent"
        seconds = round(time.monotonic() - start, 1)
        self.faults.append({"kind": kind, "fault": name, "outcome": outcome, "words": said[-300:], "seconds": seconds})
        if outcome in BAD:
            print(f"  {outcome}: {kind}: {name}: {said[-300:]}", flush=True)


@contextlib.contextmanager
def copied(folder: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fault-") as place:
        yield shutil.copytree(folder, Path(place) / folder.name, symlinks=True)


def in_child(action: Callable[[], Answer], sound: Answer | None) -> tuple[str, str, int]:
    """The outcome of an action in a forked child, its words, and its memory above this process's, bytes."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        before = resident()
        said = tell(action, sound)
        used = max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)
        os.write(theirs, pickle.dumps((*said, used)))
        os._exit(0)
    os.close(theirs)
    until = time.monotonic() + MOST_SECONDS
    done = 0
    while not done and time.monotonic() < until:
        done, _ = os.waitpid(pid, os.WNOHANG)
        time.sleep(0.002)
    if not done:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    with open(ours, "rb") as file:
        data = file.read()
    if not data:
        return ("traceback", "the process died", 0) if done else ("hang", "", 0)
    outcome, words, peak = pickle.loads(data)  # from our own child
    return ("memory" if peak > MOST_BYTES else outcome), words, peak


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def tell(action: Callable[[], Answer], sound: Answer | None) -> tuple[str, str]:
    try:
        found = action()
    except StereopsisError as error:
        return ("error", str(error)[:300]) if len(str(error)) > 20 else ("traceback", f"says too little: {error}")
    except (OSError, MemoryError, RecursionError) as error:  # the command line has a sentence for these
        return "error", os_sentence(error) if isinstance(error, OSError) else str(error)
    except BaseException as error:
        return "traceback", f"{type(error).__name__}: {error}"[:300]
    if sound is None:
        return "silent", "it was accepted"
    if found[1] > sound[1]:
        return "counted", f"{found[1] - sound[1]} left out"
    return ("harmless", "") if found[0] == sound[0] else ("silent", "another result, and not a word")


def digest(*values: Any) -> str:
    sha = hashlib.sha256()
    for value in values:
        sha.update(np.ascontiguousarray(value).tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    return sha.hexdigest()


def scene_answer(folder: Path) -> Answer:
    """Everything of a scene, pixels too; bad frames are left out and counted."""
    from stereopsis.scenes import verify_scene

    scene = verify_scene(open_scene(folder, on_bad_frame="skip"), on_bad_frame="skip")
    skipped = len(scene.provenance.get("skipped") or {}) + sum((scene.provenance.get("unmatched") or {}).values())
    facts: list[Any] = [scene.objects and [o.label for o in scene.objects], [a.to_dict() for a in scene.annotations]]
    for frame in scene.frames:
        facts += [frame.name, np.round(frame.T_world_camera, 9), frame.colour(), frame.depth()]
    if scene.birdseye is not None:
        facts += [scene.birdseye.image, scene.birdseye.void]
    return digest(*facts), skipped


def model_answer(run: Path) -> Answer:
    from stereopsis.training.train_run import open_run

    _, model = open_run(run)
    return digest(*(tensor.numpy() for tensor in model.state_dict().values())), 0


def checkpoint_answer(folder: Path) -> Answer:
    from stereopsis.training.checkpoints import check_checkpoint

    check_checkpoint(folder)
    return "sound", 0


def report_answer(run: Path) -> Answer:
    from stereopsis.report import text_table, write_report
    from stereopsis.report.read import read_run

    text_table(run)
    page = write_report(run).read_text()
    return digest(page.split("Command")[0].replace(str(run.parent), "")), len(read_run(run).absent)


def recipe_answer(file: Path) -> Answer:
    from stereopsis.training.recipe import load_recipe

    return digest(load_recipe(file).to_yaml()), 0


def prediction_answer(folder: Path) -> Answer:
    from stereopsis.benchmarks.files.annotation_files import read_json
    from stereopsis.benchmarks.files.predictions import read_predictions

    read_json(folder / "asked.json")
    file = read_predictions(folder / "answers.jsonl", "scanqa")
    return digest([repr(sample) for sample in file.samples]), file.torn_lines


def make_inputs(place: Path) -> dict[str, Path]:
    """Rooms, captures in five layouts, a tiny base and a run of three steps with its evaluation."""
    from stereopsis.benchmarks import prompt_of, target_of
    from stereopsis.evaluation.evaluate_run import Request, execute, make_plan
    from stereopsis.models.spatial import SpatialConfig, SpatialModel
    from stereopsis.models.storage import adapter_for, save_model
    from stereopsis.models.tiny import TinyConfig, build_tiny_backbone, build_tokenizer
    from stereopsis.scenes.alignment import with_birdseye
    from stereopsis.scenes.rooms.language import annotate
    from stereopsis.scenes.stored import write_scene
    from stereopsis.training.recipe import load_recipe
    from stereopsis.training.train_run import train

    rooms: list[Scene] = []
    for seed in range(2):
        room = make_room(seed, RoomConfig(views=5, width=48, height=48, min_visible_pixels=6))
        rooms.append(with_birdseye(room.replace(annotations=annotate(room, seed)), size=48))
        write_scene(rooms[-1], place / "rooms" / rooms[-1].id)
    writers = runpy.run_path(str(ROOT / "tests" / "scenes" / "capture_writers.py"))
    for layout in ("tum", "open3d", "transforms_json", "colmap", "arkitscenes"):
        writers[f"write_{layout}"](place / layout, rooms[0].frames)
    words = [text for room in rooms for a in room.annotations for text in (prompt_of(a), target_of(a))]
    sizes = {"vision_dim": 48, "vision_layers": 2, "vision_heads": 4, "dim": 48, "layers": 2, "heads": 4}
    config = TinyConfig(image_size=48, mlp=96, vocabulary=400, **sizes)
    tokenizer = build_tokenizer(words, config.vocabulary)
    backbone = build_tiny_backbone(tokenizer, config)
    base = SpatialModel(
        backbone=backbone,
        adapter=adapter_for(backbone, (3, 3)),
        tokenizer=tokenizer,
        config=SpatialConfig(view_grid=(3, 3)),
    )
    save_model(base, place / "base")
    content = {
        "name": "tiny",
        "model": {"base": str(place / "base")},
        "data": {"sources": [{"path": str(place / "rooms")}], "views": 4, "conversations": 6},
        "teachers": {"latent": "pixels", "view_size": 32, "birdseye_size": 32},
        "objectives": {"text": {}, "grounding": {}},
        "training": {"steps": 3, "save_every": 1, "scenes": 2, "log_every": 1, "threads": 1, "precision": "fp32"},
        "evaluation": {"sources": [{"path": str(place / "rooms")}], "tasks": ["scanqa", "scanrefer"]},
    }
    (place / "recipes").mkdir()
    (place / "recipes" / "tiny.yaml").write_text(json.dumps(content))
    train(load_recipe(place / "recipes" / "tiny.yaml"), place / "run", progress=False)
    execute(make_plan(Request(model=str(place / "run"), limit=6, meteor=False)))
    answers = place / "answers"
    answers.mkdir()
    said = [a for a in rooms[0].annotations if a.task == "scanqa"]
    asked = [
        {"question_id": a.id, "scene_id": a.scene_id, "question": a.text, "answers": list(a.answers)} for a in said
    ]
    (answers / "asked.json").write_text(json.dumps(asked))
    lines = [json.dumps({"sample_id": a.id, "pred_response": a.answers[0]}) for a in said]
    (answers / "answers.jsonl").write_text("\n".join(lines) + "\n")
    return {path.name: path for path in place.iterdir()}


RECIPES = {
    "a bomb": "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)),
    "a key twice": "seed: 1\nseed: 2\nobjectives: {text: {}}\n",
    "a tag": "name: !!python/object/apply:os.system ['true']\n",
    "a list": "- 1\n",
    "a text": "hello\n",
    "nothing": "",
    "a null byte": "name: a\0b\n",
    "tabs": "a:\n\tb: 1\n",
    "itself below": "extends: r\nobjectives: {text: {}}\n",
    "an alias without anchor": "a: *nowhere\n",
    **{
        f"{key}: {value}": f"objectives: {{text: {{}}}}\n{section}: {{{key}: {value}}}\n"
        for section, key, values in (
            ("training", "steps", ("true", ".nan", ".inf", "1e30", "-1", "0", "1.5", "'x'", "[1]", "{a: 1}")),
            ("training", "learning_rate", (".nan", ".inf", "-1", "1e30", "true", "[]")),
            ("training", "warmup", ("1", "2", "-0.1", ".nan")),
            ("training", "schedule", ("cosin", "3")),
            ("data", "views", ("0", "true", "1e30", "'many'")),
            ("data", "coverage", ("0", "2", ".nan")),
            ("model", "positions", ("deep", "1")),
            ("model", "view_grid", ("[0, 3]", "[1]", "7", "[true, true]")),
            ("teachers", "view_size", ("0", "-8", ".inf")),
            ("denoiser", "width", ("7", "0", "true")),
            ("evaluation", "proposals", ("mine", "4")),
        )
        for value in values
    },
}


def attacks(campaign: Campaign, inputs: dict[str, Path], place: Path) -> None:
    """Files that want to run something, to lead somewhere, or to blow up."""
    from stereopsis.models.storage import load_model
    from stereopsis.scenes.pickles.safe_pickle import load_pickle, load_torch
    from stereopsis.scenes.scene import check_scene_id
    from stereopsis.training.shards import check_shards

    mark = place / "ran"

    class Run:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {mark}",)

    def refused(name: str, action: Callable[[], Any]) -> None:
        def act() -> Answer:
            action()
            return "accepted", 0

        campaign.meet("attack", name, act)
        if mark.exists():
            campaign.faults[-1] |= {"outcome": "silent", "words": "code was run"}
            print(f"  CODE WAS RUN: {name}")
            mark.unlink()

    hostile = place / "hostile"
    hostile.mkdir()
    (hostile / "a.pkl").write_bytes(pickle.dumps(Run()))
    (hostile / ".metadata").write_bytes(pickle.dumps(Run()))
    torch.save({"w": Run()}, hostile / "a.pth")
    (hostile / "global_step1").mkdir()
    torch.save({"w": Run()}, hostile / "global_step1" / "a.pt")
    refused("a pickle of a scene", lambda: load_pickle(hostile / "a.pkl"))
    refused("a .pth of a scene", lambda: load_torch(hostile / "a.pth"))
    refused("the metadata of a sharded checkpoint", lambda: check_shards(hostile))
    for folder in ("pytorch_model_fsdp_0", "optimizer_0"):
        from stereopsis.training.checkpoints import check_trusted

        with copied(inputs["run"] / "checkpoints" / "checkpoint-3") as copy:
            shutil.copytree(hostile, copy / folder)
            refused(f"{folder} in a plain checkpoint", lambda copy=copy: check_trusted(copy))
            shutil.copytree(hostile / "global_step1", copy / "global_step1")
            shutil.rmtree(copy / folder)
            refused(f"DeepSpeed's files ({folder})", lambda copy=copy: check_trusted(copy))
    for file, key in (("config.json", "AutoModelForImageTextToText"), ("tokenizer_config.json", "AutoTokenizer")):
        with copied(inputs["base"]) as copy:
            (copy / "manifest.json").unlink()
            (copy / "own.py").write_text(f"import os\nos.system('touch {mark}')\n")
            record = json.loads((copy / file).read_text()) | {"model_type": "own", "tokenizer_class": "Own"}
            (copy / file).write_text(json.dumps(record | {"auto_map": {key: "own.C"}}))
            refused(f"auto_map in {file}", lambda copy=copy: load_model(copy))
    for name, template in {
        "leaves its sandbox": "{{ cycler.__init__.__globals__.os.system('touch x') }}",
        "fails": "{{ raise_exception('no') }}",
        "takes gigabytes": "{{ 'a' * 10 ** 11 }}",
        "never ends": "{% for i in range(99999) %}" * 3 + "{% set x = 1 %}" + "{% endfor %}" * 3,
    }.items():
        with copied(inputs["base"]) as copy:
            (copy / "manifest.json").unlink()
            (copy / "chat_template.jinja").write_text(template)
            refused(f"a chat template that {name}", lambda copy=copy: load_model(copy).chat)
    for name in ("../../x", "/etc", "..", ".", "", "a\0", "a/b", "a\\b", "\x1b[2J", "x" * 300, ".hidden", "a\nb"):
        refused(f"the scene id {name[:20]!r}", lambda name=name: check_scene_id(name))


def disks_and_kills(campaign: Campaign, inputs: dict[str, Path], place: Path) -> None:
    """Full disks through the real commands, and a training that is killed and goes on to the same weights."""
    run, rooms, recipe = str(inputs["run"]), str(inputs["rooms"]), str(inputs["recipes"] / "tiny.yaml")
    full: dict[str, list[str]] = {
        "train": ["train", recipe, "-o", str(place / "full"), "--pictures", "0"],
        "prepare": ["prepare", str(inputs["tum"]), "-o", str(place / "full-prepared"), "--workers", "1"],
        "report": ["report", run, "-o", str(place / "full.html")],
        "evaluate": ["evaluate", run, "-o", str(place / "full-evaluation"), "--limit", "4", "--scenes", rooms],
    }
    for name, words in full.items():
        campaign.command("full disk", name, words, limit=2000)
    nowhere = "/proc/nowhere"
    for name, words in {
        "train": ["train", recipe, "-o", nowhere],
        "prepare": ["prepare", rooms, "-o", nowhere],
        "report": ["report", run, "-o", f"{nowhere}/r.html"],
        "evaluate": ["evaluate", run, "-o", nowhere, "--scenes", rooms],
    }.items():
        campaign.command("unwritable place", name, words)
    if campaign.only not in "kill train":
        return
    from safetensors.torch import load_file

    from stereopsis.training.recipe import load_recipe
    from stereopsis.training.train_run import train

    for steps in (1, 2):
        folder = place / f"killed-{steps}"
        command = [sys.executable, "-m", "stereopsis", "train", recipe, "-o", str(folder), "--pictures", "0"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + MOST_SECONDS
        while not (folder / "checkpoints" / f"checkpoint-{steps}").is_dir() and time.monotonic() < until:
            time.sleep(0.002)
        process.kill()
        process.wait()

        def act(folder: Path = folder) -> Answer:
            train(load_recipe(recipe), folder, resume=True, progress=False)
            state = load_file(folder / "model" / "model.safetensors")
            return digest(*(state[key].numpy() for key in sorted(state))), 0

        state = load_file(inputs["run"] / "model" / "model.safetensors")
        campaign.meet(
            "kill", f"train, after step {steps}", act, (digest(*(state[k].numpy() for k in sorted(state))), 0)
        )


def run_all(campaign: Campaign, inputs: dict[str, Path], place: Path) -> None:
    room = sorted(inputs["rooms"].iterdir())[0]
    frame = sorted(path.name for path in (room / "frames").glob("*.depth.png"))[0]
    pixels = [f"frames/{frame}", f"frames/{frame.replace('.depth', '')}", "birdseye.png", "birdseye_void.png"]
    campaign.each("stored scene", room, pixels, ANY | CHECKED, scene_answer)
    campaign.each("stored scene", room, ["scene.json", "annotations.json"], ANY | TEXT, scene_answer)
    for layout in ("tum", "open3d", "transforms_json", "colmap", "arkitscenes"):
        files = sorted(str(p.relative_to(inputs[layout])) for p in inputs[layout].rglob("*") if p.is_file())
        tables = [name for name in files if name.endswith((".txt", ".json", ".log", ".traj", ".pincam", ".bin"))]
        pictures = [name for name in files if name not in tables]
        campaign.each(layout, inputs[layout], tables[:4], ANY | TEXT, scene_answer)
        campaign.each(layout, inputs[layout], [pictures[0], pictures[-1]], ANY, scene_answer)
    model = [f"model/{name}" for name in sorted(p.name for p in (inputs["run"] / "model").iterdir())]
    model = [name for name in model if not name.endswith(("training_heads.safetensors", "manifest.json"))]
    campaign.each("model folder", inputs["run"], model, ANY | CHECKED, model_answer)
    checkpoint = inputs["run"] / "checkpoints" / "checkpoint-3"
    campaign.each(
        "checkpoint",
        checkpoint,
        sorted(p.name for p in checkpoint.iterdir() if p.name != "complete"),
        ANY,
        checkpoint_answer,
    )
    listed = sorted(p.name for p in checkpoint.iterdir() if p.name not in ("complete", "manifest.json"))
    campaign.each("checkpoint", checkpoint, listed, CHECKED, checkpoint_answer)
    told = ["recipe.yaml", "evaluation/records.jsonl", "evaluation/summary.json", "environment.json", "metrics.jsonl"]
    campaign.each("run and report", inputs["run"], told, ANY | TEXT, report_answer)
    campaign.each("answers", inputs["answers"], ["asked.json", "answers.jsonl"], ANY | TEXT, prediction_answer)
    for name, text in RECIPES.items():
        file = place / "r.yaml"
        file.write_text(text)
        campaign.meet("recipe", name, lambda file=file: recipe_answer(file))
    attacks(campaign, inputs, place)
    disks_and_kills(campaign, inputs, place)
    for name, words in {
        "a recipe that is not there": ["train", "no-such-recipe", "-o", str(place / "x")],
        "a scene that is not there": ["info", str(place / "nowhere" / "scene")],
        "a pipe as a recipe": ["train", "/dev/null", "-o", str(place / "x")],
        "a model folder that is none": ["evaluate", str(place)],
    }.items():
        campaign.command("command line", name, words)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", default="", help="faults whose kind and name hold this text")
    options.add_argument("--output", type=Path, default=ROOT / "results" / "faults.json")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        place = Path(name)
        inputs = make_inputs(place)
        campaign = Campaign(chosen.only)
        run_all(campaign, inputs, place)
    outcomes = collections.Counter((fault["kind"], fault["outcome"]) for fault in campaign.faults)
    columns = ("error", "counted", "harmless", *BAD)
    print(f"{'kind':22}" + "".join(f"{column:>11}" for column in columns))
    for kind in dict.fromkeys(fault["kind"] for fault in campaign.faults):
        print(f"{kind:22}" + "".join(f"{outcomes[kind, column]:11}" for column in columns))
    totals = collections.Counter(fault["outcome"] for fault in campaign.faults)
    print(f"{'all ' + str(len(campaign.faults)):22}" + "".join(f"{totals[column]:11}" for column in columns))
    record = {
        "date": datetime.date.today().isoformat(),
        "command": "python perf/faults.py",
        "machine": platform.processor() or platform.machine(),
        "seconds": round(time.monotonic() - start),
        "faults": len(campaign.faults),
        "outcomes": {column: totals[column] for column in columns},
        "most_seconds": max(fault["seconds"] for fault in campaign.faults),
        "most_megabytes": max(fault.get("megabytes", 0) for fault in campaign.faults),
        "all": [{k: str(v).replace(name, "") if k == "words" else v for k, v in f.items()} for f in campaign.faults],
    }
    if not chosen.only:
        chosen.output.write_text(json.dumps(record, indent=1) + "\n")
    sys.exit(any(totals[outcome] for outcome in BAD))


if __name__ == "__main__":
    main()
