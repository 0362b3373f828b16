"""A token picked in one view, and how similar the others' tokens are: sheets of pictures, and data for the page."""

import base64
import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from stereopsis.probing.correspondence import correspondence
from stereopsis.probing.subjects import SceneFeatures
from stereopsis.report.images import embed
from stereopsis.report.style import TARGET_COLOUR

SIDE = 144
KEPT = 48
"""Dimensions that the page's approximate similarities keep."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pick:
    """A cell: which view, row and column."""

    view: int
    row: int
    col: int


def spread_picks(seen: SceneFeatures, count: int = 4) -> list[Pick]:
    """Cells that other views see too, far apart in the room: the next is always the farthest from those before."""
    from stereopsis.objectives.correspondence import scene_tokens

    tokens = scene_tokens(seen.points, seen.valid, 0.3)
    twice = (tokens.pairs() > 0)[tokens.voxel].nonzero().flatten()
    if not len(twice):
        return []
    points = tokens.points[twice].double()
    chosen = [int((points - points.mean(0)).norm(dim=1).argmin())]
    while len(chosen) < min(count, len(points)):
        distance = torch.cdist(points, points[chosen]).min(1).values
        chosen.append(int(distance.argmax()))
    cells = seen.valid[0].numel()
    cols = seen.valid.shape[2]
    indices = tokens.token[twice][chosen].tolist()
    return [Pick(view=p // cells, row=p % cells // cols, col=p % cells % cols) for p in indices]


def similarity_sheet(
    seen: SceneFeatures, features: Float[Tensor, "views rows cols dim"], picks: Sequence[Pick]
) -> UInt8[np.ndarray, "height width 3"]:
    """One row per picked cell: its view with the cell marked, then every view with its similarity over it.

    Colours run from blue (the least similar cell of the row) to red (the most similar one besides the cell itself).
    """
    views = [_thumbnail(image) for image in seen.pack.images]
    unit = torch.nn.functional.normalize(features.float(), dim=-1)
    gap = 4
    width = (len(views) + 1) * (SIDE + gap) + 12
    sheet = np.full((max(1, len(picks)) * (SIDE + gap), width, 3), 255, dtype=np.uint8)
    for line, pick in enumerate(picks):
        cosine = unit @ unit[pick.view, pick.row, pick.col]
        others = torch.ones_like(cosine, dtype=torch.bool)
        others[pick.view, pick.row, pick.col] = False
        low, high = float(cosine[others].min()), float(cosine[others].max())
        heat = ((cosine - low) / max(high - low, 1e-6)).clamp(0, 1).numpy()
        top = line * (SIDE + gap)
        sheet[top : top + SIDE, :SIDE] = _marked(views[pick.view], pick, heat.shape[1:])
        for number, view in enumerate(views):
            left = (number + 1) * (SIDE + gap) + 12
            sheet[top : top + SIDE, left : left + SIDE] = _heated(view, heat[number])
    return sheet


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClickableScene:
    """One scene for the page: thumbnails, and tokens short enough to be compared by the browser.

    Attributes:
        scene_id: which.
        score: its correspondence score, or None.
        images: PNG thumbnails as data addresses.
        rows: of a view's cells.
        cols: of a view's cells.
        dims: numbers per token.
        tokens: base64 of int8 [views * rows * cols * dims]; their cosines approximate those of the features.
        first: which cell is picked at first.
    """

    scene_id: str
    score: float | None
    images: tuple[str, ...]
    rows: int
    cols: int
    dims: int
    tokens: str
    first: int


def clickable(seen: SceneFeatures, features: Float[Tensor, "views rows cols dim"], voxel: float) -> ClickableScene:
    """Reduce a scene's features to their leading `KEPT` directions, eight bits a number."""
    _, rows, cols, _ = features.shape
    unit = torch.nn.functional.normalize(features.float().flatten(0, 2), dim=-1)
    directions = torch.linalg.svd(unit, full_matrices=False).Vh[:KEPT]
    short = torch.nn.functional.normalize(unit @ directions.T, dim=-1)
    numbers: Int64[Tensor, "tokens dims"] = (short * 127).round().long().clamp(-127, 127)
    picks = spread_picks(seen, 1)
    first = 0 if not picks else (picks[0].view * rows + picks[0].row) * cols + picks[0].col
    return ClickableScene(
        scene_id=seen.pack.scene_id,
        score=correspondence(features, seen.points, seen.valid, voxel=voxel).score,
        images=tuple(embed(Image.fromarray(_thumbnail(image))).uri for image in seen.pack.images),
        rows=rows,
        cols=cols,
        dims=numbers.shape[1],
        tokens=base64.b64encode(numbers.to(torch.int8).numpy().tobytes()).decode(),
        first=first,
    )


def _thumbnail(image: UInt8[Tensor, "3 height width"]) -> UInt8[np.ndarray, "side side 3"]:
    picture = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy()))
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)).copy()


def _marked(view: np.ndarray, pick: Pick, grid: tuple[int, ...]) -> np.ndarray:
    picture = Image.fromarray(view)
    height, width = SIDE / grid[0], SIDE / grid[1]
    corner = (pick.col * width, pick.row * height, (pick.col + 1) * width, (pick.row + 1) * height)
    ImageDraw.Draw(picture).rectangle(corner, outline=TARGET_COLOUR, width=3)
    return np.asarray(picture)


def _heated(view: np.ndarray, heat: Float[np.ndarray, "rows cols"]) -> np.ndarray:
    """Grey view under colours from blue through white to red."""
    large = np.asarray(Image.fromarray((heat * 255).astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.NEAREST))
    value = large[..., None].astype(np.float32) / 255
    blue, white, red = (np.array(c, dtype=np.float32) for c in ((40, 80, 200), (245, 245, 245), (215, 40, 40)))
    colour = np.where(value < 0.5, blue + (white - blue) * 2 * value, white + (red - white) * (2 * value - 1))
    grey = view.astype(np.float32).mean(-1, keepdims=True)
    return (0.45 * grey + 0.55 * colour).clip(0, 255).astype(np.uint8)
