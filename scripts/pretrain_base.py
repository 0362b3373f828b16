"""Pretrain the small base model on single views, the stand-in for the papers' 2-D multimodal LLM.

It learns what the things in ONE picture are: their categories and colours (dense labels of the encoder's cells, then
questions and captions). It never sees two views together, no depth, no pose: 3D tuning has everything to prove.

    python scripts/pretrain_base.py

writes src/stereopsis/assets/tiny_base (weights, tokenizer, card with the abilities measured on unseen rooms).
"""

import argparse
import collections
import dataclasses
import json
import math
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from stereopsis.annotations import COORD_TOKEN
from stereopsis.benchmarks.multi3drefer.prompt import SUFFIX as ANY_NUMBER
from stereopsis.benchmarks.scan2cap.prompt import PROMPT as DESCRIBE
from stereopsis.benchmarks.scanqa.prompt import SUFFIX as SIMPLE_ANSWER
from stereopsis.benchmarks.scanrefer.prompt import PREFIX as IDENTIFY
from stereopsis.benchmarks.sqa3d.prompt import SUFFIX as SHORT_ANSWER
from stereopsis.data.batch import Batch, SceneProposals
from stereopsis.data.pack import Conversation, ScenePack
from stereopsis.models.spatial import SpatialConfig, SpatialModel
from stereopsis.models.storage import adapter_for, save_model
from stereopsis.models.tiny import TinyConfig, build_tiny_backbone, build_tokenizer
from stereopsis.objectives.text import TextLoss
from stereopsis.scenes.rooms import CATEGORIES, COLOURS, GENERATOR_VERSION, MATERIALS, render_room
from stereopsis.scenes.rooms.language import split_seeds
from stereopsis.scenes.rooms.language.corpus import corpus
from stereopsis.scenes.rooms.language.views import view_annotations
from stereopsis.training.train_run import environment

OUTPUT = Path(__file__).resolve().parent.parent / "src" / "stereopsis" / "assets" / "tiny_base"
ROOM_OFFSET = 1_000_000  # away from the rooms that later runs are tuned on
# What the encoder's cells are labelled with: attribute -> word -> number; 0 is background.
LABELS = {
    attribute: {word: number for number, word in enumerate(words, start=1)}
    for attribute, words in {"category": CATEGORIES, "colour": COLOURS, "material": MATERIALS}.items()
}
PHRASES = (SHORT_ANSWER, SIMPLE_ANSWER, IDENTIFY, ANY_NUMBER, *(p.strip() for p in DESCRIBE.split(COORD_TOKEN)))
console = Console()


@dataclasses.dataclass(frozen=True, kw_only=True)
class View:
    """One picture with its dense labels [attributes cells cells] and what is said about it."""

    image: np.ndarray
    labels: np.ndarray
    said: tuple[tuple[str, str, str], ...]


def cell_labels(instances: np.ndarray, values: dict[int, int], cells: int) -> np.ndarray:
    """[cells cells] label of the object that covers most of each cell; 0 where less than a quarter is objects."""
    size = instances.shape[0] // cells
    blocks = instances.reshape(cells, size, cells, size).swapaxes(1, 2).reshape(cells, cells, -1)
    labels = np.zeros((cells, cells), dtype=np.int64)
    for identity, value in values.items():
        share = (blocks == identity).mean(-1)
        best = share > np.maximum(0.25, labels_share(blocks, labels, values))
        labels[best] = value
    return labels


def labels_share(blocks: np.ndarray, labels: np.ndarray, values: dict[int, int]) -> np.ndarray:
    """Share of each cell that the objects of its current label cover."""
    share = np.zeros(labels.shape)
    for identity, value in values.items():
        share = np.where(labels == value, np.maximum(share, (blocks == identity).mean(-1)), share)
    return share


