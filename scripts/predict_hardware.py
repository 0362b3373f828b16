"""What fits where: predictions of every recipe for a large model, as a table for the documentation.

Run: python scripts/predict_hardware.py [--output results/hardware_predictions.md]

Nothing is measured and no GPU is needed: see `stereopsis.training.cost`.
"""

import argparse
import datetime
import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from stereopsis.training.cost import GPUS, Assumptions, predict
from stereopsis.training.cost_gpus import GIB
from stereopsis.training.recipe import load_recipe

ROOT = Path(__file__).resolve().parent.parent
ONE, EIGHT = Assumptions(), Assumptions(processes=8, sharding="zero3")
RECIPES = (
    ("video3dllm-7b", EIGHT),
    ("ross3d-7b", EIGHT),
    ("3drs-7b", EIGHT),
    ("ross3d+3drs-7b", EIGHT),
    ("qwen2.5-vl-3b", EIGHT),
    ("qwen2.5-vl-7b", EIGHT),
    ("qwen3-vl-8b", EIGHT),
    ("internvl3-8b", EIGHT),
    ("ross3d+3drs-7b-lora-48gb", ONE),
    ("ross3d+3drs-7b-lora-24gb", ONE),
)


def row(name: str, assumptions: Assumptions, gpus: Sequence[str]) -> list[str]:
    found = predict(load_recipe(name), assumptions)
    shared = f"{assumptions.processes}, {assumptions.sharding}" if assumptions.processes > 1 else "1"
    hours = [f"{found.gpus[gpu].run_hours:.1f}" if found.gpus[gpu].fits else "no" for gpu in gpus]
    return [
        f"`{name}`",
        shared,
        f"{found.parameters.trained / 1e9:.2f}",
        str(found.scene.tokens),
        f"{found.flops.total.model / 1e12:.0f}",
        f"{found.memory.total / GIB:.1f}",
        *hours,
    ]


def table(recipes: Sequence[tuple[str, Assumptions]]) -> str:
    head = ["recipe", "GPUs", "trained, 10⁹", "tokens a scene", "TFLOP a step and GPU", "GiB a GPU", *GPUS]
    lines = [head, ["---"] * len(head), *(row(name, assumptions, list(GPUS)) for name, assumptions in recipes)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "hardware_predictions.md")
    args = parser.parse_args()
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    note = (
        f"Predictions of {today}, not measurements (`python {' '.join(sys.argv)}`). Under a GPU's name: hours for the "
        f"whole run at {ONE.utilisation:g} of its peak, or no where the step does not fit. "
        f"{ONE.question} + {ONE.answer} tokens a conversation."
    )
    args.output.write_text(f"{table(RECIPES)}\n\n{note}\n")
    print(args.output)


if __name__ == "__main__":
    main()
