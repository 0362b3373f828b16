"""What saves memory: adapters, checkpointing, weights in bfloat16, optimizers with small state."""

import importlib.util
import json
import sys
import types

import pytest
import torch
from safetensors.torch import load_file

from stereopsis.errors import CheckpointError, MissingExtraError, RecipeError
from stereopsis.models.storage import load_model, save_model
from stereopsis.training.build import build_model, build_objectives, own_device
from stereopsis.training.optimizer import adamw_of, build_optimizer
from stereopsis.training.recipe import load_recipe, parse_recipe
from stereopsis.training.recipe_packs import build_packs
from stereopsis.training.train_run import open_run, train

LORA = {"rank": 3, "alpha": 6.0, "targets": ["q_proj", "down_proj"]}
needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="needs peft")
needs_bnb = pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes")


@pytest.fixture(scope="module")
def packs(make_recipe):
    recipe = make_recipe("text", "grounding")
    return build_packs(recipe, build_model(recipe), None, recipe.data.sources)


def losses(model, packs, *, autocast: bool = False) -> dict[str, float]:
    """Losses and gradients of one pass with text and grounding."""
    model.train()
    batch = model.collator()(packs[:2])
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = model(batch, due=("text", "grounding"), seed=0)
    sum(loss.sum for loss in found.values()).backward()
    return {name: float(loss.sum.detach()) for name, loss in found.items()}


def scores(model, batch) -> torch.Tensor:
    """Of every labelled token."""
    text = model.outputs(batch, (), torch.Generator()).text
    return text.head(text.states)


def ready(recipe):
    model = build_model(recipe)
    model.objectives = build_objectives(recipe, model.adapter.dim, {})
    return model


@pytest.mark.parametrize("section", [{}, pytest.param({"model__lora": LORA}, marks=needs_peft)], ids=["full", "lora"])
def test_checkpointing_changes_neither_losses_nor_gradients(make_recipe, packs, section):
    plain = ready(make_recipe("text", "grounding", **section))
    saving = ready(make_recipe("text", "grounding", training__checkpointing=True, **section))
    assert losses(plain, packs) == losses(saving, packs)
    checked = 0
    for (name, one), (_, other) in zip(plain.named_parameters(), saving.named_parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad)
            checked += 1
    assert checked > 15


