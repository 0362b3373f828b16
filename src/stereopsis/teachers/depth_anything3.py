"""Depth Anything 3 as a feature teacher, through its own package.

What is assumed of the package, all of it here and nowhere else (its docs/API.md as of 2026):

- `depth_anything_3.api.DepthAnything3.from_pretrained(folder or id)` gives a torch module;
- `model.inference(image=[HxWx3 uint8 arrays], export_feat_layers=[k], process_res=side,
  process_res_method="upper_bound_resize", ref_view_strategy="first")` runs all views together. The longer side becomes
  `process_res`, both sides are rounded to patches of 14 px, and nothing is cropped;
- `prediction.aux["feat_layer_k"]` is [views, patch rows, patch columns, channels] (or has a leading batch of one): the
  normalised output of block k, counted from 0, without camera and register tokens, views in their given order.

The network may move another view to the front while it runs ("saddle_balanced", its default). "first" keeps the
order, so that features can in no version of the package end up with another frame.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from stereopsis.errors import CheckpointError, MissingExtraError, RecipeError
from stereopsis.teachers.features import TeacherViews
from stereopsis.teachers.patch_grid import PatchGridTeacher, SourceOptions, resized_pictures

INSTALL = "pip install git+https://github.com/ByteDance-Seed/Depth-Anything-3"  # none of our extras: no release has it
PATCH = 14
DEFAULT_SIDE = 504
_PROBE = 16 * PATCH
LAST_LAYER = {  # blocks of each preset's transformer, counted from 0
    "da3-small": 11,
    "da3-base": 11,
    "da3-large": 23,
    "da3-giant": 39,
    "da3nested-giant-large": 39,
}


class DepthAnything3Teacher(PatchGridTeacher):
    """Patch features of one block of Depth Anything 3; all views of a scene together.

    Args:
        module: a `DepthAnything3`.
        layer: block whose output is taken, counted from 0.
        name: short name for recipes, caches and logs.
        side: longer side of the input, pixels, a multiple of 14.
    """

    def __init__(self, module: nn.Module, *, layer: int, name: str = "da3", side: int = DEFAULT_SIDE) -> None:
        super().__init__(module, name=name, channels=0)
        if side < PATCH or side % PATCH:
            raise RecipeError(
                f"Depth Anything 3 has patches of {PATCH} px, so its input cannot be {side} px; "
                f"use size={max(side // PATCH, 1) * PATCH}"
            )
        self.layer = layer
        self.side = side
        # one small picture tells the width; noise, because the nested model's sky removal fails on a blank one
        probe = np.random.default_rng(0).integers(0, 256, (_PROBE, _PROBE, 3), dtype=np.uint8)
        self.channels = self._features([probe], _PROBE).shape[-1]

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        """Layer, size and reference view."""
        return {"kind": "da3", "version": 1, "layer": self.layer, "side": self.side, "reference": "first"}

    def patches(self, views: TeacherViews) -> Float[Tensor, "views patch_rows patch_cols channels"]:
        """All views jointly; pixels are made square first, so that squeezed frames look like what they show."""
        aspect = views.field_aspect
        width, height = (
            (self.side, round(self.side / aspect)) if aspect >= 1 else (round(self.side * aspect), self.side)
        )
        sized = resized_pictures(views.images, max(height, 1), max(width, 1), Image.Resampling.BICUBIC)
        return self._features(list(sized.permute(0, 2, 3, 1).cpu().numpy()), self.side)

    def _features(self, pictures: list[np.ndarray], side: int) -> Float[Tensor, "views patch_rows patch_cols channels"]:
        model: Any = self.module
        key = f"feat_layer_{self.layer}"
        try:
            prediction = model.inference(
                image=pictures,
                export_feat_layers=[self.layer],
                process_res=side,
                process_res_method="upper_bound_resize",
                ref_view_strategy="first",
            )
            features = torch.as_tensor(prediction.aux[key])
        except (TypeError, AttributeError, KeyError) as error:
            raise RecipeError(
                f"this version of depth_anything_3 does not export features as expected ({error!r}): "
                f"'inference' should take 'ref_view_strategy' and fill 'aux[\"{key}\"]'; update the package"
            ) from error
        features = features[0] if features.ndim == 5 and len(features) == 1 else features
        if features.ndim != 4 or len(features) != len(pictures):
            raise RecipeError(
                f"Depth Anything 3 gave features {list(features.shape)} for {len(pictures)} views; "
                "expected [views, patch rows, patch columns, channels]"
            )
        return features.float()


def load_depth_anything3_teacher(source: str) -> DepthAnything3Teacher:
    """Load "PATH_OR_ID[@OPTIONS]", such as "depth-anything/DA3-LARGE@11,size=504".

    Without a layer the last one is taken, known for the published presets (`LAST_LAYER`).

    Raises:
        MissingExtraError: the package is not installed.
        RecipeError: options that cannot be read, or a layer that must be named.
        CheckpointError: no such model.
    """
    options = SourceOptions.read(source)
    try:
        from depth_anything_3.api import DepthAnything3
    except ImportError as error:
        raise MissingExtraError("depth_anything_3", "", "the feature teacher 'da3'", command=INSTALL) from error
    folder = Path(options.source).expanduser()
    try:
        model: Any = DepthAnything3.from_pretrained(str(folder) if folder.exists() else options.source)
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"cannot load Depth Anything 3 from '{options.source}': {error}") from error
    layer = options.layer
    if layer is None and model.model_name not in LAST_LAYER:
        known = ", ".join(LAST_LAYER)
        raise RecipeError(
            f"the last layer of the Depth Anything 3 model '{model.model_name}' is not known here (known: {known}); "
            f"name one: 'da3:{options.source}@23'"
        )
    layer = LAST_LAYER[model.model_name] if layer is None else layer
    if layer < 0:
        raise RecipeError(f"Depth Anything 3's layers are counted from 0, so there is no layer {layer}")
    name = f"da3-{Path(options.source).name}"
    return DepthAnything3Teacher(model, layer=layer, name=name, side=options.size or DEFAULT_SIDE)
