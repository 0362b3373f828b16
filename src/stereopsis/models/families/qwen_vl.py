"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: rotary positions in time, height and width; two by two patches make a token."""

from typing import Any

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from transformers.image_utils import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures
from transformers.vision_utils import get_vision_window_index

from stereopsis.data.prompt import ViewTemplate
from stereopsis.models.adapter import Adapter


class QwenVLAdapter(Adapter):
    """What the three generations share. The tower takes images of any size, so views are as large as the grid asks.

    The tower's output is taken before the merger that joins two by two patches: the merger is the projector.
    """

    image_token = "<|image_pad|>"
    mean: tuple[float, float, float] = OPENAI_CLIP_MEAN
    std: tuple[float, float, float] = OPENAI_CLIP_STD

    def __init__(self, model: Any, view_grid: tuple[int, int]) -> None:
        if view_grid[0] != view_grid[1]:
            raise ValueError(f"family '{self.family}': views are square, so view_grid must be too, got {view_grid}")
        super().__init__(model, view_grid)

    @property
    def vision(self) -> Any:
        """The vision part of the configuration."""
        return self.model.config.vision_config

    @property
    def image_size(self) -> int:
        """Side of a view, pixels: one merged cell per token."""
        return self.view_grid[0] * self.vision.patch_size * self.vision.spatial_merge_size

    @property
    def encoder_grid(self) -> tuple[int, int]:
        """Merged cells: the same grid that the language model sees."""
        return self.view_grid

    @property
    def vision_tower(self) -> nn.Module:
        """The vision transformer; its merger is trained with the language model."""
        return _Tower(self.base.visual)

    def view_template(self, tokenizer: Any) -> ViewTemplate:
        """Start token, one placeholder per cell, end token; a cell's position is (start, start + row, start + col)."""
        config, (rows, cols) = self.model.config, self.view_grid
        cells = [(1, 1 + row, 1 + col) for row in range(rows) for col in range(cols)]
        behind = 1 + max(rows, cols)
        return ViewTemplate(
            token_ids=(config.vision_start_token_id, *[config.image_token_id] * len(cells), config.vision_end_token_id),
            cells=(-1, *range(len(cells)), -1),
            rows=rows,
            cols=cols,
            offsets=((0, 0, 0), *cells, (behind, behind, behind)),
            advance=behind + 1,
        )

    def encode(self, images: UInt8[Tensor, "views 3 height width"]) -> Float[Tensor, "views er ec ed"]:
        """The tower's last layer, the merge by merge patches of a cell one after another."""
        outputs = self.base.visual(self._patches(images), grid_thw=self._sizes(len(images), images.device))
        return self._cells(outputs.last_hidden_state, len(images))

    def project(self, encoded: Float[Tensor, "views er ec ed"]) -> Float[Tensor, "views er ec dim"]:
        """The merger."""
        views, rows, cols, _ = encoded.shape
        merged = self.base.visual.merger(encoded[..., : self._unit].reshape(-1, self.vision_width))
        return merged.view(views, rows, cols, -1)

    @property
    def vision_width(self) -> int:
        """Hidden size of the vision transformer."""
        return self.vision.embed_dim

    @property
    def _unit(self) -> int:
        """Features of the patches of one cell."""
        return self.vision_width * self.vision.spatial_merge_size**2

    def handed_over(self, tokens: Float[Tensor, "views rows cols dim"], deep: tuple[Tensor, ...]) -> Any:
        """All tokens in one row."""
        return BaseModelOutputWithPooling(pooler_output=(tokens.flatten(0, 2),))

    def rotary(self, position_ids: Int64[Tensor, "batch tokens axes"]) -> Int64[Tensor, "axes batch tokens"]:
        """Axes first, as the family takes them."""
        return position_ids.permute(2, 0, 1)

    def _sizes(self, views: int, device: torch.device) -> Int64[Tensor, "views 3"]:
        side = self.view_grid[0] * self.vision.spatial_merge_size
        return torch.tensor([[1, side, side]] * views, device=device)

    def _patches(self, images: UInt8[Tensor, "views 3 height width"]) -> Float[Tensor, "patches values"]:
        """Normalised patches as the family's image processor orders them: cell after cell, time repeated."""
        dtype = self.base.visual.dtype
        mean, std = (
            torch.tensor(v, device=images.device, dtype=torch.float32)[:, None, None] for v in (self.mean, self.std)
        )
        pixels = ((images.float() / 255 - mean) / std).to(dtype)
        patch, merge = self.vision.patch_size, self.vision.spatial_merge_size
        rows, cols = self.view_grid
        cut = pixels.view(len(images), 3, rows, merge, patch, cols, merge, patch)
        patches = cut.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(-1, 3, 1, patch, patch)
        return patches.expand(-1, -1, self.vision.temporal_patch_size, -1, -1).flatten(1)

    def _cells(self, patches: Float[Tensor, "patches ed"], views: int) -> Float[Tensor, "views er ec unit"]:
        rows, cols = self.view_grid
        return patches.view(views, rows, cols, -1)


