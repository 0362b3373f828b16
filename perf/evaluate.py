"""How fast is an evaluation? The engine against a loop over questions, on the same model, with the same answers.

The loop is what official evaluations do: for every question encode all views, run the whole prompt through the language
model, decode with a key-value cache, batch 1; in plain Hugging Face calls, without any of the engine's code. Decoding
the image files is left out of both. The model's answers are checked to be the same before anything is timed.
Then every benchmark's metrics on so many made-up predictions: all values, and the summary with 1000 draws of scenes.

Run: python perf/evaluate.py [--quick] [--model FOLDER] [--views 32] [--questions 60] [--repeats 5] [--output FILE.json]
GPU: python perf/evaluate.py --random qwen2-7b --device cuda --dtype bf16 --loop-questions 6
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import torch
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)

import stereopsis
from stereopsis.annotations import Annotation
from stereopsis.benchmarks import Prediction, benchmark_names, score, summarise
from stereopsis.data.batch import SceneProposals
from stereopsis.data.pack import Conversation, ScenePack
from stereopsis.models.inference import EnteredScene
from stereopsis.models.spatial import SpatialConfig, SpatialModel
from stereopsis.models.storage import adapter_for, load_model
from stereopsis.models.tiny import IMAGE, PAD, TinyConfig, build_tiny_backbone, build_tokenizer

SHIPPED = Path(stereopsis.__file__).parent / "assets" / "tiny_base"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
OBJECTS = ("chair", "table", "lamp", "sofa", "bed", "desk", "shelf", "plant", "monitor", "box")
COLOURS = ("red", "blue", "green", "white", "brown", "black")


def conversations(count: int) -> list[Conversation]:
    """Situated questions, questions, captions and expressions in the benchmarks' wording, as a scene has them."""
    made = []
    for i in range(count):
        thing, colour = OBJECTS[i % len(OBJECTS)], COLOURS[i % len(COLOURS)]
        other = OBJECTS[(3 * i + 1) % len(OBJECTS)]
        kind = i % 4
        if kind == 0:
            text = f"I am facing the {colour} {thing} and there is a {other} behind me. What is to my left? "
            made.append(("sqa3d", text + "Answer the question using a single word or phrase.", "", None))
        elif kind == 1:
            text = f"How many {thing}s are next to the {colour} {other}? Answer the question simply."
            made.append(("scanqa", text, "", None))
        elif kind == 2:
            text = "Given an object located at <coord> , describe the object in detail."
            made.append(("scan2cap", text, "", (0.1 * i - 2, 1.0, 0.5)))
        else:
            text = f"Identify the object according to the following description.\nthe {colour} {thing} by the {other}"
            made.append(("scanrefer", text, "<ground>", None))
    return [
        Conversation(id=str(i), task=task, prompt=prompt, answer=answer, point=point)
        for i, (task, prompt, answer, point) in enumerate(made)
    ]


