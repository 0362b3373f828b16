"""What can be probed: a model's visual tokens, layer by layer, or a feature teacher's cells."""

import abc
import dataclasses
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from stereopsis.data.pack import POINTS, POINTS_VALID, ScenePack
from stereopsis.data.views import Views
from stereopsis.errors import StereopsisError
from stereopsis.models.spatial import SpatialModel
from stereopsis.packs.build import PackConfig, build_pack, decode_chosen
from stereopsis.packs.targets import teacher_views
from stereopsis.scenes.scene import Scene
from stereopsis.teachers.features import FeatureTeacher

VISION = "vision"
"""Name of the visual tokens as they leave the projector, before any 3D encoding and any layer of the language model."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SceneFeatures:
    """One scene as a subject sees it.

    Attributes:
        pack: the scene without conversations.
        views: its decoded views.
        points: [views rows cols 3] true mean point of every cell, metres.
        valid: [views rows cols].
        layers: name -> features of every cell.
    """

    pack: ScenePack
    views: Views
    points: Float[Tensor, "views rows cols 3"]
    valid: Bool[Tensor, "views rows cols"]
    layers: Mapping[str, Float[Tensor, "views rows cols _"]]


class ProbeSubject(abc.ABC):
    """Something with features for the cells of a scene's views.

    Attributes:
        name: what tables call it.
        config: which views, of what size, on what grid.
    """

    name: str
    config: PackConfig

    @property
    @abc.abstractmethod
    def identity(self) -> Mapping[str, object]:
        """What its features depend on, as plain values."""

    @abc.abstractmethod
    def _layers(self, pack: ScenePack, views: Views, scene: Scene) -> dict[str, Tensor]:
        """Features by layer."""

    @torch.inference_mode()
    def features(self, scene: Scene) -> SceneFeatures:
        """Look at one scene.

        Raises:
            SceneError: the scene cannot be read.
        """
        config = self.config
        pack = build_pack(scene, config)
        views = decode_chosen(scene, config)
        layers = {name: values.float().cpu() for name, values in self._layers(pack, views, scene).items()}
        return SceneFeatures(
            pack=pack,
            views=views,
            points=pack.view_targets[POINTS],
            valid=pack.view_targets[POINTS_VALID],
            layers=layers,
        )


class ModelSubject(ProbeSubject):
    """A model's visual tokens: as they leave the projector, and after every layer that is asked for.

    Args:
        model: any `SpatialModel`.
        config: see `PackConfig`; blind models have nothing to probe.
        layers: 0 = the language model's input, with 3D encodings; k = after layer k; None = all of them.
        name: what tables call it.

    Raises:
        StereopsisError: the model is blind.
    """

    def __init__(
        self, model: SpatialModel, config: PackConfig, *, layers: tuple[int, ...] | None = None, name: str = "model"
    ) -> None:
        if config.blind:
            raise StereopsisError("a blind model looks at nothing: there are no visual tokens to probe")
        self.model, self.config, self.name = model, dataclasses.replace(config, tasks=()), name
        depth = model.adapter.depth
        chosen = range(depth + 1) if layers is None else [depth + 1 + k if k < 0 else k for k in layers]
        self.layers = tuple(chosen)

    @property
    def identity(self) -> Mapping[str, object]:
        """Family, positions and views."""
        settings = self.model.settings
        return {"kind": "model", "family": settings.family, "positions": settings.positions, "views": self.config.views}

    def _layers(self, pack: ScenePack, views: Views, scene: Scene) -> dict[str, Tensor]:
        model = self.model
        batch = model.collator()([pack.replace(conversations=())]).to(model.device)
        batch = dataclasses.replace(batch, encoder_tokens=model.adapter.encode(batch.images))  # once for both passes
        outputs = model.outputs(batch, (), torch.Generator(), layers=self.layers)
        last = max(self.layers)
        found = {VISION: model.visual_inputs(batch).tokens}
        for layer in self.layers:
            found[str(layer)] = outputs.visual if layer == last and layer not in outputs.layers else outputs.at(layer)
        return found


class TeacherSubject(ProbeSubject):
    """A 3D feature teacher's cells.

    Args:
        teacher: frozen.
        config: views and grid; those of the model that it is compared with.
    """

    def __init__(self, teacher: FeatureTeacher, config: PackConfig) -> None:
        self.teacher, self.config, self.name = teacher, dataclasses.replace(config, tasks=()), teacher.name

    @property
    def identity(self) -> Mapping[str, object]:
        """Teacher and fingerprint."""
        return {"kind": "teacher", "teacher": self.teacher.name, "fingerprint": self.teacher.fingerprint}

    def _layers(self, pack: ScenePack, views: Views, scene: Scene) -> dict[str, Tensor]:
        features = self.teacher.encode(teacher_views(views, scene.id, *self.config.view_grid))
        return {self.name: features.features}
