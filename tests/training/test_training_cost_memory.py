"""Predicted memory against what PyTorch saves for the backward pass, on models a little larger than tiny."""

import dataclasses

import families
import pytest
import torch
from test_training_cost_flops import TALK, objectives, pack

from stereopsis.models.lora import LoraConfig, add_lora
from stereopsis.training.cost.flops import decoder_layers
from stereopsis.training.cost.memory import (
    RESERVE,
    MemoryOptions,
    _copies,
    layer_activations,
    saved_activations,
    step_memory,
)
from stereopsis.training.cost.units import SceneLoad, scene_loads

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
SIZES = {"hidden_size": 48, "intermediate_size": 192, "num_attention_heads": 4, "head_dim": 12}
VIEWS = 30
FACTOR = 1.25
"""The stated agreement of predicted and measured activations."""


@pytest.fixture(scope="module")
def words():
    return families.family_tokenizer()


def measured(model, batch, due, *, autocast: bool) -> int:
    """Bytes of everything that a forward pass saves, the parameters themselves apart."""
    sizes: dict[int, int] = {}
    alive = []
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            alive.append(storage)  # so that no address is used twice
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    model.train()
    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        losses = model(batch, due=due, seed=0)
    assert losses[due[0]].sum.requires_grad
    return sum(sizes.values())


def ready(family, words, *due, **config):
    model = families.tiny_model(family, words, objectives=objectives(*due), **config)
    return model, model.collator()([pack(model, TALK[:2], views=VIEWS)])


@pytest.mark.parametrize("family", sorted(families.BUILDERS))
@pytest.mark.parametrize("autocast", [False, True])
def test_activations_are_predicted_within_a_quarter(words, family, autocast, monkeypatch):
    monkeypatch.setattr(families, "TEXT", {**families.TEXT, **SIZES})
    model, batch = ready(family, words, "text")
    options = MemoryOptions(autocast=autocast, attention="dense")
    predicted = saved_activations(model, scene_loads(batch), options) + _copies(model, options)
    found = measured(model, batch, ("text",), autocast=autocast)
    assert found / FACTOR < predicted < found * FACTOR


@pytest.mark.parametrize("due", [("text", "cross_view", "birds_eye"), ("text", "vanilla"), ("text", "alignment")])
def test_heads_are_predicted_within_a_quarter(words, due):
    model, batch = ready("llava_onevision", words, *due)
    plain, bare = ready("llava_onevision", words, "text")
    options = MemoryOptions(autocast=False, attention="dense")
    found = measured(model, batch, due, autocast=False) - measured(plain, bare, ("text",), autocast=False)
    predicted = saved_activations(model, scene_loads(batch), options)
    predicted -= saved_activations(plain, scene_loads(bare), options)
    assert found / FACTOR < predicted < found * FACTOR


def test_a_trained_tower_is_predicted_within_a_quarter(words):
    (model, batch), (plain, bare) = (ready("llava_onevision", words, "text", train_vision=on) for on in (True, False))
    options = MemoryOptions(autocast=False, attention="dense")
    found = measured(model, batch, ("text",), autocast=False) - measured(plain, bare, ("text",), autocast=False)
    predicted = saved_activations(model, scene_loads(batch), options)
    predicted -= saved_activations(plain, scene_loads(bare), options)
    assert found / FACTOR < predicted < found * FACTOR


@pytest.mark.parametrize("family", ["llava_onevision", "qwen3_vl", "gemma3"])
def test_checkpointing_is_predicted_within_a_quarter(words, family):
    """What the forward pass leaves; the layer that is computed again comes on top of it in the backward pass."""
    model, batch = ready(family, words, "text")
    model.backbone.gradient_checkpointing_enable({"use_reentrant": False})
    options = MemoryOptions(autocast=False, attention="masked", checkpointing=True)
    loads = scene_loads(batch)
    again = max(layer_activations(layer, model, options) for layer in decoder_layers(model)) * loads[0].tokens
    found = measured(model, batch, ("text",), autocast=False)
    predicted = saved_activations(model, loads, options)
    whole = saved_activations(model, loads, dataclasses.replace(options, checkpointing=False))
    assert found / FACTOR < predicted - again < found * FACTOR
    assert predicted < 0.6 * whole


