"""How much memory does `stereopsis convert` take? A synthetic checkpoint of several GB, there and back.

Writes a Ross3D checkpoint of random bfloat16 weights in the official layout, sharded, as .safetensors and as .bin;
runs the command in processes of their own, whose peak resident memory is watched; and compares every weight that
came back with the one that was written, bit for bit. What the interpreter and the libraries take by themselves is
measured with the same command on a checkpoint of a few kilobytes. Pages of mapped files count as resident although the
system may drop them at any time, so the process's own memory is given apart.

Run: python perf/convert.py [--width 2048 --layers 24] [--shard-gigabytes 1]
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import LlavaOnevisionForConditionalGeneration

from stereopsis.files import write_atomic
from stereopsis.models.grounding import GroundingHead
from stereopsis.models.released import released_name
from stereopsis.models.released.config import huggingface_config
from stereopsis.models.tiny import build_tokenizer
from stereopsis.objectives import Denoiser, DenoiserConfig
from stereopsis.training.train_run import environment

ROOT = Path(__file__).resolve().parent.parent
TOWER = "model.vision_tower.vision_tower.vision_model"
GIB = 1024**3


def official_config(width: int, layers: int) -> dict[str, Any]:
    """config.json of a LLaVA-Video-like model; heads of 64 (of 8 in the smallest)."""
    heads = max(1, width // 64)
    return {
        "model_type": "llava_qwen",
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": max(1, heads // 8),
        "max_position_embeddings": 32768,
        "rope_theta": 1000000.0,
        "rms_norm_eps": 1e-6,
        "mm_vision_tower": "google/siglip-so400m-patch14-384",
        "mm_spatial_pool_stride": 2,
    }


def layout(config: dict[str, Any], vocabulary: int, tower: dict[str, int]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight of a Ross3D release of these sizes."""
    patches = f"{TOWER}.embeddings.patch_embedding.weight"
    facts: dict[str, tuple[int, ...]] = {patches: (tower["width"], 3, 14, 14), "lm_head.weight": (1,)}
    for number in range(tower["layers"]):
        facts[f"{TOWER}.encoder.layers.{number}.mlp.fc1.weight"] = (tower["inner"], tower["width"])
    with torch.device("meta"):
        settings = huggingface_config(config, facts, 2, vocabulary)
        backbone = LlavaOnevisionForConditionalGeneration(settings)
        sizes = {"width": tower["heads_width"], "depth": 3, "heads": 16}
        denoiser = Denoiser(
            DenoiserConfig(
                condition_dim=config["hidden_size"], channels=64, view_grid=(14, 14), birdseye_grid=(27, 27), **sizes
            )
        )
        head = GroundingHead(config["hidden_size"])
    found = {released_name("backbone", name): tuple(w.shape) for name, w in backbone.state_dict().items()}
    found |= {released_name("grounding", name): tuple(w.shape) for name, w in head.state_dict().items()}
    found |= {released_name("heads", f"denoiser.{name}"): tuple(w.shape) for name, w in denoiser.state_dict().items()}
    return found | {"model.mask_token": (config["hidden_size"],)}


def random_weights(shapes: dict[str, tuple[int, ...]]) -> Iterator[tuple[str, torch.Tensor]]:
    """Random bits of bfloat16 numbers, a tensor at a time."""
    for number, (name, shape) in enumerate(shapes.items()):
        draw = torch.Generator().manual_seed(number)
        bits = torch.randint(-(2**15), 2**15, shape, generator=draw, dtype=torch.int16)
        yield name, bits.view(torch.bfloat16)


def write_checkpoint(folder: Path, config: dict[str, Any], shapes: dict[str, tuple[int, ...]], shard: int) -> int:
    """The official folder with .safetensors shards; returns the bytes of its weights."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    build_tokenizer(["where is the red chair? on the table"], 300).save_pretrained(folder)
    places: dict[str, str] = {}
    waiting: dict[str, torch.Tensor] = {}
    total = held = number = 0
    for name, tensor in itertools.chain(random_weights(shapes), [("", torch.zeros(0))]):
        if waiting and (not name or held + tensor.nbytes > shard):
            number += 1
            title = f"model-{number:05d}.safetensors"
            save_file(waiting, folder / title, metadata={"format": "pt"})
            places |= dict.fromkeys(waiting, title)
            waiting, held = {}, 0
        if name:
            waiting[name] = tensor
            held += tensor.nbytes
            total += tensor.nbytes
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return total


def as_torch_files(folder: Path) -> None:
    """Turn a folder's .safetensors shards into .bin shards, one after the other."""
    index = folder / "model.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]
    for title in sorted(set(places.values())):
        with safe_open(folder / title, framework="pt") as file:
            held = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        torch.save(held, folder / f"pytorch_{title.replace('.safetensors', '.bin')}")
        (folder / title).unlink()
    renamed = {name: f"pytorch_{title.replace('.safetensors', '.bin')}" for name, title in places.items()}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": renamed}))
    index.unlink()


