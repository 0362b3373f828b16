"""Voxel pairs, contrastive and consistency objectives, against hand values and slow references."""

import itertools
import math

import pytest
import torch
from torch.nn import functional

from stereopsis.data.pack import POINTS, POINTS_VALID
from stereopsis.objectives import Consistency, Contrastive
from stereopsis.objectives.consistency import collapse_guard
from stereopsis.objectives.contrastive import draw_pairs
from stereopsis.objectives.correspondence import (
    agreement,
    batch_tokens,
    effective_rank,
    scene_tokens,
)

VOXEL = 0.5


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def placed(make_batch, views, *, seed: int = 0, room: float = 2.0, share: float = 0.9, **options):
    """A batch whose cells look at random points of a small room."""
    batch = make_batch(views, **options)
    n, (rows, cols) = sum(views), batch.layout.grid
    draw = generator(seed)
    batch.targets[POINTS] = torch.rand(n, rows, cols, 3, generator=draw) * torch.tensor([room, room, 0.4])
    batch.targets[POINTS_VALID] = torch.rand(n, rows, cols, generator=draw) < share
    return batch


def slow_pairs(points, valid, voxel):
    """Every cross-view pair of one voxel, by two loops."""
    views, rows, cols = valid.shape
    cells = [c for c in itertools.product(range(views), range(rows), range(cols)) if valid[c]]
    spot = {c: tuple(math.floor(float(v) / voxel) for v in points[c]) for c in cells}
    return [(a, b) for a, b in itertools.combinations(cells, 2) if a[0] != b[0] and spot[a] == spot[b]], spot


def identity_head(objective, dim: int = 6):
    """Features are the tokens themselves: the head is two identities around nothing."""
    objective.head = torch.nn.Sequential(torch.nn.Linear(dim, dim), torch.nn.Identity(), torch.nn.Linear(dim, dim))
    for layer in (objective.head[0], objective.head[2]):
        torch.nn.init.eye_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    return objective


def test_voxels_below_zero_are_their_own():
    points = torch.tensor([[[[0.1, 0.1, 0.1], [-0.1, 0.1, 0.1]]], [[[0.4, 0.4, 0.4], [-0.4, 0.4, 0.4]]]])
    tokens = scene_tokens(points, torch.ones(2, 1, 2, dtype=torch.bool), 0.5)
    assert tokens.voxels == 2
    assert tokens.voxel[0] == tokens.voxel[2] != tokens.voxel[1] == tokens.voxel[3]
    assert tokens.pairs().tolist() == [1, 1]


@pytest.mark.parametrize("seed", range(4))
def test_agreement_without_pairs_equals_the_mean_over_pairs(make_batch, seed):
    batch = placed(make_batch, (5,), seed=seed)
    tokens = batch_tokens(batch, None, VOXEL)[0]
    unit = functional.normalize(torch.randn(5 * 6, 7, generator=generator(seed), dtype=torch.float64), dim=-1)
    points, valid = batch.targets[POINTS], batch.targets[POINTS_VALID]
    pairs, spot = slow_pairs(points, valid, VOXEL)
    cosines: dict[tuple, list[float]] = {}
    flat = unit.view(5, 2, 3, 7)
    for a, b in pairs:
        cosines.setdefault(spot[a], []).append(float(flat[a] @ flat[b]))
    found = agreement(unit[tokens.token], tokens)
    assert sorted(found.pairs.tolist()) == sorted(len(v) for v in cosines.values())
    expected = sum(sum(v) / len(v) for v in cosines.values()) / len(cosines)
    assert float(found.cosine.mean()) == pytest.approx(expected, abs=1e-12)


def test_tokens_of_one_view_are_no_pair():
    points = torch.zeros(1, 2, 2, 3)
    assert scene_tokens(points, torch.ones(1, 2, 2, dtype=torch.bool), 1.0).pairs().tolist() == [0]


def test_partners_share_the_voxel_and_not_the_view(make_batch):
    tokens = batch_tokens(placed(make_batch, (6,)), None, VOXEL)[0]
    anchor, partner = draw_pairs(tokens, 1000, generator())
    assert len(anchor) == int((tokens.pairs() > 0)[tokens.voxel].sum())
    assert (tokens.voxel[anchor] == tokens.voxel[partner]).all()
    assert (tokens.view[anchor] != tokens.view[partner]).all()
    fewer, _ = draw_pairs(tokens, 3, generator())
    assert len(fewer) == 3


