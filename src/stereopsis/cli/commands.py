"""The command line: demo, prepare, train, engine, reconstruct, evaluate, score, compare, probe, serve, report, info."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from stereopsis import __version__
from stereopsis.cli import cache as cache_command
from stereopsis.cli import convert, demo, engine, failures, info, merge, prepare, probe, reconstruct, score
from stereopsis.cli import mcp as mcp_command
from stereopsis.cli import serve as serve_command
from stereopsis.cli import view as view_command
from stereopsis.cli.benchmark_names import declared_names
from stereopsis.cli.interrupts import advise, interruptible
from stereopsis.cli.startup import before_evaluation, first_process, load_libraries, quiet_libraries
from stereopsis.errors import StereopsisError
from stereopsis.extras import require_extras
from stereopsis.progress import phase, say

if TYPE_CHECKING:
    from stereopsis.training.recipe import Recipe

app = typer.Typer(
    name="stereopsis",
    help="Give a multimodal LLM a sense of 3D space by supervising what it outputs at its visual tokens.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
console = Console()
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", help="Override a recipe key, e.g. -s training.steps=50; may be repeated."),
]


def _show_version(value: bool) -> bool:
    if value:
        console.print(f"stereopsis {__version__}", highlight=False)
        raise typer.Exit
    return value


@app.callback()
def _top(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Version.")] = False,
) -> None:
    """Quiet the libraries that would talk over our own output."""
    quiet_libraries()
    warnings.filterwarnings("ignore", category=FutureWarning)


demo.register(app)


prepare.register(app)


@app.command(
    epilog="Examples: stereopsis train stereopsis-tiny --output runs/first -s training.steps=100   |   "
    "stereopsis train ross3d-7b --dry-run   |   "
    "torchrun --nproc-per-node 8 -m stereopsis train ross3d-7b -o runs/ross3d"
)
def train(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of one in recipes/.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Run folder to make.")] = None,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List everything that is missing, and where to get it; make nothing.")
    ] = False,
    init_from: Annotated[
        Path | None, typer.Option("--init-from", help="Start from the weights of this finished run, heads included.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(help="Continue the run in --output from its newest checkpoint, perhaps with more training.steps."),
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace the run in --output.")] = False,
    pictures: Annotated[int, typer.Option(min=0, help="Draw reconstructions of so many scenes at the end.")] = 3,
) -> None:
    """Train a recipe; writes the model, loss curves, pictures of reconstructions and a report.

    'accelerate launch' and torchrun train on several processes: see 'stereopsis engine'.
    """
    if first_process():
        say(console, f"Reading the recipe {recipe}")
    from stereopsis.training.preflight import advice, check_extras, check_places, told_sources
    from stereopsis.training.recipe import load_recipe
    from stereopsis.training.run_folder import check_run_folder, how_to_go_on, start_from

    start = [] if init_from is None else start_from(init_from)
    plan = load_recipe(recipe, [*start, *(overrides or [])])
    if dry_run:
        _tell_missing(plan)
        return
    if output is None:
        raise typer.BadParameter("name the run folder with --output (or --dry-run to see what is missing)")
    check_run_folder(output, plan, resume=resume, overwrite=overwrite)
    check_places(plan)
    advise(lambda: how_to_go_on(output, plan))
    if first_process():
        say(console, f"Training {plan.name} for {plan.training.steps} steps, into {output}")
        say(console, f"Scenes: {told_sources(plan.data.sources)}")
        for text in advice(plan):
            console.print(f"[yellow]note:[/yellow] {escape(text)}", highlight=False, soft_wrap=True)
    check_extras(plan, "Training", "report")
    load_libraries(console if first_process() else None, "stereopsis.experiment", "stereopsis.report")
    from stereopsis.experiment import train_and_draw
    from stereopsis.report import write_report

    run = train_and_draw(plan, output, resume=resume, overwrite=overwrite, pictures=pictures, console=console)
    if not run.processes.main:
        return
    _show("Model: ", output / "model")
    with phase("Writing the report", console=console):
        page = write_report(output)
    _show("Report:", page)


def _tell_missing(plan: "Recipe") -> None:
    """What a recipe needs that is not there; ends with 1 where that is anything."""
    from stereopsis.training.missing import missing, told

    found = missing(plan)
    for line in told(found):
        typer.echo(line)
    if found:
        typer.echo(f"\n{len(found)} thing{'s'[: len(found) != 1]} missing; nothing was made")
        raise typer.Exit(1)
    typer.echo(f"Everything that {plan.name} needs is there. What it will cost: stereopsis info {plan.name}")


@app.command(
    epilog="Examples: stereopsis evaluate runs/first --rooms 50   |   "
    "stereopsis evaluate runs/first --benchmarks NAME,NAME --limit 100 --dry-run   |   "
    "stereopsis evaluate models/ross3d --scenes data/scannet -o results/ross3d   |   "
    "stereopsis evaluate dummy --scenes data/mine -o runs/dummy --annotations NAME=FILE.json   |   "
    "torchrun --nproc-per-node 8 -m stereopsis evaluate runs/first"
)
def evaluate(
    model: Annotated[
        str, typer.Argument(help="A run folder, a model folder or converted checkpoint, or 'dummy' (simple rules).")
    ],
    benchmarks: Annotated[str | None, typer.Option(help=f"Only these of {declared_names()}.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many questions of each benchmark.")] = None,
    scenes: Annotated[Path | None, typer.Option(help="Prepared scenes (instead of the recipe's).")] = None,
    annotations: Annotated[
        list[str] | None,
        typer.Option(help="Ask what a benchmark's file asks: BENCHMARK=FILE; may be repeated. Needs --scenes."),
    ] = None,
    protocols: Annotated[
        list[str] | None,
        typer.Option("--protocol", help="Another protocol than the default: BENCHMARK=NAME; may be repeated."),
    ] = None,
    meteor: Annotated[bool, typer.Option(help="METEOR too, where a benchmark reports it and Java is there.")] = True,
    rooms: Annotated[int, typer.Option(min=0, help="So many unseen test rooms (instead of the recipe's).")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the evaluation goes (instead of the run).")
    ] = None,
    precision: Annotated[str, typer.Option(help="auto, bf16 or fp32.")] = "auto",
    overwrite: Annotated[bool, typer.Option(help="Replace an evaluation that is there.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Only tell what would be evaluated.")] = False,
    overrides: Overrides = None,
) -> None:
    """Answer, describe and point on unseen scenes; prints the table and keeps every single answer.

    Start it again to go on where it was stopped; torchrun or 'accelerate launch' share the scenes over processes.
    """
    before_evaluation(console, model, overrides or [], scenes, rooms, annotations or [])
    from stereopsis.benchmarks.files.submissions import submissions
    from stereopsis.evaluation.evaluate_run import Request, execute, make_plan
    from stereopsis.evaluation.evaluate_run import dry_run as tell
    from stereopsis.evaluation.questions import parse_annotation_files, parse_protocols
    from stereopsis.evaluation.sharding import join
    from stereopsis.report import text_table, write_report

    plan = make_plan(
        Request(
            model=model,
            overrides=tuple(overrides or ()),
            benchmarks=benchmarks,
            limit=limit,
            scenes=scenes,
            annotations=parse_annotation_files(annotations or ()),
            protocols=parse_protocols(protocols or ()),
            meteor=meteor,
            rooms=rooms or None,
            output=output,
            precision=precision,
            overwrite=overwrite,
        )
    )
    if dry_run:
        info.show_facts(tell(plan))
        return
    processes = join()
    found = execute(plan, processes=processes, console=console if processes.main else None)
    if processes.main and plan.output is not None:
        with phase("Writing the report", console=console):
            page = write_report(plan.output, scenes=found)
        console.print(text_table(plan.output))
        for sent in submissions(plan.evaluation):
            _show("Submission:", sent)
        _show("Report:", page)


reconstruct.register(app)
score.register(app)
probe.register(app)
convert.register(app)
cache_command.register(app)
engine.register(app)
for each in (serve_command, view_command, mcp_command):
    each.register(app)


@app.command(
    epilog="Examples: stereopsis report demo   |   stereopsis report runs/first scored/theirs --table table.tex "
    "--table table.csv"
)
def report(
    folders: Annotated[
        list[Path], typer.Argument(help="A run folder, or a comparison made by 'demo'; with --table also several.")
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The HTML file to write.")] = None,
    scenes: Annotated[
        Path | None, typer.Option(help="The evaluated scenes, where they are no longer where they were.")
    ] = None,
    tables: Annotated[
        list[Path] | None, typer.Option("--table", help="Only a table, .md .tex .csv or .html; may be repeated.")
    ] = None,
) -> None:
    """Make the one-file HTML report of a run or of a comparison again, or a table beside published results."""
    if not tables:
        require_extras("A report", "report")
    for folder in folders:
        if not folder.is_dir():
            raise StereopsisError(f"there is no folder {folder}; name a run, a comparison or an evaluation's folder")
    load_libraries(console, "stereopsis.report")
    from stereopsis.report import write_report

    if tables:
        score.write_tables(folders, tables)
        return
    if len(folders) > 1:
        raise StereopsisError("a report is about one folder; put several results into one table with --table FILE")
    _show("Report:", write_report(folders[0], output, scenes=scenes))


info.register(app)
merge.register(app)


def _show(what: str, path: Path) -> None:
    """Name a place on disk in one line, however narrow the terminal, so that it can be copied."""
    console.print(f"{what} [bold]{escape(str(path.resolve()))}[/bold]", highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point: errors made for people are printed without a traceback, Ctrl-C says how to go on."""
    with interruptible():
        try:
            app(prog_name="stereopsis")
        except (StereopsisError, *failures.EXPECTED) as error:
            failures.end_with(error)
