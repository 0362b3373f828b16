import dataclasses

import pytest
import torch

from stereopsis.objectives import FeatureAlignment, SpatialOutputs
from stereopsis.objectives.alignment import feature_distance, spatially_normalised


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def constant_head(objective: FeatureAlignment, value: list[float]) -> FeatureAlignment:
    """An objective whose head says the same for every token."""
    for parameter in objective.parameters():
        torch.nn.init.zeros_(parameter)
    objective.head[2].bias.data.copy_(torch.tensor(value))
    return objective


@pytest.mark.parametrize(("distance", "expected"), [("squared", 0.8), ("cosine", 0.4), ("l2", 0.8**0.5)])
def test_hand_values(distance, expected):
    student, teacher = torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([[10.0, 0.0], [0.0, 7.0]])
    got = feature_distance(student, teacher, distance)  # cosines 0.6 and 1
    torch.testing.assert_close(got, torch.tensor([expected, 0.0]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("distance", ["squared", "cosine", "l2"])
def test_distance_ignores_lengths_and_its_gradient_is_right(distance):
    torch.manual_seed(0)
    student = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(4, 5, dtype=torch.float64)
    base = feature_distance(student, teacher, distance)
    torch.testing.assert_close(feature_distance(student * 9, teacher * 0.2, distance), base)
    assert torch.autograd.gradcheck(lambda s: feature_distance(s, teacher, distance), (student,))


def test_squared_is_twice_the_cosine_distance():
    student, teacher = torch.randn(50, 7), torch.randn(50, 7)
    squared = feature_distance(student, teacher, "squared")
    torch.testing.assert_close(squared, 2 * feature_distance(student, teacher, "cosine"))


@pytest.mark.parametrize("distance", ["squared", "cosine", "l2"])
def test_gradients_are_finite_for_equal_and_for_zero_features(distance):
    student = torch.tensor([[1.0, 2.0], [1.0, 0.0]], requires_grad=True)
    feature_distance(student, torch.tensor([[1.0, 2.0], [0.0, 0.0]]), distance).sum().backward()
    assert student.grad.isfinite().all()


def test_sums_over_valid_tokens_only(make_batch, make_outputs):
    batch = make_batch((2, 1))
    valid = torch.zeros(3, 2, 3, dtype=torch.bool)
    valid[0, 0, :2] = True
    valid[2, 1, 2] = True
    features = torch.full((3, 2, 3, 2), float("nan"))
    features[valid] = torch.tensor([[10.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
    batch.targets.update(view_features=features, view_features_valid=valid)
    objective = constant_head(FeatureAlignment(6, 2), [3.0, 4.0])
    outputs = make_outputs(batch)
    loss = objective.loss(outputs, batch, generator())
    # cosines 0.6, 0.8, -0.6
    assert loss.sum.item() == pytest.approx(2 * (0.4 + 0.2 + 1.6), rel=1e-6)
    assert loss.count == objective.count(batch) == 3
    assert loss.metrics["cosine"] == pytest.approx(0.8 / 3, rel=1e-5)
    loss.sum.backward()
    assert outputs.visual.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in objective.parameters())


def test_hidden_views_are_left_out_and_their_scene_keeps_its_weight(make_batch, make_outputs):
    batch = make_batch((3, 2))
    objective = FeatureAlignment(6, 5)
    hidden = torch.tensor([False, True, False, False, False])
    outputs = make_outputs(batch, hidden=hidden)
    loss = objective.loss(outputs, batch, generator())
    loss.sum.backward()
    assert outputs.visual.grad[1].eq(0).all()
    assert outputs.visual.grad[[0, 2, 3, 4]].abs().sum(dim=(1, 2, 3)).gt(0).all()
    # the first scene's mean over its visible tokens, times all its valid tokens
    valid = batch.targets["view_features_valid"]
    wanted = 0.0
    for scene, seen in (([0, 1, 2], [0, 2]), ([3, 4], [3, 4])):
        part = dataclasses.replace(
            make_batch((len(seen),)),
            targets={k: batch.targets[k][torch.tensor(seen)] for k in ("view_features", "view_features_valid")},
        )
        alone = objective.loss(
            SpatialOutputs(visual=outputs.visual[seen], hidden=torch.zeros(len(seen)).bool()),
            part,
            generator(),
        )
        wanted += alone.sum.item() / alone.count * int(valid[scene].sum())
    assert loss.sum.item() == pytest.approx(wanted, rel=1e-5)
    assert loss.count == objective.count(batch) == int(valid.sum())


def test_permuting_views_permutes_gradients(make_batch, make_outputs):
    batch = make_batch((4,))
    objective, order = FeatureAlignment(6, 5), torch.tensor([2, 0, 3, 1])
    outputs = make_outputs(batch)
    loss = objective.loss(outputs, batch, generator())
    (gradient,) = torch.autograd.grad(loss.sum, outputs.visual)
    shuffled = SpatialOutputs(visual=outputs.visual.detach()[order].requires_grad_(), hidden=outputs.hidden[order])
    batch.targets.update({k: batch.targets[k][order] for k in ("view_features", "view_features_valid")})
    other = objective.loss(shuffled, batch, generator())
    assert other.sum.item() == pytest.approx(loss.sum.item(), rel=1e-5)
    torch.testing.assert_close(torch.autograd.grad(other.sum, shuffled.visual)[0], gradient[order])


@pytest.mark.parametrize("distance", ["squared", "cosine", "l2"])
def test_gradients_by_finite_differences(distance, make_batch, make_outputs):
    torch.manual_seed(0)
    batch = make_batch((1, 2), dtype=torch.float64)
    outputs = make_outputs(batch, dtype=torch.float64)
    objective = FeatureAlignment(6, 5, distance=distance).double()

    def loss(visual):
        return objective.loss(SpatialOutputs(visual=visual, hidden=outputs.hidden), batch, generator()).sum

    assert torch.autograd.gradcheck(loss, (outputs.visual,))


def test_nothing_valid_is_zero_and_connected(make_batch, make_outputs):
    batch = make_batch((2,))
    batch.targets["view_features_valid"][:] = False
    objective, outputs = FeatureAlignment(6, 5), make_outputs(batch)
    loss = objective.loss(outputs, batch, generator())
    assert (loss.sum.item(), loss.count) == (0, 0)
    loss.sum.backward()
    assert outputs.visual.grad.eq(0).all()
    assert all(p.grad.eq(0).all() for p in objective.parameters())


def test_head_learns_features_that_are_a_function_of_the_tokens(make_batch, make_outputs):
    torch.manual_seed(0)
    batch = make_batch((4,))
    outputs = make_outputs(batch)
    batch.targets["view_features"] = torch.tanh(outputs.visual.detach() @ torch.randn(6, 5))
    objective = FeatureAlignment(6, 5)
    optimiser = torch.optim.Adam(objective.parameters(), lr=1e-2)
    first = objective.loss(outputs, batch, generator()).metrics["cosine"]
    for _ in range(60):
        loss = objective.loss(outputs, batch, generator())
        optimiser.zero_grad()
        loss.sum.backward()
        optimiser.step()
    assert first < 0.5
    assert loss.metrics["cosine"] > 0.95


def test_half_precision_outputs_and_teacher(make_batch, make_outputs):
    batch = make_batch((2,))
    objective, outputs = FeatureAlignment(6, 5), make_outputs(batch)
    exact = objective.loss(outputs, batch, generator()).sum
    batch.targets["view_features"] = batch.targets["view_features"].half()
    half = SpatialOutputs(visual=outputs.visual.bfloat16(), hidden=outputs.hidden)
    got = objective.loss(half, batch, generator()).sum
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(exact.item(), rel=0.02)


def test_head_has_the_released_layers():
    shapes = {n: tuple(p.shape) for n, p in FeatureAlignment(6, 5).named_parameters()}
    expected = {"head.0.weight": (12, 6), "head.0.bias": (12,), "head.2.weight": (5, 12), "head.2.bias": (5,)}
    assert shapes == expected


def test_another_grid_or_teacher_is_refused(make_batch, make_outputs):
    batch = make_batch((2,))
    outputs = make_outputs(batch)
    with pytest.raises(ValueError, match=r"ask for \(2, 2, 3, 8\) .* pool the target"):
        FeatureAlignment(6, 8).loss(outputs, batch, generator())
    batch.targets.update(view_features=torch.zeros(2, 4, 6, 5), view_features_valid=torch.ones(2, 4, 6).bool())
    with pytest.raises(ValueError, match=r"has shape \(2, 4, 6, 5\)"):
        FeatureAlignment(6, 5).loss(outputs, batch, generator())


def test_unknown_distance_suggests():
    with pytest.raises(ValueError, match="did you mean 'cosine'"):
        FeatureAlignment(6, 5, distance="cosin")


def test_spatial_normalisation_by_hand():
    features = torch.tensor([1.0, 3.0, 100.0]).view(1, 1, 3, 1)
    valid = torch.tensor([[[True, True, False]]])
    whole = spatially_normalised(features, valid, 1.0)[0, 0, :2, 0]
    torch.testing.assert_close(whole, torch.tensor([-1.0, 1.0]), atol=1e-4, rtol=0)
    half = spatially_normalised(features, valid, 0.5)[0, 0, :2, 0]
    torch.testing.assert_close(half, torch.tensor([0.0, 2.0]), atol=1e-4, rtol=0)


def test_spatial_normalisation_forgets_what_a_view_has_in_common():
    torch.manual_seed(0)
    features, valid = torch.randn(2, 4, 4, 3), torch.ones(2, 4, 4, dtype=torch.bool)
    common = torch.randn(2, 1, 1, 3) * 50
    wanted = spatially_normalised(features, valid, 1.0)
    torch.testing.assert_close(spatially_normalised(2 * features + common, valid, 1.0), wanted, atol=1e-3, rtol=1e-3)


def test_a_teacher_that_says_the_same_everywhere_teaches_nothing_when_normalised(make_batch, make_outputs):
    batch = make_batch((2,))
    batch.targets["view_features"] = torch.full((2, 2, 3, 5), 7.0)
    outputs = make_outputs(batch)
    objective = FeatureAlignment(6, 5, normalise="spatial", projector="conv", distance="cosine")
    loss = objective.loss(outputs, batch, generator())
    assert loss.sum.item() == pytest.approx(loss.count, rel=1e-4)  # cosine 0 with whatever is predicted
    with pytest.raises(ValueError, match="gamma"):
        FeatureAlignment(6, 5, gamma=2.0)
