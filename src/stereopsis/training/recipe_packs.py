"""A recipe's scenes as packs: in memory, or on disk with everything that a frozen network says about them."""

import dataclasses
import functools
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from stereopsis.data.pack import ScenePack
from stereopsis.errors import RecipeError
from stereopsis.files import mark_cache
from stereopsis.models.spatial import SpatialModel
from stereopsis.packs.build import PackConfig, build_pack, cache_vision, decode_chosen
from stereopsis.packs.stored import PackFolder, StoredPack, StoredPacks
from stereopsis.packs.targets import AnswerCaches, Teachers
from stereopsis.progress import tracked
from stereopsis.scenes.scene import Scene
from stereopsis.teachers.feature_teachers import load_feature_teacher
from stereopsis.teachers.latent_tokenizers import load_latent_tokenizer
from stereopsis.training.build import build_model, build_teachers
from stereopsis.training.processes import Processes
from stereopsis.training.recipe import Recipe, cpu_threads
from stereopsis.training.sections import SourceSection
from stereopsis.training.sources import SceneFolders, folders_of


def build_packs(
    recipe: Recipe,
    model: SpatialModel,
    teachers: Teachers | None,
    sources: Sequence[SourceSection],
    *,
    tasks: Sequence[str] | None = None,
    proposals: str = "objects",
    console: Console | None = None,
) -> Sequence[ScenePack]:
    """Packs of all scenes of some sources, with targets and (where the tower is frozen) its output.

    With ``teachers.cache`` they are written to disk, or found there, and read again whenever they are asked for.

    Raises:
        CacheError: the cache holds answers to other frames, or lacks some and nobody may make them.
    """
    if recipe.teachers.cache is not None:
        plan = CachePlan.of(recipe, model, teachers or Teachers(), recipe.teachers.cache)
        return StoredPacks([e for s in sources for e in plan.entries(s, tasks=tasks, proposals=proposals, out=console)])
    packs = []
    for source in sources:
        config = pack_config(recipe, model, source, tasks=tasks, proposals=proposals)
        for scene in _opened(source, recipe, console):
            packs.append(build_pack(scene, config, teachers))
    if _keeps_vision(recipe):
        packs = cache_vision(tracked(packs, "Encoding views", "scenes", console=console), model)
    return packs


def shared_packs(
    recipe: Recipe,
    model: SpatialModel,
    teachers: Teachers,
    processes: Processes,
    *,
    console: Console | None = None,
) -> Sequence[ScenePack]:
    """A recipe's training packs for several processes: made once, and in memory once per machine.

    Procedural rooms are made by the first process. With ``teachers.cache`` each process fills its share of the cache.
    Without, the first process of every machine makes the packs, and the others of that machine map them into memory
    from a file that is gone when all have it.
    """
    sources = recipe.data.sources
    if processes.count == 1:
        return build_packs(recipe, model, teachers, sources, console=console)
    if processes.main:
        for source in sources:
            folders_of(source, recipe.data.cache_folder, console=console)
    processes.wait()
    if recipe.teachers.cache is not None:
        plan = CachePlan.of(recipe, model, teachers, recipe.teachers.cache)
        for source in sources:
            plan.entries(source, out=console, share=slice(processes.rank, None, processes.count))
        processes.wait()
        return build_packs(recipe, model, teachers, sources, console=console)
    path = processes.said_by_first_here(lambda: tempfile.mkdtemp(prefix="stereopsis-"))
    try:
        if processes.local_rank == 0:
            torch.save(list(build_packs(recipe, model, teachers, sources, console=console)), Path(path) / "packs.pt")
        processes.wait()
        packs = torch.load(Path(path) / "packs.pt", mmap=True, weights_only=False)  # a pickle of our own, just written
        processes.wait()
    finally:
        if processes.local_rank == 0:
            shutil.rmtree(path)
    return packs


