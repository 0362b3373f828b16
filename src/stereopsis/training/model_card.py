"""The card of a trained model: README.md of its folder, as the Hugging Face hub shows it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from stereopsis.benchmarks import benchmark_named
from stereopsis.errors import RunFolderError
from stereopsis.files import write_atomic
from stereopsis.reading import read_json, read_text
from stereopsis.training.preflight import told_sources
from stereopsis.training.recipe import Recipe, load_recipe
from stereopsis.training.run_folder import ENVIRONMENT_FILE, MODEL_FOLDER, RECIPE_FILE

CARD_FILE = "README.md"
SUMMARY = Path("evaluation", "summary.json")


def write_card(run: str | Path) -> Path:
    """Write, or write anew, the card of a run's model: recipe, data, objectives, machine, and figures where there are.

    Args:
        run: a finished run's folder.

    Returns:
        The card.
    """
    run = Path(run)
    path = run / MODEL_FOLDER / CARD_FILE
    write_atomic(path, "\n".join(_lines(run)) + "\n", error=RunFolderError)
    return path


def _lines(run: Path) -> Iterator[str]:
    recipe = load_recipe(run / RECIPE_FILE)
    head = {
        "library_name": "stereopsis",
        "pipeline_tag": "image-text-to-text",
        "tags": ["spatial-understanding", *recipe.objectives.active()],
        **({} if recipe.model.base == "tiny" else {"base_model": Path(recipe.model.base).name}),
    }
    yield "---"
    yield yaml.safe_dump(head, sort_keys=False).rstrip()
    yield "---"
    yield f"# {recipe.name}"
    yield ""
    yield "A multimodal language model, supervised at its visual tokens with Stereopsis. The heads of that supervision"
    yield "(`training_heads.safetensors`) are not needed to use it."
    yield ""
    yield from _facts(recipe, run)
    yield ""
    yield "```python"
    yield "from stereopsis.models import SpatialModel"
    yield "from stereopsis.scenes import Scene"
    yield ""
    yield 'room = SpatialModel.from_pretrained("THIS_FOLDER").enter(Scene.open("SCENE"))'
    yield 'print(room.ask("how many chairs are in the room?"))'
    yield "```"
    yield ""
    yield from _figures(run)
    yield "## Recipe"
    yield ""
    yield "```yaml"
    yield read_text(run / RECIPE_FILE).rstrip()
    yield "```"


def _facts(recipe: Recipe, run: Path) -> Iterator[str]:
    environment = read_json(run / ENVIRONMENT_FILE) if (run / ENVIRONMENT_FILE).is_file() else {}
    base = "the small base that Stereopsis ships" if recipe.model.base == "tiny" else f"`{recipe.model.base}`"
    machine = environment.get("gpu") or environment.get("cpu") or environment.get("machine") or "not recorded"
    yield f"- **Base**: {base}. The licence of these weights is the base's, and that of the data."
    yield f"- **Trained on**: {told_sources(recipe.data.sources)}, {recipe.training.steps} steps, seed {recipe.seed}"
    yield f"- **Objectives**: {', '.join(recipe.objectives.active())}"
    yield f"- **Positions**: {recipe.model.positions}" + (", blind" if recipe.model.blind else "")
    yield f"- **When and where**: {str(environment.get('date') or 'not recorded')[:10]}, {machine}"
    versions: Mapping[str, Any] = environment.get("versions") or {}
    yield f"- **Versions**: {', '.join(f'{name} {value}' for name, value in versions.items()) or 'not recorded'}"


def _figures(run: Path) -> Iterator[str]:
    if not (run / SUMMARY).is_file():
        return
    summary = read_json(run / SUMMARY)
    yield "## Figures"
    yield ""
    yield f"Points with 95 % intervals over scenes; {summary['settings'].get('scenes', 'some')} scenes of"
    yield "the recipe's evaluation sources. Figures of procedural rooms never belong beside published ones."
    yield ""
    yield "| benchmark | samples | figure | points |"
    yield "|---|---|---|---|"
    for task, found in summary["tasks"].items():
        headline = benchmark_named(task).headline
        value = found["overall"][headline]
        known = value.get("low") is not None  # of a single scene there is no interval
        told = f"{value['mean']:.1f}" + (f" ({value['low']:.1f} to {value['high']:.1f})" if known else "")
        yield f"| {benchmark_named(task).title} | {found['count']} | {headline} | {told} |"
    yield ""