class _Tower(nn.Module):
    """The vision transformer without the mergers: what stays frozen and can be cached."""

    def __init__(self, visual: Any) -> None:
        super().__init__()
        for name, module in visual.named_children():
            if name != "merger":
                self.add_module(name, module)


class Qwen2VLAdapter(QwenVLAdapter):
    """Qwen2-VL."""

    family = "qwen2_vl"


class Qwen25VLAdapter(QwenVLAdapter):
    """Qwen2.5-VL: its tower attends within windows, and gives its patches window by window."""

    family = "qwen2_5_vl"

    @property
    def vision_width(self) -> int:
        """Hidden size of the vision transformer."""
        return self.vision.hidden_size

    def _cells(self, patches: Float[Tensor, "patches ed"], views: int) -> Float[Tensor, "views er ec unit"]:
        """Patches brought back from the windows' order."""
        order, _ = get_vision_window_index(
            self._sizes(views, torch.device("cpu")),
            spatial_merge_size=self.vision.spatial_merge_size,
            window_size=self.vision.window_size,
            patch_size=self.vision.patch_size,
        )
        cells = patches.view(len(order), -1)[order.argsort().to(patches.device)]
        return super()._cells(cells, views)


class Qwen3VLAdapter(QwenVLAdapter):
    """Qwen3-VL: features of earlier tower layers are added inside the first layers of the language model (deepstack).

    They belong to the tower's output and pass through mergers of their own, which stay frozen with the tower.
    """

    family = "qwen3_vl"
    mean = tuple(IMAGENET_STANDARD_MEAN)
    std = tuple(IMAGENET_STANDARD_STD)

    @property
    def vision_width(self) -> int:
        """Hidden size of the vision transformer."""
        return self.vision.hidden_size

    def encode(self, images: UInt8[Tensor, "views 3 height width"]) -> Float[Tensor, "views er ec ed"]:
        """The tower's last layer, and behind it, channel after channel, the deepstack features."""
        outputs = self.base.visual(self._patches(images), grid_thw=self._sizes(len(images), images.device))
        last = self._cells(outputs.last_hidden_state, len(images))
        return torch.cat([last, *(self._cells(extra, len(images)) for extra in outputs.deepstack_features)], dim=-1)

    def deep(self, encoded: Float[Tensor, "views er ec ed"]) -> tuple[Float[Tensor, "views rows cols dim"], ...]:
        """The deepstack features."""
        return encoded[..., self._unit :].split(self.dim, dim=-1) if encoded.shape[-1] > self._unit else ()

    def handed_over(self, tokens: Float[Tensor, "views rows cols dim"], deep: tuple[Tensor, ...]) -> Any:
        """Tokens and deepstack features, each in one row."""
        return BaseModelOutputWithDeepstackFeatures(
            pooler_output=(tokens.flatten(0, 2),),
            deepstack_features=[(extra.to(tokens.dtype).flatten(0, 2),) for extra in deep],
        )
