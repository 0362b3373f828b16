"""Show what a model imagines of some scenes: pictures, figures, and a page with both."""

import dataclasses
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stereopsis.data.pack import ScenePack
from stereopsis.errors import RunFolderError
from stereopsis.files import write_atomic
from stereopsis.models.spatial import SpatialModel
from stereopsis.reconstruction.metrics import SAMPLE, averages, figures_of, likeness, mean_of, pixels_of
from stereopsis.reconstruction.panels import Panel, hidden, without, write_row
from stereopsis.reconstruction.sampling import Imagined, MeanCells, imagine
from stereopsis.teachers.latents import LatentTokenizer

RECONSTRUCT_FILE = "reconstruct.json"
PAGE_FILE = "index.html"
KINDS = {"masked_view": "Hidden views", "birds_eye": "The room from above"}
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse}td,th{padding:.25rem .8rem;border-bottom:1px solid #ddd;text-align:right}"
    "td:first-child,th:first-child{text-align:left}img{max-width:100%;display:block;margin:.3rem 0 1.2rem}"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a model is asked.

    Attributes:
        steps: sampling steps of the draws.
        samples: draws of every target.
        by_steps: further numbers of steps to show a draw at.
        seeds: each hides other views and starts from other noise.
    """

    steps: int = 25
    samples: int = 8
    by_steps: tuple[int, ...] = (1, 2, 5, 10, 25, 50)
    seeds: tuple[int, ...] = (0,)


def reconstruct(
    model: SpatialModel,
    packs: Iterable[Sequence[ScenePack]],
    tokenizer: LatentTokenizer,
    folder: Path,
    sampling: Sampling,
    *,
    controls: Mapping[str, SpatialModel] | None = None,
    means: MeanCells | None = None,
    facts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Draw every target of some scenes, measure it, and write pictures, ``reconstruct.json`` and ``index.html``.

    Args:
        model: with reconstruction heads.
        packs: per scene, one pack for each seed of ``sampling``.
        tokenizer: the latent teacher that made their targets.
        folder: where everything goes.
        sampling: how to draw.
        controls: further models that are asked the same, by name.
        means: the mean image of the training scenes.
        facts: what else belongs into the record (date, hardware, command).

    Returns:
        The record that was written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    records: list[dict[str, Any]] = []
    for scene in packs:
        for seed, pack in zip(sampling.seeds, scene, strict=True):
            options: dict[str, Any] = {"samples": sampling.samples, "steps": sampling.steps, "seed": seed}
            made = imagine(model, pack, by_steps=sampling.by_steps, means=means, **options)
            others = {name: imagine(control, pack, **options) for name, control in (controls or {}).items()}
            seen = _context(pack, made, folder, seed)
            for index, target in enumerate(made):
                same = {name: found[index] for name, found in others.items()}
                records.append(_record(target, same, tokenizer, folder, seed, sampling, seen))
    written = {
        **(facts or {}),
        "sampling": dataclasses.asdict(sampling),
        "teacher": {"name": tokenizer.name, "fingerprint": tokenizer.fingerprint},
        "averages": averages(records),
        "by_steps": _by_steps(records),
        "targets": records,
    }
    write_atomic(folder / RECONSTRUCT_FILE, json.dumps(written, indent=1, allow_nan=False) + "\n", error=RunFolderError)
    write_atomic(folder / PAGE_FILE, page(written), error=RunFolderError)
    return written


def _record(
    target: Imagined,
    controls: Mapping[str, Imagined],
    tokenizer: LatentTokenizer,
    folder: Path,
    seed: int,
    sampling: Sampling,
    seen: str,
) -> dict[str, Any]:
    figures = figures_of(target, tokenizer, controls)
    ladder = {
        str(count): dataclasses.asdict(likeness(cells[None], target.truth, target.counted, tokenizer))
        for count, cells in target.by_steps.items()
    }
    stem = "-".join(filter(None, (target.scene_id, target.view or "above", f"seed{seed}"))).replace("/", "_")
    return {
        "kind": target.kind,
        "scene_id": target.scene_id,
        "view": target.view,
        "seed": seed,
        "figures": figures,
        "spread": target.spread,
        "by_steps": ladder,
        "picture": _draw_row(target, controls, figures, tokenizer, folder / f"{stem}.png"),
        "strip": _draw_strip(target, ladder, tokenizer, folder / f"{stem}-steps.png") if ladder else None,
        "context": seen,
    }


def _draw_row(
    target: Imagined,
    controls: Mapping[str, Imagined],
    figures: Mapping[str, Mapping[str, float | None]],
    tokenizer: LatentTokenizer,
    path: Path,
) -> str:
    """Hidden view (or nothing), target, what the models made of it, plain guesses."""
    truth = tokenizer.decode_cells(target.truth[None])[0].cpu()
    where = pixels_of(target.counted, truth)

    def panel(name: str, cells: Any, note: str = "") -> Panel:
        return Panel(without(tokenizer.decode_cells(cells[None])[0].cpu(), where), name, note or _note(figures[name]))

    panels = [Panel(hidden(truth), "hidden view")] if target.kind == "masked_view" else []
    panels.append(Panel(without(truth, where), "target", "through the teacher"))
    for prefix, made in (("", target), *((f"{name}: ", control) for name, control in controls.items())):
        several = len(made.samples) > 1  # then the figures of single draws are averages over all of them
        name = f"{prefix}{SAMPLE}"
        panels.append(panel(name, made.samples[0], f"{_note(figures[name])}, average" if several else ""))
        if several:
            panels.append(panel(f"{prefix}{mean_of(len(made.samples))}", made.samples.mean(dim=0)))
    panels += [panel(name, cells) for name, cells in target.guesses.items()]
    return write_row(panels, path)


def _draw_strip(
    target: Imagined, ladder: Mapping[str, Mapping[str, float | None]], tokenizer: LatentTokenizer, path: Path
) -> str:
    """One draw at every number of sampling steps, from the same noise."""
    truth = tokenizer.decode_cells(target.truth[None])[0].cpu()
    where = pixels_of(target.counted, truth)
    panels = [Panel(without(truth, where), "target", "through the teacher")]
    for count, cells in target.by_steps.items():
        name = "1 step" if count == 1 else f"{count} steps"
        picture = tokenizer.decode_cells(cells[None])[0].cpu()
        panels.append(Panel(without(picture, where), name, _note(ladder[str(count)])))
    return write_row(panels, path)


def _context(pack: ScenePack, made: Sequence[Imagined], folder: Path, seed: int) -> str:
    """The views that the model saw, in one picture."""
    visible = made[0].visible if made else ()
    panels = [Panel(pack.images[view].cpu(), pack.frame_names[view]) for view in visible]
    return write_row(panels, folder / f"{pack.scene_id.replace('/', '_')}-seed{seed}-seen.png", side=96)


def _note(figures: Mapping[str, float | None]) -> str:
    if figures["psnr"] is None:
        return "nothing seen"
    return f"{figures['psnr']:.1f} dB, SSIM {figures['ssim']:.2f}"


def _by_steps(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    return averages({"kind": record["kind"], "figures": record["by_steps"]} for record in records)


def page(record: Mapping[str, Any]) -> str:
    """The page: tables of averages, then every picture."""
    parts = [f"<h1>{html.escape(str(record.get('title', 'Reconstructions')))}</h1>"]
    for key in ("date", "command", "machine"):
        if record.get(key):
            parts.append(f"<div>{key}: {html.escape(str(record[key]))}</div>")
    for kind, title in KINDS.items():
        targets = [target for target in record["targets"] if target["kind"] == kind]
        if not targets:
            continue
        parts.append(f"<h2>{title}</h2>{_table(record['averages'].get(kind, {}), 'made by')}")
        if kind in record["by_steps"]:
            parts.append(f"<h3>By sampling steps</h3>{_table(record['by_steps'][kind], 'steps')}")
        for target in targets:
            name = ", ".join(filter(None, (target["scene_id"], target["view"], f"seed {target['seed']}")))
            parts.append(f"<h3>{html.escape(name)}</h3>")
            shown = [target["picture"], target["strip"], target["context"] if kind == "masked_view" else None]
            parts += [f'<img src="{html.escape(file)}" alt="{html.escape(name)}">' for file in shown if file]
    body = "\n".join(parts)
    return f"<!doctype html><meta charset=utf-8><title>Reconstructions</title><style>{_STYLE}</style>\n{body}\n"


def _table(rows: Mapping[str, Mapping[str, float]], first: str) -> str:
    head = f"<tr><th>{first}</th><th>latent MSE</th><th>PSNR, dB</th><th>SSIM</th><th>targets</th></tr>"
    lines = [
        f"<tr><td>{html.escape(name)}</td><td>{row['latent_mse']:.3f}</td><td>{row['psnr']:.2f}</td>"
        f"<td>{row['ssim']:.3f}</td><td>{row['targets']:.0f}</td></tr>"
        for name, row in rows.items()
    ]
    return f"<table>{head}{''.join(lines)}</table>"
