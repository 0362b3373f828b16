"""What a command does first: say something within a second, then bring in the heavy libraries."""

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from stereopsis.errors import StereopsisError
from stereopsis.progress import phase, say

HEAVY = ("torch", "transformers")


def quiet_libraries() -> None:
    """Keep the libraries that come later from talking over our own output; imports none of them."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def load_libraries(console: Console | None, *modules: str) -> None:
    """Import modules of ours that bring torch and transformers along, which may take long after a fresh start.

    Args:
        console: where to say so; None = nowhere.
        modules: with their full names.
    """
    waiting = any(name not in sys.modules for name in HEAVY)
    with phase("Loading PyTorch and transformers", console=console if waiting else None):
        for name in modules:
            importlib.import_module(name)
    if "transformers" in sys.modules:
        from transformers.utils import logging

        logging.disable_progress_bar()


def first_process() -> bool:
    """Whether this is the process that prints, of those that a launcher started."""
    return os.environ.get("RANK", "0") == "0"


def before_evaluation(
    console: Console, model: str, overrides: Sequence[str], scenes: Path | None, rooms: int, annotations: Sequence[str]
) -> None:
    """What `evaluate` can say and refuse before torch is there; see its options.

    Raises:
        StereopsisError: there is nothing to evaluate, no such scenes or file, or a package is missing.
    """
    from stereopsis.training.preflight import check_extras, check_scenes
    from stereopsis.training.recipe import load_recipe
    from stereopsis.training.run_folder import RECIPE_FILE, check_finished, not_evaluable
    from stereopsis.training.sections import SourceSection

    shown, folder = console if first_process() else None, Path(model)
    say(shown, f"Evaluating {model}")
    plan = load_recipe("baseline-tiny")
    if model != "dummy" and not (folder / "config.json").is_file():  # else a model without a run
        if not (folder / RECIPE_FILE).is_file():
            raise not_evaluable(folder)
        check_finished(folder)
        plan = load_recipe(folder / RECIPE_FILE, overrides)
    sources = plan.evaluation.sources
    if scenes is not None:
        sources = (SourceSection(path=scenes),)
    elif rooms:
        sources = (SourceSection(rooms=rooms, split="test"),)
    check_scenes(sources, "evaluation.sources" if scenes is None else "--scenes")
    for each in annotations:
        file = Path(each.partition("=")[2])
        if each.partition("=")[2] and not file.is_file():
            raise StereopsisError(f"--annotations {each}: there is no file {file}; correct the path")
    check_extras(plan, "The evaluation", "report", sources=sources)
    load_libraries(shown, "stereopsis.evaluation.evaluate_run", "stereopsis.report")
