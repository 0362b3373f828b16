"""The words and tables of the geometry network's card; `measure_geometry_teacher.py` fills them in."""

from pathlib import Path

from stereopsis.teachers.geometry_network import GeometryConfig

CARD = """# Rooms geometry

The feature teacher `rooms_geometry`: a small multi-view geometry network in the spirit of VGGT (per-view and global
attention in turns; depth, point maps and cameras from RGB alone). It gives feature alignment (3DRS) a learned 3D
teacher that needs no download. **It is no substitute for VGGT on photographs**: see the right half of the tables.

| | |
|---|---|
| input | any number of {size} px views; no depth, no pose, no intrinsics |
| features | {channels} channels: of the last per-view and the last global block; {grid} x {grid} tokens a view |
| network | {pairs} pairs of blocks, width {width}; {parameters} parameters, {megabytes} MB on disk (float16) |
| licence | Apache-2.0; trained on generated pictures only |

## Measured: geometry

{rooms} rooms of the test split ({views} views each, as recipes see them), and {kitchens} sets of {kitchen_views}
neighbouring frames of a real kitchen (7-Scenes, hand-held), which it was not made for. "Trivial": 2 m everywhere, a
camera that never moves. Overlap: at least a quarter of a view's points lie in the first view's field of view
({shared} of the rooms' views, {kitchen_shared} of the kitchen's). Scaled: after the median ratio of the scene.
Aligned: after the scene's best similarity transform. Matched cameras: poses from matched tokens and their depths in
closed form (`matched_cameras`), beside those that the network's camera head regresses.

| | rooms | trivial | kitchen | trivial |
|---|---|---|---|---|
{geometry}

{worse}

## Measured: correspondence

Cells ({cells} x {cells} a view) of different views whose mean 3D point falls into the same 0.1 m voxel should look
alike. *Score*: their mean cosine, per voxel; *random*: of all pairs of cells of different views; *gap*: between the
two; *separation*: the gap in standard deviations of random pairs, as a gap alone grows with the spread of the
features; *recall*: the most similar cell of all other views lies in the same voxel (chance: {chance} on rooms,
{kitchen_chance} in the kitchen). The base model's figures are of the shipped `tiny_base`, on the same views.
{plain}

| features | rooms: score | random | gap | separation | recall | kitchen: score | random | gap | separation | recall |
|---|---|---|---|---|---|---|---|---|---|---|
{correspondence}

## Training

| | |
|---|---|
{facts}
"""
GEOMETRY_ROWS = {  # label: own figure, the trivial answer's, format
    "depth: mean relative error": ("depth_absrel", "depth_trivial_absrel", "{:.3f}"),
    "depth: within a factor of 1.25": ("depth_within_1.25", "depth_trivial_within_1.25", "{:.1%}"),
    "depth, scaled: mean relative error": ("depth_absrel_scaled", "depth_trivial_absrel_scaled", "{:.3f}"),
    "depth, scaled: within a factor of 1.25": (
        "depth_within_1.25_scaled",
        "depth_trivial_within_1.25_scaled",
        "{:.1%}",
    ),
    "point map: mean distance, m": ("points_metres", "points_trivial_metres", "{:.2f}"),
    "point map, aligned: mean distance, m": ("points_aligned_metres", "points_trivial_aligned_metres", "{:.2f}"),
    "points from depth and camera head, m": ("points_from_depth_metres", "points_trivial_metres", "{:.2f}"),
    "points from depth and matched cameras, m": ("points_matched_metres", "points_trivial_metres", "{:.2f}"),
    "the same, aligned, m": ("points_matched_aligned_metres", "points_trivial_aligned_metres", "{:.2f}"),
    "focal length: relative error": ("focal_relative", None, "{:.1%}"),
}
for _name, _key in (("camera head", "pose"), ("matched cameras", "matched")):
    for _label, _figure, _form in (
        ("rotation, degrees (mean)", "rotation_degrees", "{:.1f}"),
        ("rotation, degrees (median)", "rotation_degrees_median", "{:.1f}"),
        ("rotation where views overlap, degrees", "shared_rotation_degrees", "{:.1f}"),
        ("translation, m", "translation_metres", "{:.2f}"),
        ("translation where views overlap, m", "shared_translation_metres", "{:.2f}"),
    ):
        GEOMETRY_ROWS[f"{_name}: {_label}"] = (f"{_key}_{_figure}", f"pose_trivial_{_figure}", _form)
    GEOMETRY_ROWS[f"{_name}: direction of translation, degrees"] = (f"{_key}_direction_degrees", None, "{:.1f}")


