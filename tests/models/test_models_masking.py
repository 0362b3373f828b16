"""What is hidden stays hidden, and coordinates count only where they should (every family: test_models_families.py)."""

import dataclasses

import pytest
import torch

TINY_LAYERS = 2
DUE = ("text", "grounding", "cross_view")


@pytest.fixture(scope="module")
def packs(make_pack, talk):
    return [
        make_pack(4, talk["where"], talk["red"], seed=1),
        make_pack(2, talk["many"], talk["what"], seed=2),
    ]


@torch.no_grad()
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_masked_views_cannot_leak(make_model, packs, seed):
    """Other pixels in the hidden views: bit-identical states at every layer, answers and grounding scores."""
    model = make_model(*DUE)
    layers = tuple(range(TINY_LAYERS))
    batch = model.collator()(packs)
    one = model.outputs(batch, DUE, torch.Generator().manual_seed(seed), layers=layers)
    assert one.hidden.tolist().count(True) == 3  # 2 of 4 views, 1 of 2
    other = torch.where(one.hidden[:, None, None, None], 255 - batch.images, batch.images)
    two = model.outputs(
        dataclasses.replace(batch, images=other), DUE, torch.Generator().manual_seed(seed), layers=layers
    )
    assert torch.equal(one.hidden, two.hidden)
    assert set(one.layers) == set(layers)
    for layer in (*layers, -1):
        assert torch.equal(one.at(layer), two.at(layer))
    assert torch.equal(one.text_logits, two.text_logits)
    assert torch.equal(one.grounding.logits, two.grounding.logits)


@pytest.mark.parametrize("output", ["visual", "text", "grounding"])
def test_no_output_has_a_gradient_at_what_is_hidden(make_model, packs, output):
    model = make_model(*DUE)
    batch = model.collator()(packs)
    encoded = model.adapter.encode(batch.images).detach().requires_grad_()
    outputs = model.outputs(dataclasses.replace(batch, encoder_tokens=encoded), DUE, torch.Generator().manual_seed(0))
    value = {"visual": outputs.visual, "text": outputs.text_logits, "grounding": outputs.grounding.logits}[output]
    value[value.isfinite()].square().sum().backward()
    per_view = encoded.grad.abs().sum(dim=(1, 2, 3))
    assert per_view[outputs.hidden].eq(0).all()
    assert per_view[~outputs.hidden].gt(0).any()


@torch.no_grad()
def test_hidden_views_count_in_no_object(make_model, packs):
    """An object is averaged over the cells of the visible views; one that only a hidden view saw is seen by none."""
    model = make_model(*DUE)
    batch = model.collator()(packs)
    visual = model.visual_inputs(batch)
    hidden = torch.tensor([True, False, False, True, False, True])
    last = torch.zeros_like(visual.tokens)
    found = model.objects(visual, batch, last, hidden)
    bare = []
    for proposals, mask in zip(batch.proposals, (hidden[:4], hidden[4:]), strict=True):
        bare.append(dataclasses.replace(proposals, cells=proposals.cells & ~mask[None, :, None, None]))
    expected = model.objects(visual, dataclasses.replace(batch, proposals=tuple(bare)), last)
    everything = model.objects(visual, batch, last, torch.ones(6, dtype=torch.bool))
    for number, proposals in enumerate(batch.proposals):
        assert torch.equal(found[number], expected[number])
        assert not torch.equal(found[number], model.objects(visual, batch, last)[number])
        assert torch.equal(everything[number], model.encoding(proposals.boxes[:, :3]))


@torch.no_grad()
def test_visible_views_do_matter(make_model, packs, run_model):
    """The leak test can fail: pixels of a visible view change states and answers."""
    model = make_model(*DUE)
    batch = model.collator()(packs)
    one = run_model(model, batch, due=DUE)
    images = batch.images.clone()
    images[torch.nonzero(~one.hidden)[0]] = 0
    two = run_model(model, dataclasses.replace(batch, images=images), due=DUE)
    assert not torch.equal(one.visual, two.visual)
    assert not torch.equal(one.text_logits, two.text_logits)


@torch.no_grad()
def test_hidden_views_keep_their_place(make_model, packs, run_model):
    """A hidden view is the mask token PLUS its 3D encoding: its coordinates still count."""
    model = make_model(*DUE)
    batch = model.collator()(packs)
    one = run_model(model, batch, due=DUE)
    moved = batch.coordinates + one.hidden[:, None, None, None] * 1.0
    two = run_model(model, dataclasses.replace(batch, coordinates=moved), due=DUE)
    assert not torch.equal(one.visual[one.hidden], two.visual[one.hidden])


