"""What reconstruction costs while training: one step with and without Ross3D's objectives, at the paper's shapes.

The paper reports 1.12 times the time and 1.02 times the memory (8 A100, 7B, ZeRO-3). The shapes are its own: 32 views
of 14x14 tokens (and a newline a row), a view from above of 27x27 cells, 8 hidden views 4 times each, a denoiser 1024
wide and 3 deep. Targets are encoded beforehand, as in our training; the paper's figure includes its teacher. The
optimiser step is left out of the time and its state out of the memory unless --optimizer is given.

A step that hides views comes every 4th time, so the paper's figure is an average: (3 steps with the view from above +
1 step with both) / 4. All three kinds of step are measured, and that average is what stands beside 1.12.

On a GPU with a 7B backbone of random weights:
    python perf/ross3d_overhead.py --random qwen2-7b --device cuda --dtype bf16
On a CPU everything is smaller (the sizes are printed); there, the floating-point operations of every part, counted from
the shapes, say what to expect at 7B:
    python perf/ross3d_overhead.py
"""

import argparse
import dataclasses
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from evaluate import DTYPES, conversations, random_7b, random_llava, random_scene
from transformers import Qwen2Config, SiglipVisionConfig

from stereopsis.data.pack import ScenePack
from stereopsis.files import write_atomic
from stereopsis.models.spatial import SpatialModel
from stereopsis.models.tiny import build_tokenizer
from stereopsis.objectives.denoiser_network import Denoiser, DenoiserConfig
from stereopsis.objectives.reconstruction import BirdsEye, CrossView
from stereopsis.objectives.set import ObjectiveSet
from stereopsis.objectives.text import TextLoss
from stereopsis.training.train_run import environment

ROOT = Path(__file__).resolve().parent.parent
KINDS = {"words": ("text",), "words, above": ("text", "birds_eye"), "all": ("text", "birds_eye", "cross_view")}
PAPER = {"time": 1.12, "memory": 1.02}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shapes:
    """Sizes of a step; the defaults are the paper's.

    Attributes:
        dim: width of the language model.
        layers: its layers.
        mlp: hidden width of its MLPs.
        kv: width of its keys and values together with heads shared.
        views: per scene.
        grid: rows and cols of a view's tokens, and of its latent cells.
        birdseye: rows and cols of the cells from above.
        width: of the denoiser.
        depth: of the denoiser.
        heads: of the denoiser.
        channels: of a latent cell.
        encoder_dim: width of the (frozen) vision tower's output.
        words: text tokens behind the views.
    """

    dim: int = 3584
    layers: int = 28
    mlp: int = 18944
    kv: int = 1024
    views: int = 32
    grid: int = 14
    birdseye: int = 27
    width: int = 1024
    depth: int = 3
    heads: int = 16
    channels: int = 64
    encoder_dim: int = 1152
    words: int = 640

    @property
    def hidden(self) -> int:
        """Hidden views: a quarter."""
        return self.views - int(self.views * 0.75)

    @property
    def tokens(self) -> int:
        """Sequence length: the views' tokens, their newlines, the words."""
        return self.views * self.grid * (self.grid + 1) + self.words


SMALL = Shapes(
    dim=512,
    layers=8,
    mlp=1536,
    kv=512,
    views=8,
    grid=7,
    birdseye=13,
    width=80,
    depth=2,
    heads=4,
    encoder_dim=96,
    words=80,
)
"""For a CPU: a quarter of the views, a quarter of the cells, and a denoiser that is about as small beside the model."""


def flops(shapes: Shapes) -> dict[str, float]:
    """Floating-point operations of the forward pass of every part of a step, from the shapes (2 per multiply-add)."""
    s, n, d = shapes, shapes.tokens, shapes.dim
    layer = n * (2 * d * d + 2 * d * s.kv + 3 * d * s.mlp) + n * n * d  # causal: half of 2 n n d
    cells, above = s.grid**2, s.birdseye**2
    repeats = s.views // s.hidden

    def blocks(targets: int, count: int) -> float:
        w = s.width
        block = count * (4 * w * w + 8 * w * w + 6 * w * w) + 2 * count * count * w
        ends = count * (2 * s.channels * w + 2 * w * w)
        return 2.0 * targets * (s.depth * block + ends)

    def pooler(count: int, tokens: int) -> float:
        w = s.width
        return 2.0 * (tokens * (d * w + 2 * w * w) + 2 * count * tokens * w + count * w * w)

    visible = (s.views - s.hidden) * cells
    return {
        "language model": 2.0 * s.layers * layer,
        "from above: condition": pooler(above, s.views * cells),
        "from above: denoiser": blocks(1, above),
        "hidden views: condition": pooler(cells, visible),
        "hidden views: denoiser": blocks(s.hidden * repeats, cells),
    }


