import dataclasses
import math

import pytest
import torch

from stereopsis.objectives import SpatialOutputs, TextLoss, TextStates
from stereopsis.objectives import text as text_module
from stereopsis.objectives.text import chunked_cross_entropy


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def labelled(make_batch, *targets: int):
    """A batch of one view whose sequence carries these labels."""
    batch = make_batch((1,))
    labels = torch.full_like(batch.labels, -100)
    labels[0, : len(targets)] = torch.tensor(targets, dtype=torch.int64)
    return dataclasses.replace(batch, labels=labels)


def with_text(outputs, logits, targets) -> SpatialOutputs:
    """States that are scores already, behind a head that does nothing."""
    words = torch.tensor(targets, dtype=torch.int64)
    text = TextStates(states=logits, targets=words, head=lambda states: states, vocabulary=logits.shape[1])
    return dataclasses.replace(outputs, text=text)


def test_hand_values(make_batch, make_outputs):
    batch = labelled(make_batch, 1, 0)
    logits = torch.tensor([[0.0, math.log(3), 0.0], [1.0, 1.0, 2.0]])
    loss = TextLoss().loss(with_text(make_outputs(batch), logits, [1, 0]), batch, generator())
    # -log(3/5) and -log(e / (2e + e^2))
    assert loss.sum.item() == pytest.approx(math.log(5 / 3) + math.log(2 + math.e), rel=1e-6)
    assert loss.count == TextLoss().count(batch) == 2
    assert loss.metrics == {"token_accuracy": 0.5}


def test_gradients_by_finite_differences(make_batch, make_outputs):
    batch = labelled(make_batch, 2, 0, 1)
    torch.manual_seed(0)
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    outputs = make_outputs(batch)
    assert torch.autograd.gradcheck(
        lambda x: TextLoss().loss(with_text(outputs, x, [2, 0, 1]), batch, generator()).sum, (logits,)
    )


def test_half_precision_logits_are_summed_in_float32(make_batch, make_outputs):
    batch = labelled(make_batch, *[0] * 9)
    torch.manual_seed(0)
    logits = 3 * torch.randn(9, 2000)
    loss = TextLoss().loss(with_text(make_outputs(batch), logits.bfloat16(), [0] * 9), batch, generator())
    exact = TextLoss().loss(with_text(make_outputs(batch), logits.bfloat16().double(), [0] * 9), batch, generator())
    assert loss.sum.dtype == torch.float32
    assert loss.sum.item() == pytest.approx(exact.sum.item(), rel=1e-6)


@pytest.mark.parametrize("empty_logits", [False, True])
def test_a_vision_only_batch_is_zero_and_connected(make_batch, make_outputs, empty_logits):
    batch = make_batch((2,))
    outputs = make_outputs(batch)
    if empty_logits:
        outputs = with_text(outputs, torch.zeros(0, 5), [])
    loss = TextLoss().loss(outputs, batch, generator())
    assert (loss.sum.item(), loss.count, TextLoss().count(batch)) == (0, 0, 0)
    loss.sum.backward()
    assert outputs.visual.grad.eq(0).all()


def test_logits_that_do_not_cover_the_labels_are_refused(make_batch, make_outputs):
    batch = labelled(make_batch, 1, 0)
    with pytest.raises(ValueError, match="labels 2 tokens, the model gave states for 0"):
        TextLoss().loss(make_outputs(batch), batch, generator())
    with pytest.raises(ValueError, match="labels 2 tokens, the model gave states for 1"):
        TextLoss().loss(with_text(make_outputs(batch), torch.zeros(1, 3), [1]), batch, generator())


class Head(torch.nn.Linear):
    """Remembers how many tokens were scored at a time."""

    def __init__(self, *sizes: int, dtype: torch.dtype) -> None:
        super().__init__(*sizes, bias=False, dtype=dtype)
        self.asked: list[int] = []

    def forward(self, states):
        self.asked.append(len(states))
        return super().forward(states)


@pytest.mark.parametrize("tokens", [1, 4, 6, 100])
def test_chunks_change_neither_loss_nor_gradient(tokens):
    """Float64 to 1e-12; with one chunk nothing is computed twice, with several nothing is held but one."""
    torch.manual_seed(0)
    head = Head(5, 33, dtype=torch.float64)
    states, targets = torch.randn(13, 5, dtype=torch.float64, requires_grad=True), torch.randint(33, (13,))
    weight = torch.rand(13, dtype=torch.float64)
    expected = torch.nn.functional.cross_entropy(states @ head.weight.mT, targets, reduction="none")
    gradients = torch.autograd.grad((expected * weight).sum(), (states, head.weight))
    each, right = chunked_cross_entropy(states, targets, head, tokens=tokens)
    torch.testing.assert_close(each, expected, rtol=0, atol=1e-12)
    assert torch.equal(right, (states @ head.weight.mT).argmax(-1) == targets)
    found = torch.autograd.grad((each * weight).sum(), (states, head.weight))
    for one, other in zip(found, gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    assert max(head.asked) == min(tokens, 13)
    assert sum(head.asked) == (13 if tokens == 100 else 2 * 13)


def test_scores_are_not_kept_for_the_way_back():
    """Of several chunks, what autograd saves is the states and the targets, nothing as wide as the vocabulary."""
    head = Head(5, 1000, dtype=torch.float32)
    states, targets = torch.randn(40, 5, requires_grad=True), torch.randint(1000, (40,))

    def saved(tokens: int) -> int:
        kept: list[int] = []

        def keep(tensor):
            kept.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            chunked_cross_entropy(states, targets, head, tokens=tokens)
        return sum(kept)

    assert saved(40) >= 40 * 1000
    assert saved(10) < 1000


def test_the_objective_takes_chunks_by_the_size_of_the_vocabulary(make_batch, make_outputs, monkeypatch):
    batch = labelled(make_batch, *range(9))
    torch.manual_seed(0)
    logits = torch.randn(9, 12, dtype=torch.float64)
    whole = TextLoss(average="answer").loss(with_text(make_outputs(batch), logits, list(range(9))), batch, generator())
    asked: list[int] = []
    outputs = with_text(make_outputs(batch), logits, list(range(9)))
    outputs = dataclasses.replace(
        outputs, text=dataclasses.replace(outputs.text, head=lambda states: asked.append(len(states)) or states)
    )
    monkeypatch.setattr(text_module, "CHUNK", 50)
    parts = TextLoss(average="answer").loss(outputs, batch, generator())
    assert asked == [4, 4, 1]
    assert parts.sum.item() == pytest.approx(whole.sum.item(), rel=1e-12)
    assert parts.metrics == whole.metrics