def random_tiny() -> SpatialModel:
    """The shipped model's sizes with random weights: 32 views are 1 344 visual tokens."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer([c.prompt for c in conversations(200)], 1024)
    backbone = build_tiny_backbone(tokenizer, TinyConfig())
    backbone.set_attn_implementation("sdpa")
    return _model(backbone, tokenizer, (6, 6))


def random_7b(dtype: torch.dtype, device: str) -> SpatialModel:
    """Qwen2-7B behind SigLIP-so400m with random weights, 14 x 15 tokens a view: 32 views are 6 720 visual tokens."""
    tokenizer = build_tokenizer([c.prompt for c in conversations(200)], 1024)
    vision = SiglipVisionConfig(
        hidden_size=1152,
        intermediate_size=4304,
        num_hidden_layers=26,
        num_attention_heads=16,
        image_size=384,
        patch_size=14,
        vision_use_head=False,
    )
    text = Qwen2Config(
        vocab_size=152064,
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        max_position_embeddings=32768,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return random_llava(vision, text, tokenizer, (14, 14), device=device, dtype=dtype)


def random_llava(
    vision: SiglipVisionConfig,
    text: Qwen2Config,
    tokenizer: PreTrainedTokenizerFast,
    grid: tuple[int, int],
    *,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
) -> SpatialModel:
    """A LLaVA-OneVision of these sizes with random weights."""
    config = LlavaOnevisionConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        video_token_id=tokenizer.convert_tokens_to_ids(PAD),
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )
    with torch.device(device):
        backbone = LlavaOnevisionForConditionalGeneration._from_config(config, dtype=dtype, attn_implementation="sdpa")
    return _model(backbone, tokenizer, grid)


def _model(backbone: torch.nn.Module, tokenizer: object, grid: tuple[int, int]) -> SpatialModel:
    model = SpatialModel(
        backbone=backbone,
        adapter=adapter_for(backbone, grid),
        tokenizer=tokenizer,
        config=SpatialConfig(view_grid=grid),
    )
    return model.eval()


def random_scene(model: SpatialModel, views: int, proposals: int = 30) -> ScenePack:
    """Noise that has a scene's shape; speed does not depend on what is seen."""
    generator = torch.Generator().manual_seed(1)
    size, (rows, cols), encoder = model.adapter.image_size, model.settings.view_grid, model.adapter.encoder_grid
    boxes = torch.rand(proposals, 6, generator=generator) * 2 + 0.1
    return ScenePack(
        scene_id="noise",
        frame_names=tuple(str(i) for i in range(views)),
        images=torch.randint(0, 256, (views, 3, size, size), generator=generator, dtype=torch.uint8),
        coordinates=torch.rand(views, rows, cols, 3, generator=generator) * 6 - 3,
        coordinates_valid=torch.ones(views, rows, cols, dtype=torch.bool),
        cameras=torch.eye(4).repeat(views, 1, 1),
        intrinsics=torch.eye(3).repeat(views, 1, 1),
        proposals=SceneProposals(boxes=boxes, cells=torch.rand(proposals, views, *encoder, generator=generator) < 0.1),
    )


@torch.inference_mode()
def ask_alone(model: SpatialModel, pack: ScenePack, asked: Conversation, most: int) -> str | int:
    """One question from scratch: the answer, or the best proposal's place."""
    backbone, adapter, collator = model.backbone, model.adapter, model.collator(generation=True)
    batch = collator([pack]).to(model.device)
    visual = model.visual_inputs(batch)
    tokens = model.add_positions(visual.tokens, batch)
    question = collator.conversation_ids(asked)[0]
    ids = torch.tensor([[*batch.input_ids[0].tolist(), *question]], device=model.device)
    embeddings = adapter.embed(ids).clone()
    newline = backbone.model.image_newline.expand(*tokens.shape[:2], 1, -1)
    embeddings[ids == backbone.config.image_token_id] = torch.cat([tokens, newline], dim=2).flatten(0, 2)
    if asked.point is not None:
        point = model.encoding(torch.tensor(asked.point, device=model.device))
        embeddings[ids == collator.coord_id] += point.to(embeddings.dtype)
    language = backbone.model.language_model
    outputs = language(inputs_embeds=embeddings, use_cache=True)
    if asked.grounds:
        prefix = outputs.last_hidden_state[:, : batch.input_ids.shape[1]]
        objects = model.objects(visual, batch, batch.layout.gather(prefix))
        scene = torch.zeros(1, dtype=torch.int64, device=model.device)
        return int(model.grounding(outputs.last_hidden_state[:, -1], scene, objects).logits[0, :-1].argmax())
    said: list[int] = []
    while len(said) < most:
        word = int(backbone.lm_head(outputs.last_hidden_state[:, -1]).argmax())
        if word == collator.tokenizer.eos_token_id:
            break
        said.append(word)
        outputs = language(
            inputs_embeds=adapter.embed(torch.tensor([[word]], device=model.device)),
            past_key_values=outputs.past_key_values,
            use_cache=True,
        )
    return collator.tokenizer.decode(said, skip_special_tokens=True).strip()


