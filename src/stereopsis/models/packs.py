"""From scenes to packs: decode, place, ask the teachers, keep what training needs in memory."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from stereopsis.data.batch import SceneProposals
from stereopsis.data.pack import ScenePack, candidate_boxes, conversation_of
from stereopsis.data.views import (
    Fit,
    Views,
    cell_coordinates,
    cells_in_boxes,
    decode_views,
    perturb_coordinates,
)
from stereopsis.models.spatial import SpatialConfig, SpatialModel
from stereopsis.scenes.annotations import Task
from stereopsis.scenes.scene import Scene
from stereopsis.scenes.selection import ViewSelection, select_views
from stereopsis.teachers.features import FeatureTeacher, TeacherViews
from stereopsis.teachers.latents import LatentTokenizer, valid_cells


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Teachers:
    """The frozen teachers of a run; None where no objective asks for one.

    Attributes:
        latent: tokenizer of the reconstruction targets.
        features: 3D feature teacher.
        view_size: side at which views are encoded, pixels.
        birdseye_size: side at which bird's-eye views are encoded, pixels.
    """

    latent: LatentTokenizer | None = None
    features: FeatureTeacher | None = None
    view_size: int = 96
    birdseye_size: int = 128


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackConfig:
    """How scenes become packs.

    Attributes:
        image_size: side of the square views, pixels.
        fit: how images are brought to that size.
        view_grid: token rows and cols of a view.
        encoder_grid: rows and cols of the vision tower's output.
        positions: whose coordinates the tokens get.
        views: at most this many views; None = all.
        selection: "uniform" over the frame list, or "coverage"; see `stereopsis.scenes.selection.select_views`.
        coverage: share of the room's voxels at which "coverage" stops.
        view_cache: folder in which the order that "coverage" finds is kept; None = in memory only.
        tasks: which annotations become conversations; none for vision only.
        proposals: "objects" to train on ground truth boxes, "detector" to evaluate on proposals.
        blind: one grey view without coordinates, whatever the scene shows.
        seed: of the coordinate noise in ``positions: noisy``.
    """

    image_size: int
    fit: Fit
    view_grid: tuple[int, int]
    encoder_grid: tuple[int, int]
    positions: Literal["depth", "noisy", "none"]
    views: int | None = 8
    selection: ViewSelection = "uniform"
    coverage: float = 1.0
    view_cache: Path | None = None
    tasks: tuple[Task, ...] = ()
    proposals: Literal["objects", "detector"] = "objects"
    blind: bool = False
    seed: int = 0

    @classmethod
    def for_model(cls, model: SpatialModel, **options) -> "PackConfig":
        """The sizes that a model expects."""
        config: SpatialConfig = model.settings
        return cls(
            image_size=model.adapter.image_size,
            fit=config.fit,
            view_grid=config.view_grid,
            encoder_grid=model.adapter.encoder_grid,
            positions=config.positions,
            **options,
        )


def build_pack(scene: Scene, config: PackConfig, teachers: Teachers | None = None) -> ScenePack:
    """Decode a scene and ask the teachers for its targets.

    Raises:
        SceneError: the scene has no frames (or no depth to choose views by), or a frame cannot be used.
    """
    indices = select_views(
        scene, config.views, selection=config.selection, coverage=config.coverage, cache=config.view_cache
    )
    views = decode_views(scene, indices, size=config.image_size, fit=config.fit)
    cells = cell_coordinates(views, *config.view_grid)
    if config.positions == "noisy":
        generator = torch.Generator().manual_seed(_name_seed(scene.id, config.seed))
        cells = perturb_coordinates(cells, views.cameras, generator)
    boxes = candidate_boxes(scene, config.proposals)
    pack = ScenePack(
        scene_id=scene.id,
        frame_names=views.names,
        images=views.images,
        coordinates=cells.coordinates,
        coordinates_valid=cells.valid,
        cameras=views.cameras,
        intrinsics=views.intrinsics,
        proposals=SceneProposals(
            boxes=torch.from_numpy(boxes.astype(np.float32)),
            cells=cells_in_boxes(views, boxes, *config.encoder_grid),
        ),
        conversations=tuple(conversation_of(a, scene, boxes) for a in scene.annotations if a.task in config.tasks),
    )
    if config.blind:
        return blinded(pack)
    return with_targets(pack, views, scene, teachers) if teachers is not None else pack


def with_targets(pack: ScenePack, views: Views, scene: Scene, teachers: Teachers) -> ScenePack:
    """The pack with its teachers' answers: posterior means of the latents, features, and their validity."""
    view_targets, scene_targets = dict(pack.view_targets), dict(pack.scene_targets)
    if teachers.latent is not None:
        view_targets["view_latents"] = teachers.latent.encode_cells(views.images, size=teachers.view_size).half()
        if scene.birdseye is not None:
            image = torch.from_numpy(scene.birdseye.image.copy()).permute(2, 0, 1)[None]
            latents = teachers.latent.encode_cells(image, size=teachers.birdseye_size)[0]
            void = torch.from_numpy(scene.birdseye.void.copy())[None]
            scene_targets["birdseye_latents"] = latents.half()
            scene_targets["birdseye_valid"] = valid_cells(void, *latents.shape[:2])[0]
    if teachers.features is not None:
        rows, cols = pack.coordinates.shape[1:3]
        features = teachers.features.encode(
            TeacherViews(
                images=views.images,
                points=views.points,
                points_valid=views.points_valid,
                T_aligned_camera=views.cameras,
                rows=rows,
                cols=cols,
                names=views.names,
                scene_id=scene.id,
            )
        )
        view_targets["view_features"] = features.features.half()
        view_targets["view_features_valid"] = features.valid
    return pack.replace(view_targets=view_targets, scene_targets=scene_targets)


