"""What a backbone must offer: one thin adapter per Hugging Face family implements this."""

import abc
import dataclasses
from typing import Any

from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from stereopsis.data.prompt import ViewTemplate


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Decoded:
    """Last hidden states of a pass through the language model, and its key-value cache where one was asked for."""

    hidden: Float[Tensor, "batch tokens dim"]
    cache: Any = None


class Adapter(abc.ABC):
    """The public surface of one multimodal LLM family. It holds the model but owns no parameters.

    Args:
        model: the Hugging Face model.
        view_grid: rows and cols of the tokens that the language model sees of one view.
    """

    family: str
    image_token: str

    def __init__(self, model: Any, view_grid: tuple[int, int]) -> None:
        self.model = model
        self.view_grid = view_grid

    @property
    @abc.abstractmethod
    def dim(self) -> int:
        """Hidden size of the language model."""

    @property
    @abc.abstractmethod
    def image_size(self) -> int:
        """Side of the images that the vision tower takes, pixels."""

    @property
    @abc.abstractmethod
    def encoder_grid(self) -> tuple[int, int]:
        """Rows and cols of the vision tower's output."""

    @property
    @abc.abstractmethod
    def vision_tower(self) -> nn.Module:
        """The image encoder, for freezing and caching."""

    @abc.abstractmethod
    def view_template(self) -> ViewTemplate:
        """How one view is written as placeholder tokens."""

    @abc.abstractmethod
    def encode(self, images: UInt8[Tensor, "views 3 height width"]) -> Float[Tensor, "views er ec ed"]:
        """Vision tower output (before the projector) of uint8 RGB images."""

    @abc.abstractmethod
    def project(self, encoded: Float[Tensor, "views er ec ed"]) -> Float[Tensor, "views er ec dim"]:
        """The projector: vision features to language-model tokens, on the encoder's grid."""

    @abc.abstractmethod
    def pool(self, projected: Float[Tensor, "views er ec dim"]) -> Float[Tensor, "views rows cols dim"]:
        """From the encoder's grid to the grid that the language model sees."""

    @abc.abstractmethod
    def embed(self, input_ids: Int64[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens dim"]:
        """Token embeddings."""

    @abc.abstractmethod
    def decode(
        self,
        embeddings: Float[Tensor, "batch tokens dim"],
        tokens: Float[Tensor, "views rows cols dim"] | None,
        *,
        attention_mask: Tensor | None,
        position_ids: Int64[Tensor, "batch tokens"],
        cache: Any = None,
        use_cache: bool = False,
    ) -> Decoded:
        """Run the language model over embeddings whose visual placeholders are replaced by ``tokens``.

        Without a mask attention is causal.
        """

    @abc.abstractmethod
    def logits(self, hidden: Float[Tensor, "*tokens dim"]) -> Float[Tensor, "*tokens vocab"]:
        """The language-model head."""
