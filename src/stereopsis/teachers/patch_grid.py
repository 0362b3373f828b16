"""What teachers with a patch grid share: pictures at the network's size, and the grid pooled to the student's cells."""

import abc
import dataclasses
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from stereopsis.errors import RecipeError, did_you_mean
from stereopsis.teachers.features import FeatureTeacher, TeacherViews, ViewFeatures
from stereopsis.weights.fingerprint import fingerprint

Self = TypeVar("Self", bound="PatchGridTeacher")


class PatchGridTeacher(FeatureTeacher):
    """A frozen network that gives every patch of every view a feature.

    It is not an `nn.Module`: a model that holds one neither trains nor saves it. Everything runs in inference
    mode and outside any autocast region of the caller; what comes back are ordinary tensors.
    """

    def __init__(self, module: nn.Module, *, name: str, channels: int) -> None:
        self.name = name
        self.channels = channels
        self.device = torch.device("cpu")
        self.module = module.eval().requires_grad_(False)

    @property
    @abc.abstractmethod
    def preprocessing(self) -> Mapping[str, Any]:
        """Everything besides the weights that changes the features, as plain JSON values."""

    @abc.abstractmethod
    def patches(self, views: TeacherViews) -> Float[Tensor, "views patch_rows patch_cols channels"]:
        """The patches' features of every view; rows from the top, columns from the left."""

    @functools.cached_property
    def fingerprint(self) -> str:
        """Sha256 over the weights and the preprocessing; independent of the device."""
        return fingerprint({"pool": "adaptive average", **self.preprocessing}, self.module)

    def to(self: Self, device: torch.device | str) -> Self:
        """Move the network to a device (in place) and return the teacher."""
        self.device = torch.device(device)
        self.module.to(self.device)
        return self

    def encode(self, views: TeacherViews) -> ViewFeatures:
        """Mean feature of the patches under every cell, on the device of the views; every cell is valid."""
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            cells = pooled(self.patches(views).float(), views.rows, views.cols)
        features = cells.to(views.images.device).clone()  # made outside inference mode: may enter a backward pass
        return ViewFeatures(
            features=features, valid=torch.ones(features.shape[:3], dtype=torch.bool).to(features.device)
        )


def pooled(
    patches: Float[Tensor, "views patch_rows patch_cols channels"], rows: int, cols: int
) -> Float[Tensor, "views rows cols channels"]:
    """Average patches into cells; a patch that two cells share counts for both (adaptive average pooling).

    3DRS pools VGGT's 28 x 37 patches to 14 x 14 so. With more cells than patches, neighbours share a patch.
    """
    return functional.adaptive_avg_pool2d(patches.permute(0, 3, 1, 2), (rows, cols)).permute(0, 2, 3, 1)


def patches_as_grid(tokens: Float[Tensor, "views patches channels"], rows: int, cols: int, what: str) -> Tensor:
    """Patch tokens, row by row, as a grid [views rows cols channels].

    Raises:
        RecipeError: their number is another.
    """
    if tokens.shape[1] != rows * cols:
        raise RecipeError(
            f"{what} gave {tokens.shape[1]} patch tokens for {rows} x {cols} patches; "
            "this model's tokens cannot be laid over the views"
        )
    return tokens.unflatten(1, (rows, cols))


def resized_pictures(
    images: UInt8[Tensor, "views 3 height width"], height: int, width: int, resample: Image.Resampling
) -> UInt8[Tensor, "views 3 new_height new_width"]:
    """Pictures at another size as Pillow resizes them, which is what these models' own preprocessing does."""
    if images.shape[-2:] == (height, width):
        return images
    pixels = images.cpu().permute(0, 2, 3, 1).numpy()
    sized = [np.asarray(Image.fromarray(picture).resize((width, height), resample)) for picture in pixels]
    if not sized:
        return images.new_zeros(0, 3, height, width)
    return torch.from_numpy(np.stack(sized)).permute(0, 3, 1, 2).to(images.device)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """A source such as "org/name@-2,size=448" taken apart.

    Attributes:
        source: what stands before the "@".
        layer: which block's output; None for the default.
        size: input side in pixels; None for the default.
    """

    source: str
    layer: int | None = None
    size: int | None = None

    @staticmethod
    def read(text: str) -> "SourceOptions":
        """Options follow the last "@", separated by commas: LAYER, layer=LAYER, size=PIXELS; a path may hold an "@".

        Raises:
            RecipeError: an unknown option, or a value that is no whole number.
        """
        source, at, options = text.rpartition("@")
        if not at or Path(text).expanduser().exists():
            return SourceOptions(source=text)
        found: dict[str, int] = {}
        for option in options.split(","):
            key, equals, value = option.partition("=")
            key, value = (key.strip(), value.strip()) if equals else ("layer", key.strip())
            if key not in ("layer", "size"):
                raise RecipeError(f"unknown option '{key}' in '{text}'{did_you_mean(key, ('layer', 'size'))}")
            if not re.fullmatch(r"-?\d+", value) or key in found or (key == "size" and int(value) < 1):
                raise RecipeError(f"cannot read '{option}' in '{text}'; expected for instance '@-2,size=448'")
            found[key] = int(value)
        return SourceOptions(source=source, layer=found.get("layer"), size=found.get("size"))
