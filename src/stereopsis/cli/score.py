"""The command line's part for results: score other people's predictions, compare two results."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stereopsis import __version__
from stereopsis.cli.benchmark_names import declared_names
from stereopsis.errors import StereopsisError

if TYPE_CHECKING:
    from stereopsis.benchmarks import Summary
    from stereopsis.benchmarks.files.matching import ScoredFile
    from stereopsis.benchmarks.files.result_files import ScoredResult
    from stereopsis.benchmarks.scoring.comparison import MetricComparison, TaskComparison

console = Console()


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command(
        epilog="Examples: stereopsis score theirs.jsonl --benchmark NAME --annotations OFFICIAL_FILE.json   "
        "|   stereopsis score val.jsonl -b NAME -a NAME_val_llava_style.json --protocol released --json figures.json   "
        "|   stereopsis score answers.json -b NAME -a OFFICIAL_FILE.json -o scored/mine"
    )(score)
    app.command(
        epilog="Examples: stereopsis compare runs/with runs/without   |   stereopsis compare scored/mine scored/theirs "
        "--benchmark NAME --by-type --json difference.json"
    )(compare)


def score(
    predictions: Annotated[Path, typer.Argument(help="Predictions: JSON lines, a JSON list, or {id: answer}.")],
    benchmark: Annotated[str, typer.Option("--benchmark", "-b", help=f"Its name: {declared_names()}.")],
    annotations: Annotated[
        Path, typer.Option("--annotations", "-a", help="The benchmark's own file, or a *_llava_style.json.")
    ],
    protocol: Annotated[
        str | None, typer.Option("--protocol", help="A variant of the metric by name; the benchmark's card lists them.")
    ] = None,
    boxes: Annotated[
        Path | None, typer.Option("--boxes", help="Candidates, {scene: [[cx, cy, cz, dx, dy, dz], ...]}.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures: metric name to value in percent.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Keep what every sample was worth, for 'compare', 'report'.")
    ] = None,
    missing_as_wrong: Annotated[
        bool, typer.Option("--missing-as-wrong", help="Annotations without prediction score 0.")
    ] = False,
    meteor: Annotated[bool, typer.Option(help="METEOR too, where the benchmark reports it and Java is there.")] = True,
    name: Annotated[
        str | None, typer.Option(help="What tables call this result; the file's name if not given.")
    ] = None,
    submission: Annotated[
        Path | None, typer.Option(help="Write the answers in the form that the benchmark's own server takes.")
    ] = None,
) -> None:
    """Score a file of predictions, whoever made it: the formats of Video-3D-LLM, 3DRS and Ross3D, or {id: answer}.

    Shows every metric with its 95 % interval over scenes, by question type too.
    """
    from stereopsis.benchmarks import benchmark_named, protocols_of, read_annotation_records
    from stereopsis.benchmarks import score as score_predictions
    from stereopsis.benchmarks.files.box_files import read_boxes
    from stereopsis.benchmarks.files.matching import read_file, require_captions, score_file
    from stereopsis.benchmarks.files.predictions import read_predictions
    from stereopsis.benchmarks.files.submissions import write_submission

    task = _task(benchmark)
    named = protocols_of(None if protocol is None else {task: protocol})[task].name
    records = read_annotation_records(task, annotations)
    file = read_predictions(predictions, task)
    require_captions(file, task, named)
    proposals = None if boxes is None else read_boxes(boxes)
    if submission is not None:
        said = read_file(file, records, proposals=proposals, missing_as_wrong=missing_as_wrong)
        write_submission(submission, task, said.predictions)
        console.print(f"Submission: [bold]{escape(str(submission.resolve()))}[/bold]", highlight=False, soft_wrap=True)
        if benchmark_named(task).unanswered(record.annotation for record in records):
            _tell((*said.notes, "These annotations have no answers, so nothing was scored."))
            return
    scored = score_file(
        file,
        records,
        lambda each: score_predictions(each, protocols={task: named}, meteor=meteor),
        proposals=proposals,
        missing_as_wrong=missing_as_wrong,
    )
    _show(scored, name or predictions.name, json_file)
    if output is not None:
        _keep(output, scored, name or predictions.stem)


def _show(scored: "ScoredFile", title: str, json_file: Path | None) -> None:
    from stereopsis.benchmarks import benchmark_named, summarise
    from stereopsis.benchmarks.scoring.choices import chances

    (summary,) = summarise(scored.samples).values()
    console.print(_summary_table(title, summary))
    _tell((*(f"no {metric}: {reason}" for metric, reason in summary.unavailable.items()), *scored.notes))
    benchmark = benchmark_named(summary.task)
    if benchmark.kind == "choice" and benchmark.chance is not None:
        worth = chances(scored.predictions, benchmark.chance)
        told = ", ".join(f"{kind} {value:.1f}" for kind, value in worth.items())
        _tell([f"a random option: {told} (points; what lies near it was guessed)."] if told else [])
    if json_file is not None:
        _write_json(json_file, flat_figures(summary))


def _tell(notes: Sequence[str]) -> None:
    for note in notes:
        console.print(f"[yellow]note:[/yellow] {escape(note)}", highlight=False, soft_wrap=True)


def flat_figures(summary: "Summary") -> dict[str, float]:
    """Metric name -> value in percent; a question type's as ``metric/type``."""
    figures = {name: value.mean for name, value in summary.overall.items()}
    for kind, values in summary.by_type.items():
        figures.update({f"{name}/{kind}": value.mean for name, value in values.items()})
    return figures


