"""Reading what a report is about: a run folder, or a folder that compares several runs (arms).

A run folder must hold ``recipe.yaml``. Everything else in it may be absent, and then its part of the report is
absent, too: ``environment.json``, ``metrics.jsonl`` (a last line that a kill cut short is passed over),
``evaluation/`` (records.jsonl and summary.json, both or none), ``pictures/pictures.json``. What is there must be
whole: damage is an error, never an empty section.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stereopsis.benchmarks.scoring.statistics import Interval
from stereopsis.errors import RunFolderError
from stereopsis.reading import parse_json, read_yaml
from stereopsis.report.results import StoredEvaluation, read_evaluation
from stereopsis.report.values import interval, intervals, items, mapping, number, read_json, text, text_lines, there

COMPARISON_FILE = "comparison.json"
RECIPE_FILE = "recipe.yaml"
ENVIRONMENT_FILE = "environment.json"
METRICS_FILE = "metrics.jsonl"
EVALUATION_FOLDER = "evaluation"
SCENES_FILE = "scenes.json"
PICTURES_FOLDER = "pictures"
PICTURES_FILE = "pictures.json"
PICTURE_KINDS = ("masked_view", "birds_eye")
_GUESSES = {"masked_view": "the nearest view", "birds_eye": "the mean colour"}
"""What ``baseline_psnr`` is of, by kind."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """A view that the model had to account for, and what it made of it.

    Attributes:
        kind: "masked_view" or "birds_eye".
        scene_id: the scene.
        view: the hidden view's name; empty for the view from above.
        target: picture file.
        reconstruction: picture file, the mean of what the denoiser draws.
        context: picture files of the views that the model saw.
        baseline: picture file of a trivial guess (nearest visible view, mean image), or None.
        psnr: of the reconstruction, dB; NaN where not measured.
        baseline_psnr: of the trivial guess, dB; NaN where not measured.
        guesses: dB of every trivial guess that was measured, by name.
    """

    kind: str
    scene_id: str
    view: str
    target: Path
    reconstruction: Path
    context: tuple[Path, ...]
    baseline: Path | None
    psnr: float
    baseline_psnr: float
    guesses: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """A run folder's content.

    Attributes:
        folder: where it lies.
        recipe: the resolved recipe as plain data (not validated: older recipes stay readable).
        environment: date, hardware, command, versions; empty where unknown.
        metrics: log lines, in order.
        evaluation: per-sample records and summaries, or None.
        pictures: reconstructions.
        absent: what is missing of what a training writes, in words.
    """

    folder: Path
    recipe: Mapping[str, Any]
    environment: Mapping[str, Any]
    metrics: tuple[Mapping[str, Any], ...]
    evaluation: StoredEvaluation | None
    pictures: tuple[Picture, ...]
    absent: tuple[str, ...] = ()

    def setting(self, *keys: str) -> Any:
        """A value of the recipe by its place, None where the recipe does not say."""
        value: Any = self.recipe
        for key in keys:
            if not isinstance(value, dict):
                return None
            value = value.get(key)
        return value

    @property
    def blind(self) -> bool:
        """Whether the model never saw an image: the language-prior baseline."""
        return bool(self.setting("model", "blind"))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ReportedArm:
    """One line of a comparison.

    Attributes:
        name: short and unique.
        label: for people.
        note: what is particular about it.
        run: its run; None where it was not run (the note says why).
    """

    name: str
    label: str
    note: str
    run: Run | None

    @property
    def evaluation(self) -> StoredEvaluation | None:
        """The run's evaluation, or None."""
        return None if self.run is None else self.run.evaluation

    @property
    def blind(self) -> bool:
        """Whether this arm never saw an image."""
        return self.run is not None and self.run.blind


