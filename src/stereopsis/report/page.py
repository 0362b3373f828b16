"""The page: everything gathered, rendered with one template, written whole or not at all."""

import datetime
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stereopsis.benchmarks.scoring.statistics import Interval
from stereopsis.errors import RunFolderError
from stereopsis.files import write_atomic
from stereopsis.progress import duration
from stereopsis.report.curves import loss_charts
from stereopsis.report.grounding import expressions
from stereopsis.report.headlines import arm_headlines, contrasts
from stereopsis.report.pictures import picture_groups, picture_scores
from stereopsis.report.questions import question_scenes
from stereopsis.report.read import ReportedArm, ReportSubject, read_subject
from stereopsis.report.rooms import scene_folders
from stereopsis.report.scene3d import plotly_script
from stereopsis.report.style import TARGET_HEX, arm_hex
from stereopsis.report.tables import BOLD_RULE, absent_metrics, main_table, title_of, type_table
from stereopsis.report.templates import TEMPLATE_FOLDER, template_environment

REPORT_FILE = "report.html"
TYPE_NAMES = {
    "zt_w_d": "nothing meant, similar there",
    "zt_wo_d": "nothing meant, nothing similar",
    "st_w_d": "one meant, similar there",
    "st_wo_d": "one meant, nothing similar",
    "mt": "several meant",
}


def write_report(folder: str | Path, output: str | Path | None = None, *, scenes: str | Path | None = None) -> Path:
    """Write one self-contained HTML file about a run or a comparison of runs.

    Args:
        folder: a run folder (``recipe.yaml``) or a comparison folder (``comparison.json``).
        output: file to write; ``report.html`` in the folder where left out. It is replaced in one step.
        scenes: folder of the evaluated scenes, where the comparison does not name it; without scenes the report
            shows questions without views, and no boxes.

    Returns:
        The file.

    Raises:
        RunFolderError: the folder is neither, or something in it is incomplete or damaged.
        MissingExtraError: jinja2 or plotly is not installed.
        SceneError: a scene that the report shows is damaged.
    """
    folder, scenes = Path(folder), None if scenes is None else Path(scenes)
    replaces = output is None and (folder / REPORT_FILE).exists()
    page = render(read_subject(folder, scenes, alone=not replaces))
    output = folder / REPORT_FILE if output is None else Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(output, page, error=RunFolderError)
    return output


def render(subject: ReportSubject) -> str:
    """The page as text.

    Raises:
        MissingExtraError: jinja2 or plotly is not installed.
    """
    environment = template_environment()
    import markupsafe

    environment.filters.update(num=number, interval=bounds, signed=signed, decibel=decibel, type_name=type_name)
    folders = scene_folders(subject.scenes)
    _check_scenes(subject, folders)
    grounded = expressions(subject, folders)
    in_3d = any(each.figure is not None for each in grounded)
    trusted = {
        "css": markupsafe.Markup((TEMPLATE_FOLDER / "page.css").read_text(encoding="utf-8")),
        "script": markupsafe.Markup((TEMPLATE_FOLDER / "page.js").read_text(encoding="utf-8")),
        "plotly": markupsafe.Markup(plotly_script()) if in_3d else None,
    }
    return environment.get_template("page.html.jinja").render(
        **trusted,
        subject=subject,
        facts=facts(subject),
        arms=[arm_facts(arm) for arm in subject.arms],
        colour=arm_hex,
        target_colour=TARGET_HEX,
        title_of=title_of,
        bold_rule=BOLD_RULE,
        absent=absent_metrics((arm.label, arm.evaluation) for arm in subject.arms if arm.evaluation is not None),
        headlines=arm_headlines(subject),
        contrasts=contrasts(subject),
        table=main_table(subject),
        types=type_table(subject),
        charts=loss_charts(subject),
        above=picture_groups(subject, "birds_eye"),
        above_scores=picture_scores(subject, "birds_eye"),
        hidden=picture_groups(subject, "masked_view"),
        hidden_scores=picture_scores(subject, "masked_view"),
        question_scenes=question_scenes(subject, folders),
        expressions=grounded,
        sizes=[(title_of(task), summary.count, summary.scene_count) for task, summary in _tasks(subject).items()],
        seeds=sorted({str(arm.run.setting("seed")) for arm in subject.arms if arm.run is not None}),
    )


