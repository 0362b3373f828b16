"""Vision transformers of Hugging Face as feature teachers: DINOv2, DINOv3, SigLIP, SigLIP2, ViT-MAE, CLIP, ViT.

3DRS compares such single-view teachers with 3D ones (its table of teachers; docs/teachers.md). A view is resized
to the network's input as a whole, so that the patches tile exactly what the student's cells tile: nothing is cropped.
"""

import dataclasses
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn

from stereopsis.errors import CheckpointError, RecipeError
from stereopsis.teachers.features import TeacherViews
from stereopsis.teachers.patch_grid import PatchGridTeacher, SourceOptions, patches_as_grid, resized_pictures
from stereopsis.weights.pretrained import open_pretrained

_NAFLEX = "siglip2_vision_model"  # SigLIP2 of any aspect: takes patches instead of pictures


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureInput:
    """What a network wants to see, from its preprocessor_config.json.

    Attributes:
        mean: of each colour, after rescaling.
        std: likewise.
        rescale: factor on 0..255.
        resample: Pillow's filter.
        size: side of the input, pixels; None where the file names none.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    rescale: float
    resample: Image.Resampling
    size: int | None

    @staticmethod
    def of(config: Mapping[str, Any], source: str) -> "PictureInput":
        """Read the file's content; where a centre crop is configured, its size is what the network saw.

        Raises:
            CheckpointError: pictures are not given one mean and deviation per colour.
        """
        normalised = config.get("do_normalize", True)
        mean = tuple(config.get("image_mean", ())) if normalised else (0.0, 0.0, 0.0)
        std = tuple(config.get("image_std", ())) if normalised else (1.0, 1.0, 1.0)
        if len(mean) != 3 or len(std) != 3:
            raise CheckpointError(
                f"'{source}': its preprocessor_config.json should give image_mean and image_std for three colours, "
                f"found {list(mean)} and {list(std)}"
            )
        size = config.get("crop_size") if config.get("do_center_crop") else config.get("size")
        if isinstance(size, Mapping):
            size = size.get("shortest_edge") or size.get("height") or size.get("longest_edge")
        return PictureInput(
            mean=mean,
            std=std,
            rescale=config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0,
            resample=Image.Resampling(config.get("resample", Image.Resampling.BICUBIC)),
            size=size,
        )


class HuggingFaceTeacher(PatchGridTeacher):
    """Patch tokens of a vision transformer, each view by itself.

    CLS and register tokens are left out by counting: what precedes the patches must be the registers that the
    config names and at most one CLS token. ViT-MAE is run without masking, its patches in their order.

    Args:
        module: the vision tower, a transformers model whose config has patch_size and hidden_size.
        picture: what it wants to see.
        name: short name for recipes, caches and logs.
        layer: block whose output is taken: 1 is the first, -1 the last, 0 the embedding; None is the model's
            own `last_hidden_state`, which mostly has passed a final norm.
        size: side of the square input, pixels, a multiple of the patch; None takes the largest multiple that the
            model's own size holds (SigLIP 384/14: 378, which is also all that its patches cover).
        chunk: views at a time.
    """

    per_view = True

    def __init__(
        self,
        module: nn.Module,
        picture: PictureInput,
        *,
        name: str = "hf",
        layer: int | None = None,
        size: int | None = None,
        chunk: int = 16,
    ) -> None:
        config: Any = module.config
        super().__init__(module, name=name, channels=config.hidden_size)
        patch = config.patch_size
        if not isinstance(patch, int):
            raise RecipeError(f"teacher '{name}' has patches of {patch} px, expected square ones of one size")
        own = picture.size or getattr(config, "image_size", None) or patch * round(_naflex_patches(config) ** 0.5)
        self.patch = patch
        self.size = size if size is not None else int(own) // patch * patch
        if self.size < patch or self.size % patch:
            down, up = self.size // patch * patch, (self.size // patch + 1) * patch
            raise RecipeError(
                f"teacher '{name}' has patches of {patch} px, so its input cannot be {self.size} px; "
                f"use size={max(down, patch)} or size={up}"
            )
        blocks = config.num_hidden_layers
        if layer is not None and not -blocks <= layer <= blocks:
            raise RecipeError(f"teacher '{name}' has {blocks} layers, so there is no layer {layer}; use 1..{blocks}")
        self.layer = layer if layer is None or layer >= 0 else blocks + 1 + layer
        self.chunk = chunk
        self._picture = picture
        self._config = config
        self._accepts = frozenset(inspect.signature(module.forward).parameters)

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        """Size, colour normalisation and layer."""
        return {
            "kind": "hf",
            "model_type": self._config.model_type,
            "size": self.size,
            "layer": self.layer,
            "mean": self._picture.mean,
            "std": self._picture.std,
            "rescale": self._picture.rescale,
            "resample": int(self._picture.resample),
        }

    def patches(self, views: TeacherViews) -> Float[Tensor, "views patch_rows patch_cols channels"]:
        """Every view by itself, `chunk` at a time."""
        side = self.size // self.patch
        parts = [self._tokens(part) for part in views.images.split(self.chunk)]
        return patches_as_grid(torch.cat(parts), side, side, f"teacher '{self.name}'")

    def _tokens(self, images: UInt8[Tensor, "n 3 height width"]) -> Float[Tensor, "n patches channels"]:
        sized = resized_pictures(images, self.size, self.size, self._picture.resample).to(self.device)
        mean, std = (torch.tensor(v, device=self.device).view(3, 1, 1) for v in (self._picture.mean, self._picture.std))
        pixels = (sized.float() * self._picture.rescale - mean) / std
        try:
            outputs: Any = self.module(**self._arguments(pixels), output_hidden_states=self.layer is not None)
        except ValueError as error:
            raise RecipeError(f"teacher '{self.name}' does not take pictures of {self.size} px: {error}") from error
        hidden = outputs.last_hidden_state if self.layer is None else outputs.hidden_states[self.layer]
        return hidden[:, self._special_tokens(hidden.shape[1]) :]

    def _arguments(self, pixels: Float[Tensor, "n 3 size size"]) -> dict[str, Tensor | bool]:
        n, side = len(pixels), self.size // self.patch
        dtype = next(self.module.parameters()).dtype
        if self._config.model_type == _NAFLEX:
            return {
                "pixel_values": _as_patches(pixels, self.patch).to(dtype),
                "pixel_attention_mask": torch.ones(n, side * side, dtype=torch.long, device=self.device),
                "spatial_shapes": torch.full((n, 2), side, device=self.device),
            }
        arguments: dict[str, Tensor | bool] = {"pixel_values": pixels.to(dtype)}
        if "interpolate_pos_encoding" in self._accepts:
            arguments["interpolate_pos_encoding"] = True  # the identity at the model's own size
        if "noise" in self._accepts:  # ViT-MAE keeps the patches of the smallest noise, in the noise's order
            arguments["noise"] = torch.arange(side * side, device=self.device).float().expand(n, -1)
        return arguments

    def _special_tokens(self, tokens: int) -> int:
        """How many tokens precede the patches.

        Raises:
            RecipeError: it is not the registers of the config and at most one CLS token.
        """
        expected = (self.size // self.patch) ** 2
        registers = getattr(self._config, "num_register_tokens", 0) or 0
        extra = tokens - expected
        if extra - registers not in (0, 1):
            raise RecipeError(
                f"teacher '{self.name}' gave {tokens} tokens for {expected} patches ({self.size} px / {self.patch}); "
                f"expected {expected + registers} or, with a CLS token, {expected + registers + 1} "
                f"({registers} registers in its config); is it a model with one token per patch?"
            )
        return extra


def load_huggingface_teacher(source: str) -> HuggingFaceTeacher:
    """Load a model by folder or hub id, with options behind an "@": "facebook/dinov2-large@-2,size=392".

    Of models with two towers (CLIP, SigLIP) the vision tower is taken.

    Raises:
        RecipeError: options that cannot be read, or a model without a patch grid.
        CheckpointError: no such model, or no preprocessor_config.json beside it.
    """
    from transformers import AutoConfig, AutoModel
    from transformers.image_processing_utils import BaseImageProcessor

    options = SourceOptions.read(source)
    folder = Path(options.source).expanduser()
    if not folder.is_dir() and not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", options.source):
        raise CheckpointError(
            f"no folder '{options.source}' to load a vision model from; give a folder in transformers' layout "
            "or an id 'org/name'"
        )
    source = str(folder) if folder.is_dir() else options.source
    try:
        config: Any = open_pretrained(AutoConfig, source)
        processor, _ = BaseImageProcessor.get_image_processor_dict(source)
        changes: dict[str, Any] = {"mask_ratio": 0.0} if config.model_type == "vit_mae" else {}
        if "/" in str(getattr(config, "_attn_implementation", "")):  # a hub kernel, which is code
            changes["attn_implementation"] = "eager"
        model, info = open_pretrained(AutoModel, source, dtype=torch.float32, output_loading_info=True, **changes)
    except (OSError, ValueError, RuntimeError, CheckpointError) as error:
        raise CheckpointError(
            f"cannot load the vision model '{options.source}': {error}; expected a folder or hub id with config.json, "
            "model.safetensors and preprocessor_config.json"
        ) from error
    tower: Any = model.vision_model if "vision_config" in config.to_dict() else model
    if lost := sorted(key for key in info["missing_keys"] if "pooler" not in key):
        raise CheckpointError(
            f"'{options.source}' lacks {len(lost)} weight(s) of {type(model).__name__}, the first being '{lost[0]}'"
        )
    known = tower.config.to_dict()
    if lacking := [key for key in ("patch_size", "hidden_size", "num_hidden_layers") if key not in known]:
        raise RecipeError(
            f"'{options.source}' is a '{config.model_type}' whose config has no {' or '.join(lacking)}; "
            "a feature teacher needs a vision transformer with one token per patch"
        )
    picture = PictureInput.of(processor, options.source)
    name = f"hf-{Path(options.source).name}"
    return HuggingFaceTeacher(tower, picture, name=name, layer=options.layer, size=options.size)


def _naflex_patches(config: Any) -> int:
    return config.num_patches if config.model_type == _NAFLEX else 0


def _as_patches(pixels: Float[Tensor, "n 3 height width"], patch: int) -> Float[Tensor, "n patches values"]:
    """Pixels of each patch in SigLIP2's order: row, column, colour."""
    n, colours, height, width = pixels.shape
    blocks = pixels.reshape(n, colours, height // patch, patch, width // patch, patch)
    return blocks.permute(0, 2, 4, 3, 5, 1).reshape(n, -1, patch * patch * colours)
