"""What all objectives with a head per cell share; depth stands for them."""

import dataclasses

import pytest
import torch

from stereopsis.data.batch import SceneProposals
from stereopsis.data.pack import POINTS, POINTS_VALID
from stereopsis.objectives import CameraPose, DepthHead, PointMap, RayMap, SpatialOutputs
from stereopsis.objectives.dense import object_cells, token_shares
from stereopsis.objectives.set import ObjectiveSet

KINDS = (DepthHead, PointMap, RayMap, CameraPose)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def with_points(batch):
    batch.targets.update({POINTS: batch.coordinates.clone(), POINTS_VALID: batch.coordinates_valid.clone()})
    return batch


def silent(objective):
    """Heads that always say zero."""
    for parameter in objective.parameters():
        torch.nn.init.zeros_(parameter)
    return objective


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_by_finite_differences(kind, make_batch, make_outputs):
    batch = with_points(make_batch((2, 3), dtype=torch.float64))
    batch = dataclasses.replace(batch, cameras=batch.cameras.double(), intrinsics=batch.intrinsics.double())
    batch.targets[POINTS] = batch.targets[POINTS].double()
    torch.manual_seed(0)
    objective, outputs = kind(6).double(), make_outputs(batch, dtype=torch.float64)
    hidden = torch.tensor([False, False, True, False, False])

    def loss(visual):
        return objective.loss(SpatialOutputs(visual=visual, hidden=hidden), batch, generator()).sum

    assert torch.autograd.gradcheck(loss, (outputs.visual,), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_two_scenes_packed_are_the_two_alone(kind, make_batch, make_outputs):
    batch, objective = with_points(make_batch((2, 3))), kind(6)
    outputs = make_outputs(batch)
    whole = objective.loss(outputs, batch, generator())
    parts = []
    for views in (slice(0, 2), slice(2, 5)):
        alone = dataclasses.replace(
            make_batch((views.stop - views.start,)),
            cameras=batch.cameras[views],
            targets={key: value[views] for key, value in batch.targets.items() if len(value) == 5},
        )
        seen = SpatialOutputs(visual=outputs.visual[views], hidden=outputs.hidden[views])
        parts.append(objective.loss(seen, alone, generator()))
    assert whole.sum.item() == pytest.approx(sum(p.sum.item() for p in parts), rel=1e-5)
    assert whole.count == objective.count(batch) == sum(p.count for p in parts)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_to_say_is_a_connected_zero(kind, make_batch, make_outputs):
    batch, objective = with_points(make_batch((2, 1))), kind(6)
    outputs = make_outputs(batch, hidden=torch.ones(3, dtype=torch.bool))
    loss = objective.loss(outputs, batch, generator())
    loss.sum.backward()
    assert loss.sum.item() == 0
    assert outputs.visual.grad.eq(0).all()
    assert all(p.grad is not None for p in objective.parameters())


def test_layers_have_a_head_each_and_are_averaged(make_batch, make_outputs):
    batch = with_points(make_batch((2,)))
    outputs = make_outputs(batch)
    both = silent(DepthHead(6, layers=(2, -1)))
    assert both.layers == (2,)
    both.more_heads[0][2].bias.data.fill_(0.5)
    outputs = dataclasses.replace(outputs, layers={2: torch.randn_like(outputs.visual)})
    one, two = silent(DepthHead(6)), silent(DepthHead(6))
    two.head[2].bias.data.fill_(0.5)
    wanted = (one.loss(outputs, batch, generator()).sum + two.loss(outputs, batch, generator()).sum) / 2
    torch.testing.assert_close(both.loss(outputs, batch, generator()).sum, wanted)
    with pytest.raises(ValueError, match="each once"):
        DepthHead(6, layers=(1, 1))


def test_a_convolution_sees_neighbours_of_the_same_view_only(make_batch, make_outputs):
    batch = with_points(make_batch((2,)))
    batch.targets[POINTS_VALID] = torch.zeros(2, 2, 3, dtype=torch.bool)
    batch.targets[POINTS_VALID][0, 0, 0] = True
    batch.targets[POINTS] = batch.cameras[:, None, None, :3, 3] + 2 * batch.cameras[:, None, None, :3, 2]
    batch.targets[POINTS] = batch.targets[POINTS].expand(2, 2, 3, 3).clone()
    for projector, reach in (("mlp", 1), ("conv", 4)):
        outputs = make_outputs(batch)
        DepthHead(6, projector=projector).loss(outputs, batch, generator()).sum.backward()
        touched = outputs.visual.grad.abs().sum(-1) > 0
        assert touched[0, :2, :2].sum() == reach
        assert touched.sum() == reach


def test_cells_of_objects_weigh_more(make_batch, make_outputs):
    batch = with_points(make_batch((1, 1)))
    batch.targets[POINTS_VALID][:] = True
    box = torch.cat([batch.targets[POINTS][1, 1, 2], torch.full((3,), 1e-3)])[None]
    cells = torch.zeros(1, 1, 2, 3, dtype=torch.bool)
    batch = dataclasses.replace(
        batch,
        proposals=(SceneProposals(boxes=torch.zeros(0, 6), cells=cells[:0]), SceneProposals(boxes=box, cells=cells)),
    )
    inside = object_cells(batch)
    assert inside.nonzero().tolist() == [[1, 1, 2]]
    plain, heavy = silent(PointMap(6, frame="aligned")), silent(PointMap(6, frame="aligned", object_weight=5.0))
    assert heavy.count(batch) == plain.count(batch) + 4 == 16
    outputs = make_outputs(batch)
    extra = 4 * batch.targets[POINTS][1, 1, 2].norm()
    wanted = plain.loss(outputs, batch, generator()).sum + extra
    torch.testing.assert_close(heavy.loss(outputs, batch, generator()).sum, wanted)
    with pytest.raises(ValueError, match="object_weight"):
        DepthHead(6, object_weight=0.0)


def test_shares_keep_a_scenes_weight():
    weights = torch.tensor([[[1.0, 3.0]], [[2.0, 0.0]], [[1.0, 1.0]]])
    used = torch.tensor([[[True, True]], [[False, False]], [[True, False]]])
    got = token_shares(weights, used, torch.tensor([0, 0, 1]))
    torch.testing.assert_close(got, torch.tensor([1.0 * 6 / 4, 3.0 * 6 / 4, 1.0 * 2 / 1]))


def test_shuffled_targets_are_another_rooms(make_batch, make_outputs):
    batch = with_points(make_batch((2, 2)))
    outputs = make_outputs(batch)
    plain, control = PointMap(6), PointMap(6)
    control.load_state_dict(plain.state_dict())
    control.shuffle = True
    both = ObjectiveSet({"plain": plain, "control": control}).losses(outputs, batch, ("plain", "control"), generator())
    torch.testing.assert_close(both["plain"].sum, plain.loss(outputs, batch, generator()).sum)
    other = plain.loss(outputs, batch.other_rooms(), generator())
    torch.testing.assert_close(both["control"].sum, other.sum)
    assert both["control"].count == both["plain"].count
    assert not torch.isclose(other.sum, both["plain"].sum)


def test_a_target_of_another_grid_is_refused(make_batch, make_outputs):
    batch = with_points(make_batch((2,)))
    batch.targets.update({POINTS: torch.zeros(2, 4, 4, 3), POINTS_VALID: torch.ones(2, 4, 4, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"'depth'.*ask for \(2, 2, 3, 1\)"):
        DepthHead(6).loss(make_outputs(batch), batch, generator())
