"""Train the small KL autoencoder that ships as the latent tokenizer "rooms".

    nice -n 5 env OMP_NUM_THREADS=1 python scripts/train_autoencoder.py

It learns from procedural rooms only: their views and their views from above. The result is a folder in
diffusers' layout (config.json, float16 safetensors) with a card of what was measured on rooms that training
never saw. The latents' mean and spread per channel are folded into the 1x1 convolutions around the latent
space, so that the shipped latents have zero mean and unit spread with scaling_factor 1 and shift_factor 0.
"""

import argparse
import copy
import dataclasses
import datetime
import os
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor
from torch.nn import functional

from stereopsis.geometry.birdseye import fill_small_holes, splat_birdseye
from stereopsis.scenes.rooms import GENERATOR_VERSION, RoomConfig, make_room
from stereopsis.scenes.scene import Scene
from stereopsis.teachers.latent_tokenizers import KLTokenizer, rooms_autoencoder_folder
from stereopsis.teachers.latents import psnr

REPOSITORY = Path(__file__).resolve().parents[1]
KITCHEN = REPOSITORY.parent / "shared" / "data" / "seven_scenes_redkitchen"
HELD_OUT_SEED = 3_000_000_000  # far from the seeds of any split
CARD = """# Rooms autoencoder

The latent tokenizer `rooms`: a small KL autoencoder (diffusers `AutoencoderKL`) for {size} px pictures of the
procedural rooms, seen from inside and from above. It gives the reconstruction objectives a latent space that
needs no download. Its latents are not FLUX.1's: heads trained on one are of no use on the other.

| | |
|---|---|
| latents | {latent_channels} channels at 1/8 of the size; a cell (2x2 latents) has {channels} channels |
| widths | {widths}, one residual block per level, no attention |
| parameters | {parameters}; {megabytes} MB on disk (float16) |
| scaling | folded into the weights, per channel; scaling_factor 1, shift_factor 0 |
| latents of held-out views | mean {mean}, standard deviation {spread} |
| posterior standard deviation | {noise} on average |

## Measured

PSNR of the round trip (posterior mean), dB, averaged over pictures that training never saw. "Mean picture"
always answers with the training pictures' mean, "own mean colour" with each picture's own mean colour.

| pictures ({size} px) | count | PSNR | worst tenth below | mean picture | own mean colour |
|---|---|---|---|---|---|
{rows}

## Training

| | |
|---|---|
{facts}

Trained on generated pictures only, so no licence but this package's own (Apache-2.0) applies. It has never
seen a photograph: for those, use TAEF1 or FLUX.1's autoencoder.
"""
HOLES = 2.0  # pixels; every other view from above has its small holes filled


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Views [n 3 s s] and bird's-eye views [m 3 s s], uint8."""

    views: Tensor
    birdseye: Tensor


@dataclasses.dataclass(frozen=True)
class Took:
    """Seconds of wall clock and of CPU time."""

    wall: float
    cpu: float


def render(seeds: Iterable[int], size: int, progress: bool = False) -> Pictures:
    views, above = [], []
    started = time.time()
    for count, seed in enumerate(seeds, start=1):
        room = make_room(seed)
        views.extend(frame.colour() for frame in room.frames)
        above.append(birdseye(room, size, filled=count % 2 == 0))
        if progress and count % 50 == 0:
            print(f"rendered {count} rooms in {time.time() - started:.0f} s", flush=True)
    return Pictures(views=_stack(views), birdseye=_stack(above))


def birdseye(room: Scene, size: int, filled: bool) -> np.ndarray:
    points, colours = [], []
    for frame in room.frames:
        depth, k = frame.depth(), frame.depth_intrinsics or frame.intrinsics
        assert depth is not None
        v, u = np.nonzero(depth > 0)
        z = depth[v, u].astype(np.float64)
        camera = np.stack([(u + 0.5 - k.cx) / k.fx * z, (v + 0.5 - k.cy) / k.fy * z, z], axis=-1)
        T = room.T_aligned_camera(frame)
        points.append(camera @ T[:3, :3].T + T[:3, 3])
        colours.append(frame.colour()[v, u])
    view = splat_birdseye(np.concatenate(points), np.concatenate(colours), size=size)
    return (fill_small_holes(view, HOLES) if filled else view).image