def test_checkpointing_keeps_less_for_the_backward_pass(make_recipe, packs):
    def saved(checkpointing: bool) -> int:
        model = ready(make_recipe("text", "grounding", training__checkpointing=checkpointing))
        sizes: dict[int, int] = {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        model.train()
        batch = model.collator()(packs[:2])
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            kept = model(batch, due=("text",), seed=0)
        assert kept["text"].sum.requires_grad
        return sum(sizes.values())

    assert saved(True) < 0.6 * saved(False)


@needs_peft
def test_adapters_are_trained_saved_alone_opened_merged_and_resumed(make_recipe, packs, tmp_path, tiny_base):
    recipe = make_recipe("text", "grounding", model__lora=LORA, training__save_every=2)
    run = train(recipe, tmp_path / "run", packs=packs, progress=False)
    folder = run.folder / "model"
    assert not (folder / "model.safetensors").exists()
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == 3
    trained = {name for name, p in run.model.named_parameters() if p.requires_grad}
    assert all("lora_" in n or "trainable_tokens" in n for n in trained if n.startswith("backbone."))
    assert any(n.startswith("grounding.") for n in trained)
    _, opened = open_run(run.folder)
    assert not any("lora" in name for name, _ in opened.named_parameters())
    batch = run.model.collator()(packs[:1])
    with torch.no_grad():
        mine, theirs, before = (scores(m, batch) for m in (run.model, opened, load_model(tiny_base)))
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    assert (before - theirs).abs().max() > 1e-4
    save_model(opened, tmp_path / "whole")  # a plain model again
    assert (tmp_path / "whole" / "model.safetensors").is_file()
    # a run that was stopped half way ends where the whole one does
    again = tmp_path / "again"
    train(recipe, again, packs=packs, progress=False)
    for path in (again / "checkpoints" / "checkpoint-4", again / "model"):
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    train(recipe, again, packs=packs, resume=True, progress=False)
    one, two = (load_file(f / "adapter_model.safetensors") for f in (folder, again / "model"))
    assert all(torch.equal(one[key], two[key]) for key in one)


@needs_peft
def test_a_new_tokens_embedding_is_trained_with_the_adapters(make_recipe, packs):
    model = ready(make_recipe("text", "grounding", model__lora=LORA))
    losses(model, packs)
    (delta,) = (p for name, p in model.backbone.named_parameters() if "trainable_tokens" in name)
    assert delta.shape[0] == 2
    assert delta.grad.norm() > 0


@needs_peft
def test_adapters_that_do_not_fit_are_refused(make_recipe, packs, tmp_path):
    with pytest.raises(RecipeError, match=r"no matrix 'w_proj'; it has \['down_proj'"):
        build_model(make_recipe("text", model__lora={"targets": ["w_proj"]}))
    model = build_model(make_recipe("text", model__lora=LORA))
    save_model(model, tmp_path / "model")
    other = build_model(make_recipe("text", model__lora={**LORA, "rank": 2}))
    from stereopsis.models.storage import restore_backbone

    with pytest.raises(CheckpointError, match="belongs to other adapters"):
        restore_backbone(other, tmp_path / "model")
    (tmp_path / "model" / "manifest.json").unlink()  # it would tell that the file was changed
    config = tmp_path / "model" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": "/nowhere"}))
    with pytest.raises(CheckpointError, match=r"adapters on the model in /nowhere.*correct 'base_model_name_or_path'"):
        load_model(tmp_path / "model")


def test_without_peft_the_extra_is_named(make_recipe, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"'model.lora' needs the package 'peft'.*stereopsis\[lora\]"):
        build_model(make_recipe("text", model__lora=LORA))


def test_weights_in_bfloat16_train_under_autocast_with_heads_in_full_precision(make_recipe, packs):
    recipe = make_recipe("text", "grounding", model__dtype="bfloat16", training__precision="bf16")
    model, plain = ready(recipe), ready(make_recipe("text", "grounding"))
    assert {p.dtype for p in model.backbone.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in model.grounding.parameters()} == {torch.float32}
    rounded = losses(model, packs, autocast=True)
    exact = losses(plain, packs)
    assert rounded == pytest.approx(exact, rel=0.05)
    with torch.no_grad():  # pictures and evaluation run without autocast
        outputs = model.outputs(model.collator()(packs[:1]), (), torch.Generator())
    assert outputs.grounding.logits.dtype == torch.float32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__dtype": "bfloat16"}, "need 'training.precision: bf16'"),
        ({"model__load_in": "4bit", "training__precision": "bf16"}, "freezes the backbone; add 'lora"),
        ({"model__lora": {}, "model__train_vision": True}, "a trained tower needs full tuning"),
        ({"training__optimizer": "adam"}, "'paged_adamw8bit' or 'muon', found 'adam'"),
    ],
)
def test_combinations_that_cannot_run_are_refused(recipe_content, changes, message):
    with pytest.raises(RecipeError, match=message):
        parse_recipe(recipe_content("text", **changes))


