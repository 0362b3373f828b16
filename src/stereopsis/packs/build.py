"""From scenes to packs: decode, place, ask the teachers, keep what training needs in memory."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from stereopsis.data.batch import SceneProposals
from stereopsis.data.pack import POINTS, POINTS_VALID, ScenePack, candidate_boxes, conversation_of
from stereopsis.data.views import (
    Fit,
    Views,
    cell_coordinates,
    cells_in_boxes,
    decode_views,
    perturb_coordinates,
)
from stereopsis.packs.targets import Teachers, TeacherScene, live_answers, with_answers
from stereopsis.scenes.scene import Scene
from stereopsis.scenes.selection import ViewSelection, select_views

TOKEN_SHARE = 0.125
"""Share of a cell's pixels that must lie in a box for the cell to count on the language model's grid (3DRS's code)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackConfig:
    """How scenes become packs; `SpatialModel.pack_config` fills in the sizes that a model expects.

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
        token_cells: whether proposals know their cells on the language model's grid (a model's ``object_features``).
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
    tasks: tuple[str, ...] = ()
    proposals: Literal["objects", "detector"] = "objects"
    token_cells: bool = False
    blind: bool = False
    seed: int = 0


@runtime_checkable
class VisionTower(Protocol):
    """A student's vision tower, as far as packs know it."""

    def encode_views(self, images: UInt8[Tensor, "views 3 height width"]) -> Tensor:
        """[views rows cols dim] the tower's output on its own grid."""

    def vision_fingerprint(self) -> str:
        """Digest of everything that decides that output."""


def build_pack(scene: Scene, config: PackConfig, teachers: Teachers | None = None) -> ScenePack:
    """Decode a scene and ask the teachers for its targets.

    Raises:
        SceneError: the scene has no frames (or no depth to choose views by), or a frame cannot be used.
    """
    views = decode_chosen(scene, config)
    cells = true_cells = cell_coordinates(views, *config.view_grid)
    if config.positions == "noisy":
        generator = torch.Generator().manual_seed(name_seed(scene.id, config.seed))
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
            token_cells=(
                cells_in_boxes(views, boxes, *config.view_grid, fraction=TOKEN_SHARE) if config.token_cells else None
            ),
        ),
        conversations=tuple(conversation_of(a, scene, boxes) for a in scene.annotations if a.task in config.tasks),
        view_targets={POINTS: true_cells.coordinates, POINTS_VALID: true_cells.valid},
    )
    if config.blind:
        return blinded(pack)
    if teachers is None:
        return pack
    grid = pack.coordinates.shape[1], pack.coordinates.shape[2]
    return with_answers(pack, *live_answers(teachers, TeacherScene.of(scene, views, grid)))


def chosen_frames(scene: Scene, config: PackConfig) -> list[int]:
    """Which frames the student sees.

    Raises:
        SceneError: the scene has no frames, or no depth to choose views by.
    """
    return select_views(
        scene, config.views, selection=config.selection, coverage=config.coverage, cache=config.view_cache
    )


def decode_chosen(scene: Scene, config: PackConfig) -> Views:
    """Those frames at the student's size."""
    return decode_views(scene, chosen_frames(scene, config), size=config.image_size, fit=config.fit)


def blinded(pack: ScenePack) -> ScenePack:
    """The scene as a model without eyes gets it: one grey view, no coordinates, boxes that no view sees."""
    first = pack.select_views([0])
    return first.replace(
        images=torch.full_like(first.images, 128),
        coordinates=torch.zeros_like(first.coordinates),
        coordinates_valid=torch.zeros_like(first.coordinates_valid),
        proposals=first.proposals.unseen(),
        encoder_tokens=None,
        view_targets={},
        scene_targets={},
    )


@torch.inference_mode()
def cache_vision(packs: Iterable[ScenePack], tower: VisionTower, *, chunk: int = 32) -> list[ScenePack]:
    """Packs with the frozen vision tower's output stored, in half precision, so that steps need not repeat it."""
    cached = []
    for pack in packs:
        parts = [tower.encode_views(pack.images[i : i + chunk]).half().cpu() for i in range(0, len(pack.images), chunk)]
        cached.append(pack.replace(encoder_tokens=torch.cat(parts).clone()))
    return cached


def name_seed(name: str, seed: int) -> int:
    """A seed that depends on a name, the same on every machine."""
    value = seed + 0x9E3779B97F4A7C15
    for byte in name.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**63
    return value % 2**63