def pack_config(
    recipe: Recipe,
    model: SpatialModel,
    source: SourceSection,
    *,
    tasks: Sequence[str] | None = None,
    proposals: str = "objects",
) -> PackConfig:
    """How the scenes of one source become packs under a recipe."""
    data = recipe.data
    return model.pack_config(
        views=None if data.selection == "random" else data.views,
        **data.view_options,
        tasks=tuple(data.tasks if tasks is None else tasks) if source.text else (),
        proposals=proposals,
        blind=recipe.model.blind,
        seed=recipe.seed,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CachePlan:
    """How a recipe's scenes and its teachers' answers are kept on disk.

    Attributes:
        recipe: whose.
        model: the student.
        root: the cache folder.
        caches: of the teachers' answers; None: the student is blind, nobody is asked.
    """

    recipe: Recipe
    model: SpatialModel
    root: Path
    caches: AnswerCaches | None

    @staticmethod
    def of(recipe: Recipe, model: SpatialModel, teachers: Teachers, root: Path) -> "CachePlan":
        """For these teachers; whether they may answer now is the recipe's ``teachers.online``."""
        caches = None
        if not recipe.model.blind:
            caches = AnswerCaches.of(
                root,
                teachers,
                image_size=model.adapter.image_size,
                fit=model.settings.fit,
                grid=model.settings.view_grid,
                online=recipe.teachers.online,
            )
        return CachePlan(recipe=recipe, model=model, root=root, caches=caches)

    def entries(
        self,
        source: SourceSection,
        *,
        tasks: Sequence[str] | None = None,
        proposals: str = "objects",
        overwrite: bool = False,
        out: Console | None = None,
        share: slice = slice(None),
    ) -> list[StoredPack]:
        """The scenes of a source (or a share of them), packed and answered; what is there already is kept."""
        config = pack_config(self.recipe, self.model, source, tasks=tasks, proposals=proposals)
        mark_cache(self.root)
        folder = PackFolder(self.root, config, self.model if _keeps_vision(self.recipe) else None)
        found = []
        for scene in _opened(source, self.recipe, out, share):
            entry = folder.stored(scene, overwrite=overwrite)
            if self.caches is not None and self.caches.members:
                decode = functools.partial(decode_chosen, scene, config)
                answers = self.caches.answers(entry.read(), scene, decode, overwrite=overwrite)
                entry = dataclasses.replace(entry, answers=answers)
            found.append(entry)
        return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class CachedFolder:
    """One folder of a cache: what lies there, for how many scenes, and how large their files are."""

    path: Path
    what: str
    scenes: int
    bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheReport:
    """What a cache holds for a recipe.

    Attributes:
        root: the cache folder.
        scenes: how many scenes were asked about.
        folders: those that the recipe reads from.
    """

    root: Path
    scenes: int
    folders: tuple[CachedFolder, ...]


def fill_cache(
    recipe: Recipe,
    *,
    features: Sequence[str] | None = None,
    latents: Sequence[str] | None = None,
    device: str | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> CacheReport:
    """Make every answer that a recipe's training will ask for; what is there already is kept.

    Args:
        recipe: says which scenes, views, picture size and grid; it must name its ``teachers.cache``.
        features: ask these feature teachers instead of the one that the recipe's objectives need.
        latents: ask these latent teachers, likewise.
        device: where the teachers run; None = a GPU where there is one.
        overwrite: make the answers anew.
        console: where to show progress.

    Raises:
        RecipeError: the recipe names no cache, or is blind.
        CacheError: the cache holds answers to other frames, or cannot be written.
    """
    root = recipe.teachers.cache
    if root is None:
        raise RecipeError("the recipe names no 'teachers.cache'; add -s teachers.cache=FOLDER")
    if recipe.model.blind:
        raise RecipeError(f"'{recipe.name}' trains a blind model, which asks no teacher; choose a recipe that looks")
    recipe = recipe.model_copy(update={"teachers": recipe.teachers.model_copy(update={"online": True})})
    torch.set_num_threads(cpu_threads(recipe.training.threads))  # as in training: convolutions round by thread count
    model = build_model(recipe)
    if features is None and latents is None:
        asked = [build_teachers(recipe)]
    else:
        sizes: dict[str, Any] = {key: getattr(recipe.teachers, key) for key in ("view_size", "birdseye_size")}
        asked = [Teachers(features=load_feature_teacher(spec), **sizes) for spec in features or ()]
        asked += [Teachers(latent=load_latent_tokenizer(spec), **sizes) for spec in latents or ()]
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    told: dict[Path, str] = {}
    scenes = 0
    for teachers in asked:
        plan = CachePlan.of(recipe, model.to(where), teachers.to(where), root)
        entries = [
            entry for source in recipe.data.sources for entry in plan.entries(source, overwrite=overwrite, out=console)
        ]
        scenes = len(entries)
        told |= {entry.path.parent: "views and the vision tower's output" for entry in entries}
        assert plan.caches is not None
        told |= {cache.folder: f"{cache.identity.kind} of '{cache.identity.teacher}'" for cache in plan.caches.members}
    return CacheReport(root=root, scenes=scenes, folders=tuple(_measured(path, what) for path, what in told.items()))


def _measured(folder: Path, what: str) -> CachedFolder:
    sizes = [path.stat().st_size for path in folder.glob("*.safetensors")]
    return CachedFolder(path=folder, what=what, scenes=len(sizes), bytes=sum(sizes))


def _keeps_vision(recipe: Recipe) -> bool:
    return recipe.training.cache_vision and not recipe.model.train_vision


def _opened(
    source: SourceSection, recipe: Recipe, console: Console | None, share: slice = slice(None)
) -> Iterator[Scene]:
    """A source's scenes (or a share of them), one in memory at a time."""
    scenes = SceneFolders(folders_of(source, recipe.data.cache_folder, console=console).openers[share])
    yield from tracked(scenes, "Reading scenes, asking teachers", "scenes", console=console)
