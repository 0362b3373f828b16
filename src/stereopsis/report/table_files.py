"""Results tables as files: Markdown, LaTeX, CSV and HTML."""

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from stereopsis.benchmarks.scoring.statistics import Interval
from stereopsis.errors import RunFolderError
from stereopsis.files import write_atomic
from stereopsis.reading import read_text
from stereopsis.report.published_table import ResultsTable, TableCell, TableRow
from stereopsis.report.tables import title_of
from stereopsis.report.templates import escaped

CSV_FIELDS = ("label", "kind", "task", "metric", "value", "low", "high", "protocol", "source", "notes")
_MISSING = "–"
_FORMULA = ("=", "+", "-", "@", "'")
"""How a spreadsheet's formula may begin, and the sign that keeps it from being one."""
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\textquotedbl{}",
        "†": r"\textdagger{}",
        "‡": r"\textdaggerdbl{}",
        "–": "--",
        "[": "{[}",  # after a line's end, a bare [ or * would be read as that command's argument
        "]": "{]}",
        "*": "{*}",
        "\n": " ",
    }
)
_MARKDOWN = str.maketrans({sign: f"\\{sign}" for sign in "\\|*_`[]<>"} | {"\n": " "})


def write_table(table: ResultsTable, path: Path) -> Path:
    """Write a table in the form that the file's suffix names: .md, .tex, .csv or .html.

    Raises:
        RunFolderError: another suffix.
    """
    require_known_form(path)
    return write_atomic(path, FORMS[path.suffix.lower()](table).encode("utf-8"))


def require_known_form(path: Path) -> None:
    """Raise where a table cannot be written under this name.

    Raises:
        RunFolderError: the suffix names no form.
    """
    if path.suffix.lower() not in FORMS:
        raise RunFolderError(f"{path}: the suffix says how a table is written, and is one of {', '.join(FORMS)}")


def markdown(table: ResultsTable) -> str:
    """A pipe table, footnotes and numbered sources below."""
    sources = _sources(table)
    heads = ["", *(f"{title_of(column.task)} {column.heading}" for column in table.columns), "source"]
    lines = [_piped(_md(head) for head in heads), _piped(["---", *["---:"] * len(table.columns), "---"])]
    for row in table.rows:
        label = f"**{_md(row.label)}**" if row.kind == "ours" else _md(row.label)
        lines.append(_piped([label, *(_md(_shown(cell)) for cell in row.cells), _md(_cited(row, sources))]))
    notes = [*(f"{mark} {text}" for mark, text in table.footnotes.items()), *table.remarks]
    listed = [f"[{number}] {source}" for source, number in sources.items()]
    return "\n".join([*lines, "", *(f"- {_md(text)}" for text in (*notes, *listed)), ""])


def latex(table: ResultsTable) -> str:
    r"""A tabular with booktabs rules, one group of columns per benchmark; needs ``\usepackage{booktabs}``."""
    sources = _sources(table)
    groups: dict[str, int] = {}
    for column in table.columns:
        groups[column.task] = groups.get(column.task, 0) + 1
    spans, rules, start = [], [], 2
    for task, width in groups.items():
        spans.append(rf"\multicolumn{{{width}}}{{c}}{{{_tex(title_of(task))}}}")
        rules.append(rf"\cmidrule(lr){{{start}-{start + width - 1}}}")
        start += width
    lines = [
        "% needs \\usepackage{booktabs} and \\usepackage{textcomp}",
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}l}}",
        r"\toprule",
        f"& {' & '.join(spans)} & \\\\",
        " ".join(rules),
        f"& {' & '.join(_tex(column.heading) for column in table.columns)} & source \\\\",
        r"\midrule",
    ]
    kinds = [row.kind for row in table.rows]
    for index, row in enumerate(table.rows):
        if index and kinds[index] != kinds[index - 1]:
            lines.append(r"\midrule")
        cells = [_tex_cell(cell) for cell in row.cells]
        lines.append(f"{_tex(row.label)} & {' & '.join(cells)} & {_tex(_cited(row, sources))} \\\\")
    lines += [r"\bottomrule", r"\end{tabular}", "", r"\par\smallskip\footnotesize"]
    notes = [*(f"{mark} {text}" for mark, text in table.footnotes.items()), *table.remarks]
    listed = [f"[{number}] {source}" for source, number in sources.items()]
    lines += [f"{_tex(text)}\\\\" for text in (*notes, *listed)]
    return "\n".join(lines) + "\n"


