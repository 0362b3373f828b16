"""Muon orthogonalises in the precision that it is told; in bfloat16 it is torch's, to the bit."""

import pytest
import torch

from stereopsis.training.optimizer import Muon, MuonWithAdamW, orthogonalised

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
SHAPES = ((8, 8), (6, 20), (20, 6))


def _stepped(make, *, steps=3, dtype=torch.float32):
    """Parameters after some steps on fixed gradients."""
    noise = torch.Generator().manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(s, generator=noise, dtype=dtype)) for s in SHAPES]
    optimizer = make(parameters)
    for _ in range(steps):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=noise, dtype=dtype)
        optimizer.step()
    return parameters, optimizer


OPTIONS = {"lr": 0.1, "weight_decay": 0.05, "adjust_lr_fn": "match_rms_adamw"}


def test_in_bfloat16_it_is_torchs():
    ours, _ = _stepped(lambda p: Muon(p, orthogonal=torch.bfloat16, **OPTIONS))
    theirs, _ = _stepped(lambda p: torch.optim.Muon(p, **OPTIONS))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_in_float32_it_is_torchs_without_the_rounding():
    exact, _ = _stepped(lambda p: Muon(p, orthogonal=torch.float64, **OPTIONS), dtype=torch.float64)
    ours, _ = _stepped(lambda p: Muon(p, orthogonal=torch.float32, **OPTIONS), dtype=torch.float64)
    theirs, _ = _stepped(lambda p: torch.optim.Muon(p, **OPTIONS), dtype=torch.float64)
    for a, b, c in zip(exact, ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-5)
        assert torch.allclose(a, c, atol=2e-2)  # theirs rounds to 8 bits, five times over
        assert not torch.allclose(a, c, atol=1e-5)


def test_states_are_interchangeable_with_torchs():
    _, ours = _stepped(lambda p: Muon(p, orthogonal=torch.float32, **OPTIONS))
    _, theirs = _stepped(lambda p: torch.optim.Muon(p, **OPTIONS))
    mine, other = ours.state_dict(), theirs.state_dict()
    assert mine["param_groups"] == other["param_groups"]
    for number in range(len(SHAPES)):
        assert torch.equal(mine["state"][number]["momentum_buffer"], other["state"][number]["momentum_buffer"])


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_come_near_one_and_directions_stay(shape):
    noise = torch.Generator().manual_seed(1)
    matrix = torch.randn(shape, generator=noise, dtype=torch.float64)
    done = orthogonalised(matrix, coefficients=COEFFICIENTS, steps=5, eps=1e-7)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    inside = left.T @ done @ right.T  # diagonal: the iteration changes singular values alone
    values = inside.diagonal()
    assert torch.allclose(inside, torch.diag(values), atol=1e-9)
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_a_scale_of_the_gradient_changes_nothing():
    matrix = torch.randn(5, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    once, thousandfold = (
        orthogonalised(factor * matrix, coefficients=COEFFICIENTS, steps=5, eps=1e-7) for factor in (1, 1000)
    )
    assert torch.allclose(once, thousandfold, atol=1e-12)


def test_zero_gradients_move_nothing():
    parameter = torch.nn.Parameter(torch.ones(3, 4))
    parameter.grad = torch.zeros(3, 4)
    Muon([parameter], orthogonal=torch.float32, lr=0.1, weight_decay=0.0, adjust_lr_fn="match_rms_adamw").step()
    assert torch.equal(parameter, torch.ones(3, 4))


def test_other_rules_are_refused_instead_of_computed_wrongly():
    parameter = torch.nn.Parameter(torch.ones(3, 4))
    parameter.grad = torch.ones(3, 4)
    with pytest.raises(ValueError, match="match_rms_adamw"):
        Muon([parameter], orthogonal=torch.float32, lr=0.1).step()


def test_both_parts_take_the_rate_of_a_schedule():
    matrix, vector = torch.nn.Parameter(torch.ones(3, 4)), torch.nn.Parameter(torch.ones(3))
    optimizer = MuonWithAdamW([{"params": [matrix], "lr": 1.0}], [{"params": [vector], "lr": 1.0}])
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    matrix.grad, vector.grad = torch.ones(3, 4), torch.ones(3)
    optimizer.step()
    assert torch.equal(matrix, torch.ones(3, 4))
    assert torch.equal(vector, torch.ones(3))
