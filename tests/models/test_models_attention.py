"""Packed attention, computed in every way, is the dense one: outputs, losses and gradients, in every family."""

import importlib.util
import math

import pytest
import torch
from families import BUILDERS, ROPE, TEXT, family_tokenizer, tiny_model
from test_models_families import TALK, run, scene
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from stereopsis.data.collate import attention_allowed
from stereopsis.models import attention_flex
from stereopsis.models.attention import IMPLEMENTATION, PackedRows, packed_attention
from stereopsis.models.attention_flex import FlexAttention, block_mask
from stereopsis.models.attention_split import SplitAttention
from stereopsis.models.inference import EnteredScene
from stereopsis.models.spatial import SpatialModel
from stereopsis.models.storage import load_model, save_model
from stereopsis.objectives import GroundingLoss, TextLoss
from stereopsis.objectives.set import ObjectiveSet

DUE = ("text", "grounding")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def words():
    return family_tokenizer()


@pytest.fixture(params=sorted(BUILDERS))
def model(request, words) -> SpatialModel:
    objectives = ObjectiveSet({"text": TextLoss(), "grounding": GroundingLoss()})
    return tiny_model(request.param, words, objectives=objectives)


def ragged(model: SpatialModel):
    """Scenes with other numbers of conversations, one with none; two begin with equally long prefixes."""
    packs = [
        scene(model, 3, *TALK),
        scene(model, 5, TALK[1], TALK[3], seed=1),
        scene(model, 3, *TALK[:2], *TALK[1:], seed=2),
        scene(model, 2, seed=3),
    ]
    return model.collator()(packs)


def losses_and_gradients(model: SpatialModel, batch):
    model.zero_grad(set_to_none=True)
    losses = model(batch, due=DUE, seed=0)
    sum(loss.sum for loss in losses.values()).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {name: float(loss.sum.detach()) for name, loss in losses.items()}, gradients


def assert_same(found, expected, tolerance: float) -> None:
    for name in DUE:
        assert found[0][name] == pytest.approx(expected[0][name], rel=tolerance, abs=0)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        difference = float((found[1][name] - gradient).abs().max())
        assert difference <= tolerance * float(gradient.abs().max()), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_split_is_dense(model, dtype, monkeypatch):
    """Losses and gradients of ragged scenes, with blocks so short that conversations are cut."""
    model.to(dtype)
    batch = ragged(model)
    expected = losses_and_gradients(model, batch)
    model.adapter.attend("split")
    whole = model.attention(batch, dtype)
    tolerance = 1e-8 if dtype == torch.float64 else 2e-5  # the families' norms round to float32 in any case
    assert_same(losses_and_gradients(model, batch), expected, tolerance)
    rows = _rows(model, batch)
    monkeypatch.setattr(model, "attention", lambda batch, dtype: SplitAttention.of(rows, dtype, block=7))
    assert model.attention(batch, dtype).pairs < whole.pairs
    assert_same(losses_and_gradients(model, batch), expected, tolerance)


def _rows(model: SpatialModel, batch) -> PackedRows:
    """The rule, from what the batch says."""
    views = None
    if model.adapter.views_see_themselves:
        views = torch.full_like(batch.segments, -1)
        for number, cells in enumerate(batch.layout.index):
            views.view(-1)[cells.flatten()] = number
    window = model.adapter.window
    return PackedRows(
        segments=batch.segments,
        views=views,
        positions=None if window is None else batch.position_ids,
        window=window,
    )


