"""What the model imagines: hidden views and the view from above, sampled from the denoiser."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from stereopsis.data.batch import Batch
from stereopsis.data.pack import ScenePack
from stereopsis.models.spatial import SpatialModel
from stereopsis.objectives.reconstruction import BirdsEye, CrossView
from stereopsis.teachers.latents import LatentTokenizer, psnr

PICTURES_FILE = "pictures.json"
EQUAL_PSNR = 99.0
"""The largest ratio that is written, dB."""


@torch.inference_mode()
def write_pictures(
    model: SpatialModel,
    packs: Iterable[ScenePack],
    tokenizer: LatentTokenizer,
    folder: Path,
    *,
    steps: int = 25,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Sample reconstructions of some scenes and write them beside their targets.

    The target shown is what the frozen tokenizer itself makes of the true picture: the best that any
    reconstruction can reach. PSNR is measured against it, inside what was seen (void left out from above).

    Args:
        model: trained, with its objectives.
        packs: scenes with targets.
        tokenizer: the latent teacher that made them.
        folder: where pictures and ``pictures.json`` go.
        steps: denoising steps.
        seed: of hidden views and noise.
    """
    objectives = model.objectives
    if objectives is None:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    collator = model.collator()
    records: list[dict[str, Any]] = []
    for number, pack in enumerate(packs):
        batch = collator([pack.replace(conversations=())]).to(model.device)
        generator = torch.Generator().manual_seed(seed + number)
        if "cross_view" in objectives:
            records += _masked_views(model, batch, pack, tokenizer, folder, generator, steps)
        if "birds_eye" in objectives:
            records.append(_from_above(model, batch, pack, tokenizer, folder, generator, steps))
    (folder / PICTURES_FILE).write_text(json.dumps(records, indent=1, allow_nan=False) + "\n")
    return records


def _masked_views(
    model: SpatialModel,
    batch: Batch,
    pack: ScenePack,
    tokenizer: LatentTokenizer,
    folder: Path,
    generator: torch.Generator,
    steps: int,
) -> list[dict[str, Any]]:
    """Every hidden view of one scene, beside the visible view whose camera is nearest."""
    assert model.objectives is not None
    objective = model.objectives["cross_view"]
    assert isinstance(objective, CrossView)
    outputs = model.outputs(batch, ("cross_view",), generator)
    hidden = torch.nonzero(outputs.hidden).flatten().tolist()
    visible = [v for v in range(len(batch.images)) if v not in hidden]
    imagined = tokenizer.decode_cells(objective.reconstruct(outputs, batch, generator=generator, steps=steps))
    truth = tokenizer.decode_cells(batch.targets["view_latents"].float())
    context = [_save(batch.images[v], folder, f"{pack.scene_id}-{pack.frame_names[v]}-seen") for v in visible]
    records = []
    for picture, view in zip(imagined, hidden, strict=True):
        nearest = min((_camera_distance(batch.cameras[v], batch.cameras[view]), v) for v in visible)[1]
        stem = f"{pack.scene_id}-{pack.frame_names[view]}"
        records.append(
            {
                "kind": "masked_view",
                "scene_id": pack.scene_id,
                "view": pack.frame_names[view],
                "target": _save(truth[view], folder, f"{stem}-target"),
                "reconstruction": _save(picture, folder, f"{stem}-reconstruction"),
                "baseline": _save(truth[nearest], folder, f"{stem}-nearest"),
                "context": context,
                "psnr": _psnr(picture, truth[view]),
                "baseline_psnr": _psnr(truth[nearest], truth[view]),
                "mean_colour_psnr": _psnr(
                    _mean_colour(truth[visible].transpose(0, 1).flatten(1), truth[view]), truth[view]
                ),
            }
        )
    return records


def _from_above(
    model: SpatialModel,
    batch: Batch,
    pack: ScenePack,
    tokenizer: LatentTokenizer,
    folder: Path,
    generator: torch.Generator,
    steps: int,
) -> dict[str, Any]:
    """The bird's-eye view of one scene; cells where nothing was seen are painted grey in both pictures."""
    assert model.objectives is not None
    objective = model.objectives["birds_eye"]
    assert isinstance(objective, BirdsEye)
    outputs = model.outputs(batch, (), generator)
    cells = objective.reconstruct(outputs, batch, generator=generator, steps=steps)
    picture = tokenizer.decode_cells(cells)[0]
    truth = tokenizer.decode_cells(batch.targets["birdseye_latents"].float())[0]
    seen = batch.targets["birdseye_valid"][0].float()[None, None]
    mask = torch.nn.functional.interpolate(seen, size=truth.shape[1:])[0].bool().expand_as(truth)
    grey = torch.full_like(truth, 128)
    return {
        "kind": "birds_eye",
        "scene_id": pack.scene_id,
        "view": None,
        "target": _save(torch.where(mask, truth, grey), folder, f"{pack.scene_id}-above-target"),
        "reconstruction": _save(torch.where(mask, picture, grey), folder, f"{pack.scene_id}-above-reconstruction"),
        "context": [],
        "psnr": _psnr(picture, truth, mask),
        "baseline_psnr": _psnr(_mean_colour(truth[mask].view(3, -1), truth), truth, mask),
    }


def _mean_colour(source: Tensor, like: Tensor) -> Tensor:
    """One colour everywhere: the mean of [3 pixels] colours, in the shape of [3 height width] ``like``."""
    colour = source.float().mean(1).round().to(torch.uint8)
    return colour[:, None, None].expand_as(like)


def _psnr(picture: Tensor, truth: Tensor, where: Tensor | None = None) -> float | None:
    """DB over the pixels of [3 height width] pictures that ``where`` marks; None where it marks none.

    At most ``EQUAL_PSNR``, which stands for the infinite ratio of equal pictures: JSON has no infinity.
    """
    if where is not None:
        picture, truth = picture[where], truth[where]
    if not truth.numel():
        return None
    return round(min(float(psnr(picture.reshape(1, 3, 1, -1), truth.reshape(1, 3, 1, -1))), EQUAL_PSNR), 2)


def _camera_distance(a: Tensor, b: Tensor) -> float:
    """Metres between two cameras plus radians between their viewing directions."""
    turn = torch.arccos((a[:3, 2] * b[:3, 2]).sum().clamp(-1, 1))
    return float((a[:3, 3] - b[:3, 3]).norm() + turn)


def _save(image: UInt8[Tensor, "3 height width"], folder: Path, stem: str) -> str:
    name = f"{stem.replace('/', '_')}.png"
    Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())).save(folder / name)
    return name