def test_contrastive_by_hand(make_batch, make_outputs):
    """Two spots, each seen twice: four anchors whose partner has cosine 1 and whose two negatives have cosine 0."""
    batch = make_batch((2,))
    points = torch.full((2, 2, 3, 3), 9.0)
    valid = torch.zeros(2, 2, 3, dtype=torch.bool)
    for view in range(2):
        for col in range(2):
            points[view, 0, col] = torch.tensor([float(col), 0.0, 0.0])
            valid[view, 0, col] = True
    batch.targets.update({POINTS: points, POINTS_VALID: valid})
    outputs = make_outputs(batch)
    tokens = torch.zeros(2, 2, 3, 6)
    tokens[:, 0, 0, 0] = tokens[:, 0, 1, 1] = 3.0
    outputs = type(outputs)(visual=tokens.requires_grad_(), hidden=outputs.hidden)
    objective = identity_head(Contrastive(6, voxel=VOXEL, temperature=0.5, width=6))
    loss = objective.loss(outputs, batch, generator())
    expected = -math.log(math.exp(2) / (math.exp(2) + 2))
    assert float(loss.sum.detach()) == pytest.approx(expected, rel=1e-5)
    assert loss.count == objective.count(batch) == 1
    assert loss.metrics["recall"] == 1.0


def test_hard_negatives_are_near_and_of_other_voxels(make_batch):
    tokens = batch_tokens(placed(make_batch, (6,)), None, VOXEL)[0]
    objective = Contrastive(6, voxel=VOXEL, hard_negatives=5, radius=0.6)
    anchor, _ = draw_pairs(tokens, 100, generator())
    near, there = objective._nearby(tokens, anchor, generator())
    distance = (tokens.points[near] - tokens.points[anchor][:, None]).norm(dim=-1)
    assert there.any()
    assert (distance[there] < 0.6).all()
    assert (tokens.voxel[near] != tokens.voxel[anchor][:, None])[there].all()


def test_hard_negatives_raise_the_loss(make_batch, make_outputs):
    batch = placed(make_batch, (6,))
    torch.manual_seed(0)
    plain, hard = Contrastive(6, voxel=VOXEL), Contrastive(6, voxel=VOXEL, hard_negatives=8, radius=1.0)
    hard.load_state_dict(plain.state_dict())
    outputs = make_outputs(batch)
    assert hard.loss(outputs, batch, generator()).sum > plain.loss(outputs, batch, generator()).sum


def test_consistency_by_hand(make_batch, make_outputs):
    """One spot in two views with cosine 0.6."""
    batch = make_batch((2,))
    valid = torch.zeros(2, 2, 3, dtype=torch.bool)
    valid[:, 0, 0] = True
    batch.targets.update({POINTS: torch.zeros(2, 2, 3, 3), POINTS_VALID: valid})
    tokens = torch.zeros(2, 2, 3, 6)
    tokens[0, 0, 0, :2] = torch.tensor([3.0, 4.0])
    tokens[1, 0, 0, 0] = 2.0
    base = make_outputs(batch)
    outputs = type(base)(visual=tokens.requires_grad_(), hidden=base.hidden)
    objective = identity_head(Consistency(6, voxel=VOXEL, guard=0.0, width=6))
    loss = objective.loss(outputs, batch, generator())
    assert float(loss.sum.detach()) == pytest.approx(0.4, abs=1e-6)
    assert loss.metrics["cosine"] == pytest.approx(0.6, abs=1e-6)
    loss.sum.backward()
    assert outputs.visual.grad[~valid].eq(0).all()
    assert outputs.visual.grad[valid].abs().sum() > 0


def test_the_guard_is_low_for_spread_and_high_for_equal_features():
    spread = functional.normalize(torch.randn(4000, 8, generator=generator()), dim=-1)
    assert float(collapse_guard(spread)) < 0.03
    equal = functional.normalize(torch.ones(100, 8), dim=-1)
    assert float(collapse_guard(equal)) == pytest.approx(1 - 1e-2, abs=1e-6)
    line = functional.normalize(torch.randn(4000, 1, generator=generator()) * torch.ones(1, 8), dim=-1)
    assert float(collapse_guard(line)) > 0.5  # spread in every channel, but all channels say the same


def test_gradients_are_right(make_batch, make_outputs):
    batch = placed(make_batch, (3,), dtype=torch.float64)
    base = make_outputs(batch, dtype=torch.float64)
    for objective in (Consistency(6, voxel=1.0, width=4), Contrastive(6, voxel=1.0, width=4, hard_negatives=2)):
        objective.double()

        def value(visual, objective=objective):
            return objective.loss(type(base)(visual=visual, hidden=base.hidden), batch, generator()).sum

        assert torch.autograd.gradcheck(value, (base.visual,))


