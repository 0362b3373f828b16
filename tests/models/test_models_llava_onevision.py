"""The adapter against plain Hugging Face code, and which token is which cell."""

import dataclasses

import pytest
import torch

from stereopsis.data.collate import attention_allowed
from stereopsis.data.pack import ScenePack


@pytest.fixture
def mixed(make_model, make_pack, talk):
    """A model and a batch of two scenes with two and three views."""
    model = make_model()
    batch = model.collator()([make_pack(2, talk["where"], seed=1), make_pack(3, talk["many"], seed=2)])
    return model, batch


def _mask(batch):
    allowed = attention_allowed(batch.segments)
    return torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)[:, None]


def _decode(model, batch, tokens):
    return model.adapter.decode(
        model.embed(batch), tokens, attention_mask=_mask(batch), position_ids=batch.position_ids
    ).hidden


def test_sizes_come_from_the_config(make_model):
    adapter = make_model(view_grid=(2, 3)).adapter
    assert (adapter.dim, adapter.image_size, adapter.encoder_grid) == (48, 24, (6, 6))
    template = adapter.view_template(None)
    assert template.cells == (0, 1, 2, -1, 3, 4, 5, -1)
    assert template.token_ids == (2,) * 8
    assert (template.rows, template.cols) == (2, 3)


@torch.no_grad()
def test_encode_and_project_equal_hugging_face(mixed, make_pack):
    """The family's own `get_image_features` on normalised pixels gives the same tokens, and then one newline."""
    model, _ = mixed
    images = make_pack(3).images
    ours = model.adapter.project(model.adapter.encode(images))
    theirs = model.backbone.model.get_image_features(
        pixel_values=(images / 255 - 0.5) / 0.5,
        image_sizes=torch.tensor([[24, 24]] * 3),
        batch_num_images=torch.tensor([3]),
        return_dict=True,
    ).pooler_output
    for view in range(3):
        assert len(theirs[view]) == 37
        torch.testing.assert_close(ours[view].flatten(0, 1), theirs[view][:36], atol=1e-5, rtol=1e-5)


def test_cells_are_row_major(mixed):
    """Only the encoder cell under a changed patch's embedding changes most: rows and columns are not swapped."""
    model, _ = mixed
    tower = model.adapter.vision_tower
    image = torch.zeros(1, 3, 24, 24, dtype=torch.uint8)
    image[:, :, 4:8, 16:20] = 255  # row 1, column 4 of the 6 x 6 patches
    with torch.no_grad():
        difference = (model.adapter.encode(image) - model.adapter.encode(torch.zeros_like(image))).norm(dim=-1)
    assert tower.config.patch_size == 4
    assert torch.argmax(difference).item() == 1 * 6 + 4


def test_pooling_by_hand(make_model):
    """6 to 3 is the mean of each 2 x 2 block; a ramp stays a ramp at any size."""
    projected = torch.rand(2, 6, 6, 48)
    pooled = make_model().adapter.pool(projected)
    expected = projected.unflatten(1, (3, 2)).unflatten(3, (3, 2)).mean((2, 4))
    torch.testing.assert_close(pooled, expected)
    ramp = (torch.arange(6.0) + 0.5)[None, None, :, None].expand(1, 6, 6, 48)
    four = make_model(view_grid=(2, 4)).adapter.pool(ramp)
    assert four.shape == (1, 2, 4, 48)
    torch.testing.assert_close(four[0, 1, :, 7], torch.tensor([0.75, 2.25, 3.75, 5.25]))


@torch.no_grad()
def test_decode_equals_the_plain_language_model(mixed):
    """Embeddings written by hand, one newline after every ROW of cells, through the family's own decoder."""
    model, batch = mixed
    tokens = model.visual_inputs(batch).tokens
    hidden = _decode(model, batch, tokens)
    by_hand = model.backbone.get_input_embeddings()(batch.input_ids)
    newline, view = model.backbone.model.image_newline, 0
    for scene, views in enumerate((2, 3)):
        place = 0
        for _ in range(views):
            for row in range(3):
                by_hand[scene, place : place + 3] = tokens[view, row]
                by_hand[scene, place + 3] = newline
                place += 4
            view += 1
    plain = model.backbone.model.language_model(
        inputs_embeds=by_hand, attention_mask=_mask(batch), position_ids=batch.position_ids
    ).last_hidden_state
    assert torch.equal(hidden, plain)


