"""What a backbone must offer: one thin adapter per Hugging Face family implements this."""

import abc
import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor, nn

from stereopsis.data.prompt import ViewTemplate
from stereopsis.models.attention import IMPLEMENTATION, Attention, handed_through
from stereopsis.models.attention_flex import LEAST_DIM


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Decoded:
    """What a pass through the language model gives.

    Attributes:
        hidden: last hidden states.
        cache: key-value cache, where one was asked for.
        layers: hidden states of the other layers that were asked for, by the number that they were asked by.
    """

    hidden: Float[Tensor, "batch tokens dim"]
    cache: Any = None
    layers: Mapping[int, Float[Tensor, "batch tokens dim"]] = dataclasses.field(default_factory=dict)


def kept_layers(states: Sequence[Tensor] | None, wanted: Sequence[int]) -> dict[int, Tensor]:
    """Some of a language model's hidden states.

    Args:
        states: embeddings first, then one entry per layer, the last one after the final norm (Hugging Face's
            ``hidden_states``); None where none were asked for.
        wanted: layer numbers, 0 = the embeddings, negative ones from the end, -1 = the last.

    Raises:
        ValueError: the model has no such layer.
    """
    if not wanted or states is None:
        return {}
    for layer in wanted:
        if not -len(states) <= layer < len(states):
            raise ValueError(
                f"the language model has no layer {layer}: it has {len(states) - 1}, numbered 1 to {len(states) - 1} "
                f"(0 = the embeddings) or -{len(states) - 1} to -1 from the end"
            )
    return {layer: states[layer] for layer in wanted}


def additive(allowed: Bool[Tensor, "batch queries keys"], dtype: torch.dtype) -> Float[Tensor, "batch 1 queries keys"]:
    """0 where a token may look, the lowest finite number elsewhere; one mask for all heads."""
    mask = torch.zeros_like(allowed, dtype=dtype)
    return mask.masked_fill(~allowed, torch.finfo(dtype).min)[:, None]


def bilinear(tokens: Float[Tensor, "views er ec dim"], grid: tuple[int, int]) -> Float[Tensor, "views rows cols dim"]:
    """Tokens on another grid, interpolated."""
    pooled = nn.functional.interpolate(tokens.permute(0, 3, 1, 2), size=grid, mode="bilinear")
    return pooled.permute(0, 2, 3, 1)