def kitchen_photos(size: int, count: int = 40) -> Tensor | None:
    files = sorted(KITCHEN.glob("*.color.jpg"))
    if not files:
        return None
    photos = []
    for file in files[:: max(1, len(files) // count)][:count]:
        with Image.open(file) as image:
            left, top = (image.width - image.height) // 2, 0
            square = image.convert("RGB").crop((left, top, left + image.height, top + image.height))
            photos.append(np.asarray(square.resize((size, size), Image.Resampling.BOX)))
    return _stack(photos)


def _stack(images: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def build(args: argparse.Namespace) -> AutoencoderKL:
    levels = len(args.widths)
    return AutoencoderKL(
        latent_channels=args.latent_channels,
        block_out_channels=tuple(args.widths),
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=args.size,
        scaling_factor=1.0,
        shift_factor=0.0,
    )


class OrthogonalMomentum(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) for convolutions: momentum, each kernel's brought near orthogonal.

    torch.optim.Muon takes matrices only. From random weights it needs far fewer steps here than AdamW.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update every kernel once."""
        for group in self.param_groups:
            for parameter in group["params"]:
                momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                momentum.lerp_(parameter.grad, 0.1)
                update = orthogonalised(parameter.grad.lerp(momentum, 0.9).flatten(1))
                gain = max(1.0, update.shape[0] / update.shape[1]) ** 0.5
                parameter.add_(update.reshape(parameter.shape), alpha=-group["lr"] * gain)


def orthogonalised(matrix: Tensor) -> Tensor:
    """Bring all singular values near one by Newton-Schulz iterations (Muon's quintic)."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(4):
        square = x @ x.T
        x = 3.4445 * x + (2.0315 * square @ square - 4.7750 * square) @ x
    return x.T if tall else x


def batch_of(pictures: Pictures, count: int, side: int, generator: torch.Generator) -> Tensor:
    """Crops of three views to one bird's-eye view, mirrored and re-coloured at random; [-1, 1]."""
    above = max(1, count // 4)
    parts = []
    for bank, share in ((pictures.views, count - above), (pictures.birdseye, above)):
        parts.append(bank[torch.randint(len(bank), (share,), generator=generator)])
    x = torch.cat(parts)
    top, left = torch.randint(x.shape[-1] - side + 1, (2,), generator=generator).tolist()
    x = x[..., top : top + side, left : left + side].float() / 255
    mirrored = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
    x = torch.where(mirrored, x.flip(-1), x)
    gain = 1 + 0.3 * (torch.rand(count, 3, 1, 1, generator=generator) - 0.5)
    x = torch.where(torch.rand(count, 1, 1, 1, generator=generator) < 0.25, x * gain, x)
    return x.clamp(0, 1) * 2 - 1


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 + 4 L2 + 0.1 L1 of the finite differences at three scales, which keeps edges sharp."""
    difference = output - target
    loss = difference.abs().mean() + 4 * difference.square().mean()
    for scale in range(3):
        if scale:
            difference = functional.avg_pool2d(difference, 2)
        loss = loss + 0.1 * (difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean())
    return loss


def optimizers_of(model: AutoencoderKL, args: argparse.Namespace) -> list[torch.optim.Optimizer]:
    kernels = [p for p in model.parameters() if p.ndim == 4]
    others = [p for p in model.parameters() if p.ndim < 4]
    return [
        OrthogonalMomentum(kernels, lr=args.lr),
        torch.optim.AdamW(others, lr=args.lr / 10, betas=(0.9, 0.99), weight_decay=0.0),
    ]


def train(args: argparse.Namespace, pictures: Pictures, held_out: Pictures) -> tuple[AutoencoderKL, Took]:
    """Averaged weights. Small crops first (many steps for the money), whole pictures at the end."""
    torch.manual_seed(args.seed)
    generator = torch.Generator().manual_seed(args.seed)
    model = build(args)
    averaged = copy.deepcopy(model).requires_grad_(False)
    optimizers = optimizers_of(model, args)
    schedules = [torch.optim.lr_scheduler.LambdaLR(o, lambda s: learning_rate(s, args)) for o in optimizers]
    started, used = time.time(), time.process_time()
    for step in range(args.steps):
        whole = step >= args.steps - args.whole_steps
        x = batch_of(pictures, args.batch, args.size if whole else args.crop, generator)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16):
            latent = model.encode(x).latent_dist
            output = model.decode(latent.sample(generator)).sample
        kl = 0.5 * (latent.mean.float() ** 2 + latent.var.float() - 1 - latent.logvar.float()).mean()
        loss = reconstruction_loss(output.float(), x) + args.kl * kl
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        decay = min(0.998, (step + 1) / (step + 10))
        with torch.no_grad():
            for slow, fast in zip(averaged.parameters(), model.parameters(), strict=True):
                slow.lerp_(fast, 1 - decay)
        if (step + 1) % args.report_every == 0:
            finished = save(averaged, pictures, args)
            scores = [round_trip(finished, p[:48]) for p in (held_out.views, held_out.birdseye)]
            print(
                f"step {step + 1}/{args.steps} loss {loss.item():.4f} kl {kl.item():.2f} "
                f"views {scores[0].mean():.2f} dB, from above {scores[1].mean():.2f} dB, "
                f"{time.time() - started:.0f} s, {time.process_time() - used:.0f} s of CPU",
                flush=True,
            )
    return averaged, Took(wall=time.time() - started, cpu=time.process_time() - used)


def learning_rate(step: int, args: argparse.Namespace) -> float:
    """Factor of the learning rate: 20 steps of warm-up, then a cosine."""
    cosine = 0.5 * (1 + np.cos(np.pi * min(step, args.steps) / args.steps))
    return min(1.0, (step + 1) / 20) * (0.01 + 0.99 * cosine)


def round_trip(tokenizer: KLTokenizer, images: Tensor) -> Tensor:
    return psnr(images, tokenizer.decode_cells(tokenizer.encode_cells(images)))


@torch.no_grad()
def unit_latents(model: AutoencoderKL, pictures: Pictures) -> AutoencoderKL:
    """A copy with zero mean and unit spread per latent channel that makes the same pictures."""
    model = copy.deepcopy(model)
    sample = torch.cat([pictures.views[:: len(pictures.views) // 192], pictures.birdseye[:64]])
    chunks = (sample.float() / 127.5 - 1).split(16)
    posteriors = [model.encode(chunk).latent_dist for chunk in chunks]
    means = torch.cat([p.mean for p in posteriors])
    noise = torch.cat([p.var for p in posteriors]).mean(dim=(0, 2, 3))
    mu = means.mean(dim=(0, 2, 3))
    sigma = (means.var(dim=(0, 2, 3)) + noise).sqrt()
    channels = len(mu)
    into, out = model.quant_conv, model.post_quant_conv
    # into: z -> (z - mu) / sigma, and log variance - 2 ln sigma
    into.weight[:channels] /= sigma[:, None, None, None]
    into.bias[:channels] = (into.bias[:channels] - mu) / sigma
    into.bias[channels:] -= 2 * sigma.log()
    # out: z' -> sigma z' + mu before the old convolution
    out.bias += out.weight[:, :, 0, 0] @ mu
    out.weight *= sigma[None, :, None, None]
    return model


def save(model: AutoencoderKL, pictures: Pictures, args: argparse.Namespace) -> KLTokenizer:
    """Write config and weights (each replaced in one step) and load them back, as a user would."""
    args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.output.parent) as folder:
        unit_latents(model, pictures).half().save_pretrained(folder)
        for file in Path(folder).iterdir():
            file.chmod(0o644)
            os.replace(file, args.output / file.name)
    return KLTokenizer.from_pretrained(args.output, name="rooms")


def measured(tokenizer: KLTokenizer, images: Tensor, reference: Tensor | None) -> str:
    """The card's columns: count, mean PSNR, its tenth percentile, and both baselines."""
    got = round_trip(tokenizer, images)
    own = images.float().mean(dim=(2, 3), keepdim=True).expand(images.shape).round().to(torch.uint8)
    flat = f"{psnr(images, own).mean():.1f}"
    mean = "-"
    if reference is not None:
        picture = reference.float().mean(dim=0, keepdim=True).round().to(torch.uint8)
        mean = f"{psnr(images, picture.expand(images.shape)).mean():.1f}"
    return f"{len(images)} | **{got.mean():.1f}** | {got.quantile(0.1):.1f} | {mean} | {flat}"


def card(args: argparse.Namespace, tokenizer: KLTokenizer, train_set: Pictures, held_out: Pictures, took: Took) -> str:
    weights = args.output / "diffusion_pytorch_model.safetensors"
    latents = tokenizer.posterior(held_out.views[:128])
    assert latents.std is not None
    kitchen = kitchen_photos(args.size)
    rows = [
        f"| room views | {measured(tokenizer, held_out.views, train_set.views)} |",
        f"| rooms from above | {measured(tokenizer, held_out.birdseye, train_set.birdseye)} |",
    ]
    if kitchen is not None:
        rows.append(f"| photographs of a real kitchen (7-Scenes) | {measured(tokenizer, kitchen, None)} |")
    facts = {
        "rooms": f"{GENERATOR_VERSION=}, {RoomConfig()}",
        "data": f"{args.rooms} rooms (seeds {args.first_seed} to {args.first_seed + args.rooms - 1}): "
        f"{len(train_set.views)} views and {len(train_set.birdseye)} views from above; "
        f"held out: {args.held_out} rooms (seeds from {HELD_OUT_SEED})",
        "views from above": f"splat of the views' own depth at {args.size} px; in every other one, holes "
        f"of up to {HOLES:g} px are filled",
        "loss": f"L1 + 4 L2 + 0.1 L1 of finite differences at three scales + {args.kl:g} KL (means over "
        "elements, pictures in [-1, 1]); mirrored and re-coloured at random",
        "optimiser": f"Muon on kernels (learning rate {args.lr:g}), AdamW on the rest ({args.lr / 10:g}), "
        f"cosine; {args.steps} steps of {args.batch} crops of {args.crop} px, the last {args.whole_steps} on "
        "whole pictures; averaged weights (0.998)",
        "seed": str(args.seed),
        "time": f"{took.wall / 60:.1f} minutes of wall clock on one thread of a shared machine, "
        f"{took.cpu / 60:.1f} minutes of CPU time, measurements included",
        "hardware": f"{platform.machine()} ({cpu_name()}), {'bf16 autocast' if args.bf16 else 'float32'}, "
        f"torch {torch.__version__}",
        "date": datetime.date.today().isoformat(),
        "command": f"`python {shlex.join(['scripts/train_autoencoder.py', *sys.argv[1:]])}`",
    }
    parameters = sum(p.numel() for p in tokenizer.module.parameters())
    return CARD.format(
        size=args.size,
        latent_channels=args.latent_channels,
        channels=tokenizer.channels,
        widths=tuple(args.widths),
        parameters=f"{parameters:,}",
        megabytes=f"{weights.stat().st_size / 1e6:.2f}",
        mean=f"{latents.mean.mean():.3f}",
        spread=f"{latents.mean.std():.3f}",
        noise=f"{latents.std.mean():.3f}",
        rows="\n".join(rows),
        facts="\n".join(f"| {key} | {value} |" for key, value in facts.items()),
    )


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=rooms_autoencoder_folder())
    parser.add_argument("--rooms", type=int, default=1200, help="training rooms")
    parser.add_argument("--held-out", type=int, default=40, help="rooms to measure on")
    parser.add_argument("--first-seed", type=int, default=2_000_000_000)
    parser.add_argument("--size", type=int, default=96, help="picture side, pixels")
    parser.add_argument("--latent-channels", type=int, default=16)
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32, 64, 64])
    parser.add_argument("--steps", type=int, default=5200)
    parser.add_argument("--whole-steps", type=int, default=400, help="last steps, on whole pictures")
    parser.add_argument("--crop", type=int, default=48, help="side of the crops before that, pixels")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--kl", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--report-every", type=int, default=400, help="steps between measurements and saves")
    args = parser.parse_args()
    torch.set_num_threads(1)
    held_out = render(range(HELD_OUT_SEED, HELD_OUT_SEED + args.held_out), args.size)
    train_set = render(range(args.first_seed, args.first_seed + args.rooms), args.size, progress=True)
    model, took = train(args, train_set, held_out)
    tokenizer = save(model, train_set, args)
    text = card(args, tokenizer, train_set, held_out, took)
    (args.output / "README.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
