"""Packing is exact: K conversations behind one prefix give the losses and gradients of K separate passes."""

import dataclasses

import pytest
import torch

DUE = ("text", "grounding")


def _losses_and_gradients(model, batch):
    model.zero_grad(set_to_none=True)
    losses = model(batch, due=DUE, seed=0)
    sum(loss.sum for loss in losses.values()).backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return {name: (float(loss.sum.detach()), loss.count) for name, loss in losses.items()}, gradients


@pytest.fixture(scope="module")
def scenes(make_pack, talk):
    """Two scenes: three views and four conversations, two views and three; other numbers of proposals."""
    first = make_pack(3, talk["where"], talk["red"], talk["what"], talk["none"], seed=1, proposals=5)
    second = make_pack(2, talk["both"], talk["many"], talk["what"], seed=2, proposals=3)
    return [first, second]


@pytest.mark.parametrize("attention", ["sdpa", "split"])
@pytest.mark.parametrize("positions", ["depth", "none"])
def test_packed_losses_and_gradients_equal_separate_ones(make_model, scenes, positions, attention):
    """Text, captions at a <coord>, grounding with and without target; ragged views; float64 to 1e-9."""
    model = make_model(*DUE, double=True, positions=positions)
    collate = model.collator()
    model.adapter.attend(attention)
    packed, packed_gradients = _losses_and_gradients(model, collate(scenes))
    model.adapter.attend("sdpa")
    sums = {name: [0.0, 0.0] for name in DUE}
    total: dict[str, torch.Tensor] = {}
    for pack in scenes:
        for conversation in pack.conversations:
            batch = collate([pack.replace(conversations=(conversation,))])
            losses, gradients = _losses_and_gradients(model, batch)
            for name, (loss, count) in losses.items():
                sums[name][0] += loss
                sums[name][1] += count
            for name, gradient in gradients.items():
                total[name] = total.get(name, 0) + gradient
    for name in DUE:
        assert packed[name][0] == pytest.approx(sums[name][0], rel=1e-9, abs=0)
        assert packed[name][1] == sums[name][1] > 0
    assert packed_gradients.keys() == total.keys()
    assert len(total) > 30
    for name, gradient in total.items():
        scale = float(gradient.abs().max())
        difference = float((packed_gradients[name] - gradient).abs().max())
        assert difference <= 1e-9 * scale, f"{name}: {difference:.2e} of {scale:.2e}"


def test_the_exactness_test_would_notice(make_model, scenes, monkeypatch):
    """With plain causal attention, where a conversation sees its predecessors, packing is not exact."""
    import stereopsis.models.spatial as spatial

    model = make_model(*DUE, double=True)
    right, _ = _losses_and_gradients(model, model.collator()(scenes))

    def causal(segments):
        tokens = segments.shape[1]
        return torch.ones(tokens, tokens, dtype=torch.bool).tril().expand(len(segments), -1, -1)

    monkeypatch.setattr(spatial, "attention_allowed", causal)
    wrong, _ = _losses_and_gradients(model, model.collator()(scenes))
    for name in DUE:
        assert abs(wrong[name][0] / right[name][0] - 1) > 1e-6


@torch.no_grad()
def test_order_of_conversations_does_not_matter(make_model, make_pack, talk, run_model):
    model = make_model(double=True)
    pack = make_pack(2, talk["where"], talk["many"], talk["red"])
    turned = pack.replace(conversations=(talk["red"], talk["many"], talk["where"]))
    one, other = (run_model(model, model.collator()([each])) for each in (pack, turned))
    split = len(model.tokenizer("on the table")["input_ids"]) + 1
    torch.testing.assert_close(
        one.text_logits,
        torch.cat([other.text_logits[-split:], other.text_logits[:-split]]),
        atol=1e-12,
        rtol=0,
    )
    torch.testing.assert_close(one.grounding.logits, other.grounding.logits, atol=1e-12, rtol=0)
    torch.testing.assert_close(one.visual, other.visual, atol=1e-12, rtol=0)


@torch.no_grad()
def test_padding_changes_nothing(make_model, make_pack, talk, run_model):
    """A short scene beside a long one gives what it gives alone."""
    model = make_model(double=True)
    short, long = (
        make_pack(1, talk["many"], talk["both"], seed=1),
        make_pack(4, talk["where"], seed=2, proposals=6),
    )
    alone, both = (
        run_model(model, model.collator()([short])),
        run_model(model, model.collator()([short, long])),
    )
    torch.testing.assert_close(both.visual[:1], alone.visual, atol=1e-12, rtol=0)
    torch.testing.assert_close(both.text_logits[: len(alone.text_logits)], alone.text_logits, atol=1e-12, rtol=0)
    torch.testing.assert_close(both.grounding.logits[:, [0, 1, 2, 6]], alone.grounding.logits, atol=1e-12, rtol=0)
    assert torch.isneginf(both.grounding.logits[:, 3:6]).all()


@torch.no_grad()
def test_what_stands_in_the_padding_does_not_matter(make_model, make_pack, talk, run_model):
    model = make_model()
    batch = model.collator()([make_pack(1, talk["many"]), make_pack(3, talk["where"], seed=2)])
    other = torch.where(batch.segments < 0, 77, batch.input_ids)
    assert not torch.equal(other, batch.input_ids)
    one, two = run_model(model, batch), run_model(model, dataclasses.replace(batch, input_ids=other))
    assert torch.equal(one.visual, two.visual)
    assert torch.equal(one.text_logits, two.text_logits)


def test_vision_only_scenes_train_without_words(make_model, make_pack):
    """No text, no query: text and grounding are zero but connected; reconstruction teaches the language model."""
    model = make_model("text", "grounding", "cross_view")
    losses = model(
        model.collator()([make_pack(2, seed=1), make_pack(4, seed=2, proposals=0)]),
        due=("text", "grounding", "cross_view"),
        seed=0,
    )
    assert losses["text"].count == losses["grounding"].count == 0
    assert float(losses["text"].sum.detach()) == float(losses["grounding"].sum.detach()) == 0
    sum(loss.sum for loss in losses.values()).backward()
    assert losses["cross_view"].count > 0
    assert model.objectives["cross_view"].mask_token.grad is not None
