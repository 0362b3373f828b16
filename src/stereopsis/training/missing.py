"""Everything that a recipe needs and that is not there, listed at once: `stereopsis train RECIPE --dry-run`."""

import dataclasses
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

from stereopsis.extras import missing_packages
from stereopsis.training.downloads import SCANNET, Download, download_of
from stereopsis.training.preflight import extras_of
from stereopsis.training.recipe import Recipe
from stereopsis.training.run_folder import base_folder
from stereopsis.training.sections import ASK_FEATURES, ASK_LATENTS, SourceSection

FRAMES = Path("scannet", "posed_images")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Missing:
    """Something that is not there.

    Attributes:
        key: of the recipe.
        place: where it is looked for.
        what: in words, where `download` does not say it.
        download: where it can be had; None where that is not known.
    """

    key: str
    place: str
    what: str = ""
    download: Download | None = None

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"{self.key}: {self.place} is not there" + (f": {self.what}" if self.what else "")
        if self.download is None:
            return
        facts = ", ".join(filter(None, (self.download.size, self.download.licence)))
        yield f"  {self.download.name} ({facts})"
        yield f"  from {self.download.link}"
        if self.download.note:
            yield f"  {self.download.note.format(place=self.place)}"


def missing(recipe: Recipe) -> list[Missing]:
    """What a recipe's training and evaluation need that is not there; nothing is opened or imported."""
    found = [*_base(recipe)]
    for where, sources in (("data.sources", recipe.data.sources), ("evaluation.sources", recipe.evaluation.sources)):
        for number, source in enumerate(sources):
            found += _scenes(f"{where}.{number}", source)
    found += _weights(recipe)
    found += _packages(recipe)
    return list({(each.place, each.what): each for each in reversed(found)}.values())[::-1]


def _base(recipe: Recipe) -> Iterator[Missing]:
    folder = base_folder(recipe)
    if not (folder / "config.json").is_file():
        yield Missing(key="model.base", place=str(folder), download=download_of(folder))


def _scenes(key: str, source: SourceSection) -> Iterator[Missing]:
    if source.path is None:
        return
    if not source.annotations:
        if not source.path.exists():
            yield Missing(key=f"{key}.path", place=str(source.path), what="make it with 'stereopsis prepare'")
        return
    root = next((each for each in (source.path, source.path / "data") if (each / FRAMES).is_dir()), source.path)
    if not (root / FRAMES).is_dir():
        yield Missing(key=f"{key}.path", place=str(root / FRAMES), download=SCANNET)
    for name in source.annotations:
        if not any((root / "processed").rglob(f"{name}_llava_style.json")):
            place = root / "processed" / f"{name}_llava_style.json"
            yield Missing(key=f"{key}.annotations", place=str(place), download=SCANNET)


def _weights(recipe: Recipe) -> Iterator[Missing]:
    start = recipe.denoiser.init
    if start is not None and not start.exists():
        yield Missing(key="denoiser.init", place=str(start), download=download_of(start))
    active = recipe.objectives.active()
    for name, objectives in (("latent", ASK_LATENTS), ("features", ASK_FEATURES)):
        kind, _, place = str(getattr(recipe.teachers, name)).rpartition(":")
        if kind and not Path(place).expanduser().exists() and any(each in active for each in objectives):
            yield Missing(key=f"teachers.{name}", place=place, download=download_of(place))


def _packages(recipe: Recipe) -> Iterator[Missing]:
    sources = (*recipe.data.sources, *recipe.evaluation.sources)
    for extra in ("report", *extras_of(recipe, sources)):
        if packages := missing_packages(extra):
            yield Missing(key="package", place=", ".join(packages), what=f"pip install 'stereopsis[{extra}]'")
    asked = "alignment" in recipe.objectives.active() and str(recipe.teachers.features).startswith("vggt:")
    if asked and importlib.util.find_spec("vggt") is None:
        yield Missing(key="package", place="vggt", what="pip install git+https://github.com/facebookresearch/vggt")


def told(found: Sequence[Missing]) -> list[str]:
    """The list for people; the same download is told once."""
    lines: list[str] = []
    seen: set[str] = set()
    for each in found:
        mine = list(each.lines())
        link = "" if each.download is None else each.download.link
        lines += mine[:1] if link in seen and link else mine
        seen.add(link)
    return lines