class Adapter(abc.ABC):
    """The public surface of one multimodal LLM family. It holds the model but owns no parameters.

    Attributes:
        family: ``model_type`` in the config.json of its models.
        image_token: the text of its image placeholder.
        views_see_themselves: whether the tokens of one view look at each other in both directions (Gemma 3).
        attention: how packed rows are attended; choose it with `attend`.

    Args:
        model: the Hugging Face model.
        view_grid: rows and cols of the tokens that the language model sees of one view.
    """

    family: str
    image_token: str
    views_see_themselves: bool = False
    attention: Attention = "sdpa"

    def __init__(self, model: Any, view_grid: tuple[int, int]) -> None:
        self.model = model
        self.view_grid = view_grid

    @property
    def base(self) -> Any:
        """The model without its language-model head."""
        return self.model.model

    @property
    def dim(self) -> int:
        """Hidden size of the language model."""
        return self.model.config.text_config.hidden_size

    @property
    def depth(self) -> int:
        """Layers of the language model."""
        return self.model.config.text_config.num_hidden_layers

    @property
    def most_tokens(self) -> int | None:
        """Longest row that the language model was made for, tokens; None where it says nothing of it."""
        return getattr(self.model.config.text_config, "max_position_embeddings", None)

    @property
    def window(self) -> int | None:
        """How far back some layers look, tokens; None where all look at everything."""
        return None

    def attend(self, how: Attention) -> None:
        """Choose how the language model computes attention; the vision tower keeps its own way."""
        self.model.set_attn_implementation({"text_config": how if how in ("sdpa", "eager") else IMPLEMENTATION})
        self.attention = how

    def attention_on(self, device: torch.device) -> Attention:
        """What "auto" means on a device."""
        if self.attention != "auto":
            return self.attention
        text = self.model.config.text_config
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        compiles = device.type == "cuda" and importlib.util.find_spec("triton") is not None
        return "flex" if compiles and head >= LEAST_DIM else "split"

    @property
    def vocabulary(self) -> int:
        """Words that the language-model head scores."""
        return self.model.config.get_text_config().vocab_size

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

    @classmethod
    def default_grid(cls, config: Any) -> tuple[int, int]:
        """Rows and cols of a view's tokens where nobody chose them: V3D's 14 x 14."""
        return 14, 14

    @abc.abstractmethod
    def view_template(self, tokenizer: Any) -> ViewTemplate:
        """How one view is written as placeholder tokens."""

    @abc.abstractmethod
    def encode(self, images: UInt8[Tensor, "views 3 height width"]) -> Float[Tensor, "views er ec ed"]:
        """Vision tower output (before the projector) of uint8 RGB images."""

    @abc.abstractmethod
    def project(self, encoded: Float[Tensor, "views er ec ed"]) -> Float[Tensor, "views er ec dim"]:
        """The projector: vision features to language-model tokens, on the encoder's grid."""

    def deep(self, encoded: Float[Tensor, "views er ec ed"]) -> tuple[Float[Tensor, "views rows cols dim"], ...]:
        """What the family adds to the visual tokens inside its first layers (Qwen3-VL's deepstack); mostly nothing."""
        return ()

    def pool(self, projected: Float[Tensor, "views er ec dim"]) -> Float[Tensor, "views rows cols dim"]:
        """From the encoder's grid to the grid that the language model sees: bilinear, where they differ."""
        return projected if projected.shape[1:3] == self.view_grid else bilinear(projected, self.view_grid)

    @abc.abstractmethod
    def handed_over(self, tokens: Float[Tensor, "views rows cols dim"], deep: tuple[Tensor, ...]) -> Any:
        """Edited tokens in the form in which the family takes precomputed encoder outputs."""

    def rotary(self, position_ids: Int64[Tensor, "batch tokens *axes"]) -> Tensor:
        """Positions in the form in which the family takes them."""
        return position_ids

    def mask(
        self,
        allowed: Bool[Tensor, "batch queries keys"],
        *,
        query_positions: Int64[Tensor, "batch queries *axes"],
        key_positions: Int64[Tensor, "batch keys *axes"],
        same_view: Bool[Tensor, "batch queries keys"] | None,
        dtype: torch.dtype,
    ) -> Any:
        """The attention mask in the form that the language model takes.

        Args:
            allowed: who may see whom; a view's tokens causally.
            query_positions: of the tokens being computed.
            key_positions: of all tokens that they may see.
            same_view: True for two tokens of one view; None where no query belongs to a view.
            dtype: of an additive mask.
        """
        return additive(allowed, dtype)

    def embed(self, input_ids: Int64[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens dim"]:
        """Token embeddings."""
        return self.model.get_input_embeddings()(input_ids)

    def decode(
        self,
        embeddings: Float[Tensor, "batch tokens dim"],
        tokens: Float[Tensor, "views rows cols dim"] | None,
        *,
        attention_mask: Any,
        position_ids: Int64[Tensor, "batch tokens *axes"],
        deep: tuple[Float[Tensor, "views rows cols dim"], ...] = (),
        cache: Any = None,
        use_cache: bool = False,
        layers: tuple[int, ...] = (),
    ) -> Decoded:
        """Run the language model over embeddings whose visual placeholders are replaced by ``tokens``.

        Args:
            embeddings: of all tokens, placeholders included.
            tokens: edited visual tokens; None where there are no placeholders.
            attention_mask: what `mask` gave, or a packed attention; without one attention is causal.
            position_ids: of all tokens.
            deep: what `deep` gave, edited as the tokens were.
            cache: keys and values of earlier tokens.
            use_cache: whether to return them.
            layers: layers whose hidden states are wanted besides the last one's (see `kept_layers`).
        """
        outputs = self.base(
            inputs_embeds=embeddings,
            **handed_through(attention_mask),
            position_ids=self.rotary(position_ids),
            mm_encoder_outputs=None if tokens is None else {"image": self.handed_over(tokens, deep)},
            past_key_values=cache,
            use_cache=use_cache,
            output_hidden_states=bool(layers),
        )
        return Decoded(
            hidden=outputs.last_hidden_state,
            cache=outputs.past_key_values,
            layers=kept_layers(outputs.hidden_states, layers),
        )

    def logits(self, hidden: Float[Tensor, "*tokens dim"]) -> Float[Tensor, "*tokens vocab"]:
        """The language-model head."""
        return self.model.lm_head(hidden)
