"""Relational distillation: hand values, sampling, and what it must not touch."""

import pytest
import torch
from torch.nn import functional

from stereopsis.objectives import FeatureAlignment, Relational, SpatialOutputs


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def identity_head(objective: Relational) -> Relational:
    objective.head = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.Identity(), torch.nn.Linear(6, 6))
    for layer in (objective.head[0], objective.head[2]):
        torch.nn.init.eye_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    return objective


def test_by_hand(make_batch, make_outputs):
    """Two cells: students at cosine 0.6, the teacher's at 0: a difference of 0.6."""
    batch = make_batch((1,))
    valid = torch.zeros(1, 2, 3, dtype=torch.bool)
    valid[0, 0, :2] = True
    features = torch.full((1, 2, 3, 5), float("nan"))
    features[0, 0, 0], features[0, 0, 1] = torch.eye(5)[0] * 7, torch.eye(5)[1]
    batch.targets.update(view_features=features, view_features_valid=valid)
    tokens = torch.zeros(1, 2, 3, 6)
    tokens[0, 0, 0, :2], tokens[0, 0, 1, 0] = torch.tensor([3.0, 4.0]), 5.0
    outputs = SpatialOutputs(visual=tokens.requires_grad_(), hidden=torch.zeros(1, dtype=torch.bool))
    objective = identity_head(Relational(6))
    loss = objective.loss(outputs, batch, generator())
    assert float(loss.sum.detach()) == pytest.approx(0.6, abs=1e-6)
    assert loss.count == objective.count(batch) == 1
    loss.sum.backward()
    assert outputs.visual.grad.isfinite().all()
    assert outputs.visual.grad[~valid].eq(0).all()


def test_a_student_like_the_teacher_costs_nothing_however_turned(make_batch, make_outputs):
    batch = make_batch((3,))
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator())).Q
    teacher = torch.randn(3, 2, 3, 6, generator=generator(1))
    batch.targets["view_features"] = teacher
    outputs = SpatialOutputs(visual=4 * teacher @ turn, hidden=torch.zeros(3, dtype=torch.bool))
    loss = identity_head(Relational(6)).loss(outputs, batch, generator())
    assert float(loss.sum.detach()) == pytest.approx(0, abs=1e-6)
    assert loss.metrics["correlation"] == pytest.approx(1, abs=1e-5)


def test_all_cells_at_once_equal_the_full_matrices(make_batch, make_outputs):
    batch = make_batch((4,))
    objective, outputs = Relational(6), make_outputs(batch)
    valid = batch.targets["view_features_valid"]
    student = functional.normalize(objective.head(outputs.visual[valid]), dim=-1)
    teacher = functional.normalize(batch.targets["view_features"][valid], dim=-1)
    n = len(student)
    expected = ((student @ student.T - teacher @ teacher.T).abs().sum()) / (n * (n - 1))  # the diagonal costs nothing
    torch.testing.assert_close(objective.loss(outputs, batch, generator()).sum, expected)


def test_no_matrix_is_larger_than_the_samples(make_batch, make_outputs, monkeypatch):
    sizes = []
    original = torch.triu_indices

    def spied(rows, cols, **options):
        sizes.append((rows, cols))
        return original(rows, cols, **options)

    monkeypatch.setattr(torch, "triu_indices", spied)
    batch = make_batch((4, 2))
    Relational(6, samples=5).loss(make_outputs(batch), batch, generator())
    assert sizes == [(5, 5), (5, 5)]


def test_packed_scenes_cost_what_they_cost_alone(make_batch, make_outputs):
    objective, both = Relational(6, samples=8), make_batch((4, 3))
    outputs, draw = make_outputs(both), generator()
    together = objective.loss(outputs, both, draw)
    draw, alone = generator(), []
    for views in (slice(0, 4), slice(4, 7)):
        single = make_batch((views.stop - views.start,))
        single.targets.update({k: both.targets[k][views] for k in ("view_features", "view_features_valid")})
        part = SpatialOutputs(visual=outputs.visual[views], hidden=outputs.hidden[views])
        alone.append(objective.loss(part, single, draw))
    torch.testing.assert_close(together.sum, sum(loss.sum for loss in alone))
    assert together.count == 2


def test_nothing_usable_is_a_connected_zero(make_batch, make_outputs):
    batch = make_batch((2,))
    batch.targets["view_features_valid"] = torch.zeros(2, 2, 3, dtype=torch.bool)
    objective, outputs = Relational(6), make_outputs(batch)
    loss = objective.loss(outputs, batch, generator())
    assert (float(loss.sum.detach()), loss.count) == (0.0, 0.0)
    loss.sum.backward()
    assert all(p.grad is not None for p in objective.parameters())


def test_gradient_is_right(make_batch, make_outputs):
    batch = make_batch((2,), dtype=torch.float64)
    objective = Relational(6, width=4).double()
    base = make_outputs(batch, dtype=torch.float64)

    def value(visual):
        return objective.loss(SpatialOutputs(visual=visual, hidden=base.hidden), batch, generator()).sum

    assert torch.autograd.gradcheck(value, (base.visual,))


def test_alignment_of_several_layers_averages_their_losses(make_batch, make_outputs):
    batch = make_batch((2,))
    base = make_outputs(batch)
    earlier = torch.randn(base.visual.shape, generator=generator(9))
    outputs = SpatialOutputs(visual=base.visual, hidden=base.hidden, layers={-3: earlier})
    both = FeatureAlignment(6, 5, layers=(-1, -3))
    assert both.layers == (-3,)
    last, third = FeatureAlignment(6, 5), FeatureAlignment(6, 5, layers=(-3,))
    last.head.load_state_dict(both.head.state_dict())
    third.head.load_state_dict(both.more_heads[0].state_dict())
    expected = (last.loss(outputs, batch, generator()).sum + third.loss(outputs, batch, generator()).sum) / 2
    torch.testing.assert_close(both.loss(outputs, batch, generator()).sum, expected)
    with pytest.raises(ValueError, match="each once"):
        FeatureAlignment(6, 5, layers=(-1, -1))
