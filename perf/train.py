"""How fast is training? K conversations behind one prefix against a loop over samples, with the same loss.

The loop is what training one sample at a time does: a pass over all views for every conversation. It is taken twice:
with the views encoded anew in every pass (as released) and with the tower's output cached; the packed step likewise.
Both sides attend in the same way, and every objective's loss is checked to be the same before anything is timed; the
sides are then timed in turns. Besides, the packed cost per sample as K grows (1 to 64) and as views grow (8 to 64).

On a CPU the backbone is scaled down, the visual tokens are not (32 views of 14 x 15 are 6 720):
    python perf/train.py
On a GPU a LLaVA-Video-7B-shaped model of random weights, with the objectives of Ross3D and 3DRS:
    python perf/train.py --random qwen2-7b --device cuda --dtype bf16 --gpu H200 --checkpointing --lora 64
All weights instead of low-rank adapters: --optimizer adamw8bit instead of --lora 64.
"""

import argparse
import dataclasses
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from evaluate import DTYPES, conversations, random_7b, random_scene
from ross3d_overhead import Shapes, objectives, small_model, targets_of

from stereopsis.data.batch import Batch
from stereopsis.data.pack import Conversation, ScenePack
from stereopsis.files import write_atomic
from stereopsis.models.attention import Attention
from stereopsis.models.lora import LoraConfig, add_lora
from stereopsis.models.spatial import SpatialModel
from stereopsis.objectives import FeatureAlignment
from stereopsis.objectives.set import ObjectiveSet
from stereopsis.report.line_chart import ChartPanel, Series, panels_svg
from stereopsis.training.cost import GPUS, scene_loads, step_flops
from stereopsis.training.optimizer import build_optimizer
from stereopsis.training.train_run import environment

ROOT = Path(__file__).resolve().parent.parent
WORDS = ("text",)
ALL = ("text", "birds_eye", "cross_view", "alignment")
ANSWERS = ("two", "a brown chair", "on the left of the desk", "yes")
FEATURES = 256
SMALL = Shapes(
    dim=64, layers=2, mlp=192, kv=64, views=32, width=64, depth=2, heads=4, encoder_dim=64, channels=16, words=0
)
"""For a CPU: the paper's views, cells and view from above, a narrow and shallow model."""
TINY = dataclasses.replace(SMALL, dim=64, layers=1, mlp=64, kv=64, views=4, grid=4, birdseye=5, width=16, depth=1)
"""For trying the script."""
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LOSS_TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2}


def model_of(args: argparse.Namespace, shapes: Shapes) -> SpatialModel:
    """The backbone of random weights with its heads, on its device, as it is trained."""
    dtype = DTYPES[args.dtype]
    model = random_7b(dtype, args.device) if args.random == "qwen2-7b" else small_model(shapes)
    model = model.to(device=args.device, dtype=dtype)
    model.adapter.attend(args.attention)
    if args.lora:
        adapters = LoraConfig(rank=args.lora, alpha=2.0 * args.lora, targets=LINEAR, dropout=0.0)
        add_lora(model.backbone, adapters, base=ROOT)
    torch.manual_seed(0)
    made = objectives(shapes)
    members = {**dict(made), "alignment": FeatureAlignment(shapes.dim, FEATURES)}
    model.objectives = ObjectiveSet(members, made.denoiser).to(args.device)
    if args.checkpointing:
        model.backbone.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


def optimizer_of(name: str, model: SpatialModel) -> torch.optim.Optimizer | None:
    if name == "none":
        return None
    return build_optimizer(model, name=name, learning_rate=1e-6, head_rate=1e-6, weight_decay=0.0)


def talk(count: int) -> tuple[Conversation, ...]:
    """So many questions, situated questions and captions in the benchmarks' wording, with short answers."""
    asked = [c for c in conversations(2 * count + 4) if not c.grounds]
    return tuple(
        dataclasses.replace(c, answer=ANSWERS[number % len(ANSWERS)]) for number, c in enumerate(asked[:count])
    )