@pytest.mark.parametrize("kind", [Contrastive, Consistency])
def test_packed_scenes_cost_what_they_cost_alone(make_batch, make_outputs, kind):
    objective = kind(6, voxel=VOXEL, width=4)
    both = placed(make_batch, (4, 3))
    outputs = make_outputs(both)
    draw = generator()
    together = objective.loss(outputs, both, draw)
    draw, alone = generator(), []
    for views in (slice(0, 4), slice(4, 7)):
        single = make_batch((views.stop - views.start,))
        single.targets.update({key: both.targets[key][views] for key in (POINTS, POINTS_VALID)})
        part = type(outputs)(visual=outputs.visual[views], hidden=outputs.hidden[views])
        alone.append(objective.loss(part, single, draw))
    torch.testing.assert_close(together.sum, sum(loss.sum for loss in alone))
    assert together.count == sum(loss.count for loss in alone) == objective.count(both)


@pytest.mark.parametrize("kind", [Contrastive, Consistency])
def test_hidden_views_take_no_part(make_batch, make_outputs, kind):
    batch = placed(make_batch, (4,), share=1.0)
    hidden = torch.tensor([False, True, False, False])
    outputs = make_outputs(batch, hidden=hidden)
    kind(6, voxel=1.0, width=4).loss(outputs, batch, generator()).sum.backward()
    assert outputs.visual.grad[1].eq(0).all()
    assert outputs.visual.grad[~hidden].abs().sum() > 0


@pytest.mark.parametrize("kind", [Contrastive, Consistency])
def test_without_pairs_the_loss_is_a_connected_zero(make_batch, make_outputs, kind):
    batch = placed(make_batch, (3,))
    batch.targets[POINTS_VALID][1:] = False
    objective, outputs = kind(6, voxel=VOXEL), make_outputs(batch)
    loss = objective.loss(outputs, batch, generator())
    assert (float(loss.sum.detach()), loss.count) == (0.0, 0.0)
    loss.sum.backward()
    assert outputs.visual.grad is not None
    assert all(p.grad is not None for p in objective.parameters())


@pytest.mark.parametrize(
    ("kind", "options"),
    [(Contrastive, {"voxel": 0.0}), (Contrastive, {"samples": 1}), (Consistency, {"guard": -1.0})],
)
def test_bad_settings_are_refused(kind, options):
    with pytest.raises(ValueError, match="must be"):
        kind(6, **options)


def trained(objective, make_batch, steps: int = 150):
    """A free table of tokens and the head, trained on one batch; first and last loss and the tokens' features."""
    batch = placed(make_batch, (6,), share=1.0)
    torch.manual_seed(3)
    tokens = torch.nn.Parameter(torch.randn(6, 2, 3, 6))
    optimiser = torch.optim.Adam([tokens, *objective.parameters()], lr=0.02)
    hidden = torch.zeros(6, dtype=torch.bool)
    from stereopsis.objectives import SpatialOutputs

    losses = []
    for step in range(steps):
        loss = objective.loss(SpatialOutputs(visual=tokens, hidden=hidden), batch, generator(step))
        optimiser.zero_grad()
        loss.sum.backward()
        optimiser.step()
        losses.append(float(loss.sum.detach()))
    features = functional.normalize(objective.head(tokens.detach().flatten(0, 2)), dim=-1).detach()
    return losses, features, agreement(features, batch_tokens(batch, None, VOXEL)[0])


def test_contrastive_learns_without_collapse(make_batch):
    torch.manual_seed(1)
    losses, features, agreed = trained(Contrastive(6, voxel=VOXEL, width=8), make_batch)
    assert losses[-1] < 0.5 * losses[0]
    assert float(agreed.cosine.mean()) > 0.8
    assert effective_rank(features) > 3.5
    assert float((features @ features.T).mean()) < 0.3


def test_consistency_learns_and_its_guard_prevents_collapse(make_batch):
    torch.manual_seed(1)
    losses, guarded, agreed = trained(Consistency(6, voxel=VOXEL, width=8, guard=1.0), make_batch)
    assert losses[-1] < 0.5 * losses[0]
    assert float(agreed.cosine.mean()) > 0.8
    torch.manual_seed(1)
    bare_losses, bare, _ = trained(Consistency(6, voxel=VOXEL, width=8, guard=0.0), make_batch)
    assert bare_losses[-1] < 0.05
    assert float((bare @ bare.T).mean()) > 0.8, "without the guard everything should say the same"
    assert float((guarded @ guarded.T).mean()) < 0.3
    assert guarded.std(dim=0).mean() > 2 * bare.std(dim=0).mean()
