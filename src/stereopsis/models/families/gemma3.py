"""Gemma 3: a view's tokens see each other in both directions, and most layers look back only a window."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from stereopsis.data.prompt import ViewTemplate
from stereopsis.models.adapter import Adapter, additive


class Gemma3Adapter(Adapter):
    """SigLIP tower, average pooling and norm in the projector; two newlines around every view."""

    family = "gemma3"
    image_token = "<image_soft_token>"
    views_see_themselves = True

    @classmethod
    def default_grid(cls, config: Any) -> tuple[int, int]:
        """The grid that the projector gives (16 x 16 in the published models)."""
        side = int(config.mm_tokens_per_image**0.5)
        return side, side

    @property
    def window(self) -> int:
        """How far back the local layers look, tokens."""
        return self.model.config.text_config.sliding_window

    @property
    def image_size(self) -> int:
        """Side of the images that the vision tower takes, pixels."""
        return self.model.config.vision_config.image_size

    @property
    def encoder_grid(self) -> tuple[int, int]:
        """Rows and cols behind the projector, which pools."""
        return self.default_grid(self.model.config)

    @property
    def vision_tower(self) -> nn.Module:
        """The SigLIP encoder."""
        return self.base.vision_tower

    def view_template(self, tokenizer: Any) -> ViewTemplate:
        """Two newlines, start token, one placeholder per cell, end token, two newlines."""
        config, (rows, cols) = self.model.config, self.view_grid
        newlines = tuple(tokenizer("\n\n", add_special_tokens=False)["input_ids"])
        before, after = (*newlines, config.boi_token_index), (config.eoi_token_index, *newlines)
        return ViewTemplate(
            token_ids=(*before, *[config.image_token_id] * (rows * cols), *after),
            cells=(*[-1] * len(before), *range(rows * cols), *[-1] * len(after)),
            rows=rows,
            cols=cols,
        )

    def encode(self, images: UInt8[Tensor, "views 3 height width"]) -> Float[Tensor, "views er ec ed"]:
        """SigLIP features on the patch grid; pixels are scaled to [-1, 1]."""
        pixels = images.to(self.base.vision_tower.dtype) / 127.5 - 1.0
        features = self.base.vision_tower(pixel_values=pixels, return_dict=True).last_hidden_state
        side = round(features.shape[1] ** 0.5)
        return features.unflatten(1, (side, side))

    def project(self, encoded: Float[Tensor, "views pr pc ed"]) -> Float[Tensor, "views er ec dim"]:
        """Average pooling, norm and a linear map."""
        return self.base.multi_modal_projector(encoded.flatten(1, 2)).unflatten(1, self.encoder_grid)

    def mask(
        self,
        allowed: Bool[Tensor, "batch queries keys"],
        *,
        query_positions: Int64[Tensor, "batch queries"],
        key_positions: Int64[Tensor, "batch keys"],
        same_view: Bool[Tensor, "batch queries keys"] | None,
        dtype: torch.dtype,
    ) -> dict[str, Tensor]:
        """One mask for layers that look at everything, one for those that look back a window; views see themselves.

        Distance is that of positions, so that a packed conversation sees what it would see alone.
        """
        near = (query_positions[:, :, None] - key_positions[:, None, :]) < self.window
        whole, windowed = allowed, allowed & near
        if same_view is not None:
            whole, windowed = whole | same_view, windowed | same_view
        return {"full_attention": additive(whole, dtype), "sliding_attention": additive(windowed, dtype)}

    def handed_over(
        self, tokens: Float[Tensor, "views rows cols dim"], deep: tuple[Tensor, ...]
    ) -> BaseModelOutputWithPooling:
        """One row of tokens per view."""
        return BaseModelOutputWithPooling(pooler_output=tokens.flatten(1, 2))
