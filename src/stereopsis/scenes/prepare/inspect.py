"""What a prepared scene holds, in a table and in two pictures."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from stereopsis.scenes.agreement import KEY, in_words
from stereopsis.scenes.bad_frames import BLANK_DEPTH
from stereopsis.scenes.draw import contact_sheet, draw_birdseye
from stereopsis.scenes.prepare.remarks import contradicts_itself, scene_warnings
from stereopsis.scenes.scene import Scene, scale_known

UNSURE = 0.6
"""An alignment of less confidence is worth a look (1 = every check agrees)."""


def scene_table(scene: Scene) -> Table:
    """Frames, cameras, alignment, objects, words, view from above and origin of a scene."""
    table = Table(title=f"scene '{scene.id}'", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in scene_facts(scene).items():
        table.add_row(name, value)
    return table


def scene_facts(scene: Scene) -> dict[str, str]:
    """The same as words."""
    with_depth = sum(frame.load_depth is not None for frame in scene.frames)
    facts = {"frames": f"{len(scene.frames)}, {with_depth} with depth"}
    if scene.frames:
        camera = scene.frames[0].intrinsics
        facts["camera"] = f"{camera.width} x {camera.height}, focal length {camera.fx:.1f} x {camera.fy:.1f} pixels"
    skipped = scene.provenance.get("skipped") or {}
    facts["frames left out"] = "\n".join([str(len(skipped)), *(f"{k}: {v}" for k, v in list(skipped.items())[:5])])
    unmatched = {name: count for name, count in (scene.provenance.get("unmatched") or {}).items() if count}
    if unmatched:
        facts["images without a partner"] = ", ".join(f"{count} {name}" for name, count in unmatched.items())
    if blank := scene.provenance.get(BLANK_DEPTH):
        facts["empty depth images"] = f"{len(blank)}: {', '.join(blank[:5])}"
    if agreement := scene.provenance.get(KEY):
        facts["depth agreement"] = in_words(agreement)
    facts["alignment"] = json.dumps(rounded(scene.provenance.get("alignment", "as given")), default=str)
    labels: dict[str, int] = {}
    for item in scene.objects:
        labels[item.label] = labels.get(item.label, 0) + 1
    listed = ", ".join(f"{count} {label}" for label, count in sorted(labels.items(), key=lambda entry: -entry[1])[:20])
    facts["objects"] = f"{len(scene.objects)}" + (f": {listed}" if listed else "")
    facts["proposals"] = str(len(scene.proposals))
    tasks: dict[str, int] = {}
    for record in scene.annotations:
        tasks[record.task] = tasks.get(record.task, 0) + 1
    facts["annotations"] = ", ".join(f"{count} {task}" for task, count in sorted(tasks.items())) or "none"
    if scene.birdseye is None:
        facts["from above"] = "not drawn yet"
    else:
        side, seen = scene.birdseye.image.shape[0], 1 - scene.birdseye.void.mean()
        facts["from above"] = f"{side} x {side} pixels, {seen:.0%} seen"
    origin = {k: v for k, v in scene.provenance.items() if k not in ("skipped", "alignment", KEY, BLANK_DEPTH)}
    facts["origin"] = json.dumps(rounded(origin), default=str)
    return facts


def plain_facts(scene: Scene) -> dict[str, Any]:
    """The same for programs: nothing is rounded."""
    found = verdict(scene)
    return {
        "scene": scene.id,
        "usable": found.usable,
        "verdict": found.words,
        "notes": list(found.notes),
        "frames": len(scene.frames),
        "frames with depth": sum(frame.load_depth is not None for frame in scene.frames),
        "objects": len(scene.objects),
        "proposals": len(scene.proposals),
        "annotations": len(scene.annotations),
        "bird's-eye view": scene.birdseye is not None,
        **scene.provenance,
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a scene can be used for.

    Attributes:
        usable: whether a recipe can train on it or a model be asked about it as it is.
        words: that, in one line.
        notes: what to mind.
    """

    usable: bool
    words: str
    notes: tuple[str, ...] = ()


def verdict(scene: Scene) -> Verdict:
    """Judge a scene by what is known of it; no picture is read."""
    with_depth = sum(frame.load_depth is not None for frame in scene.frames)
    notes = []
    if scene.birdseye is None:
        notes.append("not seen from above, and not checked yet: 'stereopsis prepare' does both")
    if with_depth < len(scene.frames):
        notes.append(f"{len(scene.frames) - with_depth} of {len(scene.frames)} views have no depth: they get no places")
    skipped = scene.provenance.get("skipped") or {}
    if skipped:
        notes.append(f"{len(skipped)} bad frame{'s'[: len(skipped) != 1]} left out")
    left_out = scene.provenance.get("left_out")
    if left_out and scene.provenance.get("format") == "estimated":
        notes.append(f"{len(left_out)} picture{'s'[: len(left_out) != 1]} could not be placed, or show nothing")
    if not scale_known(scene):
        notes.append("scale unknown: nothing here may be read as metres (--known-distance or --camera-height tell it)")
    notes += scene_warnings(scene)
    alignment = scene.provenance.get("alignment")
    confidence = alignment.get("confidence") if isinstance(alignment, Mapping) else None
    if isinstance(confidence, float) and confidence < UNSURE:
        notes.append(f"what is up is a guess (confidence {confidence:.2f}): look at the view from above")
    if not scene.objects and not scene.proposals:
        notes.append("neither objects nor candidate boxes: nothing can be pointed at")
    elif not scene.proposals:
        notes.append("no candidate boxes of a detector: 'find' chooses among the objects' own boxes")
    words = f"{len(scene.annotations)} questions and descriptions" if scene.annotations else "vision only (no words)"
    if len(scene.frames) < 2 or not with_depth:
        return Verdict(usable=False, words="Not usable: it takes two views or more, with depth.", notes=tuple(notes))
    if contradicts_itself(scene):
        return Verdict(usable=False, words="Not usable as it is: its views contradict each other.", notes=tuple(notes))
    return Verdict(usable=True, words=f"Usable: {len(scene.frames)} views with poses, {words}.", notes=tuple(notes))


def rounded(value: Any, digits: int = 3) -> Any:
    """Plain data for people: every float to so many significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, Mapping):
        return {key: rounded(each, digits) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(each, digits) for each in value]
    return value


def draw_scene(scene: Scene, folder: Path) -> list[Path]:
    """Write a contact sheet and, where there is one, the view from above with boxes and the camera's path.

    Returns:
        The files: ``SCENE.contact.png`` and ``SCENE.above.png`` in ``folder``.
    """
    pictures = {"contact": contact_sheet(scene)}
    if scene.birdseye is not None:
        pictures["above"] = draw_birdseye(scene)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, picture in pictures.items():
        path = folder / f"{scene.id}.{name}.png"
        picture.save(path)
        paths.append(path)
    return paths
