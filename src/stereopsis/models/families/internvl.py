"""InternVL 3 in Hugging Face's own form (``-hf``): pixel shuffle joins two by two patches, then an MLP."""

from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from transformers.modeling_outputs import BaseModelOutputWithPooling

from stereopsis.data.prompt import ViewTemplate
from stereopsis.errors import CheckpointError
from stereopsis.models.adapter import Adapter

_START, _END = "<img>", "</img>"


class InternVLAdapter(Adapter):
    """InternViT tower, pixel shuffle, MLP projector; one tile per view, without crops."""

    family = "internvl"
    image_token = "<IMG_CONTEXT>"

    @classmethod
    def default_grid(cls, config: Any) -> tuple[int, int]:
        """The grid that the projector gives (16 x 16 in the published models)."""
        side = int(config.vision_config.image_size[0] // config.vision_config.patch_size[0] * config.downsample_ratio)
        return side, side

    @property
    def image_size(self) -> int:
        """Side of the images that the vision tower takes, pixels."""
        return int(self.model.config.vision_config.image_size[0])

    @property
    def encoder_grid(self) -> tuple[int, int]:
        """Rows and cols behind the pixel shuffle."""
        return self.default_grid(self.model.config)

    @property
    def vision_tower(self) -> nn.Module:
        """InternViT."""
        return self.base.vision_tower

    def view_template(self, tokenizer: Any) -> ViewTemplate:
        """Start token, one placeholder per cell, end token.

        Raises:
            CheckpointError: the tokenizer has no such tokens.
        """
        start, end = (tokenizer.convert_tokens_to_ids(token) for token in (_START, _END))
        if None in (start, end) or tokenizer.unk_token_id in (start, end):
            raise CheckpointError(f"the tokenizer lacks InternVL's tokens {_START} and {_END}; take the model's own")
        rows, cols = self.view_grid
        return ViewTemplate(
            token_ids=(start, *[self.model.config.image_token_id] * (rows * cols), end),
            cells=(-1, *range(rows * cols), -1),
            rows=rows,
            cols=cols,
        )

    def encode(self, images: UInt8[Tensor, "views 3 height width"]) -> Float[Tensor, "views er ec ed"]:
        """Features of the configured layer without the class token, shuffled; pixels scaled as for ImageNet."""
        config = self.model.config
        mean, std = (
            torch.tensor(v, device=images.device)[:, None, None] for v in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        )
        pixels = ((images.float() / 255 - mean) / std).to(self.base.vision_tower.dtype)
        last = config.vision_feature_layer == -1
        outputs = self.base.vision_tower(pixel_values=pixels, output_hidden_states=not last, return_dict=True)
        features = outputs.last_hidden_state if last else outputs.hidden_states[config.vision_feature_layer]
        if config.vision_feature_select_strategy == "default":
            features = features[:, 1:]
        side = round(features.shape[1] ** 0.5)
        return self.base.pixel_shuffle(features.unflatten(1, (side, side)), scale_factor=config.downsample_ratio)

    def project(self, encoded: Float[Tensor, "views er ec ed"]) -> Float[Tensor, "views er ec dim"]:
        """Norm and two-layer GELU MLP."""
        return self.base.multi_modal_projector(encoded)

    def handed_over(
        self, tokens: Float[Tensor, "views rows cols dim"], deep: tuple[Tensor, ...]
    ) -> BaseModelOutputWithPooling:
        """One row of tokens per view."""
        return BaseModelOutputWithPooling(pooler_output=tokens.flatten(1, 2))
