"""Make the model that `stereopsis serve` ships from an arm of a finished demo, and measure what was made.

Only tensors that differ from the shipped base are kept, in half precision. The scores of the card are those of the
shipped form on the demo's unseen test rooms.

python scripts/tiny_tuned.py demo/stereopsis --rooms demo/data/v1.2/test
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from safetensors.torch import save_file

from stereopsis.benchmarks import trained_benchmarks
from stereopsis.evaluation.in_memory import evaluate, predict_scene
from stereopsis.files import replacing, write_atomic
from stereopsis.models.storage import load_model
from stereopsis.serve.tiny import TUNED_FILE, VIEWS, open_tiny, tuned_folder
from stereopsis.training.recipe import load_recipe
from stereopsis.training.run_folder import MODEL_FOLDER, RECIPE_FILE, TINY_BASE
from stereopsis.training.sources import open_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm", type=Path, help="a finished run of the tiny base")
    parser.add_argument("--rooms", type=Path, required=True, help="prepared rooms that it has not seen")
    parser.add_argument("--date", default=time.strftime("%Y-%m-%d"))
    args = parser.parse_args()
    folder = tuned_folder()
    folder.mkdir(parents=True, exist_ok=True)
    base = load_model(TINY_BASE).state_dict()
    tuned = load_model(args.arm / MODEL_FOLDER).state_dict()
    changed = {key: value.half().contiguous() for key, value in tuned.items() if not torch.equal(base[key], value)}
    with replacing(folder / TUNED_FILE) as path:
        save_file(changed, path)
    card = card_of(args.arm, args.rooms, args.date)
    write_atomic(folder / "card.json", json.dumps(card, indent=1) + "\n")
    write_atomic(folder / "README.md", readme(card, (folder / TUNED_FILE).stat().st_size))
    print(f"wrote {folder}")


def card_of(arm: Path, rooms: Path, date: str) -> dict[str, Any]:
    """How it was trained, and what the shipped form scores."""
    recipe = load_recipe(arm / RECIPE_FILE)
    model = open_tiny(precision="fp32").model
    tasks = trained_benchmarks()
    config = model.pack_config(views=VIEWS, tasks=tasks, proposals="detector")
    scenes = open_folder(rooms)
    found = evaluate(lambda scene: predict_scene(model, scene, config), scenes)
    metrics = {
        str(task): {name: [round(float(v), 1) for v in (i.mean, i.low, i.high)] for name, i in s.overall.items()}
        for task, s in found.summaries.items()
    }
    return {
        "recipe": recipe.name,
        "objectives": sorted(recipe.objectives.model_dump(exclude_none=True)),
        "steps": recipe.training.steps,
        "training_rooms": sum(source.rooms or 0 for source in recipe.data.sources),
        "seed": recipe.seed,
        "test_rooms": len(scenes),
        "questions": len(found.samples),
        "metrics": metrics,
        "measured": {"date": date, "machine": platform.machine(), "torch": torch.__version__, "precision": "fp32"},
    }


def readme(card: dict[str, Any], size: int) -> str:
    """The card for people."""
    rows = "\n".join(
        f"| {task} {name} | {value:.1f} ({low:.1f} to {high:.1f}) |"
        for task, metrics in card["metrics"].items()
        for name, (value, low, high) in metrics.items()
    )
    return f"""# tiny_tuned: the shipped tiny base, tuned on procedural rooms

What `stereopsis serve` answers with where no model is named. It is the `{card["recipe"]}` arm of `stereopsis demo`:
{card["steps"]} steps on {card["training_rooms"]} training rooms, seed {card["seed"]}, objectives
{", ".join(card["objectives"])}; their training heads are left out. Kept are
the tensors that differ from `tiny_base`, in half precision ({size / 1e6:.1f} MB). It knows procedural rooms and their
language, nothing of photographs; it is often wrong even there, as the figures say.

- made by `python scripts/tiny_tuned.py`; Apache-2.0
- measured {card["measured"]["date"]} on {card["test_rooms"]} unseen rooms, {card["questions"]} questions, with the
  rooms' detector's candidate boxes, torch {card["measured"]["torch"]}

| metric, points | value (95 % interval over rooms) |
|---|---|
{rows}
"""


if __name__ == "__main__":
    main()