def ask_together(model: SpatialModel, pack: ScenePack, asked: Sequence[Conversation], most: int) -> list[str | int]:
    """All questions of a scene by the engine."""
    room = EnteredScene(model, pack)
    order = sorted(range(len(asked)), key=lambda i: asked[i].task)  # as `ModelPredictor` does
    spoken = [i for i in order if not asked[i].grounds]
    pointed = [i for i in order if asked[i].grounds]
    answers: dict[int, str | int] = dict(
        zip(spoken, room.answer([asked[i] for i in spoken], max_new_tokens=most), strict=True)
    )
    found = room.score_proposals([asked[i] for i in pointed])
    answers |= {i: int(result.cosines.argmax()) for i, result in zip(pointed, found, strict=True)}
    return [answers[i] for i in range(len(asked))]


def seconds(call: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    call()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start


def made_up(task: str, count: int) -> list[Prediction]:
    """Predictions with words, references, candidates and targets in a benchmark's usual numbers; 50 to a scene."""
    rng = np.random.default_rng(0)
    words = np.array(
        [*OBJECTS, *COLOURS, "the", "a", "is", "of", "on", "near", "left", "right", "wall", "two", "there"]
    )

    def text(longest: int) -> str:
        return " ".join(rng.choice(words, rng.integers(1, longest)))

    longest, references = {"scan2cap": (25, 5), "scanqa": (6, 2)}.get(task, (4, 1))
    targets = {"sqa3d": 0, "scanqa": 0, "multi3drefer": 3}.get(task, 1)
    found = []
    for i in range(count):
        annotation = Annotation(
            id=str(i),
            task=task,
            scene_id=f"scene{i // 50}",
            type="mt" if task == "multi3drefer" else "t",
            text=text(12),
            answers=tuple(text(longest) for _ in range(references)),
            object_ids=tuple(range(targets)),
        )
        boxes = rng.random((30, 6)) + np.array([0, 0, 0, 0.5, 0.5, 0.5])
        pointed = {"boxes": boxes, "scores": rng.random(30) * 0.2, "zero_target_score": 0.0}
        said = {"text": text(longest), "boxes": boxes[:1] if targets else boxes[:0]}
        more = pointed if task in ("scanrefer", "multi3drefer") else said
        found.append(Prediction(annotation=annotation, targets=boxes[:targets], **more))
    return found


def measure_metrics(count: int) -> list[dict[str, Any]]:
    """Seconds per benchmark for values and summary; of METEOR what it adds, where Java is."""
    rows: list[dict[str, Any]] = []
    for task in benchmark_names():
        predictions = made_up(task, count)
        start = time.perf_counter()
        summarise(score(predictions))
        row = {"benchmark": task, "predictions": count, "seconds": time.perf_counter() - start}
        if task in ("scanqa", "scan2cap"):
            start = time.perf_counter()
            (summary,) = summarise(score(predictions, meteor=True)).values()
            row |= (
                {"seconds_with_meteor": time.perf_counter() - start}
                if not summary.unavailable
                else {"no_meteor": "; ".join(summary.unavailable.values())}
            )
        rows.append(row)
        meteor = f", with METEOR {row['seconds_with_meteor']:.1f} s" if "seconds_with_meteor" in row else ""
        print(f"{task:<14}{row['seconds']:>6.2f} s for {count} predictions{meteor}")
    return rows


def measure_engine(model: SpatialModel, arguments: argparse.Namespace) -> dict[str, Any]:
    """Both ways side by side, after a check that they answer alike.

    Raises:
        SystemExit: they do not, in fp32.
    """
    device, most = arguments.device, arguments.words
    pack, asked = random_scene(model, arguments.views), conversations(arguments.questions)
    some = asked[: arguments.loop_questions or len(asked)]
    together = ask_together(model, pack, asked, most)
    alone = [ask_alone(model, pack, one, most) for one in some]
    same = sum(a == b for a, b in zip(alone, together, strict=False))
    print(f"same answers: {same} of {len(some)} ({len(set(map(str, together)))} different ones)")
    if same < len(some) and arguments.dtype == "fp32":
        raise SystemExit("the engine's answers differ from the loop's; its speed means nothing")
    loop, engine = [], []
    for _ in range(arguments.repeats):  # side by side, so that a busy machine slows both
        engine.append(seconds(lambda: ask_together(model, pack, asked, most), device) / len(asked))
        loop.append(seconds(lambda: [ask_alone(model, pack, one, most) for one in some], device) / len(some))
    ratios = [slow / fast for slow, fast in zip(loop, engine, strict=True)]
    print(f"\n{'':<26}{'ms per question':>16}{'questions/s':>13}")
    for name, times in (("loop over questions", loop), ("engine", engine)):
        middle = statistics.median(times)
        print(f"{name:<26}{1000 * middle:>16.1f}{1 / middle:>13.2f}")
    print(
        f"\n{statistics.median(ratios):.1f} times as fast (median of {len(ratios)}, {min(ratios):.1f} to "
        f"{max(ratios):.1f})\n"
    )
    return {
        "questions_in_loop": len(some),
        "same_answers": same,
        "loop_seconds_per_question": statistics.median(loop),
        "engine_seconds_per_question": statistics.median(engine),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "target": 20,
    }


def facts_of(model: SpatialModel, arguments: argparse.Namespace) -> dict[str, Any]:
    """What the figures hold for."""
    cuda = arguments.device.startswith("cuda")
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(sys.argv),
        "machine": torch.cuda.get_device_name() if cuda else f"{platform.machine()}, {os.cpu_count()} cores",
        "threads": arguments.threads,
        "load_average": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "precision": arguments.dtype,
        "model": arguments.random or Path(arguments.model).name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "seed": "0 (weights, predictions), 1 (scene)",
        "views": arguments.views,
        "visual_tokens": len(model.adapter.view_template(model.tokenizer).token_ids) * arguments.views,
        "questions": arguments.questions,
        "longest_answer": arguments.words,
        "repeats": arguments.repeats,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default=str(SHIPPED), help="a model folder (default: the small one of the package)")
    parser.add_argument("--random", choices=("tiny", "qwen2-7b"), help="random weights instead")
    parser.add_argument("--views", type=int, default=32)
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--words", type=int, default=16, help="longest answer, tokens")
    parser.add_argument("--loop-questions", type=int, default=0, help="time the loop on so many; 0 = all")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    parser.add_argument("--predictions", type=int, default=10_000, help="for the metrics; 0 leaves them out")
    parser.add_argument("--quick", action="store_true", help="one repeat, the loop on 4 of the questions")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.repeats, arguments.loop_questions = 1, 4
        arguments.predictions = min(arguments.predictions, 1000)
    torch.set_num_threads(arguments.threads)
    dtype, device = DTYPES[arguments.dtype], arguments.device
    if arguments.random is None:
        model = load_model(arguments.model, dtype=dtype)
    else:
        model = random_tiny() if arguments.random == "tiny" else random_7b(dtype, device)
    model = model.to(device=device, dtype=dtype)
    facts = facts_of(model, arguments)
    print(", ".join(f"{key} {value}" for key, value in facts.items() if key not in ("command", "date")))
    engine = measure_engine(model, arguments)
    metrics = measure_metrics(arguments.predictions) if arguments.predictions else []
    if arguments.output:
        arguments.output.write_text(json.dumps({**facts, "engine": engine, "metrics": metrics}, indent=1) + "\n")


if __name__ == "__main__":
    main()
