"""Measure the shipped geometry network on unseen rooms and on a real kitchen, and write its card.

    python scripts/measure_geometry_teacher.py

Completes card.json beside the weights, writes the card (README.md) and, with --picture, what it sees in one scene.
The kitchen is 7-Scenes' "redkitchen" in ../shared/data; without it, only rooms are measured.
"""

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from geometry_card import card
from PIL import Image
from torch import Tensor
from torch.nn import functional

import stereopsis.assets
from stereopsis.data.views import Views, cell_coordinates, decode_views
from stereopsis.models.storage import load_model
from stereopsis.packs.build import build_pack
from stereopsis.packs.targets import teacher_views
from stereopsis.scenes.formats import open_scene
from stereopsis.scenes.rooms import make_room
from stereopsis.scenes.rooms.language import split_seeds
from stereopsis.scenes.scene import Scene
from stereopsis.teachers.geometry_cameras import matched_cameras
from stereopsis.teachers.geometry_network import Geometry, GeometryNetwork
from stereopsis.teachers.geometry_teacher import WEIGHTS, GeometryTeacher, rooms_geometry_folder

TINY_BASE = Path(stereopsis.assets.__file__).parent / "tiny_base"
KITCHEN = Path(__file__).resolve().parents[2] / "shared" / "data" / "seven_scenes_redkitchen"
VOXEL = 0.1  # metres
GRID = 6  # the small base model's tokens along each side of a view
MEAN_DEPTH = 2.0  # metres; the trivial answer
Figures = dict[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Truth:
    """One scene's geometry in the first view's camera frame: [views h w], [views h w 3], [views 4 4], [views h w]."""

    depth: Tensor
    points: Tensor
    poses: Tensor
    valid: Tensor
    focal: float


def truth_of(views: Views) -> Truth:
    inverse = torch.linalg.inv(views.cameras.double())
    points = views.points.double()
    local = torch.einsum("vij,vhwj->vhwi", inverse[:, :3, :3], points) + inverse[:, None, None, :3, 3]
    first = torch.einsum("ij,vhwj->vhwi", inverse[0, :3, :3], points) + inverse[0, :3, 3]
    return Truth(
        depth=local[..., 2],
        points=first,
        poses=inverse[0] @ views.cameras.double(),
        valid=views.points_valid & (local[..., 2] > 0.05),
        focal=float(views.intrinsics[0, 0, 0]) / views.images.shape[-1],
    )


def depth_figures(found: Tensor, truth: Truth, prefix: str) -> Figures:
    """AbsRel and share within a factor of 1.25, as they are and after the scene's median ratio."""
    got, wanted = found[truth.valid].double(), truth.depth[truth.valid]
    figures = {}
    for name, scale in (("", 1.0), ("_scaled", float((wanted / got).median()))):
        ratio = scale * got / wanted
        figures[f"{prefix}_absrel{name}"] = float((ratio - 1).abs().mean())
        figures[f"{prefix}_within_1.25{name}"] = float((torch.maximum(ratio, 1 / ratio) < 1.25).double().mean())
    return figures


def similarity(source: Tensor, target: Tensor) -> tuple[float, Tensor, Tensor]:
    """Scale, rotation [3 3] and translation [3] that best map one set of [n 3] onto the other (Umeyama 1991)."""
    mean_s, mean_t = source.mean(dim=0), target.mean(dim=0)
    s, t = source - mean_s, target - mean_t
    U, D, Vh = torch.linalg.svd(t.T @ s / len(s))
    sign = torch.ones(3, dtype=s.dtype)
    sign[2] = torch.sign(torch.linalg.det(U) * torch.linalg.det(Vh))
    R = U @ torch.diag(sign) @ Vh
    scale = float((D * sign).sum() / s.square().sum(dim=1).mean())
    return scale, R, mean_t - scale * R @ mean_s


def point_figures(found: Tensor, truth: Truth, prefix: str) -> Figures:
    """Mean distance of the points, metres: as they are, and after the best similarity of the whole scene."""
    got, wanted = found[truth.valid].double(), truth.points[truth.valid]
    scale, R, move = similarity(got, wanted)
    return {
        f"{prefix}_metres": float((got - wanted).norm(dim=-1).mean()),
        f"{prefix}_aligned_metres": float((scale * got @ R.T + move - wanted).norm(dim=-1).mean()),
    }


def pose_figures(rotation: Tensor, translation: Tensor, truth: Truth, prefix: str) -> Figures:
    """Errors of each view's pose relative to the first's: degrees, metres, and the direction's degrees.

    "shared": of those views only of whose points at least a quarter lie in the first view's field of view.
    """
    turn = rotation[1:].double().transpose(1, 2) @ truth.poses[1:, :3, :3]
    angle = ((turn.diagonal(dim1=1, dim2=2).sum(dim=1) - 1) / 2).clamp(-1, 1).acos().rad2deg()
    wanted = truth.poses[1:, :3, 3]
    figures = {
        f"{prefix}_rotation_degrees": float(angle.mean()),
        f"{prefix}_rotation_degrees_median": float(angle.median()),
        f"{prefix}_translation_metres": float((translation[1:] - wanted).norm(dim=-1).mean()),
    }
    move = (translation[1:] - wanted).norm(dim=-1)
    shared = overlap(truth)[1:] >= 0.25
    if bool(shared.any()):
        figures[f"{prefix}_shared_rotation_degrees"] = float(angle[shared].mean())
        figures[f"{prefix}_shared_translation_metres"] = float(move[shared].mean())
    figures[f"{prefix}_shared"] = float(shared.double().mean())
    moved = wanted.norm(dim=-1) > 0.1
    if bool(moved.any()) and bool((translation[1:] != 0).any()):
        cosine = functional.cosine_similarity(translation[1:].double(), wanted, dim=-1)[moved]
        figures[f"{prefix}_direction_degrees"] = float(cosine.acos().rad2deg().mean())
    return figures


def overlap(truth: Truth) -> Tensor:
    """[views] share of each view's valid points that lie in the first view's field of view."""
    x, y, z = truth.points.unbind(dim=-1)
    inside = (z > 0) & (x.abs() * truth.focal < z / 2) & (y.abs() * truth.focal < z / 2) & truth.valid
    return inside.sum(dim=(1, 2)) / truth.valid.sum(dim=(1, 2)).clamp(min=1)


def correspondence(features: Tensor, places: Tensor, valid: Tensor) -> Figures:
    """How alike tokens of different views are that lie in the same voxel, exactly and over all pairs.

    score: mean cosine of the cross-view pairs of a voxel, averaged over the voxels that have any; random: mean
    cosine of all cross-view pairs; gap: their difference; separation: the gap in standard deviations of random
    pairs, which no shift or stretch of the cosines changes; recall: how often the most similar token of all other
    views lies in the same voxel, of those tokens that have such a partner; chance: the same for a random token.
    """
    views = torch.arange(len(features))[:, None, None].expand(valid.shape)[valid]
    voxel = torch.div(places[valid].double(), VOXEL, rounding_mode="floor").long()
    _, voxel = voxel.unique(dim=0, return_inverse=True)
    unit = functional.normalize(features[valid].double(), dim=-1)
    cosine = unit @ unit.T
    across = views[:, None] != views[None]
    same = across & (voxel[:, None] == voxel[None])
    has = same.any(dim=1)
    if not bool(has.any()):
        return {}
    pairs = torch.bincount(voxel, weights=same.sum(dim=1).double())
    sums = torch.bincount(voxel, weights=(cosine * same).sum(dim=1))
    score, random = float((sums / pairs)[pairs > 0].mean()), cosine[across]
    nearest = cosine.masked_fill(~across, -2).argmax(dim=1)
    return {
        "score": score,
        "random": float(random.mean()),
        "gap": score - float(random.mean()),
        "separation": (score - float(random.mean())) / float(random.std()),
        "recall": float((voxel[nearest] == voxel)[has].double().mean()),
        "chance": float((same.sum(dim=1) / across.sum(dim=1))[has].double().mean()),
        "pairs": float(same.sum() / 2),
    }


@torch.no_grad()
def geometry_figures(network: GeometryNetwork, views: Views) -> Figures:
    """Errors of the network, and of answering "two metres" everywhere and "nothing moved"."""
    found = network(views.images[None].float() / 255)
    truth = truth_of(views)
    constant = torch.full_like(truth.depth, MEAN_DEPTH)
    still = torch.eye(4).expand(len(constant), 4, 4)
    flat = unprojected(constant, truth.focal, still)
    depth, rotation, translation = found.log_depth[0].exp(), found.rotation[0], found.translation[0]
    pose = torch.eye(4).repeat(len(constant), 1, 1)
    pose[:, :3, :3], pose[:, :3, 3] = rotation, translation
    matched = matched_cameras(found)
    focal = float(found.log_focal[0].exp().mean())
    return (
        depth_figures(depth, truth, "depth")
        | depth_figures(constant, truth, "depth_trivial")
        | point_figures(found.points[0], truth, "points")
        | point_figures(unprojected(depth, focal, pose), truth, "points_from_depth")
        | point_figures(flat, truth, "points_trivial")
        | pose_figures(rotation, translation, truth, "pose")
        | point_figures(matched_points(found, truth), truth, "points_matched")
        | pose_figures(matched.rotation, matched.translation, truth, "matched")
        | pose_figures(still[:, :3, :3], still[:, :3, 3], truth, "pose_trivial")
        | {"focal_relative": abs(focal / truth.focal - 1)}
    )


def unprojected(depth: Tensor, focal: float, poses: Tensor) -> Tensor:
    size = depth.shape[-1]
    ray = ((torch.arange(size) + 0.5) / size - 0.5) / focal
    local = torch.stack([ray * depth, ray[:, None] * depth, depth], dim=-1).double()
    poses = poses.double()
    return torch.einsum("vij,vhwj->vhwi", poses[:, :3, :3], local) + poses[:, None, None, :3, 3]


def feature_sources(teacher: GeometryTeacher) -> dict[str, Callable[[Scene], tuple[Tensor, Tensor, Tensor]]]:
    """Name -> function from a scene of few frames to (features, places, valid) of the GRID x GRID cells."""
    models = {positions: load_model(TINY_BASE, positions=positions).eval() for positions in ("none", "depth")}

    @torch.no_grad()
    def of_model(scene: Scene, positions: str, layer: str) -> tuple[Tensor, Tensor, Tensor]:
        model = models[positions]
        pack = build_pack(scene, model.pack_config(views=len(scene.frames)))
        if layer == "tower":
            encoded = model.adapter.encode(pack.images).permute(0, 3, 1, 2)
            features = functional.adaptive_avg_pool2d(encoded, GRID).permute(0, 2, 3, 1)
        else:
            features = model.outputs(model.collator()([pack]), (), torch.Generator()).visual
        return features.float(), pack.coordinates, pack.coordinates_valid

    def of_teacher(scene: Scene) -> tuple[Tensor, Tensor, Tensor]:
        views = all_views(scene, teacher.network.config.image_size)
        cells = cell_coordinates(views, GRID, GRID)
        return teacher.encode(teacher_views(views, scene.id, GRID, GRID)).features, cells.coordinates, cells.valid

    return {
        "rooms_geometry": of_teacher,
        "base: vision tower": lambda scene: of_model(scene, "none", "tower"),
        "base: last layer": lambda scene: of_model(scene, "none", "last"),
        "base: last layer, given 3D positions": lambda scene: of_model(scene, "depth", "last"),
    }


def all_views(scene: Scene, size: int) -> Views:
    return decode_views(scene, range(len(scene.frames)), size=size)


def kitchen_scenes(views: int) -> list[Scene]:
    """Sets of neighbouring frames of the capture: it shows every spot several times only within a stretch."""
    scene = open_scene(KITCHEN)
    step, starts = 2, range(0, len(scene.frames) - 2 * views + 1, 7)
    picks = [scene.frames[start : start + step * views : step] for start in starts]
    return [scene.replace(id=f"{scene.id}-{number}", frames=frames) for number, frames in enumerate(picks)]


def averaged(rows: list[Figures]) -> Figures:
    rows = [row for row in rows if row]
    return {key: round(float(np.mean([r[key] for r in rows if key in r])), 4) for key in rows[0]}


def measure(teacher: GeometryTeacher, scenes: list[Scene]) -> dict:
    """Everything, averaged over scenes."""
    size = teacher.network.config.image_size
    views = len(scenes[0].frames)
    geometry = averaged([geometry_figures(teacher.network, all_views(scene, size)) for scene in scenes])
    found = {
        name: averaged([correspondence(*features(scene)) for scene in scenes])
        for name, features in feature_sources(teacher).items()
    }
    return {"scenes": len(scenes), "views": views, "geometry": geometry, "correspondence": found}


@torch.no_grad()
def picture(network: GeometryNetwork, scene: Scene, file: Path) -> None:
    """Rows: views; predicted and true depth (one scale); points from above, view by view: predicted, matched, true."""
    views = all_views(scene, network.config.image_size)
    found: Geometry = network(views.images[None].float() / 255)
    truth = truth_of(views)
    far = float(truth.depth[truth.valid].quantile(0.98))
    shades = [found.log_depth[0].exp(), torch.where(truth.valid, truth.depth, 0)]
    rows = [views.images.permute(0, 2, 3, 1).numpy()]
    rows += [(255 * (d / far).clamp(0, 1)).byte()[..., None].expand(-1, -1, -1, 3).numpy() for d in shades]
    rows += [
        np.stack([above(p[: n + 1], views.images[: n + 1], truth.valid[: n + 1]) for n in range(len(p))])
        for p in (found.points[0], matched_points(found, truth), truth.points)
    ]
    sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)
    image = Image.fromarray(sheet)
    image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST).save(file)