class Watched:
    """A command in a process of its own: seconds, and peaks of its resident memory in GiB.

    The peaks are read from /proc fifty times a second: the figure that the system gives when a process has ended
    counts the memory of the one that started it, too.

    Attributes:
        seconds: how long it took.
        peak: of all that is resident.
        own: of what is not a mapped file's page.
    """

    def __init__(self, command: list[str]) -> None:
        start = time.perf_counter()
        self.peak = self.own = 0.0
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            while process.poll() is None:
                self._sample(Path(f"/proc/{process.pid}/status"))
                time.sleep(0.02)
        if process.returncode:
            raise SystemExit(f"'{' '.join(command)}' ended with {process.returncode}")
        self.seconds = time.perf_counter() - start

    def _sample(self, status: Path) -> None:
        lines = (line.split() for line in status.read_text().splitlines())
        values = {words[0]: int(words[1]) / 1024**2 for words in lines if words[0] in ("VmHWM:", "RssAnon:")}
        self.peak, self.own = max(self.peak, values.get("VmHWM:", 0)), max(self.own, values.get("RssAnon:", 0))


def convert(source: Path, target: Path, shard: float, *, back: bool = False) -> Watched:
    """Run the command."""
    command = [sys.executable, "-m", "stereopsis", "convert", str(source), str(target)]
    return Watched([*command, "--shard-gigabytes", str(shard), *(["--to", "released"] if back else [])])


def different(folder: Path, shapes: dict[str, tuple[int, ...]]) -> list[str]:
    """Weights that are not, bit for bit, those that were written."""
    places = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    wrong = sorted(places.keys() ^ shapes.keys())
    for name, expected in random_weights(shapes):
        if name in places:
            with safe_open(folder / places[name], framework="pt") as file:
                found = file.get_tensor(name)
            if found.shape != expected.shape or not torch.equal(found.view(torch.int16), expected.view(torch.int16)):
                wrong.append(name)
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--vocabulary", type=int, default=152064)
    parser.add_argument("--shard-gigabytes", type=float, default=1.0, help="of the shards read and written")
    parser.add_argument("--folder", type=Path, help="where the checkpoints are made and removed (3 times their size)")
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    args = parser.parse_args()
    tower = {"width": 1152, "inner": 4304, "layers": 26, "heads_width": 1024}
    least = {"width": 16, "inner": 8, "layers": 1, "heads_width": 16}
    config = official_config(args.width, args.layers)
    shapes = layout(config, args.vocabulary, tower)
    with tempfile.TemporaryDirectory(dir=args.folder) as temporary:
        folder = Path(temporary)
        small = official_config(8, 1)
        write_checkpoint(folder / "least", small, layout(small, 320, least), GIB)
        nothing = convert(folder / "least", folder / "least ours", 1.0)
        nothing_back = convert(folder / "least ours", folder / "least back", 1.0, back=True)
        total = write_checkpoint(folder / "official", config, shapes, int(args.shard_gigabytes * GIB))
        largest = max(path.stat().st_size for path in (folder / "official").glob("*.safetensors"))
        runs = {"released .safetensors": (convert(folder / "official", folder / "ours", args.shard_gigabytes), nothing)}
        runs["back to released"] = (
            convert(folder / "ours", folder / "back", args.shard_gigabytes, back=True),
            nothing_back,
        )
        wrong = different(folder / "back", shapes)
        for name in ("ours", "back"):
            for path in sorted((folder / name).iterdir()):
                path.unlink()
        as_torch_files(folder / "official")
        runs["released .bin"] = (convert(folder / "official", folder / "from bin", args.shard_gigabytes), nothing)
    record = {
        "environment": environment(),
        "arguments": {"width": args.width, "layers": args.layers, "vocabulary": args.vocabulary},
        "checkpoint_gib": total / GIB,
        "weights": len(shapes),
        "shard_gib": args.shard_gigabytes,
        "largest_shard_gib": largest / GIB,
        "runs": {name: measured(run, least_run, args.shard_gigabytes) for name, (run, least_run) in runs.items()},
        "round_trip_differs": wrong,
    }
    args.results.mkdir(parents=True, exist_ok=True)
    write_atomic(args.results / "perf_convert.json", (json.dumps(record, indent=1) + "\n").encode())
    show(record)


def measured(run: Watched, nothing: Watched, shard: float) -> dict[str, float]:
    """Peaks in GiB; ``beyond``: above what the command takes for a checkpoint of a few kilobytes."""
    return {
        "seconds": run.seconds,
        "peak": run.peak,
        "baseline": nothing.peak,
        "beyond": run.peak - nothing.peak,
        "beyond_in_shards": (run.peak - nothing.peak) / shard,
        "own_beyond": run.own - nothing.own,
    }


def show(record: dict[str, Any]) -> None:
    print(f"{record['checkpoint_gib']:.2f} GiB in {record['weights']} weights, shards of {record['shard_gib']} GiB")
    print(f"{'':<24}{'seconds':>9}{'peak':>8}{'baseline':>10}{'beyond':>8}{'shards':>8}{'own beyond':>12}   GiB")
    for name, run in record["runs"].items():
        values = f"{run['peak']:>8.2f}{run['baseline']:>10.2f}{run['beyond']:>8.2f}{run['beyond_in_shards']:>8.2f}"
        print(f"{name:<24}{run['seconds']:>9.1f}{values}{run['own_beyond']:>12.2f}")
    wrong = record["round_trip_differs"]
    print(f"weights that differ after the round trip: {len(wrong)} {wrong[:5]}")


if __name__ == "__main__":
    main()
