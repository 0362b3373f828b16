"""`SpatialModel`: a multimodal LLM that knows where its tokens look, points, and is supervised at its output."""

import dataclasses
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.data.batch import Batch
from stereopsis.data.collate import Collator, attention_allowed
from stereopsis.data.prompt import ChatTemplate, chat_template
from stereopsis.models.adapter import Adapter
from stereopsis.models.grounding import GroundingHead, object_features
from stereopsis.models.position import PositionEncoding3D
from stereopsis.objectives.base import Corruption, ObjectiveLoss, SpatialOutputs
from stereopsis.objectives.set import ObjectiveSet
from stereopsis.scenes.scene import Scene

Positions = Literal["depth", "noisy", "none"]


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
        instruction: words before every question.
        train_vision: whether the vision tower is trained.
    """

    family: str = "llava_onevision"
    view_grid: tuple[int, int] = (14, 14)
    positions: Positions = "depth"
    encoding_scale: float = 1.0
    fit: Literal["crop", "squash"] = "crop"
    instruction: str = ""
    train_vision: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class VisualInputs:
    """Visual tokens on their way into the language model.

    Attributes:
        projected: [views enc_rows enc_cols dim] on the encoder's grid; proposals are averaged over it.
        tokens: [views rows cols dim] pooled, before corruption and encoding.
    """

    projected: Float[Tensor, "views er ec dim"]
    tokens: Float[Tensor, "views rows cols dim"]


class SpatialModel(nn.Module):
    """Backbone + adapter + 3D position encoding + grounding head + objectives.

    Args:
        backbone: a Hugging Face multimodal LLM.
        adapter: its family's adapter, holding the same model.
        tokenizer: with <coord> and <ground> among its special tokens.
        config: see `SpatialConfig`.
        objectives: training signals; None for inference.
    """

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

    def collator(self, *, generation: bool = False) -> Collator:
        """A collator that writes sequences as this model's family reads them."""
        return Collator(self.tokenizer, self.chat, self.adapter.view_template(), generation=generation)

    def visual_inputs(self, batch: Batch) -> VisualInputs:
        """Encode the views (or take the cached encoder output), project and pool them."""
        encoded = batch.encoder_tokens
        if encoded is None:
            with torch.set_grad_enabled(self.settings.train_vision and torch.is_grad_enabled()):
                encoded = self.adapter.encode(batch.images)
        projected = self.adapter.project(encoded.to(self.grounding.zero_target.dtype))
        return VisualInputs(projected=projected, tokens=self.adapter.pool(projected))

    def place(self, tokens: Float[Tensor, "views rows cols dim"], batch: Batch) -> Tensor:
        """Add the 3D encoding to every cell that has a valid coordinate (none in ``positions: none``)."""
        if self.settings.positions == "none":
            return tokens
        encoding = self.encoding(batch.coordinates) * batch.coordinates_valid[..., None]
        return tokens + encoding.to(tokens.dtype)

    def embed(self, batch: Batch) -> Float[Tensor, "batch tokens dim"]:
        """Token embeddings, with the 3D encoding of its point added at every <coord>."""
        embeddings = self.adapter.embed(batch.input_ids)
        if len(batch.coord_index):
            encoding = self.encoding(batch.coord_xyz).to(embeddings.dtype)
            embeddings = embeddings.flatten(0, 1).index_add(0, batch.coord_index, encoding).view_as(embeddings)
        return embeddings

    def objects(self, visual: VisualInputs, batch: Batch) -> list[Float[Tensor, "_ dim"]]:
        """Per scene, the proposals' features: mean encoder token + 3D encoding of the box centre."""
        features = []
        for number, proposals in enumerate(batch.proposals):
            seen = object_features(visual.projected[batch.layout.scene == number], proposals)
            features.append(seen + self.encoding(proposals.boxes[:, :3]).to(seen.dtype))
        return features

    def outputs(self, batch: Batch, due: tuple[str, ...], generator: torch.Generator) -> SpatialOutputs:
        """One pass through the model.

        1. encode, project, pool the views; 2. let the due objectives hide what they hide; 3. add 3D encodings;
        4. run the language model over prefix and conversations; 5. read text logits at the labelled positions
        only, and grounding scores at the <ground> tokens.
        """
        visual = self.visual_inputs(batch)
        corruption = Corruption(
            tokens=visual.tokens, hidden=torch.zeros(len(visual.tokens), dtype=torch.bool, device=self.device)
        )
        if self.objectives is not None:
            corruption = self.objectives.corrupt(visual.tokens, batch.layout, due, generator)
        embeddings = self.embed(batch)
        allowed = attention_allowed(batch.segments)
        mask = torch.zeros_like(allowed, dtype=embeddings.dtype)
        mask = mask.masked_fill(~allowed, torch.finfo(embeddings.dtype).min)
        hidden = self.adapter.decode(
            embeddings,
            self.place(corruption.tokens, batch),
            attention_mask=mask[:, None],
            position_ids=batch.position_ids,
        ).hidden
        flat = hidden.flatten(0, 1)
        labelled = batch.labels.flatten() != -100
        grounding = None
        if len(batch.query_index):
            grounding = self.grounding(flat[batch.query_index], batch.query_scene, self.objects(visual, batch))
        return SpatialOutputs(
            visual=batch.layout.gather(hidden),
            hidden=corruption.hidden,
            text_logits=self.adapter.logits(flat[labelled]),
            text_targets=batch.labels.flatten()[labelled],
            grounding=grounding,
        )

    def forward(self, batch: Batch, *, due: tuple[str, ...], seed: int) -> dict[str, ObjectiveLoss]:
        """The losses of the objectives that are due.

        Args:
            batch: packed scenes.
            due: names of the active objectives (`ObjectiveSet.due`).
            seed: seeds all randomness of this pass (which views are hidden, noise, timesteps).
        """
        if self.objectives is None:
            raise RuntimeError("this model was opened for inference: it has no objectives to train")
        generator = torch.Generator().manual_seed(seed)
        outputs = self.outputs(batch, due, generator)
        return self.objectives.losses(outputs, batch, due, generator)

    def enter(self, scene: Scene, **options: Any) -> Any:
        """Encode a scene once, to ask, find and describe in it (an `EnteredScene`).

        Args:
            scene: posed RGB-D frames.
            options: fields of `stereopsis.models.packs.PackConfig` (``views=8``, ``proposals="detector"``, ...).
        """
        from stereopsis.models.inference import EnteredScene
        from stereopsis.models.packs import PackConfig, build_pack

        return EnteredScene(self, build_pack(scene, PackConfig.for_model(self, **{"proposals": "detector", **options})))

    def save_pretrained(self, folder: Any, **_: Any) -> None:
        """Write backbone, tokenizer, extra parts and training heads (see `stereopsis.models.storage`)."""
        from stereopsis.models.storage import save_model

        save_model(self, folder)

    @classmethod
    def from_pretrained(cls, folder: Any, **options: Any) -> "SpatialModel":
        """Open a saved model for inference; training heads are not read (see `stereopsis.models.storage`)."""
        from stereopsis.models.storage import load_model

        return load_model(folder, **options)