def _check_scenes(subject: ReportSubject, folders: Mapping[str, Path]) -> None:
    asked = {r.scene_id for arm in subject.arms if arm.evaluation is not None for r in arm.evaluation.records}
    if folders and asked and asked.isdisjoint(folders):
        raise RunFolderError(
            f"{subject.scenes} holds none of the {len(asked)} evaluated scenes (such as '{min(asked)}'); "
            "name the folder of the scenes that were evaluated"
        )


def _tasks(subject: ReportSubject) -> Mapping[str, Any]:
    found = next((arm.evaluation for arm in subject.arms if arm.evaluation is not None), None)
    return {} if found is None else found.tasks


def facts(subject: ReportSubject) -> list[tuple[str, str]]:
    """The header's facts: when, on what, how long, with which seed."""
    environment = subject.environment
    shown: list[tuple[str, str]] = []
    date = environment.get("date")
    if date is not None:
        shown.append(("Date", _date(str(date))))
    machine = [str(environment.get("cpu") or environment.get("machine") or "")]
    if environment.get("cpu_threads") is not None:
        machine.append(f"{environment['cpu_threads']} CPU threads")
    if environment:
        machine.append(str(environment.get("gpu") or "no GPU"))
    shown.append(("Hardware", ", ".join(part for part in machine if part) or "not recorded"))
    seeds = sorted({str(arm.run.setting("seed")) for arm in subject.arms if arm.run is not None})
    shown.append(("Seed", ", ".join(seeds) or "not recorded"))
    if not math.isnan(subject.seconds):
        shown.append(("Took", duration(subject.seconds)))
    versions = environment.get("versions")
    if isinstance(versions, dict):
        listed = [f"{name} {version}" for name, version in versions.items()]
        shown.append(("Versions", ", ".join([f"Python {environment.get('python', '?')}", *listed])))
    if environment.get("command"):
        shown.append(("Command", str(environment["command"])))
    absent = [f"{arm.label}: {note}" for arm in subject.arms if arm.run is not None for note in arm.run.absent]
    if absent:
        shown.append(("Not there", "; ".join(absent)))
    return shown


def arm_facts(arm: ReportedArm) -> dict[str, Any]:
    """What an arm is, for people: its objectives, schedule and positions."""
    if arm.run is None:
        return {"label": arm.label, "note": arm.note, "details": [], "objectives": [], "blind": False}
    setting = arm.run.setting
    objectives = []
    for name, section in (setting("objectives") or {}).items():
        if isinstance(section, dict):
            weight, every = section.get("weight", 1.0), section.get("every", 1)
            extra = [f"× {weight:g}" if weight != 1 else "", f"every {every} steps" if every != 1 else ""]
            objectives.append((name.replace("_", " "), " ".join(part for part in extra if part)))
    details = [
        ("base", setting("model", "base")),
        ("3D positions", "none (blind)" if arm.blind else setting("model", "positions")),
        ("steps", setting("training", "steps")),
        ("scenes per step", setting("training", "scenes")),
        ("seed", setting("seed")),
    ]
    seconds = arm.run.metrics[-1].get("seconds") if arm.run.metrics else None
    if isinstance(seconds, (int, float)):
        details.append(("training took", duration(seconds)))
    return {
        "label": arm.label,
        "note": arm.note,
        "details": [(name, value) for name, value in details if value is not None],
        "objectives": objectives,
        "blind": arm.blind,
    }


def _date(text: str) -> str:
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return text
    zone = f" {moment.tzname()}" if moment.tzinfo is not None else ""
    return f"{moment.day} {moment:%B %Y, %H:%M}{zone}"


def number(value: float | None, digits: int = 1) -> str:
    """A value with fixed digits and a true minus sign; a dash where it is unknown."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    shown = f"{value:.{digits}f}"
    return shown.replace("-", "−") if float(shown) != 0 else shown.replace("-", "")


def signed(value: float, digits: int = 1) -> str:
    """A difference, always with its sign."""
    return f"+{number(value, digits)}" if value > 0 else number(value, digits)


def bounds(value: Interval | None, digits: int = 1) -> str:
    """The bounds of an interval, or nothing where it has none."""
    if value is None or math.isnan(value.low) or math.isnan(value.high):
        return ""
    return f"{number(value.low, digits)}\u00a0–\u2060\u00a0{number(value.high, digits)}"


def decibel(value: float) -> str:
    """A PSNR."""
    return "not measured" if math.isnan(value) else f"{number(value)} dB"


def type_name(name: str) -> str:
    """A question type as words."""
    return TYPE_NAMES.get(name, name.replace("_", " "))