def scene_of(model: SpatialModel, shapes: Shapes, views: int) -> ScenePack:
    """Noise of a scene's shape with noise for targets; no conversations, views not encoded."""
    sized = dataclasses.replace(shapes, views=views)
    pack = targets_of(random_scene(model, views, proposals=1), sized)
    generator = torch.Generator().manual_seed(3)
    grid = (views, shapes.grid, shapes.grid)
    features = {
        "view_features": torch.randn(*grid, FEATURES, generator=generator),
        "view_features_valid": torch.ones(*grid, dtype=torch.bool),
    }
    return pack.replace(view_targets={**pack.view_targets, **features}, encoder_tokens=None, conversations=())


class Trainer:
    """Optimiser steps over the same samples, packed or one by one."""

    def __init__(self, args: argparse.Namespace, shapes: Shapes) -> None:
        self.args, self.shapes, self.model = args, shapes, model_of(args, shapes)
        self.optimizer = optimizer_of(args.optimizer, self.model)
        self.collate = self.model.collator()

    def batches(self, views: int, conversations: int, *, packed: bool, cached: bool) -> list[Batch]:
        """The passes of a step: one that holds all conversations, or one for each."""
        pack = scene_of(self.model, self.shapes, views)
        if cached:
            with torch.no_grad():
                pack = pack.replace(encoder_tokens=self.model.adapter.encode(pack.images.to(self.args.device)).cpu())
        said = talk(conversations)
        groups = [said] if packed else [(one,) for one in said]
        return [self.collate([pack.replace(conversations=group)]).to(self.args.device) for group in groups]

    def losses(self, batches: Sequence[Batch], due: tuple[str, ...]) -> dict[str, float]:
        """Forward and backward of all passes, then the optimiser; each objective's loss over the step."""
        assert self.model.objectives is not None
        members = {name: self.model.objectives[name] for name in due}
        counts = {name: sum(member.count(batch) for batch in batches) for name, member in members.items()}
        totals = dict.fromkeys(due, 0.0)
        for batch in batches:  # the same seed in every pass: the same views are hidden, the same noise is drawn
            found = self.model(batch, due=due, seed=0)
            parts = {name: loss.sum.float() / counts[name] for name, loss in found.items()}
            torch.stack(list(parts.values())).sum().backward()
            for name, part in parts.items():
                totals[name] += float(part.detach())
        if self.optimizer is not None:
            self.optimizer.step()
        self.model.zero_grad(set_to_none=True)
        return totals

    def seconds(self, batches: Sequence[Batch], due: tuple[str, ...]) -> float:
        """Of one step."""
        self._wait()
        start = time.perf_counter()
        self.losses(batches, due)
        self._wait()
        return time.perf_counter() - start

    def peak(self, batches: Sequence[Batch], due: tuple[str, ...]) -> float | None:
        """Peak memory of the device during a step, GiB; None on a CPU."""
        if not self.args.device.startswith("cuda"):
            return None
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        self.losses(batches, due)
        return torch.cuda.max_memory_allocated() / 2**30

    def _wait(self) -> None:
        if self.args.device.startswith("cuda"):
            torch.cuda.synchronize()


def same_loss(packed: dict[str, float], loop: dict[str, float], tolerance: float) -> float:
    """The largest relative difference.

    Raises:
        RuntimeError: the two sides do not train the same thing.
    """
    worst = max(abs(packed[name] / loop[name] - 1) for name in packed)
    if not worst <= tolerance:
        raise RuntimeError(f"packed and separate losses differ by {worst:.1e} (at most {tolerance}): {packed}, {loop}")
    return worst


def packed_against_loop(trainer: Trainer, due: tuple[str, ...], *, cached: bool) -> dict[str, Any]:
    """Both ways on the same samples, in turns, so that a busy machine slows both alike."""
    args = trainer.args
    sides = {
        name: trainer.batches(args.views, args.conversations, packed=name == "packed", cached=cached)
        for name in ("packed", "loop")
    }
    # losses first, and all of them before an optimiser may change the weights
    kept, trainer.optimizer = trainer.optimizer, None
    losses = {name: trainer.losses(batches, due) for name, batches in sides.items()}
    trainer.optimizer = kept
    difference = same_loss(losses["packed"], losses["loop"], LOSS_TOLERANCE[args.dtype])
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(args.repeats):
        for name, batches in sides.items():
            times[name].append(trainer.seconds(batches, due))
    ratios = [loop / packed for packed, loop in zip(times["packed"], times["loop"], strict=True)]
    return {
        "views": "cached tower output" if cached else "encoded in every pass",
        "objectives": due,
        "losses": losses,
        "largest_relative_difference": difference,
        "seconds_per_step": {name: statistics.median(values) for name, values in times.items()},
        "samples_per_second": {name: args.conversations / statistics.median(v) for name, v in times.items()},
        "peak_gib": {name: trainer.peak(batches, due) for name, batches in sides.items()},
        "faster": statistics.median(ratios),
        "faster_range": [min(ratios), max(ratios)],
        "utilisation": {
            name: utilisation(trainer, batches, due, statistics.median(times[name]), cached=cached)
            for name, batches in sides.items()
        },
    }