def predicted(shapes: Shapes, slower: float = 1.0) -> dict[str, float]:
    """Time ratios if time were floating-point operations: forward and backward of every part cost alike.

    Args:
        shapes: of the step.
        slower: how much slower than the language model's the objectives' operations are: they are computed in
            float32, which on an A100 is 16 times slower than bfloat16.
    """
    parts = flops(shapes)
    words = parts["language model"]
    above = words + slower * (parts["from above: condition"] + parts["from above: denoiser"])
    both = above + slower * (parts["hidden views: condition"] + parts["hidden views: denoiser"])
    return {"words, above": above / words, "all": both / words, "paper's mixture": (3 * above + both) / 4 / words}


def small_model(shapes: Shapes) -> SpatialModel:
    """A LLaVA-OneVision of the small sizes with random weights; its tower's output comes from the pack."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer([c.prompt for c in conversations(200)], 1024)
    patch, heads = 8, shapes.dim // 64
    vision = SiglipVisionConfig(
        hidden_size=shapes.encoder_dim,
        intermediate_size=2 * shapes.encoder_dim,
        num_hidden_layers=1,
        num_attention_heads=4,
        image_size=patch * shapes.grid,
        patch_size=patch,
        vision_use_head=False,
    )
    text = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=shapes.dim,
        intermediate_size=shapes.mlp,
        num_hidden_layers=shapes.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=32768,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return random_llava(vision, text, tokenizer, (shapes.grid, shapes.grid))


def targets_of(pack: ScenePack, shapes: Shapes) -> ScenePack:
    """The pack with noise for targets, and noise for what the frozen tower would say."""
    generator = torch.Generator().manual_seed(2)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    rows, cols = pack.proposals.cells.shape[2:]
    above = (shapes.birdseye, shapes.birdseye)
    asked = []
    for conversation in conversations(400):
        if conversation.point is None and not conversation.grounds:
            asked.append(dataclasses.replace(conversation, answer="a brown chair"))
    return pack.replace(
        view_targets={"view_latents": noise(shapes.views, shapes.grid, shapes.grid, shapes.channels)},
        scene_targets={
            "birdseye_latents": noise(*above, shapes.channels),
            "birdseye_valid": torch.ones(*above, dtype=torch.bool),
        },
        encoder_tokens=noise(shapes.views, rows, cols, shapes.encoder_dim),
        conversations=tuple(asked[: max(1, shapes.words // 40)]),
    )


def objectives(shapes: Shapes) -> ObjectiveSet:
    denoiser = Denoiser(
        DenoiserConfig(
            condition_dim=shapes.dim,
            channels=shapes.channels,
            width=shapes.width,
            depth=shapes.depth,
            heads=shapes.heads,
            view_grid=(shapes.grid, shapes.grid),
            birdseye_grid=(shapes.birdseye, shapes.birdseye),
        )
    )
    members = {
        "text": TextLoss(),
        "birds_eye": BirdsEye(denoiser),
        "cross_view": CrossView(denoiser, conditioning="released", dim=shapes.dim),
    }
    return ObjectiveSet(members, denoiser)


class Step:
    """Forward and backward of one scene, with some of the objectives."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.device, self.shapes = args.device, Shapes() if args.random == "qwen2-7b" else SMALL
        dtype = DTYPES[args.dtype]
        self.model = random_7b(dtype, args.device) if args.random == "qwen2-7b" else small_model(SMALL)
        self.model = self.model.to(device=args.device, dtype=dtype)
        self.model.objectives = objectives(self.shapes).to(args.device)
        self.model.train()
        if not args.keep_activations and args.random == "qwen2-7b":
            self.model.backbone.gradient_checkpointing_enable({"use_reentrant": False})
        pack = targets_of(random_scene(self.model, self.shapes.views, proposals=1), self.shapes)
        self.batch = self.model.collator()([pack]).to(args.device)
        self.optimizer = None
        if args.optimizer:
            trained = [p for p in self.model.parameters() if p.requires_grad]
            self.optimizer = torch.optim.AdamW(trained, lr=1e-6)

    def __call__(self, due: tuple[str, ...]) -> float:
        """Seconds."""
        self._wait()
        start = time.perf_counter()
        losses = self.model(self.batch, due=due, seed=0)
        total = torch.stack([loss.sum.float() / max(loss.count, 1.0) for loss in losses.values()]).sum()
        total.backward()
        if self.optimizer is not None:
            self.optimizer.step()
        self._wait()
        seconds = time.perf_counter() - start
        for parameter in self.model.parameters():  # kept at zero, as gradients accumulate in the released training
            if parameter.grad is not None:
                parameter.grad.zero_()
        return seconds

    def _wait(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()

    def peak(self, due: tuple[str, ...]) -> float:
        """Peak memory of a step, GiB: of the device, or (CPU) of this process so far."""
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self(due)
            return torch.cuda.max_memory_allocated() / 2**30
        self(due)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def peaks(step: Step, args: argparse.Namespace) -> dict[str, float]:
    """Peak memory of every kind of step; on the CPU each in a fresh process, as a process forgets no peak."""
    if step.device.startswith("cuda"):
        return {kind: step.peak(due) for kind, due in KINDS.items()}
    found = {}
    for kind in KINDS:
        command = [sys.executable, __file__, "--peak-of", kind, "--threads", str(args.threads), "--dtype", args.dtype]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found[kind] = float(said.split()[-1])
    return found


def without_heads(peak: dict[str, float], step: Step) -> dict[str, float]:
    """The baseline does not hold the denoiser at all: its parameters (and gradients) are taken off its peak."""
    assert step.model.objectives is not None
    heads = sum(p.numel() * p.element_size() for p in step.model.objectives.parameters())
    copies = 1 if step.optimizer is None else 3
    return {**peak, "words": peak["words"] - copies * heads / 2**30}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--random", choices=("small", "qwen2-7b"), default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--optimizer", action="store_true", help="AdamW's step and state, too (7B: 60 GB more)")
    parser.add_argument("--keep-activations", action="store_true", help="7B: no gradient checkpointing")
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    parser.add_argument("--peak-of", choices=KINDS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    step = Step(args)
    if args.peak_of:
        print(step.peak(KINDS[args.peak_of]))
        return
    print(f"sizes: {dataclasses.asdict(step.shapes)}; sequence of {step.batch.input_ids.shape[1]} tokens")
    for due in KINDS.values():
        step(due)  # warm up
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(args.repeats):  # in turns, so that a busy machine slows all alike
        for kind, due in KINDS.items():
            times[kind].append(step(due))
    memory = without_heads(peaks(step, args), step)
    arguments = {key: value for key, value in vars(args).items() if key not in ("results", "peak_of")}
    record = measured(step.shapes, times, memory, arguments)
    args.results.mkdir(parents=True, exist_ok=True)
    write_atomic(
        args.results / "perf_ross3d_overhead.json", (json.dumps(record, indent=1, default=str) + "\n").encode()
    )
    show(record)


def measured(
    shapes: Shapes, times: dict[str, list[float]], memory: dict[str, float], arguments: dict[str, Any]
) -> dict[str, Any]:
    rounds = list(zip(*(times[kind] for kind in KINDS), strict=True))
    mixtures = [(3 * above + both) / 4 / words for words, above, both in rounds]
    return {
        "environment": environment(),
        "load_average": os.getloadavg()[0],
        "arguments": arguments,
        "sizes": dataclasses.asdict(shapes),
        "seconds": {kind: statistics.median(values) for kind, values in times.items()},
        "peak_gib": memory,
        "time_ratio": {
            "words, above": statistics.median(above / words for words, above, _ in rounds),
            "all": statistics.median(both / words for words, _, both in rounds),
            "paper's mixture": statistics.median(mixtures),
            "paper's mixture, range": [min(mixtures), max(mixtures)],
        },
        "memory_ratio": max(memory.values()) / memory["words"],
        "paper": PAPER,
        "gflops_forward": {name: value / 1e9 for name, value in flops(shapes).items()},
        "predicted_from_flops": {
            "these sizes": predicted(shapes),
            "7B": predicted(Shapes()),
            "7B, fp32 16x slower": predicted(Shapes(), slower=16.0),
        },
    }


def show(record: dict[str, Any]) -> None:
    print(f"\n{'step':<16}{'ms':>10}{'peak GiB':>10}")
    for kind in KINDS:
        print(f"{kind:<16}{1000 * record['seconds'][kind]:>10.1f}{record['peak_gib'][kind]:>10.2f}")
    print(f"\n{'time ratio':<18}{'measured':>10}{'by FLOPs':>10}{'7B, FLOPs':>10}{'and fp32':>10}{'paper':>8}")
    for kind in ("words, above", "all", "paper's mixture"):
        row = [record["time_ratio"][kind], *(each[kind] for each in record["predicted_from_flops"].values())]
        paper = f"{PAPER['time']:>8.2f}" if kind == "paper's mixture" else ""
        print(f"{kind:<18}" + "".join(f"{value:>10.3f}" for value in row) + paper)
    print(f"{'memory ratio':<18}{record['memory_ratio']:>10.3f}{'':>30}{PAPER['memory']:>8.2f}")
    print("\nforward GFLOPs: " + ", ".join(f"{k} {v:.2f}" for k, v in record["gflops_forward"].items()))


if __name__ == "__main__":
    main()
