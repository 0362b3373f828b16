"""The command line's part for caches: make what training will read from disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from stereopsis.cli.startup import load_libraries
from stereopsis.files import cache_folder
from stereopsis.progress import say

if TYPE_CHECKING:
    from stereopsis.training.recipe_packs import CacheReport

console = Console()
DEFAULT = cache_folder() / "teachers"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        epilog="Examples: stereopsis cache stereopsis-tiny -s teachers.cache=data/cache   |   stereopsis cache my.yaml "
        "-s teachers.features=hf:weights/dinov2 --device cuda"
    )(cache)


def cache(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of one in recipes/.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", "-s", help="Override a recipe key; may be repeated.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Where teachers run; left out, a GPU where there is one.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Make answers anew that are there.")] = False,
) -> None:
    """Make every teacher's answer that a recipe's training will ask for, and keep it on disk.

    They go to the recipe's teachers.cache (~/.cache/stereopsis/teachers where it names none). Start it again to go on:
    what is there is kept.
    """
    from stereopsis.training.preflight import check_extras, check_places, told_sources
    from stereopsis.training.recipe import load_recipe

    plan = load_recipe(recipe, overrides or [])
    if plan.teachers.cache is None:
        plan = load_recipe(recipe, [*(overrides or []), f"teachers.cache={DEFAULT}"])
    check_places(plan)
    check_extras(plan, "Making answers")
    say(console, f"Teachers' answers for {plan.name}: {told_sources(plan.data.sources)}, into {plan.teachers.cache}")
    load_libraries(console, "stereopsis.training.recipe_packs")
    from stereopsis.training.recipe_packs import fill_cache

    show(fill_cache(plan, device=device, overwrite=overwrite, console=console))
    if plan.teachers.cache == DEFAULT:
        console.print(f"Train with it: -s teachers.cache={DEFAULT}", highlight=False, soft_wrap=True)


def check_named(features: Sequence[str], latents: Sequence[str], student: str) -> None:
    """Refuse names of teachers and of the student's recipe before any scene is prepared for them; no weights are read.

    Raises:
        RecipeError: there is no such teacher or recipe.
    """
    from stereopsis.teachers.feature_teachers import FEATURE_TEACHERS
    from stereopsis.teachers.latent_tokenizers import LATENT_TOKENIZERS
    from stereopsis.teachers.specs import read_spec
    from stereopsis.training.recipe import load_recipe

    load_recipe(student)
    for spec in features:
        read_spec(spec, FEATURE_TEACHERS, "feature teacher")
    for spec in latents:
        read_spec(spec, LATENT_TOKENIZERS, "latent teacher")


def answer_prepared(
    scenes: Path, features: Sequence[str], latents: Sequence[str], student: str, root: Path, *, overwrite: bool = False
) -> None:
    """Ask teachers about prepared scenes, on the views and at the size that a student's recipe asks for.

    Args:
        scenes: a folder of prepared scenes.
        features: feature teachers, as recipes name them.
        latents: latent teachers, likewise.
        student: the recipe.
        root: the cache folder.
        overwrite: make answers anew that are there.

    Raises:
        StereopsisError: a teacher or the recipe is unknown, or a scene cannot be used.
    """
    from stereopsis.training.recipe import load_recipe, parse_recipe
    from stereopsis.training.recipe_packs import fill_cache

    content = load_recipe(student).model_dump(mode="json")
    content["data"]["sources"] = [{"path": str(scenes)}]
    content["teachers"] |= {"cache": str(root), "online": True}
    plan = parse_recipe(content, student)
    show(fill_cache(plan, features=features, latents=latents, overwrite=overwrite, console=console))


def show(report: "CacheReport") -> None:
    """Print what a cache holds."""
    table = Table("what", "scenes", "MB", "folder")
    for folder in report.folders:
        table.add_row(folder.what, str(folder.scenes), f"{folder.bytes / 1e6:.1f}", folder.path.name)
    console.print(table)
    if report.folders:
        console.print(f"Cache: [bold]{report.root.resolve()}[/bold]", highlight=False, soft_wrap=True)