@dataclasses.dataclass(frozen=True, kw_only=True)
class Baseline:
    """Scores that need no model, in points: task -> metric -> value, and the same by question type."""

    overall: Mapping[str, Mapping[str, Interval]] = dataclasses.field(default_factory=dict)
    by_type: Mapping[str, Mapping[str, Mapping[str, Interval]]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ReportSubject:
    """What a report is about.

    Attributes:
        folder: what was asked for.
        title: headline.
        arms: in the order given.
        majority: the most frequent training answer of each question type.
        chance: a proposal picked at random.
        scenes: folder of the evaluated scenes, or None.
        seconds: how long everything took, NaN where unknown.
        environment: of the comparison, or of its first run.
        comparison: whether the folder compares runs (otherwise it is one run).
    """

    folder: Path
    title: str
    arms: tuple[ReportedArm, ...]
    majority: Baseline
    chance: Baseline
    scenes: Path | None
    seconds: float
    environment: Mapping[str, Any]
    comparison: bool


def read_subject(folder: Path, scenes: Path | None = None, *, alone: bool = False) -> ReportSubject:
    """Read a run folder or a comparison folder.

    Args:
        folder: holds ``comparison.json`` or ``recipe.yaml``.
        scenes: folder of the evaluated scenes, where neither the comparison nor the run's evaluation names it.
        alone: do without evaluated scenes that are gone, instead of refusing.

    Raises:
        RunFolderError: the folder is neither, or something in it is incomplete or damaged.
    """
    if (folder / COMPARISON_FILE).is_file():
        return _read_comparison(folder, scenes)
    if not (folder / RECIPE_FILE).is_file():
        raise RunFolderError(
            f"{folder} holds neither a run ({RECIPE_FILE}) nor a comparison ({COMPARISON_FILE}); "
            "name the folder that 'stereopsis train' or 'stereopsis demo' wrote"
        )
    run = read_run(folder)
    name = str(run.setting("name") or folder.resolve().name)
    seconds = number(run.metrics[-1].get("seconds"), f"{folder / METRICS_FILE}: seconds") if run.metrics else None
    return ReportSubject(
        folder=folder,
        title=name,
        arms=(ReportedArm(name=name, label=name, note="", run=run),),
        majority=Baseline(),
        chance=Baseline(),
        scenes=_scenes_folder(scenes, "scenes") or _evaluated_scenes(folder, alone),
        seconds=number(seconds, "seconds"),
        environment=run.environment,
        comparison=False,
    )


def read_run(folder: Path) -> Run:
    """Read a run folder; see the module's description for what may be absent.

    Raises:
        RunFolderError: there is no recipe, or a file is damaged.
    """
    recipe = folder / RECIPE_FILE
    if not recipe.is_file():
        raise RunFolderError(f"{folder} holds no run (no {RECIPE_FILE}); name a folder that 'stereopsis train' wrote")
    try:
        content = read_yaml(recipe)
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{recipe} is not valid YAML ({error}); repeat the run") from error
    log = _read_metrics(folder / METRICS_FILE)
    return Run(
        folder=folder,
        recipe=mapping(content, str(recipe)),
        environment=_read_environment(folder),
        metrics=log.lines,
        absent=_absent(folder, log),
        evaluation=read_evaluation(folder / EVALUATION_FOLDER),
        pictures=_read_pictures(folder / PICTURES_FOLDER),
    )


def _read_comparison(folder: Path, scenes: Path | None) -> ReportSubject:
    file = folder / COMPARISON_FILE
    content = mapping(read_json(file), str(file))
    arms = []
    for index, item in enumerate(items(content.get("arms"), f"{file}: arms")):
        where = f"{file}: arms[{index}]"
        record = mapping(item, where)
        name = text(record, "name", where)
        run = None if record.get("folder") is None else folder / text(record, "folder", where)
        if run is not None and not run.is_dir():
            raise RunFolderError(
                f"{where} ('{name}'): there is no folder {run}; run that arm, or set its folder to null"
            )
        arms.append(
            ReportedArm(
                name=name,
                label=str(record.get("label") or name),
                note=str(record.get("note") or ""),
                run=None if run is None else read_run(run),
            )
        )
    names = [arm.name for arm in arms]
    if not names or len(set(names)) != len(names):
        raise RunFolderError(f"{file}: arms must be one or more with different names, found {names}; correct the file")
    baselines = mapping(content.get("baselines") or {}, f"{file}: baselines")
    named = content.get("scenes")
    stated = None if named is None else folder / text(content, "scenes", str(file))
    own = mapping(content.get("environment") or {}, f"{file}: environment")
    environments = [own, _read_environment(folder), *(arm.run.environment for arm in arms if arm.run is not None)]
    return ReportSubject(
        folder=folder,
        title=str(content.get("title") or folder.resolve().name),
        arms=tuple(arms),
        majority=_read_baseline(baselines.get("majority"), f"{file}: baselines.majority"),
        chance=_read_baseline(baselines.get("chance"), f"{file}: baselines.chance"),
        scenes=_scenes_folder(scenes or stated, f"{file}: scenes"),
        seconds=number(content.get("seconds"), f"{file}: seconds"),
        environment=next((each for each in environments if each), {}),
        comparison=True,
    )


def _scenes_folder(folder: Path | None, where: str) -> Path | None:
    if folder is not None and not folder.is_dir():
        raise RunFolderError(f"{where}: there is no folder {folder}; prepare the scenes again, or leave it out")
    return folder


def _evaluated_scenes(folder: Path, alone: bool) -> Path | None:
    """The scenes of a run's evaluation, which says where they lay.

    Raises:
        RunFolderError: they are gone, and ``alone`` is false.
    """
    file = folder / EVALUATION_FOLDER / SCENES_FILE
    if not file.is_file():
        return None
    scenes = Path(text(mapping(read_json(file), str(file)), "folder", str(file)))
    if scenes.is_dir():
        return scenes
    if alone:
        return None
    raise RunFolderError(
        f"{folder}: its evaluated scenes lay in {scenes}, which is gone; without them a report has no views, boxes and "
        "maps, so the one that is there is not replaced: prepare the scenes again, name them with --scenes, or write "
        "another file with --output"
    )


def _read_baseline(value: Any, where: str) -> Baseline:
    """Task -> metrics beside "by_type", or an evaluation summary's form with "overall" and "by_type"."""
    overall, by_type = {}, {}
    for task, record in mapping(value or {}, where).items():
        field = f"{where}.{task}"
        record = mapping(record, field)
        types = mapping(record.get("by_type") or {}, f"{field}.by_type")
        by_type[task] = {name: intervals(each, f"{field}.by_type.{name}") for name, each in types.items()}
        if "overall" in record:
            overall[task] = intervals(record["overall"], f"{field}.overall")
        else:
            metrics = {k: v for k, v in record.items() if isinstance(v, (int, float)) or "mean" in (v or {})}
            overall[task] = {name: interval(each, f"{field}.{name}") for name, each in metrics.items()}
    return Baseline(overall=overall, by_type=by_type)


def _read_environment(folder: Path) -> Mapping[str, Any]:
    file = folder / ENVIRONMENT_FILE
    return mapping(read_json(file), str(file)) if there(file) else {}


def _absent(folder: Path, log: "_Log") -> tuple[str, ...]:
    """What a training leaves in its folder and is not there any more; an evaluation by itself never had it."""
    if not any((folder / name).is_dir() for name in ("model", "checkpoints")):
        return ()
    known = [] if there(folder / ENVIRONMENT_FILE) else [f"{ENVIRONMENT_FILE} is missing (date, machine, versions)"]
    if not log.lines:
        known.append(f"{METRICS_FILE} is {'empty' if there(folder / METRICS_FILE) else 'missing'} (losses by step)")
    return (*known, *([f"the last line of {METRICS_FILE} was cut short and is left out"] if log.torn else []))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Log:
    lines: tuple[Mapping[str, Any], ...] = ()
    torn: bool = False


def _read_metrics(file: Path) -> _Log:
    if not there(file):
        return _Log()
    lines = [line for line in text_lines(file) if line.strip()]
    records: list[Mapping[str, Any]] = []
    for index, line in enumerate(lines):
        try:
            record = parse_json(line)
        except ValueError as error:
            if index == len(lines) - 1:  # a killed run's last line; everything before it counts
                return _Log(lines=tuple(records), torn=True)
            raise RunFolderError(f"{file}, line {index + 1}: not valid JSON ({error}); repeat the run") from error
        records.append(mapping(record, f"{file}, line {index + 1}"))
    return _Log(lines=tuple(records))


def _read_pictures(folder: Path) -> tuple[Picture, ...]:
    file = folder / PICTURES_FILE
    if not there(file):
        return ()
    return tuple(
        _picture(mapping(item, f"{file}[{index}]"), folder, f"{file}[{index}]")
        for index, item in enumerate(items(read_json(file), str(file)))
    )


def _picture(record: Mapping[str, Any], folder: Path, where: str) -> Picture:
    kind = text(record, "kind", where)
    if kind not in PICTURE_KINDS:
        raise RunFolderError(f"{where}: unknown kind '{kind}', expected one of {', '.join(PICTURE_KINDS)}")

    def file(name: Any) -> Path:
        path = folder / str(name)
        if not isinstance(name, str) or not path.resolve().is_relative_to(folder.resolve()):
            raise RunFolderError(f"{where}: {name!r} is not in {folder}; pictures lie beside {PICTURES_FILE}")
        if not path.is_file():
            raise RunFolderError(f"{where}: there is no picture {path}; evaluate the run again to write its pictures")
        return path

    baseline = record.get("baseline")
    return Picture(
        kind=kind,
        scene_id=text(record, "scene_id", where),
        view=str(record.get("view") or ""),
        target=file(record.get("target")),
        reconstruction=file(record.get("reconstruction")),
        context=tuple(file(name) for name in items(record.get("context") or [], f"{where}.context")),
        baseline=None if baseline is None else file(baseline),
        psnr=number(record.get("psnr"), f"{where}.psnr"),
        baseline_psnr=number(record.get("baseline_psnr"), f"{where}.baseline_psnr"),
        guesses={
            name: number(record[key], f"{where}.{key}")
            for name, key in ((_GUESSES[kind], "baseline_psnr"), ("the mean colour", "mean_colour_psnr"))
            if record.get(key) is not None
        },
    )