def views_of_room(seed: int, cells: int) -> list[View]:
    """All views of one room."""
    room = render_room(seed)
    things = {o.id: o for o in room.scene.objects}
    values = [{i: words[o.attributes[kind]] for i, o in things.items()} for kind, words in LABELS.items()]
    views = []
    for index, (frame, instances) in enumerate(zip(room.scene.frames, room.instances, strict=True)):
        said = tuple((s.question, s.answer, s.type) for s in view_annotations(room.scene, instances, index, seed))
        views.append(
            View(
                image=frame.colour().transpose(2, 0, 1).copy(),
                labels=np.stack([cell_labels(instances, v, cells) for v in values]).astype(np.uint8),
                said=said,
            )
        )
    return views


def make_views(seeds: list[int], cells: int) -> list[View]:
    """Views of many rooms, made in parallel."""
    views: list[View] = []
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        made = pool.map(partial(views_of_room, cells=cells), seeds, chunksize=8)
        for some in track(made, f"making {len(seeds)} rooms", total=len(seeds), console=console):
            views += some
    return views


def prompt(question: str, kind: str) -> str:
    """The words that the model reads; short answers are asked for as the benchmarks do, one way or the other."""
    if kind == "caption":
        return question
    return f"{question} {SHORT_ANSWER if len(question) % 2 else SIMPLE_ANSWER}"


def pack_of(view: View, grid: tuple[int, int], count: int, random: np.random.Generator) -> ScenePack:
    """One view as a scene without any geometry, with at most ``count`` conversations."""
    chosen = random.permutation(len(view.said))[:count]
    conversations = tuple(
        Conversation(id=str(i), task="view", prompt=prompt(view.said[i][0], view.said[i][2]), answer=view.said[i][1])
        for i in chosen
    )
    return ScenePack(
        scene_id="view",
        frame_names=("view",),
        images=torch.from_numpy(view.image)[None],
        coordinates=torch.zeros(1, *grid, 3),
        coordinates_valid=torch.zeros(1, *grid, dtype=torch.bool),
        cameras=torch.eye(4)[None],
        intrinsics=torch.eye(3)[None],
        proposals=SceneProposals(boxes=torch.zeros(0, 6), cells=torch.zeros(0, 1, 12, 12, dtype=torch.bool)),
        conversations=conversations,
    )


class DenseHeads(nn.Module):
    """Linear readouts of every attribute from the encoder's and the projector's cells; used here only."""

    def __init__(self, vision_dim: int, dim: int) -> None:
        super().__init__()
        self.classes = [1 + len(words) for words in LABELS.values()]
        self.heads = nn.ModuleList(nn.Linear(width, sum(self.classes)) for width in (vision_dim, dim))

    def loss(self, encoded: Tensor, projected: Tensor, labels: Tensor) -> Tensor:
        """Mean cross entropy; object cells weigh as much as all the background together."""
        total = encoded.new_zeros(())
        for head, tokens in zip(self.heads, (encoded, projected), strict=True):
            read = head(tokens).flatten(0, 2).float().split(self.classes, dim=-1)
            for logits, truth in zip(read, labels.unbind(1), strict=True):
                each = nn.functional.cross_entropy(logits, truth.flatten(), reduction="none")
                things = truth.flatten() > 0
                total = total + (each[things].mean() + each[~things].mean()) / (2 * len(self.classes))
        return total


