"""What can be refused, and said, before torch is imported and anything is made: folders, packages, scenes."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from stereopsis.errors import CheckpointError, RecipeError, SceneError
from stereopsis.extras import require_extras
from stereopsis.model_files import HEADS_FILE
from stereopsis.reading import read_json
from stereopsis.training.recipe import Recipe
from stereopsis.training.run_folder import require_base
from stereopsis.training.sections import SourceSection
from stereopsis.training.trackers import require_trackers

_ROOM = re.compile(r"room-(\d{8})")


def check_places(recipe: Recipe) -> None:
    """Refuse a recipe that names a base, scenes, weights or layers that are not there, or a cache that cannot be one.

    Raises:
        CheckpointError: there is no base, or no denoiser to start from.
        SceneError: there is no such folder of scenes.
        RecipeError: there is nothing where a teacher's weights should lie, the base has no such layer, or a file is
            where a cache should be.
    """
    require_layers(recipe, depth_of(require_base(recipe)))
    for key, cache in (("data.cache", recipe.data.cache), ("teachers.cache", recipe.teachers.cache)):
        _check_cache(key, cache)
    check_scenes(recipe.data.sources, "data.sources")
    heads = require_base(recipe) / HEADS_FILE
    if recipe.model.heads == "base" and not heads.is_file():
        raise CheckpointError(f"model.heads: the base has none ({heads}); 'fresh' trains new ones")
    start = recipe.denoiser.init
    if start is not None and not start.exists():
        raise CheckpointError(f"denoiser.init: there is no {start}; name the file or folder of a released denoiser")
    for name in ("latent", "features"):
        kind, _, source = str(getattr(recipe.teachers, name)).partition(":")
        if source.startswith(("/", "./", "../", "~")) and not Path(source).expanduser().exists():
            raise RecipeError(f"teachers.{name}: there is no {source} to read '{kind}' from; correct the path")


def require_layers(recipe: Recipe, depth: int | None) -> None:
    """Refuse objectives on layers that the language model lacks.

    Args:
        recipe: whose objectives.
        depth: layers of the language model; None: not known, and nothing is refused.

    Raises:
        RecipeError: names the objective, the layer and the layers that there are.
    """
    for name, section in recipe.objectives.active().items():
        require_depth(getattr(section, "layers", ()), depth, f"objectives.{name}.layers")


def require_depth(layers: Iterable[int], depth: int | None, key: str) -> None:
    """Refuse layers that a language model of this depth lacks.

    Raises:
        RecipeError: names the first of them.
    """
    for layer in layers:
        if depth is not None and not -depth - 1 <= layer <= depth:
            raise RecipeError(
                f"{key}: the language model has no layer {layer}: it has {depth}, numbered 1 to {depth} (0 = the "
                f"embeddings) or -{depth} to -1 from the end"
            )


def depth_of(folder: Path) -> int | None:
    """Layers of the language model in a model folder, as its config.json says; None where it does not say."""
    try:
        config = read_json(folder / "config.json")
        text = config.get("text_config") or config.get("llm_config") or config
        return int(text["num_hidden_layers"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # whoever opens the model says what is wrong with it


def _check_cache(key: str, cache: Path | None) -> None:
    """Refuse a cache where there is a file, or where nothing may be written."""
    if cache is None:
        return
    there = next(path for path in (cache, *cache.absolute().parents) if path.exists())
    if not there.is_dir():
        raise RecipeError(f"{key}: {there} is a file, expected a folder to keep things in; name another")
    if not os.access(there, os.W_OK):
        raise RecipeError(f"{key}: {there} may not be written to; name another folder, or change its permissions")


def check_scenes(sources: Sequence[SourceSection], place: str) -> None:
    """Refuse sources whose folder is not there.

    Args:
        sources: of a recipe.
        place: where they stand in it, for the message.

    Raises:
        SceneError: names the first one.
    """
    for number, source in enumerate(sources):
        if source.path is not None and not source.path.exists():
            raise SceneError(
                f"{place}.{number}.path: there is no {source.path}; make it with 'stereopsis prepare', or name another "
                "folder"
            )


def check_extras(recipe: Recipe, purpose: str, *more: str, sources: Sequence[SourceSection] | None = None) -> None:
    """Refuse work whose optional packages are not installed.

    Args:
        recipe: what is to be done.
        purpose: what it is called, e.g. "Training".
        more: extras that are needed whatever the recipe says.
        sources: scenes that will be asked for; None = those that the recipe trains on.

    Raises:
        MissingExtraError: names all that are missing, and one command.
    """
    require_trackers(recipe.training.report_to)
    require_extras(purpose, *more, *extras_of(recipe, recipe.data.sources if sources is None else sources))


def extras_of(recipe: Recipe, sources: Sequence[SourceSection]) -> Iterator[str]:
    """The extras that a recipe's training on these sources needs."""
    from stereopsis.training.sources import missing_rooms

    if any(missing_rooms(source, recipe.data.cache_folder) for source in sources):
        yield "rooms"
    if recipe.model.lora is not None:
        yield "lora"
    if recipe.model.load_in is not None or "8bit" in recipe.training.optimizer:
        yield "bnb"


def advice(recipe: Recipe) -> tuple[str, ...]:
    """What to mind before training, in sentences; nothing of it stops a run."""
    if "text" in recipe.objectives.active() or recipe.model.lora is not None:
        return ()
    return (
        "no objective trains on words, so the model's language suffers: use it for its visual tokens and for what it "
        "imagines, not to be asked. To keep it talking, tune adapters and add scenes with words as an anchor (recipe "
        "'capture-anchored')",
    )


def told_sources(sources: Sequence[SourceSection]) -> str:
    """How many scenes, of which split and from where: "200 procedural rooms (train split), 4 scenes in data/mine"."""
    return ", ".join(_told(source) for source in sources)


def told_scenes(ids: Sequence[str]) -> str:
    """How many scenes, and of which split where their names tell: "4 procedural rooms (test split)"."""
    from stereopsis.scenes.rooms.language.splits import split_of

    found = [_ROOM.fullmatch(name) for name in ids]
    if not ids or not all(found):
        return f"{len(ids)} scene{'s'[: len(ids) != 1]}"
    splits = dict.fromkeys(split_of(int(each[1])) for each in found if each)
    return f"{_rooms(len(ids))} ({' and '.join(splits)} split{'s'[: len(splits) != 1]})"


def _told(source: SourceSection) -> str:
    if source.rooms is not None:
        return f"{_rooms(source.rooms)} ({source.split} split)"
    if source.annotations:
        return f"the scenes of {', '.join(source.annotations)} in {source.path}"
    from stereopsis.training.sources import captures_in

    assert source.path is not None
    captures = captures_in(source.path)
    return f"{told_scenes([capture.scene_id or capture.path.name for capture in captures])} in {source.path}"


def _rooms(count: int) -> str:
    return f"{count} procedural room{'s'[: count != 1]}"
