"""What the model expects of hidden views and of the view from above: the mean of the denoiser's draws."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from stereopsis.data.pack import ScenePack
from stereopsis.models.spatial import SpatialModel
from stereopsis.objectives.reconstruction_base import ReconstructionObjective
from stereopsis.reconstruction.metrics import pixels_of, psnr
from stereopsis.reconstruction.panels import without
from stereopsis.reconstruction.sampling import NEAREST, Imagined, imagine
from stereopsis.teachers.latents import LatentTokenizer

PICTURES_FILE = "pictures.json"


def write_pictures(
    model: SpatialModel,
    packs: Iterable[ScenePack],
    tokenizer: LatentTokenizer,
    folder: Path,
    *,
    samples: int = 8,
    steps: int | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Reconstruct hidden views of some scenes, and what they look like from above, beside the targets.

    Shown is the mean of several draws. A single one of a denoiser that was trained briefly is mostly noise, and of a
    perfect one it would still miss the target twice as far (see `stereopsis.reconstruction.sampling`).

    The target shown is what the frozen tokenizer itself makes of the true picture: the best that any
    reconstruction can reach. PSNR is measured against it, inside what was seen (void left out from above).

    Args:
        model: trained, with its objectives.
        packs: scenes with targets.
        tokenizer: the latent teacher that made them.
        folder: where pictures and ``pictures.json`` go.
        samples: draws of every target.
        steps: denoising steps; None = what the process's mean asks for.
        seed: of hidden views and noise.
    """
    if model.objectives is None:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    records: list[dict[str, Any]] = []
    made = [model.objectives[name] for name in ("cross_view", "birds_eye") if name in model.objectives]
    if made:
        count = steps or max(
            each.diffusion.steps_for_mean for each in made if isinstance(each, ReconstructionObjective)
        )
        for number, pack in enumerate(packs):
            for target in imagine(model, pack, samples=samples, steps=count, seed=seed + number):
                draw = _masked_view if target.kind == "masked_view" else _from_above
                records.append(draw(target, pack, tokenizer, folder))
    (folder / PICTURES_FILE).write_text(json.dumps(records, indent=1, allow_nan=False) + "\n")
    return records


def _masked_view(target: Imagined, pack: ScenePack, tokenizer: LatentTokenizer, folder: Path) -> dict[str, Any]:
    """A hidden view, beside the visible view whose camera is nearest."""
    picture, truth, nearest = _decoded(tokenizer, target.samples.mean(dim=0), target.truth, target.guesses[NEAREST])
    everywhere = torch.ones(truth.shape[1:], dtype=torch.bool)
    seen = tokenizer.decode_cells(pack.view_targets["view_latents"][list(target.visible)].float()).cpu()
    stem = f"{pack.scene_id}-{target.view}"
    return {
        "kind": target.kind,
        "scene_id": pack.scene_id,
        "view": target.view,
        "target": _save(truth, folder, f"{stem}-target"),
        "reconstruction": _save(picture, folder, f"{stem}-reconstruction"),
        "baseline": _save(nearest, folder, f"{stem}-nearest"),
        "context": [
            _save(pack.images[v], folder, f"{pack.scene_id}-{pack.frame_names[v]}-seen") for v in target.visible
        ],
        "psnr": round(psnr(picture, truth, everywhere), 2),
        "baseline_psnr": round(psnr(nearest, truth, everywhere), 2),
        "mean_colour_psnr": round(psnr(_mean_colour(seen.transpose(0, 1).flatten(1), truth), truth, everywhere), 2),
    }


def _from_above(target: Imagined, pack: ScenePack, tokenizer: LatentTokenizer, folder: Path) -> dict[str, Any]:
    """The bird's-eye view of one scene; cells where nothing was seen are painted grey in both pictures."""
    picture, truth = _decoded(tokenizer, target.samples.mean(dim=0), target.truth)
    where = pixels_of(target.counted, truth)
    ratios: tuple[float | None, float | None] = (None, None)
    if bool(where.any()):
        colour = _mean_colour(truth[:, where], truth)
        ratios = round(psnr(picture, truth, where), 2), round(psnr(colour, truth, where), 2)
    return {
        "kind": target.kind,
        "scene_id": pack.scene_id,
        "view": None,
        "target": _save(without(truth, where), folder, f"{pack.scene_id}-above-target"),
        "reconstruction": _save(without(picture, where), folder, f"{pack.scene_id}-above-reconstruction"),
        "context": [],
        "psnr": ratios[0],
        "baseline_psnr": ratios[1],
    }


def _decoded(tokenizer: LatentTokenizer, *cells: Tensor) -> tuple[Tensor, ...]:
    return tuple(tokenizer.decode_cells(torch.stack(cells)).cpu())


def _mean_colour(source: Tensor, like: Tensor) -> Tensor:
    """One colour everywhere: the mean of [3 pixels] colours, in the shape of [3 height width] ``like``."""
    colour = source.float().mean(1).round().to(torch.uint8)
    return colour[:, None, None].expand_as(like)


def _save(image: UInt8[Tensor, "3 height width"], folder: Path, stem: str) -> str:
    name = f"{stem.replace('/', '_')}.png"
    Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())).save(folder / name)
    return name
