"""Does a model that was trained to reconstruct know more of what it does not see? Conditionings, controls, guesses.

    python scripts/compare_reconstructions.py --seeds 3

Trains, for several seeds and under one schedule, a model with Ross3D's objectives (hidden views, the room from above)
and one without. Hides views of unseen rooms, and compares with the truth what is drawn (1) by the denoiser that was
trained with the first model, told by either model, and (2) by fresh denoisers, fitted for the same number of updates to
the frozen outputs of either. Writes results/NAME.json (every figure, every seed) and results/NAME.md (tables). Runs
that are in the output folder already are not repeated.
"""

import argparse
import dataclasses
import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from frozen_fit import fit_to_frozen
from rich.console import Console

from stereopsis.benchmarks.scoring.statistics import seed_interval
from stereopsis.experiment import kept_packs
from stereopsis.files import cache_folder, write_atomic
from stereopsis.models.spatial import SpatialModel
from stereopsis.reconstruction.metrics import FIGURES, SAMPLE, averages, figures_of
from stereopsis.reconstruction.reconstruct_run import scene_packs
from stereopsis.reconstruction.sampling import imagine, mean_cells
from stereopsis.training.build import build_model, build_teachers
from stereopsis.training.posthoc_heads import open_with_heads
from stereopsis.training.recipe import Recipe, load_recipe
from stereopsis.training.sources import scenes_of
from stereopsis.training.train_run import environment, open_run, train