def test_adapters_keep_what_their_own_matrices_need(words, tmp_path):
    pytest.importorskip("peft")
    model, batch = ready("llava_onevision", words, "text")
    targets = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    add_lora(model.backbone, LoraConfig(rank=4, alpha=8.0, targets=targets, dropout=0.0), base=tmp_path)
    options = MemoryOptions(autocast=False, attention="dense")
    found = measured(model, batch, ("text",), autocast=False)
    assert found / FACTOR < saved_activations(model, scene_loads(batch), options) < found * FACTOR


def test_what_stays_is_counted_exactly(words):
    model, _ = ready("llava_onevision", words, "text", "alignment")
    loads = [SceneLoad(views=2, prefix=30)]
    numbers = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained < numbers
    plain = step_memory(model, loads, MemoryOptions(autocast=False))
    assert (plain.weights, plain.gradients, plain.optimizer) == (4 * numbers, 4 * trained, 8 * trained)
    assert (plain.copies, plain.reserve) == (0, RESERVE)
    kept = ("weights", "copies", "gradients", "optimizer", "activations", "reserve")
    assert plain.total == sum(getattr(plain, name) for name in kept)
    model.backbone.bfloat16()
    backbone = sum(p.numel() for p in model.backbone.parameters())
    assert step_memory(model, loads, MemoryOptions()).weights == 4 * numbers - 2 * backbone


def test_the_optimizers_state_is_torchs_own(words):
    """Adam's and Muon's states after a step, byte by byte."""
    from stereopsis.training.optimizer import build_optimizer

    for name in ("adamw", "muon"):
        model, _ = ready("llava_onevision", words, "text")
        options = {"learning_rate": 1e-3, "head_rate": 1e-3, "weight_decay": 0.0}
        optimizer = build_optimizer(model, name=name, **options)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
        optimizer.step()
        parts = optimizer.parts if name == "muon" else (optimizer,)
        states = [value for part in parts for state in part.state.values() for value in state.values()]
        found = sum(v.numel() * v.element_size() for v in states if torch.is_tensor(v) and v.ndim)
        predicted = step_memory(model, [SceneLoad(views=1, prefix=9)], MemoryOptions(optimizer=name)).optimizer
        assert predicted == found, name


def test_processes_share_what_the_sharding_says(words):
    model, _ = ready("llava_onevision", words, "text")
    loads = [SceneLoad(views=2, prefix=30)]
    one = step_memory(model, loads, MemoryOptions())
    ddp, zero2, zero3 = (
        step_memory(model, loads, MemoryOptions(processes=4, sharding=kind)) for kind in ("none", "zero2", "zero3")
    )
    assert (ddp.weights, ddp.gradients, ddp.optimizer) == (one.weights, 2 * one.gradients, one.optimizer)
    assert (zero2.weights, zero2.gradients, zero2.optimizer) == (one.weights, one.gradients / 4, one.optimizer / 4)
    assert (zero3.weights, zero3.gradients) == (one.weights / 4, one.gradients / 4)
    assert zero3.copies > 0


def test_smaller_states_and_quantised_bases_are_smaller(words, tmp_path):
    pytest.importorskip("peft")
    model, _ = ready("llava_onevision", words, "text")
    loads = [SceneLoad(views=2, prefix=30)]
    by_name = {
        name: step_memory(model, loads, MemoryOptions(optimizer=name)).optimizer
        for name in ("adamw", "adamw8bit", "paged_adamw8bit")
    }
    assert by_name["adamw"] > by_name["adamw8bit"] > by_name["paged_adamw8bit"] == 0
    add_lora(model.backbone, LoraConfig(rank=2, alpha=4.0, targets=("q_proj",), dropout=0.0), base=tmp_path)
    whole, eight, four = (step_memory(model, loads, MemoryOptions(load_in=b)).weights for b in (None, "8bit", "4bit"))
    matrices = sum(
        m.weight.numel()
        for layer in decoder_layers(model)
        for m in layer.modules()
        if isinstance(m, torch.nn.Linear) and not m.weight.requires_grad
    )
    assert whole - eight == 3 * matrices
    assert eight - four == pytest.approx(0.47 * matrices)
