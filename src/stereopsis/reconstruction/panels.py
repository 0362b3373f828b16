"""Pictures in a row, each under its name: what was hidden, what was true, what was made of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

SIDE = 160
"""Height at which pictures are drawn, pixels."""
GREY = 128
_GAP, _LINE = 6, 15


class Panel(NamedTuple):
    """One picture of a row: [3 height width] RGB, its name, and a line below the name."""

    picture: UInt8[Tensor, "3 height width"]
    name: str
    note: str = ""


def write_row(panels: Sequence[Panel], path: Path, *, side: int = SIDE) -> str:
    """Draw pictures side by side into a PNG file, and return the file's name."""
    shown = [_scaled(panel.picture, side) for panel in panels]
    width = sum(picture.width for picture in shown) + _GAP * (len(shown) + 1)
    lines = 2 if any(panel.note for panel in panels) else 1
    sheet = Image.new("RGB", (width, side + 2 * _GAP + lines * _LINE), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    x = _GAP
    for picture, panel in zip(shown, panels, strict=True):
        sheet.paste(picture, (x, _GAP + lines * _LINE))
        draw.text((x, _GAP - 2), panel.name, fill="black", font=font)
        draw.text((x, _GAP - 2 + _LINE), panel.note, fill=(90, 90, 90), font=font)
        x += picture.width + _GAP
    sheet.save(path)
    return path.name


def without(picture: UInt8[Tensor, "3 height width"], where: Bool[Tensor, "height width"]) -> Tensor:
    """The picture, grey outside of the marked pixels."""
    return torch.where(where, picture, torch.full_like(picture, GREY))


def hidden(like: UInt8[Tensor, "3 height width"]) -> Tensor:
    """What the model is shown of a hidden view: nothing."""
    return torch.full_like(like, GREY)


def _scaled(picture: Tensor, side: int) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(picture.permute(1, 2, 0).cpu().numpy()))
    width = max(1, round(image.width * side / image.height))
    enlarging = Image.Resampling.NEAREST if image.height <= side else Image.Resampling.LANCZOS
    return image.resize((width, side), enlarging)