def matched_points(found: Geometry, truth: Truth) -> Tensor:
    """Points from the predicted depths and the matched cameras."""
    cameras, pose = matched_cameras(found), torch.eye(4).repeat(len(truth.poses), 1, 1)
    pose[:, :3, :3], pose[:, :3, 3] = cameras.rotation, cameras.translation
    return unprojected(found.log_depth[0].exp(), float(found.log_focal[0].exp().mean()), pose)


def above(points: Tensor, images: Tensor, valid: Tensor, size: int = 96, side: float = 8.0) -> np.ndarray:
    """Points [views h w 3] of the first view's frame seen from above: x to the right, z up, 8 m across."""
    x, z = points[valid][:, 0], points[valid][:, 2]
    col, row = ((x / side + 0.5) * size).long(), ((0.5 - z / side) * size).long()
    keep = (col >= 0) & (col < size) & (row >= 0) & (row < size)
    image = np.full((size, size, 3), 30, dtype=np.uint8)
    image[row[keep].numpy(), col[keep].numpy()] = images.permute(0, 2, 3, 1)[valid][keep].numpy()
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=rooms_geometry_folder())
    parser.add_argument("--rooms", type=int, default=40)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--picture", type=Path, help="folder for pictures of one room and one set of kitchen frames")
    parser.add_argument("--card-only", action="store_true", help="write the card again from what was measured before")
    args = parser.parse_args()
    torch.set_num_threads(1)
    teacher = GeometryTeacher.from_pretrained(args.folder)
    file = args.folder / "card.json"
    content = json.loads(file.read_text())
    if not args.card_only:
        content["measured"] = measure_all(teacher, args)
        written(file, json.dumps(content, indent=1) + "\n")
    written(args.folder / "README.md", card(content, args.folder / WEIGHTS, teacher.network.config, GRID))


def measure_all(teacher: GeometryTeacher, args: argparse.Namespace) -> dict:
    """Rooms, the kitchen where it is at hand, and under what circumstances."""
    from stereopsis.training.train_run import environment  # heavy

    started, command = time.time(), f"scripts/measure_geometry_teacher.py --rooms {args.rooms} --views {args.views}"
    sets = {"rooms": [make_room(seed) for seed in split_seeds("test", args.rooms)]}
    if KITCHEN.is_dir():
        sets["kitchen"] = kitchen_scenes(args.views)
    measured: dict = {"environment": environment() | {"command": command, "threads": torch.get_num_threads()}}
    for name, scenes in sets.items():
        measured[name] = measure(teacher, scenes)
        print(json.dumps({name: measured[name]}, indent=1))
        if args.picture is not None:
            args.picture.mkdir(parents=True, exist_ok=True)
            picture(teacher.network, scenes[0], args.picture / f"{name}.png")
    return measured | {"minutes": round((time.time() - started) / 60, 1)}


def written(file: Path, text: str) -> None:
    partial = file.with_suffix(".partial")
    partial.write_text(text)
    os.replace(partial, file)


if __name__ == "__main__":
    main()