@torch.no_grad()
def test_one_conversation_needs_no_mask_of_ours(make_model, make_pack, talk, run_model):
    """Of a single conversation, plain causal Hugging Face code gives the same logits, without mask or positions."""
    model = make_model()
    batch = model.collator()([make_pack(2, talk["where"])])
    embeddings = model.embed(batch)
    tokens = model.add_positions(model.visual_inputs(batch).tokens, batch)
    newline = model.backbone.model.image_newline.expand(2, 3, 1, -1)
    placeholder = batch.input_ids == model.backbone.config.image_token_id
    embeddings[placeholder] = torch.cat([tokens, newline], dim=2).flatten(0, 2)
    logits = model.backbone(inputs_embeds=embeddings).logits[batch.labels != -100]
    torch.testing.assert_close(run_model(model, batch).text_logits, logits, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("cell", [(0, 0, 0), (1, 2, 1), (2, 1, 2), (4, 0, 2)])
def test_a_changed_cell_changes_its_own_position_first(mixed, cell):
    model, batch = mixed
    tokens = model.visual_inputs(batch).tokens
    before = _decode(model, batch, tokens)
    edited = tokens.clone()
    edited[cell] += 1.0
    after = _decode(model, batch, edited)
    changed = (before != after).any(-1)
    place = int(batch.layout.index[cell])
    scene, column = divmod(place, batch.input_ids.shape[1])
    assert torch.nonzero(changed.flatten())[0].item() == place
    assert not changed[1 - scene].any(), "the other scene saw it"
    assert torch.equal(changed[scene, column:], batch.segments[scene, column:] >= 0), "causal: all that follows"
    assert torch.equal(batch.layout.gather(after)[cell], after[scene, column])
    assert not torch.equal(batch.layout.gather(after)[cell], batch.layout.gather(before)[cell])


def test_the_frozen_tower_gets_no_gradient(make_model, make_pack, talk):
    """... and a trained one does; the projector, the newline and the language model are trained in both cases."""
    pack: ScenePack = make_pack(2, talk["where"], talk["red"])
    for trained in (False, True):
        model = make_model("text", "grounding", train_vision=trained)
        losses = model(model.collator()([pack]), due=("text", "grounding"), seed=0)
        sum(loss.sum for loss in losses.values()).backward()
        with_gradient = [p.grad is not None for p in model.adapter.vision_tower.parameters()]
        assert any(with_gradient) == trained
        base = model.backbone.model
        for parameter in (base.multi_modal_projector.linear_1.weight, base.image_newline):
            assert parameter.grad.abs().sum() > 0
        assert base.language_model.layers[0].mlp.up_proj.weight.grad.abs().sum() > 0
        assert model.grounding.zero_target.grad.abs().sum() > 0


@torch.no_grad()
def test_cached_encoder_tokens_replace_the_tower(mixed):
    model, batch = mixed
    cached = dataclasses.replace(
        batch, encoder_tokens=model.adapter.encode(batch.images), images=torch.zeros_like(batch.images)
    )
    assert torch.equal(model.visual_inputs(cached).tokens, model.visual_inputs(batch).tokens)


@torch.no_grad()
def test_layers_that_are_asked_for_are_hugging_faces_hidden_states(mixed):
    """0 = embeddings with the visual tokens in place, 1 = the first layer, -1 = the last after the final norm."""
    model, batch = mixed
    tokens = torch.randn(5, *model.settings.view_grid, 48)
    arguments = {"attention_mask": _mask(batch), "position_ids": batch.position_ids}
    plain = model.adapter.decode(model.embed(batch), tokens, **arguments)
    kept = model.adapter.decode(model.embed(batch), tokens, **arguments, layers=(0, 1, -1, -2))
    assert plain.layers == {}
    torch.testing.assert_close(kept.hidden, plain.hidden)
    torch.testing.assert_close(kept.layers[-1], kept.hidden)
    torch.testing.assert_close(kept.layers[-2], kept.layers[1])
    torch.testing.assert_close(batch.layout.gather(kept.layers[0]), tokens)
    assert not torch.allclose(kept.layers[1], kept.hidden)


@torch.no_grad()
def test_outputs_carry_the_layers_at_the_visual_tokens(mixed):
    model, batch = mixed
    outputs = model.outputs(batch, (), torch.Generator(), layers=(1,))
    assert outputs.at(1).shape == outputs.visual.shape
    assert outputs.at(-1) is outputs.visual
    with pytest.raises(KeyError, match="layer -2 were not kept"):
        outputs.at(-2)


def test_a_layer_that_is_not_there_is_refused(mixed):
    model, batch = mixed
    with pytest.raises(ValueError, match=r"no layer 3: it has 2"):
        model.outputs(batch, (), torch.Generator(), layers=(3,))
