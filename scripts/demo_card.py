"""Write results/demo.md from folders that ``stereopsis demo`` made: everyone's times, and what the first one measured.

python scripts/demo_card.py demo [demo-elsewhere ...] --output results/demo.md
"""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stereopsis.benchmarks.scoring.statistics import Interval
from stereopsis.experiment import COMPARISON_FILE
from stereopsis.experiment.arms import FINISHED_FILE
from stereopsis.files import write_atomic
from stereopsis.progress import duration
from stereopsis.report.headlines import arm_headlines, contrasts
from stereopsis.report.read import ReportSubject, read_subject
from stereopsis.report.tables import main_table, type_table


def made(folder: Path) -> dict[str, Any]:
    """How a demo was made, how long it took in all and in each arm's training."""
    record = json.loads((folder / COMPARISON_FILE).read_text())
    if record["kept"]:
        raise SystemExit(f"{folder}: {', '.join(record['kept'])} lay there already, so its time says nothing")
    arms = [folder / arm["folder"] for arm in record["arms"]]
    started = json.loads((arms[-1] / "environment.json").read_text())
    seconds = {arm.name: json.loads((arm / FINISHED_FILE).read_text())["train_seconds"] for arm in arms}
    return record | {"started": started, "train": seconds}


def times_table(demos: Sequence[dict[str, Any]]) -> list[str]:
    """A line a demo."""
    arms = [arm["label"] for arm in demos[0]["arms"]]
    lines = [_row("date", "CPU", "kernels", "cores", "precision", "in all", *(f"training: {arm}" for arm in arms))]
    lines.append("|---" * (6 + len(arms)) + "|")
    for demo in demos:
        where, precision = demo["environment"], demo["started"]["precision"]
        lines.append(
            _row(
                where["date"][:10],
                where["cpu"] or where["machine"],
                where["cpu_kernels"],
                where["cpu_threads"],
                f"{precision['name']} ({precision['reason']})",
                f"**{duration(demo['seconds'])}**",
                *(duration(seconds) for seconds in demo["train"].values()),
            )
        )
    return lines


def headlines(subject: ReportSubject) -> list[str]:
    """Mean EM over question types of every arm that sees, over the blind one, and between them."""
    lines = []
    for head in arm_headlines(subject):
        over = "" if head.over_blind is None else f", {_signed(head.over_blind)} over blind"
        em = "-" if head.em is None else _plain(head.em)
        lines.append(f"- {subject.arms[head.arm].label}: EM, mean of {head.types} question types: {em}{over}.")
    for contrast in contrasts(subject):
        first, second = subject.arms[contrast.first].label, subject.arms[contrast.second].label
        verdict = "the interval leaves 0 out" if contrast.separates else "not told from noise"
        lines.append(f"- *{first}* minus *{second}*: {_signed(contrast.difference)}; {verdict}.")
    return lines


def metrics_table(subject: ReportSubject) -> list[str]:
    """Metrics down, arms across."""
    table = main_table(subject)
    lines = [_row("", *(row.label for row in table.rows)), "|---" * (1 + len(table.rows)) + "|"]
    for index, column in enumerate(table.columns):
        values = [row.cells[index].value for row in table.rows]
        lines.append(_row(f"{column.task} {column.heading}", *("-" if v is None else _plain(v) for v in values)))
    return lines


def types_table(subject: ReportSubject) -> list[str]:
    """EM by question type."""
    groups = [group for group in type_table(subject) if group.column.metric == "em"]
    arms = [subject.arms[cell.arm].label for cell in groups[0].macro.cells]
    lines = [_row("question type", "samples", "majority", *arms), "|---" * (3 + len(arms)) + "|"]
    for group in groups:
        for row in group.rows:
            values = ["-" if cell.value is None else f"{cell.value.mean:.0f}" for cell in row.cells]
            lines.append(_row(f"{group.column.task} {row.name}", row.count, f"{row.baseline:.0f}", *values))
    return lines


def _row(*cells: Any) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _plain(value: Interval) -> str:
    known = f" ({value.low:.1f} to {value.high:.1f})" if math.isfinite(value.low) else ""
    return f"{value.mean:.1f}{known}"


def _signed(value: Interval) -> str:
    return f"{value.mean:+.1f} points ({value.low:+.1f} to {value.high:+.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, default=Path("results/demo.md"))
    args = parser.parse_args()
    demos, subject = [made(folder) for folder in args.folders], read_subject(args.folders[0])
    recipe = json.loads((args.folders[0] / demos[0]["arms"][-1]["folder"] / FINISHED_FILE).read_text())["made_with"]
    rooms = sum(source["rooms"] or 0 for source in recipe["data"]["sources"])
    test = sum(source["rooms"] or 0 for source in recipe["evaluation"]["sources"])
    steps, seed = recipe["training"]["steps"], recipe["seed"]
    lines = [
        "# The demo",
        "",
        f"`make demo`, timed after installation: {rooms} training rooms, {steps} steps an arm, {test} unseen test "
        f"rooms, seed {seed}, torch {demos[0]['environment']['versions']['torch']}. Written by `scripts/demo_card.py`.",
        "",
        *times_table(demos),
        "",
        "What the first of them measured (points; 95 % intervals over scenes; one seed is an anecdote):",
        "",
        *headlines(subject),
        "",
        *metrics_table(subject),
        "",
        *types_table(subject),
    ]
    write_atomic(args.output, "\n".join(lines) + "\n")
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
