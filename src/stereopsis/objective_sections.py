"""The recipe's ``objectives:`` and ``denoiser:`` sections: one class each, with its keys, bounds and defaults.

The objectives' constructors take their defaults from here, so that each stands once; reading a recipe needs no torch.
"""

from pathlib import Path
from typing import Any, Literal

import pydantic

MOST = 2**32 - 1
"""The largest number of a recipe: what a seed can be."""


class Section(pydantic.BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _numbers_are_numbers(cls, content: Any) -> Any:
        """A "yes" is no number, and no setting is as large as a slip of the hand makes it."""
        for key, value in content.items() if isinstance(content, dict) else ():
            field = cls.model_fields.get(str(key))
            if field is None:
                continue
            numeric = "int" in str(field.annotation).lower() or "float" in str(field.annotation)
            for each in _leaves(value):
                if isinstance(each, bool) and "bool" not in str(field.annotation):
                    raise ValueError(f"'{key}' is {str(each).lower()}, expected another kind of value")
                if _too_large(each, numeric):
                    raise ValueError(f"'{key}' is {each}, more than anything here can be ({MOST})")
        return content


def _leaves(value: Any) -> list[Any]:
    """A value, or what stands in a list and in lists within it."""
    waiting, found = [value], []
    while waiting:
        each = waiting.pop()
        if isinstance(each, (list, tuple)):
            waiting += each
        else:
            found.append(each)
    return found


def _too_large(value: Any, numeric: bool) -> bool:
    """Whether a number, or a text that YAML does not see as the number that it is (1e30), is beyond all bounds."""
    if numeric and isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return False
    return isinstance(value, (int, float)) and abs(value) > MOST


class ObjectiveSection(Section):
    """What every objective can set: its weight, and that it is active every n-th optimiser step."""

    weight: float = 1.0
    every: int = pydantic.Field(default=1, ge=1)


class TextSection(ObjectiveSection):
    """Next-token loss; ``average`` weighs every token or every answer alike."""

    average: Literal["token", "answer"] = "token"


class VisualSection(ObjectiveSection):
    """What every objective at the visual tokens can set.

    Attributes:
        shuffle: a control: every room is supervised with the truth about another room of its pass, at the same cost.
    """

    shuffle: bool = False


class DenseSection(VisualSection):
    """What every objective can set whose heads predict something of every cell.

    Attributes:
        layers: whose outputs the heads read, -1 = the last; several have a head each, losses averaged.
        projector: "mlp" on each token, or "conv", one 3x3 convolution over each view's grid.
        object_weight: how many times a cell counts that shows an object.
    """

    layers: tuple[int, ...] = pydantic.Field(default=(-1,), min_length=1)
    projector: Literal["mlp", "conv"] = "mlp"
    object_weight: float = pydantic.Field(default=1.0, gt=0)


class ReconstructionSection(VisualSection):
    """What every reconstruction objective can set.

    Attributes:
        latents: "sample" the teacher's posterior anew in every pass (as released), or take its "mean"; a teacher that
            has no spread always gives its one answer.
        grounding: "skip" scenes all of whose conversations in a pass point (as released), or "include" them.
    """

    latents: Literal["sample", "mean"] = "sample"
    grounding: Literal["include", "skip"] = "include"


class VanillaSection(ReconstructionSection):
    """Reconstruct a share of the views from their own tokens."""

    ratio: float = pydantic.Field(default=0.25, gt=0, le=1)


class CrossViewSection(ReconstructionSection):
    """Reconstruct hidden views from the others (Ross3D)."""

    every: int = pydantic.Field(default=4, ge=1)
    ratio: float = pydantic.Field(default=0.25, gt=0, lt=1)
    conditioning: Literal["released", "masked_positions", "pose"] = "masked_positions"
    repeats: int | None = pydantic.Field(default=None, ge=1)


class BirdsEyeSection(ReconstructionSection):
    """Reconstruct the view from above (Ross3D)."""

    repeats: int = pydantic.Field(default=1, ge=1)
    conditioning: Literal["released", "pose"] = "released"


class AlignmentSection(DenseSection):
    """Align visual tokens to a 3D teacher's features (3DRS, iREPA)."""

    distance: Literal["squared", "cosine", "l2"] = "squared"
    normalise: Literal["none", "spatial"] = "none"
    gamma: float = pydantic.Field(default=1.0, ge=0, le=1)


class DepthSection(DenseSection):
    """Tell every cell's depth."""


class PointMapSection(DenseSection):
    """Tell every cell's place: in the first view's camera frame, or in the frame of boxes and questions."""

    frame: Literal["first", "aligned"] = "first"


class RaysSection(DenseSection):
    """Tell every cell's ray, seen from the first view."""

    origin: float = pydantic.Field(default=1.0, ge=0)


class CameraPoseSection(VisualSection):
    """Tell every view's pose, seen from the first one."""

    translation: float = pydantic.Field(default=1.0, ge=0)
    layers: tuple[int, ...] = pydantic.Field(default=(-1,), min_length=1)


class ContrastiveSection(VisualSection):
    """Tokens of one spot attract each other across views, tokens of other spots repel (3DRS)."""

    voxel: float = pydantic.Field(default=0.1, gt=0)
    samples: int = pydantic.Field(default=256, ge=2)
    temperature: float = pydantic.Field(default=0.07, gt=0)
    hard_negatives: int = pydantic.Field(default=0, ge=0)
    radius: float = pydantic.Field(default=0.5, gt=0)
    width: int = pydantic.Field(default=128, ge=2)


class ConsistencySection(VisualSection):
    """Tokens of one spot say the same in every view (3DRS), with a guard against collapse."""

    voxel: float = pydantic.Field(default=0.1, gt=0)
    guard: float = pydantic.Field(default=1.0, ge=0)
    width: int = pydantic.Field(default=128, ge=2)


class RelationalSection(VisualSection):
    """Tokens resemble each other as the 3D teacher's features do."""

    samples: int = pydantic.Field(default=256, ge=2)
    width: int = pydantic.Field(default=128, ge=2)


class ObjectivesSection(Section):
    """Which objectives train the model; an objective that is left out is off."""

    text: TextSection | None = None
    grounding: ObjectiveSection | None = None
    vanilla: VanillaSection | None = None
    cross_view: CrossViewSection | None = None
    birds_eye: BirdsEyeSection | None = None
    alignment: AlignmentSection | None = None
    depth: DepthSection | None = None
    point_map: PointMapSection | None = None
    rays: RaysSection | None = None
    camera_pose: CameraPoseSection | None = None
    contrastive: ContrastiveSection | None = None
    consistency: ConsistencySection | None = None
    relational: RelationalSection | None = None

    def active(self) -> dict[str, ObjectiveSection]:
        """The objectives that are on, by name."""
        return {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}


class DenoiserSection(Section):
    """The denoiser that the reconstruction objectives share; the released one is 1024 wide, 3 deep, 16 heads.

    Attributes:
        width: of the transformer; divisible by 4 and by the heads.
        depth: transformer blocks.
        heads: attention heads.
        diffusion: "cosine" predicts the noise of 1000 cosine steps (as released); "flow" the velocity of rectified
            flow.
        times: how "flow" draws times: "uniform", or "logit_normal", which dwells on the middle.
        dropout: share of the targets that are trained without a condition, for guidance; released: none.
        init: file or folder with a released denoiser to start from (Ross3D's, or Ross's two-dimensional one).
    """

    width: int = pydantic.Field(default=128, ge=4)
    depth: int = pydantic.Field(default=2, ge=1)
    heads: int = pydantic.Field(default=4, ge=1)
    diffusion: Literal["cosine", "flow"] = "cosine"
    times: Literal["uniform", "logit_normal"] = "uniform"
    dropout: float = pydantic.Field(default=0.0, ge=0, lt=1)
    init: Path | None = None

    @pydantic.model_validator(mode="after")
    def _divisible(self) -> "DenoiserSection":
        if self.width % self.heads or self.width % 4:
            raise ValueError(f"width {self.width} must be divisible by 4 and by heads ({self.heads})")
        return self

    @pydantic.model_validator(mode="after")
    def _times_have_a_use(self) -> "DenoiserSection":
        if self.times != "uniform" and self.diffusion != "flow":
            raise ValueError(f"'times: {self.times}' needs 'diffusion: flow', found 'diffusion: {self.diffusion}'")
        return self
