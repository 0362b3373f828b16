import dataclasses
import math

import pytest
import torch

from stereopsis.objectives import SpatialOutputs, TextLoss


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def labelled(make_batch, *targets: int):
    """A batch of one view whose sequence carries these labels."""
    batch = make_batch((1,))
    labels = torch.full_like(batch.labels, -100)
    labels[0, : len(targets)] = torch.tensor(targets, dtype=torch.int64)
    return dataclasses.replace(batch, labels=labels)


def with_text(outputs, logits, targets) -> SpatialOutputs:
    return dataclasses.replace(outputs, text_logits=logits, text_targets=torch.tensor(targets))


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
        outputs = dataclasses.replace(
            outputs, text_logits=torch.zeros(0, 5), text_targets=torch.zeros(0, dtype=torch.int64)
        )
    loss = TextLoss().loss(outputs, batch, generator())
    assert (loss.sum.item(), loss.count, TextLoss().count(batch)) == (0, 0, 0)
    loss.sum.backward()
    assert outputs.visual.grad.eq(0).all()


def test_logits_that_do_not_cover_the_labels_are_refused(make_batch, make_outputs):
    batch = labelled(make_batch, 1, 0)
    with pytest.raises(ValueError, match="labels 2 tokens, the model gave logits for 0"):
        TextLoss().loss(make_outputs(batch), batch, generator())
    with pytest.raises(ValueError, match="labels 2 tokens, the model gave logits for 1"):
        TextLoss().loss(with_text(make_outputs(batch), torch.zeros(1, 3), [1]), batch, generator())