def csv_text(table: ResultsTable) -> str:
    """One line per value, so that it loads into anything; numbers in full precision, empty where unknown."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_FIELDS)
    for row in table.rows:
        for column, cell in zip(table.columns, row.cells, strict=True):
            if cell is not None:
                numbers = ("" if math.isnan(v) else repr(v) for v in (cell.value.mean, cell.value.low, cell.value.high))
                notes = " ".join(table.footnotes[mark] for mark in cell.marks)
                remarks = " ".join((notes, *table.remarks)).strip()
                words = (row.label, row.kind, column.task, column.key)
                writer.writerow(
                    [*map(_word, words), *numbers, *map(_word, (cell.protocol or "", cell.source, remarks))]
                )
    return out.getvalue()


def read_csv(path: Path) -> dict[tuple[str, str, str], Interval]:
    """Load a table that was written as CSV: (label, task, metric) -> value.

    Raises:
        RunFolderError: the file was not written by `write_table`.
    """
    try:
        reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
        if tuple(reader.fieldnames or ()) != CSV_FIELDS:
            raise ValueError(f"its first line is not {','.join(CSV_FIELDS)}")
        return {
            (_read_word(line["label"]), _read_word(line["task"]), _read_word(line["metric"])): Interval(
                mean=_number(line["value"]), low=_number(line["low"]), high=_number(line["high"])
            )
            for line in reader
        }
    except (OSError, ValueError, AttributeError, TypeError, csv.Error) as error:  # also: a line that ends early
        raise RunFolderError(f"{path} is no results table: {error}; write it anew with 'stereopsis report'") from error


def _word(text: str) -> str:
    """Words as a cell that no spreadsheet takes for a formula: an apostrophe stands before what could begin one."""
    return f"'{text}" if text.lstrip()[:1] in _FORMULA else text


def _read_word(cell: str) -> str:
    return cell[1:] if cell[:1] == "'" and cell[1:].lstrip()[:1] in _FORMULA else cell


def html_page(table: ResultsTable) -> str:
    """A page of its own that loads nothing from anywhere."""
    sources = _sources(table)
    head = "".join(
        f"<th>{escaped(title_of(column.task))}<br>{escaped(column.heading)}</th>" for column in table.columns
    )
    body = []
    for row in table.rows:
        cells = "".join(_html_cell(cell) for cell in row.cells)
        cited = f"<td>{escaped(_cited(row, sources))}</td>"
        body.append(f'<tr class="{row.kind}"><th>{escaped(row.label)}</th>{cells}{cited}</tr>')
    notes = [*(f"{mark} {text}" for mark, text in table.footnotes.items()), *table.remarks]
    listed = [f"[{number}] {source}" for source, number in sources.items()]
    below = "".join(f"<li>{escaped(text)}</li>" for text in (*notes, *listed))
    style = (
        "body{font:15px/1.5 system-ui,sans-serif;margin:2em;color:#222;background:#fff}"
        "table{border-collapse:collapse}th,td{padding:.3em .8em;text-align:right;vertical-align:top}"
        "thead th{border-bottom:2px solid #222}tbody th{text-align:left;font-weight:normal}"
        "tr.ours th,tr.ours td{font-weight:600;background:#f0f7f5}"
        "small{color:#555;font-weight:normal;white-space:nowrap}"
        "ul{list-style:none;padding:0;color:#444}"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Results</title>'
        f"<style>{style}</style></head>\n<body><table><thead><tr><th></th>{head}<th>source</th></tr></thead>\n<tbody>"
        + "\n".join(body)
        + f"</tbody></table>\n<ul>{below}</ul></body></html>\n"
    )


FORMS: Mapping[str, Callable[[ResultsTable], str]] = {
    ".md": markdown,
    ".tex": latex,
    ".csv": csv_text,
    ".html": html_page,
}
"""Suffix -> how a table is written."""


def _sources(table: ResultsTable) -> dict[str, int]:
    found = dict.fromkeys(source for row in table.rows for source in row.sources)
    return {source: number for number, source in enumerate(found, start=1)}


def _cited(row: TableRow, sources: Mapping[str, int]) -> str:
    if row.kind == "ours":
        return "this work"
    return ", ".join(f"[{sources[source]}]" for source in row.sources)


def _parts(cell: TableCell) -> tuple[str, str]:
    value = cell.value
    if math.isnan(value.low) or math.isnan(value.high):
        return f"{value.mean:.1f}", ""
    return f"{value.mean:.1f}", f"[{value.low:.1f}, {value.high:.1f}]"


def _shown(cell: TableCell | None) -> str:
    if cell is None:
        return _MISSING
    value, bounds = _parts(cell)
    return f"{value}{' '.join(cell.marks)} {bounds}".strip()


def _piped(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _md(text: str) -> str:
    return text.translate(_MARKDOWN)


def _tex(text: str) -> str:
    return text.translate(_LATEX)


def _tex_cell(cell: TableCell | None) -> str:
    if cell is None:
        return "--"
    value, bounds = _parts(cell)
    marks = rf"\textsuperscript{{{_tex(' '.join(cell.marks))}}}" if cell.marks else ""
    return f"{value}{marks}" + (rf" {{\scriptsize {_tex(bounds)}}}" if bounds else "")


def _html_cell(cell: TableCell | None) -> str:
    if cell is None:
        return f"<td>{_MISSING}</td>"
    value, bounds = _parts(cell)
    marks = f"<sup>{escaped(' '.join(cell.marks))}</sup>" if cell.marks else ""
    return f"<td>{value}{marks}" + (f"<br><small>{escaped(bounds)}</small>" if bounds else "") + "</td>"


def _number(text: str) -> float:
    return float(text) if text else math.nan
