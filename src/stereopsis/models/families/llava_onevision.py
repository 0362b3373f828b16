"""LLaVA-OneVision (and LLaVA-Video, which shares its architecture) with Video-3D-LLM's token layout."""

from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from stereopsis.data.prompt import ViewTemplate
from stereopsis.models.adapter import Adapter


class LlavaOnevisionAdapter(Adapter):
    """SigLIP tower, MLP projector, bilinear pooling to the view grid, one newline token after each row."""

    family = "llava_onevision"
    image_token = "<image>"

    @property
    def image_size(self) -> int:
        """Side of the images that the vision tower takes, pixels."""
        return self.model.config.vision_config.image_size

    @property
    def encoder_grid(self) -> tuple[int, int]:
        """Rows and cols of the vision tower's output."""
        side = self.image_size // self.model.config.vision_config.patch_size
        return side, side

    @property
    def vision_tower(self) -> Any:
        """The SigLIP encoder."""
        return self.base.vision_tower

    def view_template(self, tokenizer: Any) -> ViewTemplate:
        """Rows x (cols + 1) placeholders; the last of each row is the newline."""
        rows, cols = self.view_grid
        cells = [r * cols + c if c < cols else -1 for r in range(rows) for c in range(cols + 1)]
        return ViewTemplate(
            token_ids=(self.model.config.image_token_id,) * len(cells),
            cells=tuple(cells),
            rows=rows,
            cols=cols,
        )

    def encode(self, images: UInt8[Tensor, "views 3 height width"]) -> Float[Tensor, "views er ec ed"]:
        """SigLIP features of the configured layer; pixels are scaled to [-1, 1] as SigLIP expects."""
        pixels = images.to(self.vision_tower.dtype) / 127.5 - 1.0
        outputs = self.vision_tower(pixels, output_hidden_states=True, return_dict=True)
        features = outputs.hidden_states[self.model.config.vision_feature_layer]
        return features.unflatten(1, self.encoder_grid)

    def project(self, encoded: Float[Tensor, "views er ec ed"]) -> Float[Tensor, "views er ec dim"]:
        """The two-layer GELU projector."""
        projected = self.base.multi_modal_projector(encoded.flatten(1, 2))
        return projected.unflatten(1, (encoded.shape[1], encoded.shape[2]))

    def handed_over(
        self, tokens: Float[Tensor, "views rows cols dim"], deep: tuple[Tensor, ...]
    ) -> BaseModelOutputWithPooling:
        """All tokens in one row, a newline behind each row of a view."""
        views, rows, _, dim = tokens.shape
        newline = self.base.image_newline.to(tokens.dtype).expand(views, rows, 1, dim)
        sequence = torch.cat([tokens, newline], dim=2).reshape(-1, dim)
        return BaseModelOutputWithPooling(pooler_output=(sequence,))
