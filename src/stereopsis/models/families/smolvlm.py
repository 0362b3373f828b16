"""SmolVLM: SigLIP, pixel shuffle and one linear map in front of a small Llama; every view is one unsplit image."""

from typing import Any

from jaxtyping import Float, UInt8
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from stereopsis.data.prompt import ViewTemplate
from stereopsis.errors import CheckpointError
from stereopsis.models.adapter import Adapter

_AROUND, _WHOLE = "<fake_token_around_image>", "<global-img>"


class SmolVLMAdapter(Adapter):
    """Patches of ``scale_factor`` by ``scale_factor`` make a token."""

    family = "smolvlm"
    image_token = "<image>"

    @classmethod
    def default_grid(cls, config: Any) -> tuple[int, int]:
        """The grid that the projector gives (8 x 8 in the 256M and 500M models, 9 x 9 in the 2.2B one)."""
        side = config.vision_config.image_size // config.vision_config.patch_size // config.scale_factor
        return side, side

    @property
    def image_size(self) -> int:
        """Side of the images that the vision tower takes, pixels."""
        return int(self.model.config.vision_config.image_size)

    @property
    def encoder_grid(self) -> tuple[int, int]:
        """Rows and cols behind the pixel shuffle."""
        return self.default_grid(self.model.config)

    @property
    def vision_tower(self) -> nn.Module:
        """The SigLIP encoder."""
        return self.base.vision_model

    def view_template(self, tokenizer: Any) -> ViewTemplate:
        """The token around images, the token of a whole image, one placeholder per cell, the token around images.

        Raises:
            CheckpointError: the tokenizer has no such tokens.
        """
        around, whole = (tokenizer.convert_tokens_to_ids(token) for token in (_AROUND, _WHOLE))
        if None in (around, whole) or tokenizer.unk_token_id in (around, whole):
            raise CheckpointError(f"the tokenizer lacks SmolVLM's tokens {_AROUND} and {_WHOLE}; take the model's own")
        rows, cols = self.view_grid
        return ViewTemplate(
            token_ids=(around, whole, *[self.model.config.image_token_id] * (rows * cols), around),
            cells=(-1, -1, *range(rows * cols), -1),
            rows=rows,
            cols=cols,
        )

    def encode(self, images: UInt8[Tensor, "views 3 height width"]) -> Float[Tensor, "views pr pc ed"]:
        """SigLIP features on the patch grid; pixels are scaled to [-1, 1]."""
        pixels = images.to(self.base.vision_model.dtype) / 127.5 - 1.0
        features = self.base.vision_model(pixel_values=pixels, return_dict=True).last_hidden_state
        side = round(features.shape[1] ** 0.5)
        return features.unflatten(1, (side, side))

    def project(self, encoded: Float[Tensor, "views pr pc ed"]) -> Float[Tensor, "views er ec dim"]:
        """Pixel shuffle and a linear map."""
        return self.base.connector(encoded.flatten(1, 2)).unflatten(1, self.encoder_grid)

    def handed_over(
        self, tokens: Float[Tensor, "views rows cols dim"], deep: tuple[Tensor, ...]
    ) -> BaseModelOutputWithPooling:
        """One row of tokens per view."""
        return BaseModelOutputWithPooling(pooler_output=tokens.flatten(1, 2))