@torch.no_grad()
def test_flex_is_dense(model):
    batch = ragged(model)
    expected = run(model, batch, layers=(1,))
    model.adapter.attend("flex")
    assert isinstance(model.attention(batch, torch.float32), FlexAttention)
    found = run(model, batch, layers=(1,))
    for one, other in (
        (found.visual, expected.visual),
        (found.at(1), expected.at(1)),
        (found.text_logits, expected.text_logits),
        (found.grounding.logits, expected.grounding.logits),
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_flex_under_autocast(words, monkeypatch):
    """Rotary positions leave queries in float32 beside values in bfloat16; the kernel gets one dtype."""
    model = tiny_model("llava_onevision", words)
    batch = ragged(model)
    given: set[torch.dtype] = set()

    def seen(*tensors, **options):
        given.update(tensor.dtype for tensor in tensors)
        return flex_attention(*tensors, **options)

    monkeypatch.setattr(attention_flex, "flex_attention", seen)
    with torch.autocast("cpu", torch.bfloat16):
        expected = run(model, batch)
        model.adapter.attend("flex")
        found = run(model, batch)
    assert given == {torch.bfloat16}
    torch.testing.assert_close(found.visual, expected.visual, rtol=0.1, atol=0.1)


@torch.no_grad()
def test_the_rule_is_the_dense_mask(model):
    """In layers of every kind, padding included."""
    batch = ragged(model)
    rows = _rows(model, batch)
    whole = torch.arange(len(batch.segments))
    tokens = batch.segments.shape[1]
    dense = model.attention(batch, torch.float32)
    for windowed in (False, True):
        allowed = rows.allowed(slice(0, tokens), tokens, rows=whole, windowed=windowed)
        mask = dense["sliding_attention" if windowed else "full_attention"] if isinstance(dense, dict) else dense
        assert torch.equal(allowed, mask[:, 0] == 0)


def test_blocks_are_pytorchs_own():
    """Which blocks are seen in part, which as a whole: as `create_block_mask` finds them from the whole mask."""
    segments = torch.full((2, 700), -1)
    for row, lengths in enumerate(((300, 40, 150, 60), (130, 500, 70))):
        segments[row, : sum(lengths)] = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    views = torch.where(segments == 0, torch.arange(700) // 65, -1)
    positions = torch.arange(700).expand(2, -1)
    rows = PackedRows(segments=segments, views=views, positions=positions, window=150)
    for windowed in (False, True):
        found = block_mask(rows, windowed=windowed)
        expected = create_block_mask(found.mask_mod, 2, None, 700, 700, device="cpu")
        assert torch.equal(found.to_dense(), expected.to_dense())
        for part in ("kv_num_blocks", "full_kv_num_blocks", "q_num_blocks", "full_q_num_blocks"):
            assert torch.equal(getattr(found, part), getattr(expected, part)), part
        whole, seen = int(found.full_kv_num_blocks.sum()), int(found.to_dense().sum())
        assert (whole > 0) != windowed  # no window of 150 holds all pairs of 128 x 128
        assert whole < seen + whole < found.to_dense().numel()


@pytest.mark.parametrize("view_wise", [False, True])
def test_attention_of_random_tensors_in_float64(view_wise):
    """Outputs and gradients against softmax over the dense mask, heads shared, to 1e-12."""
    torch.manual_seed(0)
    segments = torch.tensor([[0] * 30 + [1] * 8 + [2] * 12 + [-1] * 4, [0] * 20 + [1] * 5 + [2] * 9 + [3] * 20])
    views = torch.where(segments == 0, torch.arange(54) // 7, -1)
    rows = PackedRows(
        segments=segments,
        views=views if view_wise else None,
        positions=torch.arange(54).expand(2, -1) if view_wise else None,
        window=9 if view_wise else None,
    )
    query, key, value = (torch.randn(2, heads, 54, 6, dtype=torch.float64, requires_grad=True) for heads in (4, 2, 2))
    weight = torch.randn(2, 4, 54, 6, dtype=torch.float64) * (segments >= 0)[:, None, :, None]
    split = SplitAttention.of(rows, torch.float64, block=10)
    for windowed in (False, True) if view_wise else (False,):
        allowed = rows.allowed(slice(0, 54), 54, rows=torch.arange(2), windowed=windowed)
        assert view_wise or torch.equal(allowed, attention_allowed(segments))
        scores = query @ key.repeat_interleave(2, 1).mT / math.sqrt(6)
        dense = scores.masked_fill(~allowed[:, None], -math.inf).softmax(-1) @ value.repeat_interleave(2, 1)
        found = split.attend(query, key, value, scaling=None, dropout=0.0, windowed=windowed)
        expected = torch.autograd.grad((dense * weight).sum(), (query, key, value), retain_graph=True)
        gradients = torch.autograd.grad((found * weight).sum(), (query, key, value))
        real = (segments >= 0)[:, None, :, None]
        for one, other in ((found * real, dense * real), *zip(gradients, expected, strict=True)):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_conversations_cost_what_they_see():
    """V3D's shapes: 16 conversations of 40 tokens behind 6 720, then 64; pairs computed against a dense mask's."""
    for talks, share in ((16, 0.51), (64, 0.48)):
        segments = torch.cat([torch.zeros(6720), torch.arange(1, talks + 1).repeat_interleave(40)]).long()[None]
        split = SplitAttention.of(PackedRows(segments=segments), torch.float32)
        needed = 6720 * 6721 // 2 + talks * (40 * 6720 + 40 * 41 // 2)
        assert needed <= split.pairs <= 1.03 * needed
        assert split.pairs < share * segments.shape[1] ** 2


@torch.no_grad()
@pytest.mark.parametrize("how", ["auto", "eager"])
def test_questions_behind_a_cached_prefix_do_not_depend_on_it(words, how):
    """Inference goes another way than packed rows; its answers are the same."""
    for family in ("qwen2_vl", "gemma3"):
        model = tiny_model(family, words)
        pack = scene(model, 3)
        expected = EnteredScene(model, pack).score_proposals([TALK[3]])[0].cosines
        model.adapter.attend(how)
        found = EnteredScene(model, pack).score_proposals([TALK[3]])[0].cosines
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_gradient_checkpointing_and_half_precision(words):
    model = tiny_model("gemma3", words, objectives=ObjectiveSet({"text": TextLoss(), "grounding": GroundingLoss()}))
    model.adapter.attend("split")
    batch = ragged(model)
    plain = losses_and_gradients(model, batch)
    model.train()
    model.backbone.gradient_checkpointing_enable({"use_reentrant": False})
    assert_same(losses_and_gradients(model, batch), plain, 1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, _ = losses_and_gradients(model, batch)
    assert rounded["text"] == pytest.approx(plain[0]["text"], rel=0.05)


def test_what_cannot_be_is_refused(words):
    model = tiny_model("internvl", words, objectives=ObjectiveSet({"text": TextLoss(), "grounding": GroundingLoss()}))
    model.adapter.attend("flex")
    with pytest.raises(ValueError, match=r"no gradients on a CPU; set model\.attention to 'split'"):
        losses_and_gradients(model, ragged(model))
    model.adapter.attend("split")
    split = model.attention(ragged(model), torch.float32)
    layer = model.adapter.base.language_model.layers[0].self_attn
    tensors = [torch.zeros(4, heads, 4, 12) for heads in (4, 2, 2)]
    with pytest.raises(ValueError, match=r"softcap.*'eager'"):
        packed_attention(layer, *tensors, None, packing=split, softcap=30.0)


def test_a_saved_model_says_nothing_of_it(words, tmp_path):
    """Plain transformers opens the folder; ours opens it with the way that is asked for."""
    model = tiny_model("qwen3_vl", words)
    model.adapter.attend("split")
    save_model(model, tmp_path)
    assert IMPLEMENTATION not in (tmp_path / "config.json").read_text()
    assert load_model(tmp_path).adapter.attention == "sdpa"
    opened = load_model(tmp_path, attention="eager")
    assert opened.adapter.model.config.text_config._attn_implementation == "eager"
    assert opened.adapter.attention_on(torch.device("cpu")) == "eager"
    assert load_model(tmp_path, attention="auto").adapter.attention_on(torch.device("cpu")) == "split"


def with_wide_heads(family: str, words, monkeypatch) -> SpatialModel:
    """Heads of 16, the smallest that the compiled kernel takes, three for one; rotary sections to match."""
    for key, value in {"head_dim": 16, "num_attention_heads": 3, "num_key_value_heads": 1}.items():
        monkeypatch.setitem(TEXT, key, value)
    monkeypatch.setitem(ROPE, "mrope_section", [2, 3, 3])
    return tiny_model(family, words, objectives=ObjectiveSet({"text": TextLoss(), "grounding": GroundingLoss()}))


@pytest.mark.parametrize("family", sorted(BUILDERS))
def test_heads_wide_enough_for_the_kernel(words, monkeypatch, family):
    """What "auto" means follows the device and the width of the heads."""
    model = with_wide_heads(family, words, monkeypatch)
    model.adapter.attend("auto")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert model.adapter.attention_on(torch.device("cuda")) == "flex"
    assert model.adapter.attention_on(torch.device("cpu")) == "split"
    assert losses_and_gradients(model, ragged(model))[0]["text"] > 0
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert model.adapter.attention_on(torch.device("cuda")) == "split"
    monkeypatch.undo()
    narrow = tiny_model(family, words)
    narrow.adapter.attend("auto")
    assert narrow.adapter.attention_on(torch.device("cuda")) == "split"


@pytest.mark.gpu
@pytest.mark.parametrize("family", sorted(BUILDERS))
def test_flex_is_dense_on_a_gpu(words, monkeypatch, family):
    """Compiled, with gradients; ragged, then again with other lengths."""
    model = with_wide_heads(family, words, monkeypatch).cuda()
    for batch in (ragged(model).to("cuda"), model.collator()([scene(model, 4, *TALK)]).to("cuda")):
        model.adapter.attend("sdpa")
        expected = losses_and_gradients(model, batch)
        model.adapter.attend("auto")
        assert isinstance(model.attention(batch, torch.float32), FlexAttention)
        assert_same(losses_and_gradients(model, batch), expected, 1e-2)
