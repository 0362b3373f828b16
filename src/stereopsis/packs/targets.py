"""The one place where teachers are asked: from decoded views to the targets of a pack, live or from a cache."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from stereopsis.data.pack import GROUND, POINTS, POINTS_VALID, ScenePack
from stereopsis.data.views import Fit, Views
from stereopsis.scenes.scene import Scene
from stereopsis.teachers.cache import Answers, CacheIdentity, StoredAnswers, TeacherCache
from stereopsis.teachers.features import FeatureTeacher, TeacherViews
from stereopsis.teachers.glimpse import Glimpse
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

    def to(self, device: torch.device | str) -> "Teachers":
        """Move both to a device; their answers come back to the CPU."""
        for teacher in (self.latent, self.features):
            if teacher is not None:
                teacher.to(device)
        return self


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TeacherScene:
    """What teachers look at in one scene, at the student's size and crop.

    Attributes:
        scene_id: which scene.
        views: its decoded views.
        grid: the student's token rows and columns.
        above: [3 height width] the view from above; None where the scene has none.
        void: [height width] its pixels that show nothing.
        floor: aligned-frame x and y of its top-left corner and its side, metres; y falls from row to row.
    """

    scene_id: str
    views: Views
    grid: tuple[int, int]
    above: Tensor | None = None
    void: Tensor | None = None
    floor: tuple[float, float, float] | None = None

    @staticmethod
    def of(scene: Scene, views: Views, grid: tuple[int, int]) -> "TeacherScene":
        """Decoded views of a scene, and its view from above."""
        if scene.birdseye is None:
            return TeacherScene(scene_id=scene.id, views=views, grid=grid)
        birdseye = scene.birdseye
        void = torch.from_numpy(birdseye.void.copy())
        floor = (*birdseye.origin, len(birdseye.void) * birdseye.metres_per_pixel)
        return TeacherScene(
            scene_id=scene.id, views=views, grid=grid, above=picture_above(scene), void=void, floor=floor
        )


def picture_above(scene: Scene) -> UInt8[Tensor, "3 height width"] | None:
    """A scene's view from above as a tensor."""
    return None if scene.birdseye is None else torch.from_numpy(scene.birdseye.image.copy()).permute(2, 0, 1)


def latent_answers(tokenizer: LatentTokenizer, seen: TeacherScene, view_size: int, birdseye_size: int) -> Answers:
    """Posterior mean and spread of the latents of all views and of the view from above, in half precision.

    A tokenizer without uncertainty gives no ``..._std``.
    """
    views = _posterior("view_latents", tokenizer, seen.views.images, view_size)
    scene: dict[str, Tensor] = {}
    if seen.above is not None and seen.void is not None and seen.floor is not None:
        above = _posterior("birdseye_latents", tokenizer, seen.above[None], birdseye_size)
        scene = {name: tensor[0] for name, tensor in above.items()}
        scene[GROUND] = ground_cells(seen.floor, *scene["birdseye_latents"].shape[:2]).half()
        scene["birdseye_valid"] = valid_cells(seen.void[None], *scene["birdseye_latents"].shape[:2])[0]
    return Answers(views=views, scene=scene)


def ground_cells(floor: tuple[float, float, float], rows: int, cols: int) -> Float[Tensor, "rows cols 2"]:
    """X and y of the centres of a grid of cells over a view from above, metres; see `TeacherScene.floor`."""
    left, top, side = floor
    x = left + (torch.arange(cols) + 0.5) * side / cols
    y = top - (torch.arange(rows) + 0.5) * side / rows
    return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)


def _posterior(name: str, tokenizer: LatentTokenizer, images: Tensor, size: int) -> dict[str, Tensor]:
    cells = tokenizer.encode_posterior_cells(images, size=size)
    found = {name: cells.mean.half().cpu()}
    return found if cells.std is None else {**found, f"{name}_std": cells.std.half().cpu()}


def feature_answers(teacher: FeatureTeacher, seen: TeacherScene) -> Answers:
    """The feature of every cell and its validity, in half precision."""
    found = teacher.encode(teacher_views(seen.views, seen.scene_id, *seen.grid))
    return Answers(views={"view_features": found.features.half().cpu(), "view_features_valid": found.valid.cpu()})


def teacher_views(views: Views, scene_id: str, rows: int, cols: int) -> TeacherViews:
    """What a feature teacher sees of some decoded views."""
    return TeacherViews(
        images=views.images,
        points=views.points,
        points_valid=views.points_valid,
        T_aligned_camera=views.cameras,
        rows=rows,
        cols=cols,
        names=views.names,
        scene_id=scene_id,
        intrinsics=views.intrinsics,
    )