def compare(
    first: Annotated[Path, typer.Argument(help="A run, its evaluation folder, or what 'score --output' wrote.")],
    second: Annotated[Path, typer.Argument(help="The other one.")],
    benchmark: Annotated[
        str | None, typer.Option("--benchmark", "-b", help="Only this benchmark; all that both hold if not given.")
    ] = None,
    by_type: Annotated[bool, typer.Option("--by-type", help="Every question type as well.")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write everything that is shown, and by type.")
    ] = None,
    draws: Annotated[int, typer.Option(min=1, help="Bootstrap draws and random swaps.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
) -> None:
    """Compare two results on the same questions: difference with interval, p-value, wins, losses and ties.

    The scene is the unit of both tests. Results on other questions, or under another protocol, are refused.
    """
    from stereopsis.benchmarks import benchmark_named
    from stereopsis.benchmarks.files.result_files import read_result
    from stereopsis.benchmarks.scoring.comparison import compare_samples

    one, two = read_result(first), read_result(second)
    wanted = None if benchmark is None else _task(benchmark)
    tasks = _common_tasks(one, two, wanted)
    found: dict[str, Any] = {}
    for task in tasks:
        samples = [sample for result in (one, two) for sample in result.samples[task]]
        known = [m for m in benchmark_named(task).metrics if all(m.name in sample.scores for sample in samples)]
        if not known:
            raise StereopsisError(f"{task}: the two results share no metric; score both with the same version")
        result = compare_samples(one.samples[task], two.samples[task], known, n=draws, seed=seed)
        console.print(_comparison_table(result, one.protocols.get(task), by_type))
        found[task] = _plain(result)
    console.print(
        f"[dim]A = {escape(str(first))}, B = {escape(str(second))}. Points; 95 % bootstrap intervals over scenes; p of "
        "the permutation test over scenes, of this one comparison (many comparisons need a stricter limit).[/dim]",
        highlight=False,
        soft_wrap=True,
    )
    if json_file is not None:
        _write_json(
            json_file, {"first": str(first), "second": str(second), "draws": draws, "seed": seed, "tasks": found}
        )


def write_tables(folders: Sequence[Path], files: Sequence[Path]) -> None:
    """Put our results beside published ones, in every form that was asked for.

    Raises:
        RunFolderError: a folder holds no evaluation, or a file's suffix names no form.
    """
    from stereopsis.benchmarks import protocols_of, published_figures
    from stereopsis.report.published_table import read_own_results, results_table
    from stereopsis.report.table_files import require_known_form, write_table

    for file in files:
        require_known_form(file)
    defaults = {task: protocol.name for task, protocol in protocols_of().items()}
    table = results_table(read_own_results(folders), published_figures(), default_protocols=defaults)
    for file in files:
        console.print(f"Table: [bold]{escape(str(write_table(table, file).resolve()))}[/bold]", soft_wrap=True)
    for text in (*(f"{mark} {note}" for mark, note in table.footnotes.items()), *table.remarks):
        console.print(escape(text), highlight=False, soft_wrap=True)


def _task(name: str) -> str:
    from stereopsis.benchmarks import benchmark_named

    return benchmark_named(name).name


def _keep(folder: Path, scored: "ScoredFile", name: str) -> None:
    from stereopsis.benchmarks import summarise
    from stereopsis.evaluation.records import record_of, summary_dict, write_results

    (summary,) = summarise(scored.samples).values()

    # what the score needs besides comes first, so that the record's own fields keep their form
    records = [{**s.to_dict(), **record_of(p, s)} for p, s in zip(scored.predictions, scored.samples, strict=True)]
    settings = {"name": name, "stereopsis": __version__, "protocols": {summary.task: summary.protocol}}
    write_results(folder, records, summary_dict({summary.task: summary}), settings)
    console.print(f"Every sample: [bold]{escape(str(folder.resolve()))}[/bold]", highlight=False, soft_wrap=True)


def _summary_table(name: str, summary: "Summary") -> Table:
    table = Table(
        title=f"{escape(name)}: {summary.task}, {summary.count} samples in {summary.scene_count} scenes, "
        f"protocol {escape(summary.protocol)}",
        caption="Points, with 95 % bootstrap intervals over scenes.",
    )
    table.add_column("metric")
    table.add_column("type")
    table.add_column("samples", justify="right")
    table.add_column("value", justify="right")
    table.add_column("interval", justify="right")
    for metric, value in summary.overall.items():
        table.add_row(escape(metric), "all", str(summary.count), f"{value.mean:.2f}", _bounds(value.low, value.high))
    first = next(iter(summary.overall))
    shown = [first] if len(summary.overall) > 2 else list(summary.overall)
    for kind, values in summary.by_type.items() if len(summary.by_type) > 1 else ():
        for metric in shown:
            value = values[metric]
            count = str(summary.type_counts[kind])
            table.add_row(escape(metric), escape(kind), count, f"{value.mean:.2f}", _bounds(value.low, value.high))
    return table


def _bounds(low: float, high: float) -> str:
    return "-" if math.isnan(low) or math.isnan(high) else f"{low:.2f} to {high:.2f}"


def _common_tasks(one: "ScoredResult", two: "ScoredResult", wanted: str | None) -> list[str]:
    """The benchmarks to compare; results that differ in benchmarks, questions or protocols are refused."""
    if wanted is not None:
        for result in (one, two):
            if wanted not in result.samples:
                raise StereopsisError(f"{result.path} holds no {wanted}; it holds {', '.join(result.samples)}")
    elif set(one.samples) != set(two.samples):
        alone = sorted(set(one.samples) ^ set(two.samples))
        raise StereopsisError(
            f"the two results hold different benchmarks ({', '.join(alone)} only in one); name one that both hold with "
            "--benchmark"
        )
    tasks = [task for task in one.samples if wanted is None or task == wanted]
    for task in tasks:
        named = [result.protocols.get(task) for result in (one, two)]
        if None not in named and named[0] != named[1]:
            raise StereopsisError(
                f"{task}: the first result was scored under protocol '{named[0]}', the second under '{named[1]}'; "
                "score both under one (stereopsis score --protocol)"
            )
        if named.count(None) == 1:
            console.print(f"[yellow]note:[/yellow] {task}: only one of the two results states its protocol.")
        other = sorted(
            key[1]
            for key in one.questions.keys() & two.questions.keys()
            if key[0] == task and one.questions[key] != two.questions[key]
        )
        if other:
            raise StereopsisError(
                f"{task}: {len(other)} samples ask something else in the two results ({', '.join(other[:5])}); their "
                "ids are the same, their questions are not"
            )
    return tasks


def _comparison_table(result: "TaskComparison", protocol: str | None, by_type: bool) -> Table:
    stated = "" if protocol is None else f", protocol {escape(protocol)}"
    table = Table(title=f"{result.task}: {result.count} samples in {result.scene_count} scenes{stated}")
    table.add_column("metric")
    if by_type:
        table.add_column("type")
    for heading in ("A", "B", "A - B", "interval", "p", "wins", "losses", "ties"):
        table.add_column(heading, justify="right")

    def add(metric: str, kind: str, each: "MetricComparison") -> None:
        p = "-" if math.isnan(each.p_value) else f"{each.p_value:.4f}"
        gap = each.difference
        numbers = (f"{each.first:.2f}", f"{each.second:.2f}", f"{gap.mean:+.2f}", _bounds(gap.low, gap.high), p)
        counts = (str(each.wins), str(each.losses), str(each.ties))
        table.add_row(escape(metric), *([escape(kind)] if by_type else []), *numbers, *counts)

    for metric, each in result.overall.items():
        add(metric, "all", each)
        for kind, values in result.by_type.items() if by_type else ():
            add(metric, kind, values[metric])
    return table


def _plain(result: "TaskComparison") -> dict[str, Any]:
    def one(each: "MetricComparison") -> dict[str, Any]:
        gap = each.difference
        values = {
            "first": each.first,
            "second": each.second,
            "difference": gap.mean,
            "low": gap.low,
            "high": gap.high,
            "p_value": each.p_value,
        }
        counts = {"wins": each.wins, "losses": each.losses, "ties": each.ties}
        return {**{key: None if math.isnan(value) else value for key, value in values.items()}, **counts}

    return {
        "count": result.count,
        "scene_count": result.scene_count,
        "overall": {metric: one(each) for metric, each in result.overall.items()},
        "by_type": {kind: {m: one(each) for m, each in values.items()} for kind, values in result.by_type.items()},
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Written whole or not at all."""
    from stereopsis.files import write_atomic

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
    console.print(f"Figures: [bold]{escape(str(path.resolve()))}[/bold]", highlight=False, soft_wrap=True)