def utilisation(
    trainer: Trainer, batches: Sequence[Batch], due: tuple[str, ...], seconds: float, *, cached: bool
) -> dict[str, float] | None:
    """Model FLOPs of a step (forward and backward, pairs that see each other, nothing twice) over time and peak."""
    if trainer.args.gpu is None:
        return None
    active = dict.fromkeys(due, 1.0)
    passes = [step_flops(trainer.model, scene_loads(batch), due=active, vision=not cached) for batch in batches]
    operations = sum(each.total.model for each in passes)
    return {
        "model_tflop": operations / 1e12,
        "tflop_per_second": operations / 1e12 / seconds,
        "share_of_peak": operations / 1e12 / seconds / GPUS[trainer.args.gpu].bf16,
    }


def cost(trainer: Trainer, views: int, conversations: int, due: tuple[str, ...]) -> dict[str, Any]:
    """A packed step's cost per sample, the tower's output cached."""
    batches = trainer.batches(views, conversations, packed=True, cached=True)
    trainer.losses(batches, due)  # warm up
    seconds = statistics.median(trainer.seconds(batches, due) for _ in range(trainer.args.sweep_repeats))
    return {
        "views": views,
        "conversations": conversations,
        "tokens": batches[0].input_ids.shape[1],
        "seconds": seconds,
        "seconds_per_sample": seconds / conversations,
        "peak_gib": trainer.peak(batches, due),
    }


def while_memory_lasts(measured: Callable[[int], dict[str, Any]], values: Sequence[int]) -> list[dict[str, Any]]:
    """Ascending sizes, up to the first that the device has no room for."""
    found = []
    for value in values:
        try:
            found.append(measured(value))
        except torch.OutOfMemoryError:
            print(f"no room for {value}: the figure ends before it", flush=True)
            torch.cuda.empty_cache()
            break
    return found


def measure(trainer: Trainer) -> dict[str, Any]:
    """Everything, as the record that is written."""
    args = trainer.args
    due = ALL if args.objectives == "all" else WORDS
    if args.only_step:
        compared = [packed_against_loop(trainer, due, cached=True)]
    else:
        compared = [packed_against_loop(trainer, due, cached=cached) for cached in (False, True)]
    for found in compared:
        show(found)
    record: dict[str, Any] = {"packed_against_loop": compared}
    if not args.only_step:
        record["by_conversations"] = while_memory_lasts(
            lambda conversations: shown(cost(trainer, args.views, conversations, due)), args.sweep_conversations
        )
        record["by_views"] = while_memory_lasts(
            lambda views: {
                "views": views,
                "packed": shown(cost(trainer, views, args.conversations, due)),
                "alone": shown(cost(trainer, views, 1, due)),
            },
            args.sweep_views,
        )
    batch = trainer.batches(args.views, args.conversations, packed=True, cached=True)[0]
    prefix = int((batch.segments == 0).sum())
    return {
        "environment": environment(),
        "load_average": os.getloadavg()[0],
        "torch_threads": torch.get_num_threads(),
        "arguments": {key: value for key, value in vars(args).items() if key != "results"},
        "sizes": dataclasses.asdict(dataclasses.replace(trainer.shapes, views=args.views)),
        "attention": trainer.model.adapter.attention_on(torch.device(args.device)),
        "tokens": {
            "visual": batch.layout.index.numel() // trainer.shapes.grid * (trainer.shapes.grid + 1),
            "prefix": prefix,
            "per_conversation": (batch.input_ids.shape[1] - prefix) / args.conversations,
        },
        **record,
    }


