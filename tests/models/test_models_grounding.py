"""The grounding head and the proposals' features, by hand."""

import math

import pytest
import torch
from torch import nn

from stereopsis.models.grounding import GroundingHead, object_features

INF = float("inf")


@pytest.fixture
def plain_head() -> GroundingHead:
    """A head whose MLPs pass everything through, so that scores can be computed by hand."""
    head = GroundingHead(2, temperature=0.5)
    head.objects, head.query = nn.Identity(), nn.Identity()
    head.zero_target.data = torch.tensor([0.0, -3.0])
    return head


def test_scores_by_hand(plain_head):
    """cosine / temperature; the last column is the zero target, a scene's missing proposals are -inf."""
    scenes = [torch.tensor([[2.0, 0.0], [0.0, 5.0], [1.0, 1.0]]), torch.tensor([[0.0, 1.0]])]
    queries = torch.tensor([[7.0, 0.0], [0.0, 1.0], [3.0, -3.0]])
    logits = plain_head(queries, torch.tensor([0, 1, 0]), scenes).logits
    r = math.sqrt(0.5)
    expected = [[2.0, 0.0, 2 * r, 0.0], [2.0, -INF, -INF, -2.0], [2 * r, -2 * r, 0.0, 2 * r]]
    torch.testing.assert_close(logits, torch.tensor(expected))


def test_a_scene_without_proposals_can_only_answer_nothing(plain_head):
    logits = plain_head(torch.tensor([[1.0, 0.0]]), torch.tensor([0]), [torch.zeros(0, 2)]).logits
    torch.testing.assert_close(logits, torch.zeros(1, 1))


def test_scores_do_not_depend_on_other_scenes():
    torch.manual_seed(0)
    head = GroundingHead(8)
    few, many = torch.randn(2, 8), torch.randn(6, 8)
    query = torch.randn(1, 8)
    alone = head(query, torch.tensor([0]), [few]).logits
    beside = head(query, torch.tensor([1]), [many, few]).logits
    assert torch.isneginf(beside[0, 2:6]).all()
    torch.testing.assert_close(beside[:, [0, 1, 6]], alone)


def test_padding_gets_no_gradient_and_the_zero_target_does():
    torch.manual_seed(0)
    head = GroundingHead(8)
    few = torch.randn(2, 8, requires_grad=True)
    logits = head(torch.randn(1, 8), torch.tensor([0]), [few, torch.randn(5, 8)]).logits
    logits.softmax(-1)[0, 0].backward()
    assert torch.isfinite(few.grad).all()
    assert few.grad.abs().sum() > 0
    assert head.zero_target.grad.abs().sum() > 0


def test_scores_are_never_less_precise_than_float32():
    head = GroundingHead(8)
    for dtype, expected in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        scores = head.to(dtype)(torch.randn(1, 8, dtype=dtype), torch.tensor([0]), [torch.randn(2, 8, dtype=dtype)])
        assert scores.logits.dtype == expected


def test_object_features_by_hand():
    """Two views of 1 x 2 cells: means over the cells that see a box, over all views; zeros if none does."""
    tokens = torch.tensor([[[[1.0, 10.0], [2.0, 20.0]]], [[[3.0, 30.0], [4.0, 40.0]]]])
    cells = torch.tensor([[[[1, 0]], [[1, 1]]], [[[0, 1]], [[0, 0]]], [[[0, 0]], [[0, 0]]]], dtype=torch.bool)
    found = object_features(tokens, cells)
    torch.testing.assert_close(found, torch.tensor([[8 / 3, 80 / 3], [2.0, 20.0], [0.0, 0.0]]))


def test_no_proposals_no_features():
    empty = torch.zeros(0, 2, 1, 2, dtype=torch.bool)
    assert object_features(torch.ones(2, 1, 2, 3), empty).shape == (0, 3)


def test_an_object_is_its_cells_and_its_place(make_model, make_pack):
    """The model's object feature: mean projected encoder token + 3D encoding of the box centre."""
    model = make_model()
    packs = [make_pack(2, seed=1), make_pack(3, seed=2, proposals=2)]
    batch = model.collator()(packs)
    visual = model.visual_inputs(batch)
    found = model.objects(visual, batch, torch.zeros_like(visual.tokens))
    first = 0
    for pack, features in zip(packs, found, strict=True):
        projected = visual.projected[first : first + len(pack.images)]
        first += len(pack.images)
        for number, box in enumerate(pack.proposals.boxes):
            seen = [
                token
                for token, cell in zip(projected.reshape(-1, 48), pack.proposals.cells[number].flatten(), strict=True)
                if cell
            ]
            mean = torch.stack(seen).mean(0) if seen else torch.zeros(48)
            torch.testing.assert_close(features[number], mean + model.encoding(box[:3]), atol=1e-5, rtol=1e-5)
    assert torch.equal(found[0][-1], model.encoding(packs[0].proposals.boxes[-1, :3])), "seen by no view"
