"""Found objects: boxes drawn into the views that show them best."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import ImageDraw

from stereopsis.benchmarks import benchmark_named, benchmarks_of
from stereopsis.geometry.boxes import iou
from stereopsis.geometry.camera import project
from stereopsis.report.images import EmbeddedImage, embed
from stereopsis.report.questions import records_by_arm
from stereopsis.report.read import ReportSubject
from stereopsis.report.results import EvaluationRecord
from stereopsis.report.rooms import enlarged, open_room
from stereopsis.report.scene3d import Figure3D, scene_figure
from stereopsis.report.style import TARGET_COLOUR, arm_rgb
from stereopsis.report.tables import prediction_of, title_of
from stereopsis.scenes.draw import box_edges_in_view
from stereopsis.scenes.scene import Scene

EXPRESSIONS = 3
VIEWS = 2
PICTURE_SIDE = 384


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """What one arm pointed at.

    Attributes:
        arm: its index in the subject.
        boxes: chosen candidates; none where the arm says that there is no such object.
        overlap: the best IoU of a chosen box with a target; NaN where either is absent.
        right: the benchmark's headline is 1.
        score: that value in points.
    """

    arm: int
    boxes: Float[np.ndarray, "chosen 6"]
    overlap: float
    right: bool
    score: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Expression:
    """One expression with the truth, what arms chose, and where that lies."""

    task: str
    type: str
    scene_id: str
    text: str
    target_count: int
    metric: str
    choices: tuple[Choice, ...]
    views: tuple[tuple[str, EmbeddedImage], ...]
    figure: Figure3D | None


def expressions(subject: ReportSubject, folders: Mapping[str, Path]) -> tuple[Expression, ...]:
    """Up to `EXPRESSIONS` expressions from scenes at hand; the first of each wished kind, by scene and id."""
    by_arm = records_by_arm(subject)
    if not by_arm:
        return ()
    first = next(iter(by_arm.values()))
    pointing = {each.name for each in benchmarks_of("pointing")}
    pool = sorted(
        (r for r in first.values() if r.task in pointing and r.scene_id in folders),
        key=lambda record: (record.scene_id, record.task, record.id),
    )
    chosen: list[EvaluationRecord] = []
    for task, type_name in _wishes():
        used = {record.scene_id for record in chosen}
        fitting = [r for r in pool if r.task == task and r not in chosen and len(r.targets)]
        fitting.sort(key=lambda record: (record.scene_id in used, record.type != type_name))
        chosen += fitting[:1]
    return tuple(
        _expression(record, by_arm, open_room(folders[record.scene_id]), subject) for record in chosen[:EXPRESSIONS]
    )


def _wishes() -> list[tuple[str, str]]:
    """What to show, in order: each benchmark's first example, then each one's second, and so on."""
    pointing = benchmarks_of("pointing")
    rounds = itertools.zip_longest(*([(each.name, kind) for kind in each.examples] for each in pointing))
    return [wish for each in rounds for wish in each if wish is not None]


def chosen_boxes(record: EvaluationRecord) -> Float[np.ndarray, "chosen 6"]:
    """What the metric scored."""
    choose = benchmark_named(record.task).choose
    return record.boxes[:0] if choose is None else record.boxes[choose(prediction_of(record))]


def _expression(
    record: EvaluationRecord,
    by_arm: Mapping[int, Mapping[tuple[str, str], EvaluationRecord]],
    scene: Scene,
    subject: ReportSubject,
) -> Expression:
    benchmark = benchmark_named(record.task)
    metric = benchmark.headline
    choices = tuple(_choice(index, table[record.key], metric) for index, table in by_arm.items() if record.key in table)
    views = best_views(scene, record, choices)
    return Expression(
        task=title_of(record.task),
        type=record.type,
        scene_id=record.scene_id,
        text=record.text,
        target_count=len(record.targets),
        metric=benchmark.metric(metric).heading,
        choices=choices,
        views=tuple((scene.frames[v].name, _drawn(scene, v, record.targets, choices)) for v in views),
        figure=scene_figure(
            scene,
            record.targets,
            [(c.arm, subject.arms[c.arm].label, c.boxes) for c in choices if len(c.boxes)],
        ),
    )


def _choice(arm: int, record: EvaluationRecord, metric: str) -> Choice:
    boxes = chosen_boxes(record)
    overlap = float(iou(boxes, record.targets).max()) if len(boxes) and len(record.targets) else math.nan
    score = record.scores.get(metric, math.nan)
    return Choice(arm=arm, boxes=boxes, overlap=overlap, right=score >= 1.0, score=100.0 * score)


def best_views(scene: Scene, record: EvaluationRecord, choices: Sequence[Choice]) -> list[int]:
    """The view that shows most of the target, then the one that shows most of what arms chose."""
    target = shown_area(scene, record.targets)
    for item in scene.objects:
        if item.id in record.object_ids and len(item.visible_pixels) == len(scene.frames):
            # Boxes know nothing of occlusion: what a view was seen to show counts before what it could show.
            target = target + 10.0 * np.array(item.visible_pixels)
    first = int(np.argmax(target))
    picked = np.concatenate([c.boxes for c in choices]) if choices else np.zeros((0, 6))
    others = shown_area(scene, picked) + 0.01 * target
    others[first] = -1.0
    return [first, int(np.argmax(others))][: min(VIEWS, len(scene.frames))]


def shown_area(scene: Scene, boxes: Float[np.ndarray, "boxes 6"]) -> Float[np.ndarray, " views"]:
    """How many of 5x5x5 points of the boxes fall into each view, summed over boxes (occlusion is not looked at)."""
    grid = np.stack(np.meshgrid(*[np.linspace(-0.45, 0.45, 5)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    points = (boxes[:, None, :3] + grid * boxes[:, None, 3:]).reshape(-1, 3)
    counts = []
    for frame in scene.frames:
        seen = project(points, frame.intrinsics, scene.T_aligned_camera(frame))
        size = np.array([frame.intrinsics.width, frame.intrinsics.height])
        inside = np.all((seen.pixels >= 0) & (seen.pixels <= size), axis=-1) & (seen.depth > 0.05)
        counts.append(float(inside.sum()))
    return np.array(counts)


def _drawn(
    scene: Scene, view: int, targets: Float[np.ndarray, "targets 6"], choices: Sequence[Choice]
) -> EmbeddedImage:
    """A view with boxes: arms from thick to thin, the target dashed on top, so that equal boxes all stay visible."""
    picture, frame = enlarged(scene.frames[view], PICTURE_SIDE)
    pose = scene.T_aligned_camera(frame)
    pen = ImageDraw.Draw(picture)
    for index, choice in enumerate(choices):
        width = 2 + 2 * (len(choices) - 1 - index)
        for box in choice.boxes:
            for start, end in box_edges_in_view(box, frame.intrinsics, pose):
                pen.line((*start, *end), fill=arm_rgb(choice.arm), width=width)
    for box in targets:
        for start, end in box_edges_in_view(box, frame.intrinsics, pose):
            _dashed(pen, start, end)
    return embed(picture.convert("RGB"), largest=PICTURE_SIDE)


def _dashed(pen: ImageDraw.ImageDraw, start: np.ndarray, end: np.ndarray, dash: float = 9.0) -> None:
    length = float(np.linalg.norm(end - start))
    if not length < 1e4:  # cut off right in front of the camera: the line leaves the picture anyhow
        end, length = start + (end - start) * (1e4 / length), 1e4
    for first in np.arange(0.0, length, 1.6 * dash):
        a = start + (end - start) * (first / max(length, 1e-9))
        b = start + (end - start) * (min(first + dash, length) / max(length, 1e-9))
        pen.line((*a, *b), fill=TARGET_COLOUR, width=2)