def optimizers(modules: list[nn.Module], rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the hidden matrices, AdamW for embeddings, norms, biases and readouts."""
    matrices, others = [], []
    for module in modules:
        for name, parameter in module.named_parameters():
            hidden = parameter.ndim == 2 and "embed" not in name and "lm_head" not in name and "heads" not in name
            (matrices if hidden else others).append(parameter)
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def spread(batch: Batch, width: int, random: np.random.Generator) -> Batch:
    """Move the picture to a random place in the context and the questions to a random place behind it.

    The model still sees one picture at a time, but learns to look it up wherever it stands: without this it could
    not even find a picture among eight, as rotary positions beyond a single picture's would be new to it.
    """
    rows = len(batch.input_ids)
    start = torch.from_numpy(random.integers(0, width + 1, (rows, 1)))
    gap = torch.from_numpy((random.random((rows, 1)) * (width + 1 - start.numpy())).astype(np.int64))
    shift = torch.where(batch.segments > 0, start + gap, start)
    return dataclasses.replace(batch, position_ids=batch.position_ids + shift)


def train(model: SpatialModel, views: list[View], args: argparse.Namespace) -> list[dict]:
    """Dense labels first, then words as well; rates fall to zero along a cosine."""
    random = np.random.default_rng(args.seed)
    vision = model.backbone.config.vision_config.hidden_size
    heads = DenseHeads(vision, model.adapter.dim)
    collator, text = model.collator(), TextLoss(average="answer")
    steppers = optimizers([model.backbone, heads], args.rate)
    curve, start, step = [], time.monotonic(), 0
    order: list[int] = []
    while step < args.dense_steps + args.steps:
        elapsed = (time.monotonic() - start) / 60
        dense_only = step < args.dense_steps
        share = step / (args.dense_steps + args.steps)
        for stepper in steppers:
            for group in stepper.param_groups:
                group["lr"] = args.rate * min(1, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * share))
        if len(order) < args.batch:
            order = random.permutation(len(views)).tolist()
        batch = [views[order.pop()] for _ in range(args.batch)]
        images = torch.from_numpy(np.stack([v.image for v in batch]))
        labels = torch.from_numpy(np.stack([v.labels for v in batch])).long()
        with torch.autocast("cpu", torch.bfloat16):
            encoded = model.adapter.encode(images)
            projected = model.adapter.project(encoded)
            dense = heads.loss(encoded, projected, labels)
            loss, words = dense, torch.zeros(())
            if not dense_only:
                packs = [
                    pack_of(v, model.settings.view_grid, args.questions, random).replace(
                        encoder_tokens=encoded[i][None]
                    )
                    for i, v in enumerate(batch)
                ]
                asked = spread(collator(packs), args.spread, random)
                said = text.loss(model.outputs(asked, (), torch.Generator()), asked, torch.Generator())
                words = said.sum / said.count
                loss = words + 0.3 * dense
        for stepper in steppers:
            stepper.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([*model.backbone.parameters(), *heads.parameters()], 1.0)
        for stepper in steppers:
            stepper.step()
        step += 1
        if step % 20 == 0:
            curve.append({"step": step, "minutes": round(elapsed, 2), "dense": dense.item(), "words": words.item()})
            console.print(str(curve[-1]))
    return curve


@torch.inference_mode()
def measure(model: SpatialModel, views: list[View]) -> dict[str, dict[str, float]]:
    """Exact match per kind of question on unseen rooms, beside the most frequent answer's."""
    from stereopsis.models.inference import EnteredScene

    right, answers = collections.defaultdict(list), collections.defaultdict(collections.Counter)
    for view in track(views, "measuring", console=console):
        asked = [s for s in view.said if s[2] != "caption"]
        if not asked:
            continue
        conversations = [Conversation(id="", task="view", prompt=prompt(q, k), answer=a) for q, a, k in asked]
        pack = pack_of(view, model.settings.view_grid, 0, np.random.default_rng(0))
        said = EnteredScene(model, pack).answer(conversations, max_new_tokens=8)
        for (_, expected, kind), got in zip(asked, said, strict=True):
            right[kind].append(expected == got)
            answers[kind][expected] += 1
    return {
        kind: {
            "exact_match": round(100 * float(np.mean(hits)), 1),
            "most_frequent_answer": round(100 * answers[kind].most_common(1)[0][1] / len(hits), 1),
            "questions": len(hits),
        }
        for kind, hits in sorted(right.items())
    }


def write_card(folder: Path, measured: dict, curve: list[dict], args: argparse.Namespace, minutes: float) -> None:
    """README.md and card.json beside the weights."""
    size = sum(p.stat().st_size for p in folder.glob("*")) / 1e6
    card = {
        "environment": environment(),
        "room_generator": GENERATOR_VERSION,
        "arguments": {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items() if k != "output"},
        "minutes": round(minutes, 1),
        "steps": curve[-1]["step"] if curve else 0,
        "single_view_questions": measured,
        "curve": curve[:: max(1, len(curve) // 40)],
    }
    (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n")
    rows = "\n".join(
        f"| {kind} | {m['exact_match']} | {m['most_frequent_answer']} | {m['questions']} |"
        for kind, m in measured.items()
    )
    made = card["environment"]
    (folder / "README.md").write_text(
        "# tiny_base: a small multimodal LLM that has only ever seen single pictures\n\n"
        "LLaVA-OneVision architecture (SigLIP-style tower, MLP projector, Qwen2-style decoder) with its own tokenizer, "
        "trained from scratch on single views of procedural rooms: dense labels (category, colour, pattern) of the "
        "encoder's cells, then questions and captions about one picture. No depth, no poses, never two views "
        "together. It stands in for the 2-D multimodal LLM that Ross3D and 3DRS start from. It knows nothing of real "
        "photographs.\n\n"
        f"- {args.rooms} training rooms (8 views each, seeds disjoint from tuning, validation and test rooms), room "
        f"generator v{GENERATOR_VERSION}, seed {args.seed}\n"
        f"- {card['steps']} steps in {card['minutes']} minutes on {made['cpu_threads']} CPU threads, "
        f"{str(made['date'])[:10]}, torch {made['versions']['torch']}\n"
        f"- {size:.1f} MB, fp16; Apache-2.0\n- made by `python scripts/pretrain_base.py`\n\n"
        f"Exact match on questions about single views of {args.test_rooms} unseen rooms (percent):\n\n"
        "| question | exact match | most frequent answer | questions |\n|---|---|---|---|\n" + rows + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--dense-steps", type=int, default=300)
    parser.add_argument("--steps", type=int, default=2100)
    parser.add_argument("--spread", type=int, default=300, help="positions over which a picture may move")
    parser.add_argument("--room-offset", type=int, default=ROOM_OFFSET)
    parser.add_argument("--rooms", type=int, default=5000)
    parser.add_argument("--test-rooms", type=int, default=40)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--vocabulary", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    config = TinyConfig(vocabulary=args.vocabulary)
    cells = config.image_size // config.patch_size
    views = make_views(list(split_seeds("train", args.rooms, args.room_offset)), cells)
    model = fresh_model(config)
    start = time.monotonic()
    curve = train(model, views, args)
    minutes = (time.monotonic() - start) / 60
    model.eval()
    measured = measure(model, make_views(list(split_seeds("val", args.test_rooms)), cells))
    console.print(measured)
    model.settings = dataclasses.replace(model.settings, positions="depth", train_vision=False)
    model.backbone.half()
    save_model(model, args.output)
    (args.output / "spatial.safetensors").unlink()  # untrained here; every run starts its own grounding head
    write_card(args.output, measured, curve, args, minutes)


def fresh_model(config: TinyConfig) -> SpatialModel:
    """A new model and its tokenizer, trained on the words of the training rooms."""
    words = corpus(split_seeds("train", 150, ROOM_OFFSET))
    tokenizer = build_tokenizer(words, config.vocabulary, PHRASES)
    backbone = build_tiny_backbone(tokenizer, config)
    spatial = SpatialConfig(view_grid=(6, 6), positions="none", train_vision=True)
    return SpatialModel(
        backbone=backbone, adapter=adapter_for(backbone, spatial.view_grid), tokenizer=tokenizer, config=spatial
    )


if __name__ == "__main__":
    main()