def test_without_bitsandbytes_the_extra_is_named(make_recipe, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    missing = r"needs the package 'bitsandbytes'.*stereopsis\[bnb\]"
    with pytest.raises(MissingExtraError, match=rf"'training.optimizer: adamw8bit' {missing}"):
        adamw_of("adamw8bit")
    recipe = make_recipe("text", model__lora={}, model__load_in="4bit", training__precision="bf16")
    with pytest.raises(MissingExtraError, match=rf"'model.load_in: 4bit' {missing}"):
        build_model(recipe)
    with pytest.raises(RecipeError, match=r"unknown optimizer 'adamw8bits' \(did you mean 'adamw8bit'\?\)"):
        adamw_of("adamw8bits")


@pytest.mark.parametrize(("name", "made"), [("adamw8bit", "AdamW8bit"), ("paged_adamw8bit", "PagedAdamW8bit")])
def test_the_8_bit_optimizers_get_the_same_groups(make_recipe, monkeypatch, name, made):
    class Eight(torch.optim.AdamW):
        """Stands for bitsandbytes' class of this name."""

    package = types.ModuleType("bitsandbytes")
    package.optim = types.SimpleNamespace(**{made: Eight})
    monkeypatch.setitem(sys.modules, "bitsandbytes", package)
    options = {"learning_rate": 1e-3, "head_rate": 2e-3, "weight_decay": 0.1}
    model = build_model(make_recipe("text"))
    plain, eight = (build_optimizer(model, name=n, **options) for n in ("adamw", name))
    assert type(eight) is Eight
    assert type(plain) is torch.optim.AdamW

    def facts(optimizer):
        return [(g["lr"], g["weight_decay"], len(g["params"])) for g in optimizer.param_groups]

    assert facts(eight) == facts(plain)
    assert len(facts(plain)) > 2


@needs_bnb
@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU:UserWarning")
@pytest.mark.parametrize("name", ["adamw8bit", "paged_adamw8bit"])
def test_the_8_bit_optimizers_train(make_recipe, packs, name, tmp_path):
    recipe = make_recipe("text", "grounding", training__optimizer=name, training__steps=2)
    before = build_model(recipe).state_dict()
    after = train(recipe, tmp_path / "run", packs=packs, progress=False).model.state_dict()
    assert all(torch.isfinite(value).all() for value in after.values())
    assert any((after[key] != value).any() for key, value in before.items() if "q_proj" in key)


@needs_peft
@needs_bnb
@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_adapters_are_trained_on_a_quantised_base(make_recipe, packs, bits, tmp_path):
    recipe = make_recipe(
        "text", "grounding", model__lora=LORA, model__load_in=bits, model__dtype="bfloat16", training__precision="bf16"
    )
    run = train(recipe, tmp_path / "run", packs=packs, progress=False)
    kept = {p.dtype for p in run.model.adapter.vision_tower.parameters()}
    assert kept == {torch.bfloat16}  # the language model's matrices alone are quantised
    packed = {p.dtype for name, p in run.model.backbone.named_parameters() if "q_proj.base_layer.weight" in name}
    assert packed == {torch.uint8 if bits == "4bit" else torch.int8}
    stored = load_file(run.folder / "model" / "adapter_model.safetensors")
    assert all(value.abs().max() > 0 for key, value in stored.items() if "lora_B" in key)
    _, opened = open_run(run.folder)  # merged into the base as it is stored
    assert torch.isfinite(scores(opened, opened.collator()(packs[:1]))).all()


def test_every_process_has_a_gpu_of_its_own(monkeypatch):
    assert own_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("LOCAL_RANK", "6")
    assert own_device() == torch.device("cuda", 2)


@needs_peft
def test_a_capture_is_tuned_into_adapters_with_words_as_an_anchor(tiny_base, tiny_rooms, tmp_path):
    """The recipe for real models, on a small random one: the capture without words, rooms with them."""
    small = {
        "model.base": tiny_base,
        "model.dtype": "float32",
        "data.sources": f"[{{path: {tiny_rooms / 'room-00000000'}, text: false}}, {{path: {tiny_rooms}}}]",
        "data.views": 2,
        "teachers": "{latent: pixels, view_size: 32, birdseye_size: 32}",
        "denoiser": "{width: 24, depth: 1, heads: 2, diffusion: flow}",
        "training": "{steps: 4, scenes: 2, log_every: 1, threads: 1, precision: fp32, save_every: 0}",
    }
    recipe = load_recipe("capture-anchored", [f"{key}={value}" for key, value in small.items()])
    run = train(recipe, tmp_path / "run", progress=False)
    losses = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert {"loss/text", "loss/cross_view", "loss/birds_eye"} <= {key for line in losses for key in line}
    before, after = load_model(tiny_base).backbone.state_dict(), load_model(run.folder / "model").backbone.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not any("vision" in name for name in changed)  # adapters are in the language model alone
