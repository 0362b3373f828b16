"""The report's main table for a terminal."""

import math
from pathlib import Path

from rich.table import Table
from rich.text import Text

from stereopsis.benchmarks.scoring.statistics import Interval
from stereopsis.report.curves import OBJECTIVES, loss_falls
from stereopsis.report.read import ReportSubject, read_subject
from stereopsis.report.tables import BOLD_RULE, absent_metrics, main_table, title_of


def text_table(folder: Path) -> Table:
    """The ablation table of a run or comparison; without an evaluation, how far each loss fell.

    Args:
        folder: run folder or comparison folder.

    Raises:
        RunFolderError: the folder is neither, or something in it is damaged.
    """
    subject = read_subject(folder, alone=True)
    table = main_table(subject)
    if not table.rows:
        return _loss_table(subject)
    absent = absent_metrics((arm.label, arm.evaluation) for arm in subject.arms if arm.evaluation is not None)
    caption = " ".join(["Points, with 95 % intervals over scenes.", BOLD_RULE, *absent])
    view = Table(title=Text(subject.title), caption=Text(caption))
    # arms across, metrics down: a comparison has few arms and many metrics, and terminals are narrow
    view.add_column("")
    for row in table.rows:
        view.add_column(Text(row.label, style="dim" if row.kind == "baseline" else ""), justify="right")
    for index, column in enumerate(table.columns):
        cells = [_cell(row.cells[index].value, best=row.cells[index].best) for row in table.rows]
        view.add_row(f"{title_of(column.task)} {column.heading}", *cells)
    return view


def _cell(value: Interval | None, *, best: bool) -> Text:
    if value is None or math.isnan(value.mean):
        return Text("-", style="dim")
    shown = Text(f"{value.mean:.1f}", style="bold" if best else "")
    if not math.isnan(value.low):
        shown.append(f"\n{value.low:.1f}-{value.high:.1f}", style="dim not bold")
    return shown


def _loss_table(subject: ReportSubject) -> Table:
    view = Table(
        title=Text(subject.title),
        caption="Loss: first logged value, mean of the last tenth, and their ratio.",
    )
    view.add_column("objective")
    falls = loss_falls(subject)
    arms = [(index, arm) for index, arm in enumerate(subject.arms) if any(index in each for each in falls.values())]
    for _, arm in arms:
        view.add_column(Text(arm.label), justify="right")
    for name, by_arm in falls.items():
        title = OBJECTIVES[name][0] if name in OBJECTIVES else name
        cells = []
        for index, _ in arms:
            fall = by_arm.get(index)
            shown = "-" if fall is None else f"{fall.start:.3g} -> {fall.end:.3g}"
            if fall is not None and not math.isnan(fall.factor):
                shown += f" ({fall.factor:.2g}x)"
            cells.append(Text(shown))
        view.add_row(Text(title), *cells)
    return view