def blinded(pack: ScenePack) -> ScenePack:
    """The scene as a model without eyes gets it: one grey view, no coordinates, boxes that no view sees."""
    first = pack.select_views([0])
    return first.replace(
        images=torch.full_like(first.images, 128),
        coordinates=torch.zeros_like(first.coordinates),
        coordinates_valid=torch.zeros_like(first.coordinates_valid),
        proposals=SceneProposals(boxes=first.proposals.boxes, cells=torch.zeros_like(first.proposals.cells)),
        encoder_tokens=None,
        view_targets={},
        scene_targets={},
    )


@torch.inference_mode()
def cache_vision(packs: Iterable[ScenePack], model: SpatialModel, *, chunk: int = 32) -> list[ScenePack]:
    """Packs with the frozen vision tower's output stored, in half precision, so that steps need not repeat it."""
    cached = []
    for pack in packs:
        parts = [
            model.adapter.encode(pack.images[i : i + chunk].to(model.device)).half().cpu()
            for i in range(0, len(pack.images), chunk)
        ]
        cached.append(pack.replace(encoder_tokens=torch.cat(parts).clone()))
    return cached


class PackDataset(torch.utils.data.Dataset):
    """Every conversation once: each item is a scene with at most K of its conversations.

    Args:
        packs: scenes with all their conversations.
        conversations: K.
        views: where given, items show random subsets of so many views.
        subsets: how many subsets per scene (only with ``views``).
        seed: of the grouping and of the subsets; item i is the same in every epoch and process.
    """

    def __init__(
        self,
        packs: Sequence[ScenePack],
        *,
        conversations: int,
        views: int | None = None,
        subsets: int = 1,
        seed: int = 0,
    ) -> None:
        self.packs, self.views, self.seed = list(packs), views, seed
        self.items: list[tuple[int, tuple[int, ...]]] = []
        generator = torch.Generator().manual_seed(seed)
        for number, pack in enumerate(self.packs):
            order = torch.randperm(len(pack.conversations), generator=generator).tolist()
            groups = [tuple(order[i : i + conversations]) for i in range(0, len(order), conversations)] or [()]
            repeat = subsets if views is not None and views < len(pack.images) else 1
            self.items += [(number, groups[i % len(groups)]) for i in range(max(repeat, len(groups)))]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> ScenePack:
        number, group = self.items[index]
        pack = self.packs[number]
        if self.views is not None and self.views < len(pack.images):
            generator = torch.Generator().manual_seed(_name_seed(f"{pack.scene_id}/{index}", self.seed))
            chosen = torch.randperm(len(pack.images), generator=generator)[: self.views].sort().values
            pack = pack.select_views(chosen.tolist())
        return pack.replace(conversations=tuple(pack.conversations[i] for i in group))


def _name_seed(name: str, seed: int) -> int:
    """A seed that depends on a name, the same on every machine."""
    value = seed + 0x9E3779B97F4A7C15
    for byte in name.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**63
    return value % 2**63