def no_better(parts: dict[str, dict | None]) -> str:
    """What the table shows to be no better than the trivial answer, in words."""
    found = []
    for place, part in parts.items():
        for label, (own, trivial, form) in GEOMETRY_ROWS.items():
            if part is None or trivial is None:
                continue
            difference = part["geometry"][own] - part["geometry"][trivial]
            if (difference <= 0) if "%" in form else (difference >= 0):
                found.append(f"{place}, {label.removesuffix(', m')}")
    return f"**No better than the trivial answer**: {'; '.join(found)}." if found else "All beat the trivial answers."


def plain_scores(parts: dict[str, dict | None]) -> str:
    """Where the plain score of the teacher is not above every score of the base model's."""
    lower = []
    for place, part in parts.items():
        scores = {name: f["score"] for name, f in part["correspondence"].items()} if part else {}
        if scores and scores.pop("rooms_geometry") <= max(scores.values()):
            lower.append(place)
    if not lower:
        return ""
    return (
        f"**The plain score is not above the base model's** ({', '.join(lower)}): all features of the base model are "
        "rather alike, whatever they show."
    )


def card(content: dict, weights: Path, config: GeometryConfig, cells_a_side: int) -> str:
    rooms, kitchen = content["measured"]["rooms"], content["measured"].get("kitchen")
    training = content["training"]
    geometry = []
    for label, (own, trivial, form) in GEOMETRY_ROWS.items():
        cells = [
            form.format(part["geometry"][key]) if part and key else "-"
            for part in (rooms, kitchen)
            for key in (own, trivial)
        ]
        geometry.append(f"| {label} | **{cells[0]}** | {cells[1]} | **{cells[2]}** | {cells[3]} |")
    found = []
    for name in rooms["correspondence"]:
        parts = [part["correspondence"][name] if part else None for part in (rooms, kitchen)]
        cells = [f"{p[k]:.3f}" if p else "-" for p in parts for k in ("score", "random", "gap", "separation", "recall")]
        found.append(f"| {name} | {' | '.join(cells)} |")
    made, arguments, last = training["environment"], training["arguments"], training["curve"][-1]
    facts = {
        "rooms": f"generator version {training['room_generator']}; {arguments['rooms']} rooms of 8 views, half as "
        "recipes see them, half with lenses of 45 to 85 degrees, tilted cameras and neighbouring views; "
        "2 to 8 views a scene, mostly such as look about where the first one looks",
        "augmentation": "mirrored; white balance, exposure, gamma, grey, blur and noise",
        "losses": "L1 of ln depth and of its differences, of points over their mean distance, of rotation, translation "
        f"and ln focal length; InfoNCE over tokens of the same spot (weight {arguments['contrast']}, temperature "
        f"{arguments['temperature']})",
        "optimiser": f"Muon and AdamW, learning rate {arguments['rate']}, cosine; {last['step']} steps of "
        f"{arguments['views_per_step']} views; averaged weights",
        "seed": arguments["seed"],
        "time": f"{last['minutes']:.0f} minutes of wall clock on one CPU thread of a shared machine, bf16 autocast",
        "date and hardware": f"{made['date'][:10]}, {made['machine']} CPU, torch {made['versions']['torch']}",
        "command": f"`python {made['command']}`, then `python {content['measured']['environment']['command']}`",
    }
    return CARD.format(
        size=config.image_size,
        channels=2 * config.width,
        grid=config.grid,
        pairs=config.pairs,
        width=config.width,
        parameters=f"{training['parameters']:,}",
        megabytes=f"{weights.stat().st_size / 1e6:.2f}",
        rooms=rooms["scenes"],
        views=rooms["views"],
        kitchens=kitchen["scenes"] if kitchen else 0,
        kitchen_views=kitchen["views"] if kitchen else 0,
        geometry="\n".join(geometry),
        worse=no_better({"rooms": rooms, "kitchen": kitchen}),
        plain=plain_scores({"rooms": rooms, "kitchen": kitchen}),
        shared=f"{rooms['geometry']['pose_shared']:.0%}",
        kitchen_shared=f"{kitchen['geometry']['pose_shared']:.0%}" if kitchen else "-",
        cells=cells_a_side,
        chance=f"{rooms['correspondence']['rooms_geometry']['chance']:.3f}",
        kitchen_chance=f"{kitchen['correspondence']['rooms_geometry']['chance']:.3f}" if kitchen else "-",
        correspondence="\n".join(found),
        facts="\n".join(f"| {key} | {value} |" for key, value in facts.items()),
    )
