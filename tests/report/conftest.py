"""A small comparison folder as training, evaluation and the demo would leave it, with invented models."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image, ImageFilter

from stereopsis.benchmarks import Prediction, benchmark_names, score, summarise
from stereopsis.evaluation.in_memory import chance_rates, majority_predictor, targets_of
from stereopsis.evaluation.records import record_of, summary_dict, write_results
from stereopsis.scenes.alignment import with_birdseye
from stereopsis.scenes.rooms import make_room
from stereopsis.scenes.rooms.language import annotate
from stereopsis.scenes.scene import Scene
from stereopsis.scenes.stored import write_scene

OBJECTIVES = {
    "blind": {"text": {"weight": 1.0, "every": 1}, "grounding": {"weight": 1.0, "every": 1}},
    "base": {"text": {"weight": 1.0, "every": 1}, "grounding": {"weight": 1.0, "every": 1}},
    "full": {
        "text": {"weight": 1.0, "every": 1},
        "grounding": {"weight": 1.0, "every": 1},
        "cross_view": {"weight": 0.5, "every": 4, "ratio": 0.25},
        "birds_eye": {"weight": 0.5, "every": 1},
        "alignment": {"weight": 0.5, "every": 1},
    },
}
SKILL = {"blind": 0.15, "base": 0.5, "full": 0.55}


def build_rooms(count: int) -> list[Scene]:
    rooms = [make_room(seed) for seed in range(count)]
    return [with_birdseye(room.replace(annotations=annotate(room, n)), size=128) for n, room in enumerate(rooms)]


def write_run(folder: Path, name: str, rooms: list[Scene], seed: int = 0) -> Path:
    """A run folder whose model answers rightly with the probability `SKILL`."""
    rng = np.random.default_rng([seed, len(name)])
    folder.mkdir(parents=True)
    recipe = {
        "name": name,
        "seed": seed,
        "model": {"base": "tiny", "positions": "depth", "blind": name == "blind"},
        "objectives": OBJECTIVES[name],
        "training": {"steps": 400, "scenes": 8},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    environment = {
        "date": "2026-11-29T14:03:00+00:00",
        "command": "stereopsis demo --output runs/demo",
        "machine": "x86_64",
        "cpu_threads": 2,
        "gpu": None,
        "python": "3.11.2",
        "versions": {"stereopsis": "0.1.0", "torch": "2.13.0"},
    }
    (folder / "environment.json").write_text(json.dumps(environment))
    write_metrics(folder / "metrics.jsonl", list(OBJECTIVES[name]), rng)
    write_evaluation(folder / "evaluation", SKILL[name], rooms, rng)
    if name == "full":
        write_pictures(folder / "pictures", rooms, rng)
    return folder


def write_metrics(file: Path, objectives: list[str], rng: np.random.Generator) -> None:
    starts = {"text": 3.2, "grounding": 2.5, "cross_view": 1.0, "birds_eye": 0.98, "alignment": 1.4}
    lines = []
    for step in [1, *range(10, 401, 10)]:
        losses = {
            f"loss/{n}": starts[n] * (0.25 + 0.75 * math.exp(-step / 90)) * (1 + 0.06 * rng.standard_normal())
            for n in objectives
        }
        lines.append({"step": step, "seconds": step / 2, "loss": sum(losses.values()), "learning_rate": 1e-3, **losses})
    lines.append({"step": 400, "seconds": 200.0, "train_runtime": 200.0, "train_loss": 1.0})
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def predict(skill: float, rooms: list[Scene], rng: np.random.Generator) -> list[Prediction]:
    predictions = []
    for room in rooms:
        boxes = np.stack([proposal.box for proposal in room.proposals])
        for annotation in room.annotations:
            targets, right = targets_of(annotation, room), rng.random() < skill
            if annotation.task in ("scanrefer", "multi3drefer"):
                cosines = rng.uniform(-0.3, 0.3, len(boxes))
                for target in targets if right else []:
                    cosines[np.argmin(np.abs(boxes[:, :3] - target[:3]).sum(axis=1))] = 0.9
                zero = 0.5 if right and not len(targets) else -0.9
                answer = {"boxes": boxes, "scores": cosines, "zero_target_score": zero}
            else:
                others = [a.answers[0] for a in room.annotations if a.type == annotation.type and a.answers]
                text = annotation.answers[0] if right else str(rng.choice([*others, "two"]))
                answer = {"text": text, "boxes": targets if annotation.task == "scan2cap" else boxes[:0]}
            predictions.append(Prediction(annotation=annotation, targets=targets, **answer))
    return predictions


def write_evaluation(folder: Path, skill: float, rooms: list[Scene], rng: np.random.Generator) -> None:
    predictions = predict(skill, rooms, rng)
    samples = score(predictions)
    records = [record_of(p, s) for p, s in zip(predictions, samples, strict=True)]
    write_results(folder, records, summary_dict(summarise(samples, n=200)), {"proposals": "detector"})


def write_pictures(folder: Path, rooms: list[Scene], rng: np.random.Generator) -> None:
    folder.mkdir()
    entries = []

    def save(name: str, picture: Image.Image) -> str:
        picture.save(folder / name)
        return name

    def blurred(picture: Image.Image, radius: float) -> Image.Image:
        pixels = np.asarray(picture.filter(ImageFilter.GaussianBlur(radius)), dtype=float)
        return Image.fromarray(np.clip(pixels + 6 * rng.standard_normal(pixels.shape), 0, 255).astype(np.uint8))

    for number, room in enumerate(rooms[:4]):
        views = [Image.fromarray(frame.colour()) for frame in room.frames]
        context = [save(f"{number}-view-{v}.png", view) for v, view in enumerate(views) if v not in (2, 5)]
        assert room.birdseye is not None
        above = Image.fromarray(room.birdseye.image)
        pairs = [("masked_view", f"view-{v:03d}", views[v], context) for v in (2, 5)] if number < 2 else []
        for kind, view, target, seen in [*pairs, ("birds_eye", None, above, [])]:
            stem = f"{number}-{kind}-{view}"
            entries.append(
                {
                    "kind": kind,
                    "scene_id": room.id,
                    "view": view,
                    "target": save(f"{stem}-target.png", target),
                    "reconstruction": save(f"{stem}-made.png", blurred(target, 2)),
                    "context": seen,
                    "baseline": save(f"{stem}-guess.png", blurred(target, 9)),
                    "psnr": 20.0 + number,
                    "baseline_psnr": 14.0,
                }
            )
    (folder / "pictures.json").write_text(json.dumps(entries))


def build_comparison(folder: Path, rooms: list[Scene]) -> Path:
    """Arms blind, base, full, and one that was not run; with baselines and scenes."""
    for name in ("blind", "base", "full"):
        write_run(folder / "arms" / name, name, rooms)
    for room in rooms:
        write_scene(room, folder / "scenes" / room.id)
    guess = majority_predictor([a for room in rooms for a in room.annotations], benchmark_names())
    majority = summary_dict(summarise(score([p for room in rooms for p in guess(room)]), n=200))
    comparison = {
        "title": "Two arms and a blind one",
        "arms": [
            {"name": "blind", "label": "blind", "folder": "arms/blind", "note": "Trained without pictures."},
            {"name": "base", "label": "text + grounding", "folder": "arms/base", "note": ""},
            {"name": "full", "label": "everything on", "folder": "arms/full", "note": "Ross3D and 3DRS."},
            {"name": "large", "label": "large", "folder": None, "note": "Needs a GPU."},
        ],
        "baselines": {
            "majority": {t: {**s["overall"], "by_type": s["by_type"]} for t, s in majority.items()},
            "chance": chance_rates(rooms, "detector"),
        },
        "scenes": "scenes",
        "seconds": 844.2,
        "unknown": "ignored",
    }
    (folder / "comparison.json").write_text(json.dumps(comparison))
    return folder


@pytest.fixture(scope="session")
def rooms() -> list[Scene]:
    return build_rooms(2)


@pytest.fixture(scope="session")
def comparison(rooms, tmp_path_factory) -> Path:
    """A comparison of two rooms; read only."""
    return build_comparison(tmp_path_factory.mktemp("report") / "demo", rooms)


@pytest.fixture
def run(rooms, tmp_path) -> Path:
    """A run folder of its own, free to damage."""
    return write_run(tmp_path / "run", "full", rooms[:1])