@torch.no_grad()
def test_nothing_is_hidden_unless_it_is_due(make_model, packs, run_model):
    model = make_model(*DUE)
    batch = model.collator()(packs)
    plain = run_model(model, batch, due=("text", "grounding"))
    assert not plain.hidden.any()
    assert torch.equal(plain.visual, run_model(make_model(), batch).visual)


def test_the_same_seed_hides_the_same_views(make_model, packs):
    model = make_model(*DUE)
    batch = model.collator()(packs)
    values = [float(model(batch, due=DUE, seed=seed)["cross_view"].sum.detach()) for seed in (5, 5, 6)]
    assert values[0] == values[1] != values[2]


def _moved(batch):
    shift = torch.tensor([0.7, -0.4, 0.3])
    return dataclasses.replace(batch, coordinates=batch.coordinates + shift * batch.coordinates_valid[..., None])


@torch.no_grad()
@pytest.mark.parametrize(("positions", "counts"), [("depth", True), ("noisy", True), ("none", False)])
def test_coordinates_count_only_with_positions(make_model, packs, run_model, positions, counts):
    model = make_model(positions=positions)
    batch = model.collator()(packs)
    one, two = run_model(model, batch), run_model(model, _moved(batch))
    assert torch.equal(one.visual, two.visual) != counts
    assert torch.equal(one.text_logits, two.text_logits) != counts
    assert torch.equal(one.grounding.logits, two.grounding.logits) != counts


@torch.no_grad()
def test_boxes_and_points_are_given_in_3d_in_every_mode(make_model, packs, run_model):
    model = make_model(positions="none")
    batch = model.collator()(packs)
    one = run_model(model, batch)
    two = run_model(model, dataclasses.replace(batch, coord_xyz=batch.coord_xyz + 1.0))
    assert torch.equal(one.visual, two.visual)
    assert not torch.equal(one.text_logits, two.text_logits)
    moved = tuple(dataclasses.replace(p, boxes=p.boxes + 1.0) for p in batch.proposals)
    three = run_model(model, dataclasses.replace(batch, proposals=moved))
    assert not torch.equal(one.grounding.logits, three.grounding.logits)


@torch.no_grad()
def test_cells_without_depth_get_no_encoding(make_model, packs, run_model):
    model = make_model()
    batch = model.collator()(packs)
    tokens = model.visual_inputs(batch).tokens
    placed, valid = model.add_positions(tokens, batch), batch.coordinates_valid
    assert not valid.all()
    assert torch.equal(placed[~valid], tokens[~valid])
    torch.testing.assert_close(
        placed[valid] - tokens[valid], model.encoding(batch.coordinates[valid]), atol=1e-5, rtol=0
    )
    elsewhere = torch.where(valid[..., None], batch.coordinates, 9.0)
    other = run_model(model, dataclasses.replace(batch, coordinates=elsewhere))
    assert torch.equal(other.visual, run_model(model, batch).visual)


@torch.no_grad()
def test_a_coord_token_is_its_embedding_plus_its_place(make_model, packs):
    model = make_model()
    batch = model.collator()(packs)
    plain = model.adapter.embed(batch.input_ids).flatten(0, 1)
    embedded = model.embed(batch).flatten(0, 1)
    rest = torch.ones(len(plain), dtype=torch.bool)
    rest[batch.coord_index] = False
    assert torch.equal(embedded[rest], plain[rest])
    expected = plain[batch.coord_index] + model.encoding(torch.tensor([[1.0, -2.0, 0.5]]))
    torch.testing.assert_close(embedded[batch.coord_index], expected)


@torch.no_grad()
def test_scenes_that_only_point_hide_nothing_if_they_are_skipped(make_model, make_pack, talk):
    """The released code masks no view of a grounding sample; a scene that also talks, or is silent, is masked."""
    packs = [
        make_pack(4, talk["red"], talk["both"], seed=1),
        make_pack(4, talk["red"], talk["many"], seed=2),
        make_pack(4, seed=3),
    ]
    model = make_model(*DUE)
    batch = model.collator()(packs)
    shown = []
    for grounding in ("include", "skip"):
        model.objectives["cross_view"].grounding = grounding
        outputs = model.outputs(batch, DUE, torch.Generator().manual_seed(0))
        shown.append(outputs.hidden.view(3, 4).sum(1).tolist())
        loss = model.objectives["cross_view"].loss(outputs, batch, torch.Generator().manual_seed(1))
        # 2 of 4 views hidden, each 4 // 2 times, 2x2 cells
        assert loss.count == model.objectives["cross_view"].count(batch) == sum(map(bool, shown[-1])) * 2 * 2 * 4
    assert shown == [[2, 2, 2], [0, 2, 2]]