ROOT = Path(__file__).resolve().parent.parent
WHOLE, BASELINE = "ross3d-tiny", "ross3d-baseline"
TRAINED, CONTROL = "trained to reconstruct", "control"
EXPECTED, DRAW = "expected picture", "one draw"
SHARED, FITTED = "same denoiser", "fitted denoiser"
KINDS = {"masked_view": "Hidden views", "birds_eye": "The room from above"}
TITLES = {"latent_mse": "latent MSE", "psnr": "PSNR, dB", "ssim": "SSIM"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One model to train, or one model to measure.

    Attributes:
        model: `TRAINED` or `CONTROL`.
        folder: its run.
        conditioning: of the denoiser that is measured with it.
        denoiser: the run whose own denoiser is measured; None: a fresh one is fitted.
    """

    model: str
    seed: int
    recipe: Recipe
    folder: Path
    packs: Path
    unseen: Path
    args: argparse.Namespace
    conditioning: str = ""
    denoiser: Path | None = None

    @property
    def arm(self) -> str:
        """What tables call it."""
        return arm(self.model, self.conditioning, FITTED if self.denoiser is None else SHARED)

    @property
    def figures(self) -> Path:
        """Where its figures are kept."""
        return self.folder / f"figures-{self.conditioning}{'' if self.denoiser is None else '-shared'}.json"


def arm(model: str, conditioning: str, denoiser: str) -> str:
    """What tables call a model that a denoiser is told by."""
    return f"{model}, {conditioning}, {denoiser}"


def train_job(job: Job) -> None:
    """Train on one thread, unless that was done."""
    if not (job.folder / "model" / "config.json").is_file():
        torch.set_num_threads(1)
        packs = torch.load(job.packs, weights_only=False)  # written by this script, a moment ago
        train(job.recipe, job.folder, overwrite=True, packs=packs, progress=False)


def measure_job(job: Job) -> dict[str, Any]:
    """Average figures on the unseen rooms; an earlier start's are read back."""
    if not job.figures.is_file():
        torch.set_num_threads(1)
        packs = torch.load(job.packs, weights_only=False)
        model, losses = told(job) if job.denoiser is not None else fitted(job, packs)
        figures = measured(model, packs, job) | losses
        write_atomic(job.figures, (json.dumps(figures, indent=1) + "\n").encode())
    return json.loads(job.figures.read_text())


def told(job: Job) -> tuple[SpatialModel, dict[str, Any]]:
    """The job's model with the denoiser, and the mask token, of another run (or of its own)."""
    assert job.denoiser is not None
    donor = open_with_heads(job.denoiser)[1]
    if job.folder == job.denoiser:
        return donor, {}
    _, model = open_run(job.folder)
    model.objectives = donor.objectives
    return model.eval(), {}


def fitted(job: Job, packs: Sequence[Any]) -> tuple[SpatialModel, dict[str, Any]]:
    """The job's model with a fresh denoiser, fitted to its frozen outputs, and the fit's first and last loss."""
    args, token = job.args, None
    if job.model == TRAINED:
        token = open_with_heads(job.folder)[1].objectives["cross_view"].mask_token.detach()
    _, model = open_run(job.folder)
    options = {"scenes": args.fit_scenes, "masks": args.fit_masks, "mask_token": token}
    losses = fit_to_frozen(model, packs, job.recipe, steps=args.fit_steps, **options)
    return model, {"loss": [sum(part) / len(part) for part in (losses[:20], losses[-20:])]}


def measured(model: SpatialModel, packs: Sequence[Any], job: Job) -> dict[str, Any]:
    """Figures of the expected picture (one step of the flow) and of draws, beside the plain guesses."""
    tokenizer = build_teachers(job.recipe).latent
    means, records = mean_cells(packs), []
    for number, pack in enumerate(torch.load(job.unseen, weights_only=False)):
        for mask in range(job.args.masks):
            seed = 1000 * mask + number
            expected = imagine(model, pack, means=means, samples=1, steps=1, seed=seed)
            drawn = imagine(model, pack, samples=1, steps=job.args.sampling_steps, seed=seed)
            for mean, draw in zip(expected, drawn, strict=True):
                figures = figures_of(mean, tokenizer)
                figures[EXPECTED] = figures.pop(SAMPLE)
                figures[DRAW] = figures_of(dataclasses.replace(draw, guesses={}), tokenizer)[SAMPLE]
                records.append({"kind": mean.kind, "figures": figures})
    return {"averages": averages(records)}


def rows(results: Sequence[dict[str, Any]], kind: str) -> dict[str, list[dict[str, float]]]:
    """{row: one {figure: value} per seed}, guesses once (they are the same for every model)."""
    found: dict[str, list[dict[str, float]]] = {}
    for result in results:
        for name in (EXPECTED, DRAW):
            found.setdefault(f"{result['arm']}: {name}", []).append(result["figures"]["averages"][kind][name])
    for result in (r for r in results if r["arm"] == results[0]["arm"]):
        for name, figures in result["figures"]["averages"][kind].items():
            if name not in (EXPECTED, DRAW):
                found.setdefault(name, []).append(figures)
    return found


def interval(values: Iterable[float], digits: int) -> str:
    found = seed_interval(list(values))
    if found.low != found.low:
        return f"{found.mean:.{digits}f}"
    return f"{found.mean:.{digits}f} ({found.low:.{digits}f} to {found.high:.{digits}f})"


def figures_table(found: dict[str, list[dict[str, float]]]) -> str:
    lines = [f"| made by | {' | '.join(TITLES.values())} |", "|---|---|---|---|"]
    for name, seeds in found.items():
        cells = [interval((s[key] for s in seeds), 2 if key == "psnr" else 3) for key in FIGURES]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def differences_table(found: dict[str, list[dict[str, float]]], conditionings: Sequence[str]) -> str:
    """The trained model's expected picture minus what it should beat, seed by seed."""
    head = [
        "conditioning, denoiser",
        "against",
        "latent MSE (below 0 wins)",
        "PSNR, dB (above 0 wins)",
        "SSIM (above 0 wins)",
    ]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for conditioning, denoiser in itertools.product(conditionings, (SHARED, FITTED)):
        own = found.get(f"{arm(TRAINED, conditioning, denoiser)}: {EXPECTED}", [])
        against = {CONTROL: f"{arm(CONTROL, conditioning, denoiser)}: {EXPECTED}"}
        against |= {name: name for name in found if ": " not in name}
        for label, name in against.items():
            pairs = list(zip(own, found.get(name, ()), strict=False))
            if pairs:
                cells = [interval((a[k] - b[k] for a, b in pairs), 2 if k == "psnr" else 3) for k in FIGURES]
                lines.append(f"| {conditioning}, {denoiser} | {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def report(results: Sequence[dict[str, Any]], args: argparse.Namespace, command: str) -> str:
    made = environment()
    parts = [
        "# What a model imagines of rooms that it has not seen\n",
        f"{args.rooms} training rooms, {args.test_rooms} unseen ones; models trained for {args.steps} steps, denoisers "
        f"fitted to their frozen outputs for {args.fit_steps} updates of {args.fit_scenes} scenes; {args.seeds} seeds; "
        f"rectified flow, denoiser of width {args.width}. {str(made['date'])[:10]}, {made['cpu_threads']} CPU cores, "
        f"one thread a run, torch {made['versions']['torch']}. Mean over seeds with its 95 % t-interval. Made by "
        f"`{command}`.\n",
        f"'{TRAINED}': with cross-view (the row's conditioning, every step) and bird's-eye reconstruction, beside "
        f"words and grounding. '{CONTROL}': with words and grounding alone. '{SHARED}': the one that was trained with "
        "the first model, told by the outputs of either; it never met the control's outputs, so this row says what the "
        f"denoiser needs, not what the control lacks. '{FITTED}', the stricter test: a fresh one for either model, "
        "fitted to its frozen outputs. Conditioned as the row says ('pose' has bird's-eye queries that know their "
        f"place, the others the released ones). '{EXPECTED}' is one step of the flow: its estimate of the mean of all "
        f"pictures that fit, which is what squared error asks for. '{DRAW}' is one picture in {args.sampling_steps} "
        "steps, sharper and further off. Pixels: against what the teacher makes of the target's own latents.\n",
    ]
    for kind, title in KINDS.items():
        found = rows(results, kind)
        parts += [f"## {title}\n", figures_table(found), "", "Differences, seed by seed:\n"]
        parts += [differences_table(found, args.arms), ""]
    return "\n".join(parts)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", default=["pose"], help="conditionings: released, masked_positions, pose")
    parser.add_argument("--steps", type=int, default=120, help="of the models")
    parser.add_argument("--conversations", type=int, default=4)
    parser.add_argument("--fit-steps", type=int, default=400, help="of the denoisers")
    parser.add_argument("--fit-scenes", type=int, default=8)
    parser.add_argument("--fit-masks", type=int, default=2, help="maskings of every room that are remembered")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--rooms", type=int, default=300)
    parser.add_argument("--test-rooms", type=int, default=24)
    parser.add_argument("--masks", type=int, default=1, help="maskings of every unseen room")
    parser.add_argument("--sampling-steps", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "compare_reconstructions")
    parser.add_argument("--cache", type=Path, default=cache_folder() / "rooms")
    parser.add_argument("--name", default="ross3d_rooms", help="of the files that are written")
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    return parser.parse_args()


def settle(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments that decide what is measured; refuse a folder that was made with others."""
    free = ("output", "results", "name", "jobs", "seeds", "arms", "cache")
    arguments = {key: value for key, value in vars(args).items() if key not in free}
    path = args.output / "arguments.json"
    if path.is_file() and json.loads(path.read_text()) != arguments:
        raise SystemExit(f"{args.output} holds runs with other arguments ({path}); choose another --output")
    args.output.mkdir(parents=True, exist_ok=True)
    write_atomic(path, (json.dumps(arguments, indent=1) + "\n").encode())
    return arguments


def recipe_of(args: argparse.Namespace, model: str, seed: int, conditioning: str) -> Recipe:
    """The model's own recipe, with the fitted denoiser's conditioning where that is asked for."""
    reconstructing = [
        f"objectives.cross_view={{every: 1, repeats: 4, conditioning: {conditioning}}}",
        f"objectives.birds_eye={{repeats: 2, conditioning: {'pose' if conditioning == 'pose' else 'released'}}}",
    ]
    return load_recipe(
        WHOLE if model == TRAINED else BASELINE,
        [
            f"data.sources=[{{rooms: {args.rooms}}}]",
            f"data.cache={args.cache}",
            f"data.conversations={args.conversations}",
            f"evaluation.sources=[{{rooms: {args.test_rooms}, split: test}}]",
            f"training.steps={args.steps}",
            "training.threads=1",
            "denoiser.diffusion=flow",
            f"denoiser.width={args.width}",
            f"seed={seed}",
            *(reconstructing if model == TRAINED else ()),
        ],
    )


def main() -> None:
    args = parse()
    arguments, console = settle(args), Console()
    whole = recipe_of(args, TRAINED, 0, args.arms[0])
    model, teachers = build_model(whole), build_teachers(whole)
    packs = kept_packs(whole, args.output / "packs.pt", console=console)
    unseen = args.output / "unseen.pt"
    if not unseen.is_file():
        scenes = scenes_of(whole.evaluation.sources[0], whole.data.cache_folder, console=console)
        torch.save([scene_packs(scene, whole, model, teachers, 1)[0] for scene in scenes], unseen)
    shared: dict[str, Any] = {"packs": packs, "unseen": unseen, "args": args}
    models, fits = [], []
    for seed in range(args.seeds):
        control = args.output / f"{CONTROL}-seed{seed}"
        recipe = recipe_of(args, CONTROL, seed, args.arms[0])
        models.append(Job(model=CONTROL, seed=seed, recipe=recipe, folder=control, **shared))
        for conditioning in args.arms:
            recipe = recipe_of(args, TRAINED, seed, conditioning)
            folder = args.output / f"{TRAINED.replace(' ', '-')}-{conditioning}-seed{seed}"
            models.append(Job(model=TRAINED, seed=seed, recipe=recipe, folder=folder, **shared))
            for donor, (name, where) in itertools.product((folder, None), ((TRAINED, folder), (CONTROL, control))):
                options = {"conditioning": conditioning, "denoiser": donor}
                fits.append(Job(model=name, seed=seed, recipe=recipe, folder=where, **options, **shared))
    results: list[dict[str, Any]] = []
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool:
        run: Callable[..., Any] = pool.map
        for job, _ in zip(models, run(train_job, models), strict=True):
            console.print("trained", job.model, job.seed)
        for job, figures in zip(fits, run(measure_job, fits), strict=True):
            results.append({"arm": job.arm, "seed": job.seed, "figures": figures})
            console.print("measured", job.arm, job.seed, figures.get("loss", ""))
    order = sorted(results, key=lambda r: (r["arm"].startswith(CONTROL), args.arms.index(r["arm"].split(", ")[1])))
    args.results.mkdir(exist_ok=True, parents=True)
    options = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in arguments.items())
    command = f"python scripts/compare_reconstructions.py --seeds {args.seeds} --arms {' '.join(args.arms)} {options}"
    made = environment() | {"command": command}
    record = {"environment": made, "arguments": arguments, "runs": order}
    write_atomic(args.results / f"{args.name}.json", (json.dumps(record, indent=1, default=str) + "\n").encode())
    text = report(order, args, command)
    write_atomic(args.results / f"{args.name}.md", text.encode())
    print(text)


if __name__ == "__main__":
    main()