def live_answers(teachers: Teachers, seen: TeacherScene) -> list[Answers]:
    """Ask every teacher now."""
    found = []
    if teachers.latent is not None:
        found.append(latent_answers(teachers.latent, seen, teachers.view_size, teachers.birdseye_size))
    if teachers.features is not None:
        found.append(feature_answers(teachers.features, seen))
    return found


def with_answers(pack: ScenePack, *answers: Answers) -> ScenePack:
    """The pack with some teachers' answers among its targets."""
    view_targets, scene_targets = dict(pack.view_targets), dict(pack.scene_targets)
    for each in answers:
        view_targets.update(each.views)
        scene_targets.update(each.scene)
    return pack.replace(view_targets=view_targets, scene_targets=scene_targets)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnswerCaches:
    """The caches that a run's teachers read from and, where allowed, write to.

    Attributes:
        latent: of the latent teacher; None where no objective asks for one.
        features: of the feature teacher, likewise.
        teachers: who answers what is missing; None: nobody, what is missing is refused.
        sizes: sides at which the latent teacher encodes views and views from above, pixels.
    """

    latent: TeacherCache | None
    features: TeacherCache | None
    teachers: Teachers | None
    sizes: tuple[int, int]

    @staticmethod
    def of(
        root: Path, teachers: Teachers, *, image_size: int, fit: Fit, grid: tuple[int, int], online: bool
    ) -> "AnswerCaches":
        """Caches of some teachers' answers to a student of this picture size, crop and grid."""
        student: dict[str, Any] = {"image_size": image_size, "fit": fit}
        latent = features = None
        if teachers.latent is not None:
            sizes = {"view_size": teachers.view_size, "birdseye_size": teachers.birdseye_size}
            latent = TeacherCache(root=root, identity=_identity("latents", teachers.latent, True, {**student, **sizes}))
        if teachers.features is not None:
            cells = {"rows": grid[0], "cols": grid[1]}
            per_view = teachers.features.per_view
            identity = _identity("features", teachers.features, per_view, {**student, **cells})
            features = TeacherCache(root=root, identity=identity)
        return AnswerCaches(
            latent=latent,
            features=features,
            teachers=teachers if online else None,
            sizes=(teachers.view_size, teachers.birdseye_size),
        )

    @property
    def members(self) -> tuple[TeacherCache, ...]:
        """The caches that there are."""
        return tuple(cache for cache in (self.latent, self.features) if cache is not None)

    def answers(
        self, pack: ScenePack, scene: Scene, decode: Any, *, overwrite: bool = False
    ) -> tuple[StoredAnswers, ...]:
        """Every teacher's answers for a pack's frames; what is missing is made and stored, or refused.

        Args:
            pack: what the student sees.
            scene: for its view from above.
            decode: function without arguments that gives the pack's `Views`; called only if a teacher must look.
            overwrite: make the answers anew.

        Raises:
            CacheError: answers to other frames, or missing ones that nobody may make.
        """
        glimpse, above = glimpse_of(pack), picture_above(scene)
        found: list[StoredAnswers] = []
        views: Views | None = None
        for cache in self.members:
            top = above if cache is self.latent else None
            if self.teachers is None:
                found.append(cache.require(pack.scene_id, glimpse, top))
                continue
            stored = None if overwrite else cache.find(pack.scene_id, glimpse, top)
            if stored is None:
                views = decode() if views is None else views
                seen = TeacherScene.of(scene, views, (pack.coordinates.shape[1], pack.coordinates.shape[2]))
                answers = self._ask(cache, seen)
                stored = cache.write(pack.scene_id, glimpse, answers, above=top, keep=not overwrite)
            found.append(stored)
        return tuple(found)

    def _ask(self, cache: TeacherCache, seen: TeacherScene) -> Answers:
        assert self.teachers is not None
        if cache is self.latent:
            assert self.teachers.latent is not None
            return latent_answers(self.teachers.latent, seen, *self.sizes)
        assert self.teachers.features is not None
        return feature_answers(self.teachers.features, seen)


def glimpse_of(pack: ScenePack) -> Glimpse:
    """What a pack's student sees, in little."""
    return Glimpse.of(
        pack.frame_names,
        pack.images,
        pack.cameras,
        pack.intrinsics,
        pack.view_targets[POINTS],
        pack.view_targets[POINTS_VALID],
    )


def _identity(kind: Any, teacher: Any, per_view: bool, settings: Mapping[str, Any]) -> CacheIdentity:
    return CacheIdentity(
        kind=kind, teacher=teacher.name, fingerprint=teacher.fingerprint, per_view=per_view, settings=settings
    )
