import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stereopsis.objectives import GroundingLoss, GroundingScores

INF = float("inf")


def run(make_batch, make_outputs, logits: torch.Tensor, targets: list[list[bool]]):
    mask = torch.tensor(targets, dtype=torch.bool).reshape(len(targets), logits.shape[1] - 1)
    batch = make_batch((1,), query_targets=mask)
    outputs = dataclasses.replace(make_outputs(batch), grounding=GroundingScores(logits=logits))
    loss = GroundingLoss().loss(outputs, batch, torch.Generator().manual_seed(0))
    assert loss.count == GroundingLoss().count(batch) == len(targets)
    return loss


def test_hand_values(make_batch, make_outputs):
    logits = torch.tensor(
        [
            [0.0, math.log(2), -INF, 0.0],  # one right: 2 of 1 + 2 + 1
            [0.0, math.log(2), math.log(4), 0.0],  # none: the zero target, 1 of 8
            [math.log(5), 0.0, 0.0, 0.0],  # two right: 5 + 1 of 8
        ]
    )
    targets = [[False, True, False], [False, False, False], [True, False, True]]
    loss = run(make_batch, make_outputs, logits, targets)
    assert loss.sum.item() == pytest.approx(math.log(2) + math.log(8) + math.log(8 / 6), rel=1e-6)
    assert loss.metrics["accuracy"] == pytest.approx(2 / 3)


def test_every_finite_option_right_costs_nothing(make_batch, make_outputs):
    loss = run(make_batch, make_outputs, torch.tensor([[1.0, 1.0, -INF]]), [[True, True]])
    assert loss.sum.item() == pytest.approx(0)


def test_gradients_by_finite_differences_and_none_for_padding(make_batch, make_outputs):
    torch.manual_seed(0)
    free = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    padded = torch.zeros(3, 5, dtype=torch.bool)
    padded[0, 2:4] = padded[2, :4] = True
    targets = [[True, True, False, False], [False, False, False, True], [False] * 4]

    def loss(x):
        return run(make_batch, make_outputs, x.masked_fill(padded, -INF), targets).sum

    assert torch.autograd.gradcheck(loss, (free,))
    raw = free.detach().masked_fill(padded, -INF).requires_grad_()
    run(make_batch, make_outputs, raw, targets).sum.backward()
    assert raw.grad.isfinite().all()
    assert raw.grad[padded].eq(0).all()
    assert raw.grad.abs().sum() > 0.1


@settings(max_examples=40, deadline=None)
@given(
    logits=st.lists(st.floats(-20, 20), min_size=2, max_size=8),
    right=st.integers(0, 255),
    padding=st.integers(0, 3),
)
def test_equals_the_definition_and_ignores_order_and_padding(make_batch, make_outputs, logits, right, padding):
    proposals = len(logits) - 1
    mask = [bool(right >> i & 1) for i in range(proposals)]
    chosen = [x for x, m in zip(logits, mask, strict=False) if m] or logits[-1:]
    expected = math.log(sum(map(math.exp, logits))) - math.log(sum(map(math.exp, chosen)))
    order = sorted(range(proposals), key=lambda i: (i * 7919) % 13)
    row = [logits[i] for i in order] + [-INF] * padding + logits[-1:]
    targets = [mask[i] for i in order] + [False] * padding
    loss = run(make_batch, make_outputs, torch.tensor([row], dtype=torch.float64), [targets])
    assert loss.sum.item() == pytest.approx(expected, abs=1e-9)


def test_no_query_is_zero_and_connected(make_batch, make_outputs):
    batch = make_batch((1,))
    outputs = make_outputs(batch)
    loss = GroundingLoss().loss(outputs, batch, torch.Generator())
    assert (loss.sum.item(), loss.count, GroundingLoss().count(batch)) == (0, 0, 0)
    loss.sum.backward()
    assert outputs.visual.grad.eq(0).all()


def test_scores_that_do_not_fit_are_refused(make_batch, make_outputs):
    batch = make_batch((1,), query_targets=torch.zeros(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"expected scores of shape \(2, 4\) .*, got None"):
        GroundingLoss().loss(make_outputs(batch), batch, torch.Generator())
    with pytest.raises(ValueError, match=r"got \(2, 3\)"):
        GroundingLoss().loss(
            dataclasses.replace(make_outputs(batch), grounding=GroundingScores(logits=torch.zeros(2, 3))),
            batch,
            torch.Generator(),
        )


def test_a_right_proposal_that_is_padding_is_refused(make_batch, make_outputs):
    with pytest.raises(ValueError, match="query 1 of the batch has a right proposal whose score is -inf"):
        run(make_batch, make_outputs, torch.tensor([[0.0, -INF, 0.0]] * 2), [[True, False], [True, True]])
