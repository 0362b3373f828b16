"""Train the small multi-view geometry network that ships as the feature teacher "rooms_geometry".

    nice -n 5 env OMP_NUM_THREADS=1 python scripts/train_geometry_teacher.py
    python scripts/measure_geometry_teacher.py

It learns from procedural rooms only: half of them photographed as recipes see them (80 degrees, wide walks), half
with other lenses, tilted cameras and neighbouring views. From RGB alone it predicts depth, points in the first
view's frame, and cameras; and tokens that see the same spot from different views are told from all others
(InfoNCE), as it is these tokens that the package uses. The second command measures and writes the card.
"""

import argparse
import copy
import dataclasses
import json
import math
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from stereopsis.scenes.rooms import GENERATOR_VERSION, RoomConfig
from stereopsis.scenes.rooms.language import split_seeds
from stereopsis.scenes.rooms.layout import make_layout
from stereopsis.scenes.rooms.render import build_mesh, render_images
from stereopsis.scenes.rooms.walk import Walk, make_walk
from stereopsis.teachers.geometry_network import Geometry, GeometryConfig, GeometryNetwork
from stereopsis.teachers.geometry_teacher import CONFIG, WEIGHTS, rooms_geometry_folder

ROOM_OFFSET = 7_000_000  # away from the rooms of the base model, the balance weights and runs
VIEWS = 8
SAME, OTHER = 0.1, 0.2  # metres: closer is the same spot, farther another one; between counts as neither
MIRROR = torch.diag(torch.tensor([-1.0, 1, 1, 1]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rooms:
    """Rendered rooms.

    Attributes:
        images: [rooms views 3 size size] uint8.
        depth: [rooms views size size] float16, metres.
        poses: [rooms views 4 4] camera to room.
        focal: [rooms] focal length over image width.
    """

    images: Tensor
    depth: Tensor
    poses: Tensor
    focal: Tensor


def turned(rng: np.random.Generator, degrees: tuple[float, float, float]) -> np.ndarray:
    """A random small rotation about the camera's x (pitch), y (yaw) and z (roll) axes, [4 4]."""
    x, y, z = np.radians(degrees) * rng.standard_normal(3)
    skew = torch.tensor([[0.0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    T = np.eye(4)
    T[:3, :3] = torch.linalg.matrix_exp(skew).numpy()
    return T


def hand_held(rng: np.random.Generator, walk: Walk, size: tuple[float, float, float]) -> Walk:
    """Every pose of a walk tilted, and a neighbour to each, inside the room."""
    poses = []
    for pose in walk.poses:
        held = pose @ turned(rng, (12, 0, 5))
        near = held @ turned(rng, (6, 15, 4))
        near[:3, 3] += rng.standard_normal(3) * (0.25, 0.25, 0.08)
        near[:3, 3] = np.clip(near[:3, 3], 0.15, np.array(size) - 0.15)
        poses += [held, near]
    return Walk(intrinsics=walk.intrinsics, poses=np.stack(poses))


def render(seed: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Colours, depths, poses and focal length of a room; even seeds as recipes see them, odd ones hand-held."""
    plain = RoomConfig(views=VIEWS, width=size, height=size)
    layout = make_layout(seed, plain)
    mesh, paint = build_mesh(layout)
    rng = np.random.default_rng([seed, 31])
    for _ in range(3 if seed % 2 else 0):
        lens = dataclasses.replace(plain, views=VIEWS // 2, horizontal_fov_degrees=float(rng.uniform(45, 85)))
        walk = hand_held(rng, make_walk(layout, lens), layout.size)
        images = render_images(layout, mesh, paint, walk)
        if images.depth.min() > 0.15:  # else a camera stands inside something
            break
    else:
        walk = make_walk(layout, plain)
        images = render_images(layout, mesh, paint, walk)
    return images.colour, images.depth, walk.poses, walk.intrinsics.fx / size


def render_rooms(args: argparse.Namespace) -> Rooms:
    """All training rooms, from the cache where there is one."""
    file = args.cache / f"rooms-v{GENERATOR_VERSION}-{args.rooms}.pt" if args.cache else None
    if file is not None and file.is_file():
        return Rooms(**torch.load(file, weights_only=True))
    images, depth, poses, focal = [], [], [], []
    started = time.time()
    for count, seed in enumerate(split_seeds("train", args.rooms, ROOM_OFFSET), start=1):
        colour, z, T, f = render(seed, GeometryConfig().image_size)
        images.append(torch.from_numpy(colour).permute(0, 3, 1, 2).contiguous())
        depth.append(torch.from_numpy(z.astype(np.float16)))
        poses.append(torch.from_numpy(T.astype(np.float32)))
        focal.append(f)
        if count % 200 == 0:
            print(f"rendered {count} rooms in {time.time() - started:.0f} s", flush=True)
    rooms = Rooms(
        images=torch.stack(images), depth=torch.stack(depth), poses=torch.stack(poses), focal=torch.tensor(focal)
    )
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        torch.save({f.name: getattr(rooms, f.name) for f in dataclasses.fields(rooms)}, partial)
        os.replace(partial, file)
    return rooms


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """A batch of scenes; geometry in metres, in the first view's camera frame.

    Attributes:
        images: [scenes views 3 size size] 0..1.
        depth: [scenes views size size].
        points: [scenes views size size 3].
        poses: [scenes views 4 4] to the first view's frame.
        focal: [scenes views] over image width.
    """

    images: Tensor
    depth: Tensor
    points: Tensor
    poses: Tensor
    focal: Tensor


def sample(rooms: Rooms, args: argparse.Namespace, rng: torch.Generator) -> Sample:
    """Views of random rooms in random order, mirrored and re-coloured at random.

    In most scenes, the other views are those that look about where the first one looks: views that share nothing
    teach little about cameras.
    """
    views = int(torch.tensor([2, 3, 4, 8])[torch.randint(4, (1,), generator=rng)])
    scenes = max(1, args.views_per_step // views)
    room = torch.randint(len(rooms.images), (scenes, 1), generator=rng)
    view = chosen_views(rooms.poses[room[:, 0], :, :3, 2], rng)[:, :views]
    images, depth = rooms.images[room, view].float() / 255, rooms.depth[room, view].float()
    poses = torch.linalg.inv(rooms.poses[room, view[:, :1]]) @ rooms.poses[room, view]
    mirrored = torch.rand(scenes, generator=rng) < 0.5
    images[mirrored], depth[mirrored] = images[mirrored].flip(-1), depth[mirrored].flip(-1)
    poses[mirrored] = MIRROR @ poses[mirrored] @ MIRROR
    focal = rooms.focal[room].expand(-1, views)
    return Sample(
        images=recoloured(images, rng),
        depth=depth,
        points=unprojected(depth, focal, poses),
        poses=poses,
        focal=focal,
    )


def chosen_views(axes: Tensor, rng: torch.Generator) -> Tensor:
    """[scenes views] an order of the views, given where they look ([scenes views 3] optical axes)."""
    scenes, views = axes.shape[:2]
    first = torch.randint(views, (scenes, 1), generator=rng)
    beside = (axes * axes.gather(1, first[..., None].expand(-1, -1, 3))).sum(dim=-1)
    near = torch.rand(scenes, 1, generator=rng) < 0.7
    key = torch.rand(scenes, views, generator=rng) - torch.where(near, 2 * beside, 0)
    return key.scatter(1, first, -torch.inf).argsort(dim=1)


def unprojected(depth: Tensor, focal: Tensor, poses: Tensor) -> Tensor:
    """[scenes views size size 3] points of square views with a central principal point."""
    size = depth.shape[-1]
    ray = ((torch.arange(size) + 0.5) / size - 0.5) / focal[..., None]
    x, y = ray[..., None, :] * depth, ray[..., :, None] * depth
    local = torch.stack([x, y, depth], dim=-1)
    return torch.einsum("svij,svhwj->svhwi", poses[..., :3, :3], local) + poses[..., None, None, :3, 3]


def recoloured(images: Tensor, rng: torch.Generator) -> Tensor:
    """Another white balance, exposure and gamma for most scenes, a little more for each view; grey, blur, noise."""
    scenes, views = images.shape[:2]

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng)

    strong = (torch.rand(scenes, 1, 1, 1, 1, generator=rng) < 0.6).float()
    gain = (strong * (0.15 * draw(scenes, 1, 3, 1, 1) + 0.2 * draw(scenes, 1, 1, 1, 1))).exp()
    each = (strong * 0.06 * draw(scenes, views, 1, 1, 1)).exp()
    gamma = (strong * 0.25 * draw(scenes, 1, 1, 1, 1)).exp()
    x = (images.clamp(1e-4, 1) ** gamma) * gain * each
    grey = strong * torch.rand(scenes, 1, 1, 1, 1, generator=rng) * 0.7
    x = x + grey * (x.mean(dim=2, keepdim=True) - x)
    blurred = functional.avg_pool2d(x.flatten(0, 1), 3, 1, 1, count_include_pad=False).view_as(x)
    x = x + strong * torch.rand(scenes, 1, 1, 1, 1, generator=rng) * (blurred - x)
    return (x + strong * 0.02 * draw(*x.shape)).clamp(0, 1)


def losses(found: Geometry, truth: Sample, args: argparse.Namespace) -> dict[str, Tensor]:
    """Every term, already weighted."""
    error = found.log_depth - truth.depth.log()
    distance = truth.points.norm(dim=-1).mean(dim=(1, 2, 3), keepdim=True)
    turn = found.rotation - truth.poses[..., :3, :3]
    move = found.translation - truth.poses[..., :3, 3]
    grids = [contrast(found.tokens.patches, truth.points, cells, args.temperature) for cells in (12, 6)]
    return {
        "depth": error.abs().mean(),
        "edges": 0.5 * gradient_loss(error),
        "points": ((found.points - truth.points).abs().sum(dim=-1) / distance).mean(),
        "turn": 2 * turn[:, 1:].abs().mean(),
        "move": move[:, 1:].abs().mean(),
        "focal": 0.3 * (found.log_focal - truth.focal.log()).abs().mean(),
        "contrast": args.contrast * (grids[0] + 0.5 * grids[1]),
    }


def gradient_loss(error: Tensor) -> Tensor:
    """L1 of the finite differences of the ln depth's error at three scales: sharp edges, flat walls."""
    error, total = error.flatten(0, 1)[:, None], error.new_zeros(())
    for scale in range(3):
        if scale:
            error = functional.avg_pool2d(error, 2)
        total = total + error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return total


def contrast(tokens: Tensor, points: Tensor, cells: int, temperature: float) -> Tensor:
    """InfoNCE: of all cells of a scene, those of other views that show the same spot must look most alike."""
    scenes, views = tokens.shape[:2]
    pooled = functional.adaptive_avg_pool2d(tokens.flatten(0, 1).permute(0, 3, 1, 2).float(), cells)
    features = functional.normalize(pooled.flatten(2).transpose(1, 2).reshape(scenes, views * cells**2, -1), dim=-1)
    place = functional.adaptive_avg_pool2d(points.flatten(0, 1).permute(0, 3, 1, 2), cells)
    place = place.flatten(2).transpose(1, 2).reshape(scenes, views * cells**2, 3)
    view = torch.arange(views).repeat_interleave(cells**2)
    apart = torch.cdist(place, place)
    same = (apart < SAME) & (view[:, None] != view[None])
    near = features.bfloat16()
    logits = (near @ near.transpose(1, 2)).float() / temperature
    logits = logits.masked_fill(~(same | (apart > OTHER)), -torch.inf)
    positives = same.sum(dim=-1)
    if not bool(positives.any()):
        return features.sum() * 0
    chosen = positives > 0
    logits, same = logits[chosen], same[chosen]
    each = logits.logsumexp(dim=-1, keepdim=True) - logits
    return (each.masked_fill(~same, 0).sum(dim=-1) / positives[chosen]).mean()


def optimizers_of(network: GeometryNetwork, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices, AdamW for everything else."""
    blocks = {id(p) for block in (*network.within, *network.across) for p in block.parameters() if p.ndim == 2}
    matrices = [p for p in network.parameters() if id(p) in blocks]
    others = [p for p in network.parameters() if id(p) not in blocks]
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def train(args: argparse.Namespace, rooms: Rooms) -> tuple[GeometryNetwork, list[dict]]:
    """Averaged weights, and the curve. The rate falls to zero with the steps or the minutes, whichever ends first."""
    torch.manual_seed(args.seed)
    rng = torch.Generator().manual_seed(args.seed)
    network = GeometryNetwork(GeometryConfig(width=args.width, pairs=args.pairs, heads=args.width // 64))
    averaged = copy.deepcopy(network).requires_grad_(False)
    optimizers, curve = optimizers_of(network, args.rate), []
    means: dict[str, float] = {}
    started, step, share = time.time(), 0, 0.0
    while share < 1:
        for group in (g for o in optimizers for g in o.param_groups):
            group["lr"] = args.rate * min(1, (step + 1) / 40) * (0.5 + 0.5 * math.cos(math.pi * share))
        truth = sample(rooms, args, rng)
        with torch.autocast("cpu", torch.bfloat16):
            found = network(truth.images)
        terms = losses(found, truth, args)
        network.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        decay = min(0.99, (step + 1) / (step + 10))
        for slow, fast in zip(averaged.parameters(), network.parameters(), strict=True):
            slow.lerp_(fast.detach(), 1 - decay)
        for name, value in terms.items():
            means[name] = 0.95 * means.get(name, value.item()) + 0.05 * value.item()
        step, minutes = step + 1, (time.time() - started) / 60
        share = max(step / args.steps, minutes / args.minutes)
        if step % 25 == 0 or share >= 1:
            curve.append({"step": step, "minutes": round(minutes, 2), **{k: round(v, 4) for k, v in means.items()}})
            print(curve[-1], flush=True)
        if step % 200 == 0:
            save(averaged, args.output)
    return averaged, curve


def save(network: GeometryNetwork, folder: Path) -> None:
    """config.json and float16 weights, each replaced in one step."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{WEIGHTS}.partial"
    save_file({k: v.half().contiguous() for k, v in network.state_dict().items()}, partial, {"format": "pt"})
    partial.chmod(0o644)
    os.replace(partial, folder / WEIGHTS)
    partial = folder / f"{CONFIG}.partial"
    partial.write_text(json.dumps(dataclasses.asdict(network.config), indent=1) + "\n")
    os.replace(partial, folder / CONFIG)


def called(*folders: str) -> str:
    """The command, without options that name folders: they change nothing but where things lie."""
    words = sys.argv[:]
    for option in (w for w in folders if w in words):
        at = words.index(option)
        del words[at : at + 2]
    return " ".join(["scripts/train_geometry_teacher.py", *words[1:]])


def main() -> None:
    from stereopsis.training.train_run import environment  # heavy

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=rooms_geometry_folder())
    parser.add_argument("--cache", type=Path, help="folder in which rendered rooms are kept")
    parser.add_argument("--rooms", type=int, default=2400)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--views-per-step", type=int, default=16)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--minutes", type=float, default=40, help="stop after this much wall clock, if earlier")
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--contrast", type=float, default=0.3, help="weight of InfoNCE")
    parser.add_argument("--temperature", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    network, curve = train(args, render_rooms(args))
    save(network, args.output)
    kept = {k: v for k, v in vars(args).items() if k not in ("output", "cache")}
    training = {
        "environment": environment() | {"command": called("--cache", "--output"), "threads": torch.get_num_threads()},
        "room_generator": GENERATOR_VERSION,
        "arguments": kept,
        "parameters": sum(p.numel() for p in network.parameters()),
        "curve": [*curve[: -1 : max(1, len(curve) // 50)], curve[-1]],
    }
    (args.output / "card.json").write_text(json.dumps({"training": training}, indent=1) + "\n")


if __name__ == "__main__":
    main()
