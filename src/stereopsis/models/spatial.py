"""`SpatialModel`: a multimodal LLM that knows where its tokens look, points, and is supervised at its output."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor, nn

from stereopsis.data.batch import Batch, SceneProposals
from stereopsis.data.collate import Collator, attention_allowed
from stereopsis.data.prompt import ChatTemplate, chat_template
from stereopsis.models.adapter import Adapter
from stereopsis.models.attention import PackedRows
from stereopsis.models.attention_flex import FlexAttention
from stereopsis.models.attention_split import SplitAttention
from stereopsis.models.grounding import GroundingHead, object_features
from stereopsis.models.position import PositionEncoding3D
from stereopsis.objectives.base import Masking, ObjectiveLoss, Randomness, SpatialOutputs, TextStates
from stereopsis.objectives.set import ObjectiveSet
from stereopsis.packs.build import PackConfig
from stereopsis.weights.fingerprint import fingerprint

Positions = Literal["depth", "noisy", "none"]
Fit = Literal["crop", "squash"]
ObjectFeatures = Literal["encoder", "last_layer", "mean", "box"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpatialConfig:
    """What a spatial model adds to its backbone, saved as ``spatial_config.json``.

    Attributes:
        family: the backbone's family.
        view_grid: rows and cols of the tokens that the language model sees of one view.
        positions: where visual tokens get their 3D encoding from: true depth and poses, noisy ones, or nowhere
            (RGB only at inference). Proposal boxes and <coord> points are given in 3D in every mode.
        encoding_scale: factor of the 3D encoding.
        fit: how images are brought to the tower's square size.
        object_features: what grounding candidates are made of: "encoder" tokens (Video-3D-LLM, Ross3D), "last_layer"
            outputs of the language model at the visual tokens, their "mean" (3DRS's released code), or the "box" alone,
            the encoding of its centre. Which tokens see a box only depth and poses tell: "box" is what is left
            without them.
        instruction: words before every question.
        train_vision: whether the vision tower is trained.
    """

    family: str = "llava_onevision"
    view_grid: tuple[int, int] = (14, 14)
    positions: Positions = "depth"
    encoding_scale: float = 1.0
    fit: Fit = "crop"
    object_features: ObjectFeatures = "encoder"
    instruction: str = ""
    train_vision: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class VisualInputs:
    """Visual tokens on their way into the language model.

    Attributes:
        projected: [views enc_rows enc_cols dim] on the encoder's grid; proposals are averaged over it.
        tokens: [views rows cols dim] pooled, before masking and encoding.
        deep: what the family adds to the tokens inside its first layers, each [views rows cols dim].
    """

    projected: Float[Tensor, "views er ec dim"]
    tokens: Float[Tensor, "views rows cols dim"]
    deep: tuple[Float[Tensor, "views rows cols dim"], ...] = ()


class SpatialModel(nn.Module):
    """Backbone + adapter + 3D position encoding + grounding head + objectives.

    Args:
        backbone: a Hugging Face multimodal LLM.
        adapter: its family's adapter, holding the same model.
        tokenizer: with <coord> and <ground> among its special tokens.
        config: see `SpatialConfig`.
        objectives: training signals; None for inference.
    """

    above: ClassVar[dict[str, Callable[..., Any]]] = {}
    """What stands above this module and is offered as methods too; `stereopsis.models` puts it in."""

    def __init__(
        self,
        *,
        backbone: nn.Module,
        adapter: Adapter,
        tokenizer: Any,
        config: SpatialConfig,
        objectives: ObjectiveSet | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.adapter, self.tokenizer, self.settings = backbone, adapter, tokenizer, config
        self.encoding = PositionEncoding3D(adapter.dim, config.encoding_scale)
        self.grounding = GroundingHead(adapter.dim)
        self.objectives = objectives
        self.released: Mapping[str, Any] | None = None  # a converted model's official config.json, for the way back
        if not config.train_vision:
            adapter.vision_tower.requires_grad_(False)

    @property
    def chat(self) -> ChatTemplate:
        """The tokenizer's chat template, split around views and question."""
        return chat_template(self.tokenizer, self.adapter.image_token, self.settings.instruction)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.grounding.zero_target.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the backbone's weights; the grounding head and the objectives may be kept in a finer one."""
        return self.backbone.get_input_embeddings().weight.dtype  # type: ignore[operator]

    def save_pretrained(self, folder: Any, **_: Any) -> None:
        """Write backbone, tokenizer, extra parts and training heads (see `stereopsis.models.storage.save_model`)."""
        self.above["save"](self, folder)

    def push_to_hub(self, name: str, **options: Any) -> str:
        """Upload to the Hugging Face hub (see `stereopsis.models.storage.push_model`); gives the commit's address."""
        return str(self.above["push"](self, name, **options))

    @classmethod
    def from_pretrained(cls, folder: Any, **options: Any) -> "SpatialModel":
        """Open a saved model; training heads are not read (see `stereopsis.models.storage.load_model`)."""
        opened: SpatialModel = cls.above["load"](folder, **options)
        return opened

    def enter(self, scene: Any, **options: Any) -> Any:
        """Encode a scene once, to ask, find and describe in it (see `stereopsis.models.inference.enter_scene`)."""
        return self.above["enter"](self, scene, **options)

    def collator(self, *, generation: bool = False) -> Collator:
        """A collator that writes sequences as this model's family reads them."""
        return Collator(self.tokenizer, self.chat, self.adapter.view_template(self.tokenizer), generation=generation)

    def pack_config(self, **options: Any) -> PackConfig:
        """How scenes become packs of the sizes that this model expects; options: other fields of `PackConfig`."""
        return PackConfig(
            image_size=self.adapter.image_size,
            fit=self.settings.fit,
            view_grid=self.settings.view_grid,
            encoder_grid=self.adapter.encoder_grid,
            positions=self.settings.positions,
            token_cells=self.settings.object_features in ("last_layer", "mean"),
            **options,
        )

    def encode_views(self, images: UInt8[Tensor, "views 3 height width"]) -> Tensor:
        """[views rows cols dim] the vision tower's output on its own grid."""
        return self.adapter.encode(images.to(self.device))

    def vision_fingerprint(self) -> str:
        """Digest of everything that decides that output."""
        adapter = self.adapter
        facts = {"family": adapter.family, "image_size": adapter.image_size, "grid": list(adapter.encoder_grid)}
        return fingerprint(facts, adapter.vision_tower)

    def visual_inputs(self, batch: Batch) -> VisualInputs:
        """Encode the views (or take the cached encoder output), project and pool them."""
        encoded = batch.encoder_tokens
        if encoded is None:
            with torch.set_grad_enabled(self.settings.train_vision and torch.is_grad_enabled()):
                encoded = self.adapter.encode(batch.images)
        encoded = encoded.to(self.dtype)
        projected = self.adapter.project(encoded)
        return VisualInputs(projected=projected, tokens=self.adapter.pool(projected), deep=self.adapter.deep(encoded))

    def add_positions(self, tokens: Float[Tensor, "views rows cols dim"], batch: Batch) -> Tensor:
        """Add the 3D encoding to every cell that has a valid coordinate (none in ``positions: none``)."""
        if self.settings.positions == "none":
            return tokens
        encoding = self.encoding(batch.coordinates) * batch.coordinates_valid[..., None]
        return tokens + encoding.to(tokens.dtype)

    def embed(self, batch: Batch) -> Float[Tensor, "batch tokens dim"]:
        """Token embeddings, with the 3D encoding of its point added at every <coord>."""
        embeddings = self.adapter.embed(batch.input_ids)
        encoding = self.encoding(batch.coord_xyz).to(embeddings.dtype)  # of none too: ZeRO-3 counts modules that run
        return embeddings.flatten(0, 1).index_add(0, batch.coord_index, encoding).view_as(embeddings)

    def attention(self, batch: Batch, dtype: torch.dtype) -> Any:
        """Who sees whom in a packed batch, in the form that the family (or a packed attention) takes."""
        views = _view_of_tokens(batch) if self.adapter.views_see_themselves else None
        how = self.adapter.attention_on(batch.segments.device)
        if how in ("flex", "split"):
            window = self.adapter.window
            rows = PackedRows(
                segments=batch.segments,
                views=views,
                positions=None if window is None else batch.position_ids,
                window=window,
            )
            return FlexAttention.of(rows) if how == "flex" else SplitAttention.of(rows, dtype)
        same_view = None if views is None else (views[:, :, None] == views[:, None, :]) & (views[:, :, None] >= 0)
        return self.adapter.mask(
            attention_allowed(batch.segments),
            query_positions=batch.position_ids,
            key_positions=batch.position_ids,
            same_view=same_view,
            dtype=dtype,
        )

    def objects(
        self,
        visual: VisualInputs,
        batch: Batch,
        last: Float[Tensor, "views rows cols dim"],
        hidden: Bool[Tensor, "views"] | None = None,
    ) -> list[Float[Tensor, "_ dim"]]:
        """Per scene, the proposals' features: mean token of the cells that see them, and 3D encoding of the box centre.

        The encoding is added to the encoder's tokens; 3DRS's mean of both kinds of tokens is taken after that, so that
        there it counts by half.

        Args:
            visual: the encoded views.
            batch: where the proposals are.
            last: the language model's outputs at the visual tokens.
            hidden: views that some objective hid. They do not count, or grounding would see what is hidden (the
                released code hides nothing in grounding samples, so it has no such case).
        """
        features = []
        for number, proposals in enumerate(batch.proposals):
            views = batch.layout.scene == number
            if hidden is not None:
                proposals = proposals.without(hidden[views])
            features.append(self._object_features(visual.projected[views], last[views], proposals))
        return features

    def _object_features(self, projected: Tensor, last: Tensor, proposals: SceneProposals) -> Float[Tensor, "_ dim"]:
        kind = self.settings.object_features
        encoding = self.encoding(proposals.boxes[:, :3]).to(projected.dtype)
        if kind == "box":
            return encoding
        if kind == "encoder":
            return object_features(projected, proposals.cells) + encoding
        if proposals.token_cells is None:
            raise ValueError(
                f"object_features='{kind}' needs the proposals' cells on the token grid; build the pack with "
                "this model's pack_config()"
            )
        outputs = object_features(last, proposals.token_cells)
        if kind == "last_layer":
            return outputs + encoding
        return (object_features(projected, proposals.cells) + encoding + outputs) / 2

    def outputs(
        self, batch: Batch, due: tuple[str, ...], generator: Randomness, *, layers: tuple[int, ...] = ()
    ) -> SpatialOutputs:
        """One pass through the model.

        1. encode, project, pool the views; 2. let the due objectives hide what they hide; 3. add 3D encodings;
        4. run the language model over prefix and conversations; 5. pick the labelled tokens' states, and read
        grounding scores at the <ground> tokens.

        Args:
            batch: packed scenes.
            due: names of the active objectives.
            generator: source of all randomness of the pass; one, or one per scene.
            layers: hidden layers to keep besides those that the due objectives read (0 = the embeddings, -1 = last).
        """
        visual = self.visual_inputs(batch)
        masking = Masking(
            tokens=visual.tokens, hidden=torch.zeros(len(visual.tokens), dtype=torch.bool, device=self.device)
        )
        if self.objectives is not None:
            masking = self.objectives.mask(visual.tokens, batch.layout, due, generator, batch)
        embeddings = self.embed(batch)
        read = () if self.objectives is None else self.objectives.layers(due)
        decoded = self.adapter.decode(
            embeddings,
            self.add_positions(masking.tokens, batch),
            attention_mask=self.attention(batch, embeddings.dtype),
            position_ids=batch.position_ids,
            deep=tuple(extra.masked_fill(masking.hidden[:, None, None, None], 0) for extra in visual.deep),
            layers=tuple(sorted({*layers, *read} - {-1})),
        )
        flat, last = decoded.hidden.flatten(0, 1), batch.layout.gather(decoded.hidden)
        labelled = batch.labels.flatten() != -100
        grounding = None
        if len(batch.query_index) or "grounding" in due:
            objects = self.objects(visual, batch, last, masking.hidden)
            grounding = self.grounding(flat[batch.query_index], batch.query_scene, objects)
        return SpatialOutputs(
            visual=last,
            hidden=masking.hidden,
            text=TextStates(
                states=flat[labelled],
                targets=batch.labels.flatten()[labelled],
                head=self.adapter.logits,
                vocabulary=self.adapter.vocabulary,
            ),
            grounding=grounding,
            layers={number: batch.layout.gather(states) for number, states in decoded.layers.items()},
        )

    def forward(self, batch: Batch, *, due: tuple[str, ...], seed: int | Sequence[int]) -> dict[str, ObjectiveLoss]:
        """The losses of the objectives that are due.

        Args:
            batch: packed scenes.
            due: names of the active objectives (`ObjectiveSet.due`).
            seed: seeds all randomness of this pass (which views are hidden, noise, timesteps); with one seed per scene
                a scene gives the same whichever scenes share its pass.
        """
        if self.objectives is None:
            raise RuntimeError("this model was opened for inference: it has no objectives to train")
        generator: Randomness
        if isinstance(seed, int):
            generator = torch.Generator().manual_seed(seed)
        elif len(seed) == len(batch.scene_ids):
            generator = [torch.Generator().manual_seed(each) for each in seed]
        else:
            raise ValueError(f"the batch holds {len(batch.scene_ids)} scenes, got {len(seed)} seeds; give one each")
        outputs = self.outputs(batch, due, generator)
        losses = self.objectives.losses(outputs, batch, due, generator)
        return {name: self._with_output_layer(name, loss, batch) for name, loss in losses.items()}

    def _with_output_layer(self, name: str, loss: ObjectiveLoss, batch: Batch) -> ObjectiveLoss:
        """The text loss connected to the output layer, even where this batch has no words.

        Processes share gradients, and must agree on the parameters that have some; another's batch may have words.
        """
        if name != "text" or batch.has_text:
            return loss
        head: nn.Module = self.backbone.get_output_embeddings()  # type: ignore[operator]
        zeros = [p.flatten()[:0].sum().to(loss.sum.dtype) for p in head.parameters() if p.requires_grad]
        return dataclasses.replace(loss, sum=torch.stack([loss.sum, *zeros]).sum())


def _view_of_tokens(batch: Batch) -> Int64[Tensor, "batch tokens"]:
    """Which view each token is a cell of; -1 for all others."""
    views = torch.full_like(batch.segments, -1).flatten()
    cells = batch.layout.index.flatten(1)
    views[cells] = torch.arange(len(cells), device=views.device)[:, None].expand_as(cells)
    return views.view_as(batch.segments)