def figure(record: dict[str, Any]) -> str:
    """Cost per sample over conversations and over views, both axes logarithmic."""
    by_k, by_views = record["by_conversations"], record["by_views"]
    cost_by_k = tuple((float(e["conversations"]), e["seconds_per_sample"]) for e in by_k)
    alone = cost_by_k[0][0] * cost_by_k[0][1]

    def line(name: str, key: str) -> Series:
        return Series(name=name, points=tuple((float(e["views"]), e[key]["seconds_per_sample"]) for e in by_views))

    conversations = ChartPanel(
        title=f"{record['arguments']['views']} views: cost per sample",
        across="conversations behind one prefix",
        up="seconds per sample",
        series=(
            Series(name="packed", points=cost_by_k),
            Series(name="if words cost nothing", dashed=True, points=tuple((k, alone / k) for k, _ in cost_by_k)),
        ),
    )
    views = ChartPanel(
        title="Cost per sample as views grow",
        across="views",
        up="seconds per sample",
        series=(
            line(f"packed, {record['arguments']['conversations']} conversations", "packed"),
            line("one by one", "alone"),
        ),
    )
    return panels_svg([conversations, views])


def show(found: dict[str, Any]) -> None:
    agree = f"losses agree to {found['largest_relative_difference']:.1e}"
    print(f"\n{found['views']}; {', '.join(found['objectives'])}; {agree}")
    for name in ("packed", "loop"):
        seconds, speed, peak = (found[key][name] for key in ("seconds_per_step", "samples_per_second", "peak_gib"))
        memory = "" if peak is None else f"{peak:>8.1f} GiB"
        used = found["utilisation"][name]
        share = "" if used is None else f"{100 * used['share_of_peak']:>7.1f} % of peak"
        print(f"  {name:<8}{seconds:>9.3f} s a step{speed:>10.2f} samples/s{memory}{share}")
    low, high = found["faster_range"]
    print(f"  {found['faster']:.1f} times as fast ({low:.1f} to {high:.1f})", flush=True)


def shown(found: dict[str, Any]) -> dict[str, Any]:
    print(
        f"{found['views']:>3} views x {found['conversations']:>2} conversations: {found['tokens']:>6} tokens,"
        f"{found['seconds']:>8.3f} s a step,{found['seconds_per_sample']:>8.4f} s a sample",
        flush=True,
    )
    return found


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part)


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--random", choices=("tiny", "small", "qwen2-7b"), default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=LOSS_TOLERANCE, default="fp32")
    parser.add_argument("--attention", choices=get_args(Attention), default="auto")
    parser.add_argument("--objectives", choices=("words", "all"), help="default: words on a CPU, all at 7B")
    parser.add_argument("--views", type=int, help="default: 32 (tiny: 4)")
    parser.add_argument("--conversations", type=int, default=16, help="K")
    parser.add_argument("--lora", type=int, default=0, metavar="RANK", help="train low-rank adapters only")
    parser.add_argument("--optimizer", choices=("none", "adamw", "adamw8bit"), default="none")
    parser.add_argument("--checkpointing", action="store_true", help="compute layers again in the backward pass")
    parser.add_argument(
        "--gpu", help="name in stereopsis.training.cost.gpus, for model FLOPs utilisation: H200, H100, ..."
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sweep-repeats", type=int, default=2)
    parser.add_argument("--sweep-conversations", type=numbers, default=(1, 2, 4, 8, 16, 32, 64))
    parser.add_argument("--sweep-views", type=numbers, default=(8, 16, 32, 64))
    parser.add_argument("--only-step", action="store_true", help="packed against the loop with cached views, no sweeps")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    parser.add_argument("--name", default="perf_train", help="of the files that are written")
    args = parser.parse_args(arguments)
    args.views = args.views or (TINY.views if args.random == "tiny" else 32)
    args.objectives = args.objectives or ("all" if args.random == "qwen2-7b" else "words")
    return args


def main() -> None:
    args = parsed()
    torch.set_num_threads(args.threads)
    shapes = {"tiny": TINY, "small": SMALL, "qwen2-7b": Shapes(words=0)}[args.random]
    record = measure(Trainer(args, shapes))
    args.results.mkdir(parents=True, exist_ok=True)
    content = (json.dumps(record, indent=1, default=str) + "\n").encode()
    write_atomic(args.results / f"{args.name}.json", content)
    if "by_views" in record:
        write_atomic(args.results / f"{args.name}.svg", (figure(record) + "\n").encode())


if __name__ == "__main__":
    main()
