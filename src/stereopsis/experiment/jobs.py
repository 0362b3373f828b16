"""What a process of a comparison does: a share of the packs, or an arm."""

import dataclasses
import json
from pathlib import Path

import torch
from rich.console import Console

from stereopsis.experiment.arms import Arm, run_arm
from stereopsis.reading import parse_json
from stereopsis.side_by_side import Job
from stereopsis.training.build import build_model, build_teachers
from stereopsis.training.recipe import Recipe, parse_recipe
from stereopsis.training.recipe_packs import CachePlan
from stereopsis.training.sources import scenes_of
from stereopsis.training.train_run import build_packs


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArmJob:
    """What a process shall do: a share of the packs, or an arm.

    Attributes:
        name: for people.
        recipe: whose packs.
        share: (n, of): make every of-th scene's pack, from the n-th on.
        arm: train, evaluate and draw this one (its recipe is ``recipe``).
        folder: the arm's.
        pictures: draw reconstructions of so many scenes.
        overwrite: start the arm anew.
    """

    name: str
    recipe: Recipe
    share: tuple[int, int] | None = None
    arm: Arm | None = None
    folder: Path = Path()
    pictures: int = 0
    overwrite: bool = True

    def job(self) -> Job:
        """For a process of its own."""
        arm = None if self.arm is None else {key: getattr(self.arm, key) for key in ("name", "label", "note")}
        plain = dataclasses.asdict(self) | {
            "recipe": self.recipe.model_dump(mode="json"),
            "arm": arm,
            "folder": str(self.folder),
        }
        return Job(name=self.name, module=__name__.rpartition(".")[0], text=json.dumps(plain))

    @staticmethod
    def parse(text: str) -> "ArmJob":
        """What `job` wrote."""
        plain = parse_json(text)
        recipe = parse_recipe(plain["recipe"], plain["name"])
        arm = None if plain["arm"] is None else Arm(**plain["arm"], recipe=recipe)
        share = None if plain["share"] is None else tuple(plain["share"])
        return ArmJob(**plain | {"recipe": recipe, "arm": arm, "share": share, "folder": Path(plain["folder"])})


def work(job: ArmJob, console: Console | None) -> None:
    """Do it, here."""
    recipe = job.recipe
    torch.set_num_threads(recipe.training.threads)
    # A blind arm's packs are made from the seeing arms', so that all take the same ones from the cache.
    seeing = recipe.model_copy(update={"model": recipe.model.model_copy(update={"blind": False})})
    model, teachers = build_model(seeing), build_teachers(recipe)
    if job.share is not None:
        assert recipe.teachers.cache is not None
        number, of = job.share
        plan = CachePlan.of(recipe, model, teachers, recipe.teachers.cache)
        for source in recipe.data.sources:
            plan.entries(source, out=console, share=slice(number, None, of))
        return
    assert job.arm is not None
    packs = build_packs(seeing, model, teachers, recipe.data.sources, console=console)
    scenes = scenes_of(recipe.evaluation.sources[0], recipe.data.cache_folder, console=console)
    run_arm(
        job.arm, job.folder, packs, scenes, teachers, pictures=job.pictures, overwrite=job.overwrite, console=console
    )
