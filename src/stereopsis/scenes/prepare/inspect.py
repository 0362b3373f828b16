"""What a prepared scene holds, in a table and in two pictures."""

import json
from pathlib import Path

from rich.table import Table

from stereopsis.scenes.draw import contact_sheet, draw_birdseye
from stereopsis.scenes.scene import Scene


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
    facts["alignment"] = json.dumps(scene.provenance.get("alignment", "as given"), default=str)
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
    origin = {k: v for k, v in scene.provenance.items() if k not in ("skipped", "alignment")}
    facts["origin"] = json.dumps(origin, default=str)
    return facts


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
