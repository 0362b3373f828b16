"""One contract that every family passes."""

import dataclasses
import importlib.util
from types import SimpleNamespace

import pytest
import torch
from families import BUILDERS, family_tokenizer, tiny_model

from stereopsis.data.batch import SceneProposals
from stereopsis.data.collate import attention_allowed
from stereopsis.data.pack import Conversation, ScenePack
from stereopsis.models.families import FAMILIES
from stereopsis.models.inference import EnteredScene
from stereopsis.models.spatial import SpatialModel
from stereopsis.models.storage import load_model, save_model
from stereopsis.objectives import CrossView, Denoiser, DenoiserConfig, GroundingLoss, TextLoss
from stereopsis.objectives.set import ObjectiveSet

ALL_LAYERS = (0, 1, 2)
TALK = (
    Conversation(id="where", task="scanqa", prompt="where is the chair?", answer="on the table"),
    Conversation(id="many", task="sqa3d", prompt="how many?", answer="two"),
    Conversation(id="what", task="scan2cap", prompt="what is at <coord> ?", answer="the lamp", point=(1.0, -2.0, 0.5)),
    Conversation(id="red", task="scanrefer", prompt="the red chair", answer="<ground>", positives=(1,)),
)
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def words():
    return family_tokenizer()


def _objectives(encoder: bool = False) -> ObjectiveSet:
    denoiser = Denoiser(DenoiserConfig(condition_dim=48, channels=4, width=16, depth=1, heads=2, view_grid=(2, 2)))
    members = {
        "text": TextLoss(),
        "grounding": GroundingLoss(),
        "cross_view": CrossView(denoiser, ratio=0.5, conditioning="released"),
    }
    return ObjectiveSet(members, denoiser)


@pytest.fixture(params=sorted(BUILDERS))
def model(request, words) -> SpatialModel:
    return tiny_model(request.param, words)


@pytest.fixture(params=sorted(BUILDERS))
def trained(request, words) -> SpatialModel:
    """With objectives."""
    torch.manual_seed(2)
    return tiny_model(request.param, words, objectives=_objectives())


def scene(model: SpatialModel, views: int, *talk: Conversation, seed: int = 0) -> ScenePack:
    """A pack of random pixels that fits the model."""
    generator = torch.Generator().manual_seed(seed)
    size, encoder = model.adapter.image_size, model.adapter.encoder_grid
    grid = model.settings.view_grid
    return ScenePack(
        scene_id=f"scene{seed}",
        frame_names=tuple(f"{seed}/{view}" for view in range(views)),
        images=torch.randint(0, 256, (views, 3, size, size), generator=generator, dtype=torch.uint8),
        coordinates=torch.rand(views, *grid, 3, generator=generator) * 4 - 2,
        coordinates_valid=torch.rand(views, *grid, generator=generator) < 0.8,
        cameras=torch.eye(4).repeat(views, 1, 1),
        intrinsics=torch.eye(3).repeat(views, 1, 1),
        proposals=SceneProposals(
            boxes=torch.rand(3, 6, generator=generator) + 0.2,
            cells=torch.rand(3, views, *encoder, generator=generator) < 0.3,
            token_cells=torch.rand(3, views, *grid, generator=generator) < 0.4,
        ),
        view_targets={"view_latents": torch.randn(views, 2, 2, 4, generator=generator)},
        conversations=talk,
    )


def run(model: SpatialModel, batch, due: tuple[str, ...] = (), layers: tuple[int, ...] = ()):
    return model.outputs(batch, due, torch.Generator().manual_seed(0), layers=layers)


def test_every_family_has_a_tiny_model():
    assert set(BUILDERS) == set(FAMILIES)


@torch.no_grad()
def test_nothing_edited_is_the_plain_model(model, words):
    """Bit for bit: the family's own pixel path and ours give the same last hidden states."""
    family = model.settings.family
    if family == "llava_onevision":
        pytest.skip(
            "Video-3D-LLM's layout, one newline per row, is ours; test_models_llava_onevision.py builds it by hand"
        )
    model.settings = dataclasses.replace(model.settings, positions="none")
    batch = model.collator()([scene(model, 2, TALK[0])])
    theirs = model.adapter.base(**plain_inputs(model, batch, family)).last_hidden_state
    visual = model.visual_inputs(batch)

    def ours(mask):
        return model.adapter.decode(
            model.embed(batch), visual.tokens, attention_mask=mask, position_ids=batch.position_ids, deep=visual.deep
        ).hidden

    torch.testing.assert_close(ours(model.attention(batch, torch.float32)), theirs, rtol=0, atol=2e-6)
    if not model.adapter.views_see_themselves:
        assert torch.equal(ours(None), theirs)


def plain_inputs(model: SpatialModel, batch, family: str) -> dict:
    """What the family's processor would hand to the model, with images from the family's own image processor."""
    visual = torch.zeros_like(batch.input_ids)
    visual.view(-1)[batch.layout.index.flatten()] = 1
    inputs = {"input_ids": batch.input_ids, "attention_mask": torch.ones_like(batch.input_ids)}
    pictures = [image.permute(1, 2, 0).numpy() for image in batch.images]
    side = model.adapter.image_size
    if family.startswith("qwen"):
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        scaled = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3} if family == "qwen3_vl" else {}
        processor = Qwen2VLImageProcessorPil(
            patch_size=4, merge_size=2, size={"shortest_edge": side**2, "longest_edge": side**2}, **scaled
        )
        return {**inputs, **processor(pictures, return_tensors="pt"), "mm_token_type_ids": visual}
    scaling = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]) if family == "internvl" else ([0.5] * 3, [0.5] * 3)
    mean, std = (torch.tensor(v)[:, None, None] for v in scaling)
    inputs["pixel_values"] = (batch.images / 255 - mean) / std
    if family == "smolvlm":
        inputs["pixel_values"] = inputs["pixel_values"][None]  # images of each sample
    return inputs | ({"token_type_ids": visual} if family == "gemma3" else {})


@torch.no_grad()
def test_positions_are_the_familys_own(model):
    """Axis by axis what the family computes for the same row."""
    if not model.settings.family.startswith("qwen"):
        pytest.skip("positions are plainly counted")
    batch = model.collator()([scene(model, 2, TALK[0])])
    visual = torch.zeros_like(batch.input_ids)
    visual.view(-1)[batch.layout.index.flatten()] = 1
    theirs, _ = model.adapter.base.get_rope_index(
        batch.input_ids, mm_token_type_ids=visual, image_grid_thw=torch.tensor([[1, 6, 6]] * 2)
    )
    assert torch.equal(model.adapter.rotary(batch.position_ids), theirs)


@torch.no_grad()
def test_every_visual_token_is_where_the_layout_says(model):
    """Perturb a cell: at the embeddings that token alone moves."""
    batch = model.collator()([scene(model, 2, TALK[0]), scene(model, 3, TALK[1], seed=1)])
    tokens = model.visual_inputs(batch).tokens
    arguments = {"attention_mask": model.attention(batch, torch.float32), "position_ids": batch.position_ids}

    def embedded(tokens):
        return model.adapter.decode(model.embed(batch), tokens, **arguments, layers=(0,)).layers[0]

    before = embedded(tokens)
    torch.testing.assert_close(batch.layout.gather(before), tokens)
    for view, row, col in ((0, 0, 0), (1, 2, 1), (4, 1, 2)):
        moved = tokens.clone()
        moved[view, row, col] += 1
        changed = (embedded(moved) != before).any(-1).flatten().nonzero().flatten().tolist()
        assert changed == [int(batch.layout.index[view, row, col])]


@torch.no_grad()
def test_a_picture_patch_moves_its_own_cell_most(model):
    """Rows and columns of the tower are not swapped on their way to the tokens; a mean over a few pictures."""
    images, cell = scene(model, 4).images, model.adapter.image_size // 3

    def tokens(pictures):
        return model.adapter.pool(model.adapter.project(model.adapter.encode(pictures))).flatten(1, 2)

    before = tokens(images)
    for number in range(9):
        row, col = (slice(place * cell, (place + 1) * cell) for place in divmod(number, 3))
        changed = images.clone()
        changed[:, :, row, col] = 255 - changed[:, :, row, col]
        assert int((tokens(changed) - before).norm(dim=-1).mean(0).argmax()) == number


@torch.no_grad()
def test_hidden_views_cannot_leak(trained):
    """Other pixels in a hidden view change nothing in any layer, in any word's scores."""
    pack = scene(trained, 4, *TALK)
    collate = trained.collator()
    outputs = run(trained, collate([pack]), ("cross_view",), ALL_LAYERS)
    images = pack.images.clone()
    hidden = outputs.hidden
    images[hidden] = 255 - images[hidden]
    other = run(trained, collate([pack.replace(images=images)]), ("cross_view",), ALL_LAYERS)
    assert hidden.sum() == 2
    for layer in (*ALL_LAYERS, -1):
        assert torch.equal(outputs.at(layer), other.at(layer))
    assert torch.equal(outputs.text_logits, other.text_logits)
    assert torch.equal(outputs.grounding.logits, other.grounding.logits)
    shown = pack.images.clone()
    shown[~hidden] = 255 - shown[~hidden]
    seen = run(trained, collate([pack.replace(images=shown)]), ("cross_view",))
    assert not torch.allclose(outputs.visual, seen.visual, atol=1e-3)


def test_gradients_reach_mask_token_projector_and_every_tower_or_none(trained):
    batch = trained.collator()([scene(trained, 4, *TALK)])
    losses = trained(batch, due=("text", "grounding", "cross_view"), seed=0)
    sum(loss.sum for loss in losses.values()).backward()
    assert trained.objectives["cross_view"].mask_token.grad.norm() > 0
    tower = list(trained.adapter.vision_tower.parameters())
    assert tower
    assert all(p.grad is None for p in tower)
    graded = [n for n, p in trained.backbone.named_parameters() if p.grad is not None and p.grad.norm() > 0]
    assert any(word in n for n in graded for word in ("projector", "merger", "connector"))
    assert any("layers.0" in n for n in graded)


@torch.no_grad()
def test_packed_conversations_are_as_if_alone(model):
    """Words' scores, grounding scores and visual states of a pack equal those of each conversation alone."""
    collate = model.collator()
    together = run(model, collate([scene(model, 3, *TALK)]))
    alone = [run(model, collate([scene(model, 3, one)])) for one in TALK]
    torch.testing.assert_close(together.text_logits, torch.cat([o.text_logits for o in alone]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(together.grounding.logits, alone[-1].grounding.logits, rtol=1e-4, atol=1e-4)
    for each in alone:
        torch.testing.assert_close(together.visual, each.visual, rtol=1e-4, atol=1e-4)


def test_packed_gradients_are_the_sum_of_the_separate_ones(model):
    model.objectives = ObjectiveSet({"text": TextLoss()})
    weight = model.backbone.get_decoder().layers[1].self_attn.q_proj.weight

    def gradient(*packs):
        model.zero_grad()
        model(model.collator()(list(packs)), due=("text",), seed=0)["text"].sum.backward()
        return weight.grad.clone()

    together = gradient(scene(model, 3, *TALK[:3]))
    separate = sum(gradient(scene(model, 3, one)) for one in TALK[:3])
    torch.testing.assert_close(together, separate, rtol=1e-3, atol=1e-3 * float(separate.abs().max()))


@torch.no_grad()
def test_scenes_of_different_length_do_not_disturb_each_other(model):
    """Padding behind the shorter row changes nothing."""
    collate = model.collator()
    packs = [scene(model, 2, TALK[0]), scene(model, 4, TALK[1], TALK[2], seed=1)]
    both = run(model, collate(packs))
    each = [run(model, collate([pack])) for pack in packs]
    torch.testing.assert_close(both.visual, torch.cat([o.visual for o in each]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(both.text_logits, torch.cat([o.text_logits for o in each]), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_answers_behind_the_cached_prefix_are_those_of_the_whole_row(model):
    """Greedy words with the key-value cache equal the argmax of a plain pass over prefix, question and words so far."""
    pack = scene(model, 3)
    room = EnteredScene(model, pack)
    asked = [TALK[0], TALK[1]]
    answers = room.generate(asked, max_new_tokens=5)
    for conversation, answer in zip(asked, answers, strict=True):
        assert words_one_by_one(model, pack, conversation, 5) == answer.text


def words_one_by_one(model: SpatialModel, pack: ScenePack, conversation: Conversation, most: int) -> str:
    """The slow way: the whole row again for every word."""
    said: list[int] = []
    collate = model.collator(generation=True)
    batch = collate([pack.replace(conversations=(conversation,))])
    while len(said) < most:
        row = extended(batch, said)
        visual = model.visual_inputs(row)
        hidden = model.adapter.decode(
            model.embed(row),
            model.add_positions(visual.tokens, row),
            attention_mask=model.attention(row, torch.float32),
            position_ids=row.position_ids,
            deep=visual.deep,
        ).hidden
        word = int(model.adapter.logits(hidden[0, -1]).argmax())
        if word == model.tokenizer.eos_token_id:
            break
        said.append(word)
    return model.tokenizer.decode(said, skip_special_tokens=True).strip()


def extended(batch, said: list[int]):
    """The batch with words behind its only conversation."""
    if not said:
        return batch
    new = torch.tensor([said])
    last = batch.position_ids[:, -1:]
    steps = torch.arange(1, len(said) + 1).view(1, -1, *[1] * (last.ndim - 2))
    return dataclasses.replace(
        batch,
        input_ids=torch.cat([batch.input_ids, new], 1),
        position_ids=torch.cat([batch.position_ids, last + steps], 1),
        segments=torch.cat([batch.segments, torch.ones_like(new)], 1),
        labels=torch.cat([batch.labels, torch.full_like(new, -100)], 1),
    )


@torch.no_grad()
def test_queries_behind_the_cached_prefix_are_those_of_the_whole_row(model):
    pack = scene(model, 3)
    found = EnteredScene(model, pack).score_proposals([TALK[3]])[0]
    outputs = run(model, model.collator()([pack.replace(conversations=(TALK[3],))]))
    expected = outputs.grounding.logits[0] * model.grounding.temperature
    torch.testing.assert_close(found.cosines, expected[:-1], rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["encoder", "last_layer", "mean", "box"])
def test_what_candidates_are_made_of(words, kind):
    """By hand from encoder tokens and last-layer outputs; the same behind the cached prefix; hidden views left out."""
    model = tiny_model("qwen2_vl", words, object_features=kind)
    pack = scene(model, 3, TALK[3])
    batch = model.collator()([pack])
    outputs = run(model, batch)
    visual = model.visual_inputs(batch)

    def mean(tokens, cells):
        kept = [tokens[cells[number]] for number in range(3)]
        return torch.stack([k.mean(0) if len(k) else torch.zeros(48) for k in kept])

    parts = {
        "encoder": mean(visual.projected, pack.proposals.cells),
        "last_layer": mean(outputs.visual, pack.proposals.token_cells),
    }
    place = model.encoding(pack.proposals.boxes[:, :3])
    placed = {name: part + place for name, part in parts.items()}
    placed["mean"] = (placed["encoder"] + parts["last_layer"]) / 2
    placed["box"] = place
    expected = placed[kind]
    torch.testing.assert_close(model.objects(visual, batch, outputs.visual)[0], expected, rtol=1e-4, atol=1e-4)
    found = EnteredScene(model, pack).score_proposals([TALK[3]])[0]
    temperature = model.grounding.temperature
    torch.testing.assert_close(found.cosines, outputs.grounding.logits[0, :-1] * temperature, rtol=1e-4, atol=1e-4)
    hidden = torch.tensor([False, True, True])
    bare = dataclasses.replace(batch, proposals=(pack.proposals.without(hidden),))
    torch.testing.assert_close(
        model.objects(visual, batch, outputs.visual, hidden)[0], model.objects(visual, bare, outputs.visual)[0]
    )


def test_last_layer_candidates_need_their_cells(words):
    model = tiny_model("qwen2_vl", words, object_features="mean")
    pack = scene(model, 2, TALK[3])
    bare = pack.replace(proposals=dataclasses.replace(pack.proposals, token_cells=None))
    with pytest.raises(ValueError, match=r"pack_config\(\)"):
        run(model, model.collator()([bare]))


def test_gradient_checkpointing_changes_nothing(trained):
    batch = trained.collator()([scene(trained, 3, *TALK)])

    def gradient():
        trained.zero_grad()
        trained(batch, due=("text",), seed=0)["text"].sum.backward()
        return trained.backbone.get_decoder().layers[0].mlp.up_proj.weight.grad.clone()

    trained.train()
    plain = gradient()
    trained.backbone.gradient_checkpointing_enable()
    torch.testing.assert_close(gradient(), plain, rtol=1e-4, atol=1e-5)


def test_half_precision_runs(model):
    half = model.to(torch.bfloat16)
    batch = half.collator()([scene(half, 2, *TALK)])
    with torch.no_grad():
        outputs = run(half, batch)
    assert outputs.visual.dtype == torch.bfloat16
    assert outputs.text_logits.isfinite().all()


@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="needs peft")
def test_low_rank_adapters_train(trained):
    from peft import LoraConfig, inject_adapter_in_model

    inject_adapter_in_model(LoraConfig(r=2, target_modules=["q_proj", "v_proj"]), trained.backbone.get_decoder())
    batch = trained.collator()([scene(trained, 3, *TALK)])
    sum(loss.sum for loss in trained(batch, due=("text", "cross_view"), seed=0).values()).backward()
    low_rank = {n: p for n, p in trained.backbone.get_decoder().named_parameters() if "lora_B" in n}
    assert low_rank
    assert all(p.grad is not None and p.grad.norm() > 0 for p in low_rank.values())


@torch.no_grad()
def test_saved_and_opened_again(model, tmp_path):
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    batch = model.collator()([scene(model, 2, *TALK)])
    torch.testing.assert_close(run(again, batch).visual, run(model, batch).visual)
    assert again.settings == model.settings


@torch.no_grad()
def test_a_plain_backbone_gets_its_own_grid(words, tmp_path):
    """InternVL, Gemma 3 and SmolVLM come with the projector's grid, Qwen-VL and LLaVA with V3D's."""
    for family, grid in (
        ("internvl", (3, 3)),
        ("gemma3", (3, 3)),
        ("smolvlm", (3, 3)),
        ("qwen2_vl", (14, 14)),
        ("llava_onevision", (14, 14)),
    ):
        model = tiny_model(family, words)
        model.backbone.save_pretrained(tmp_path / family)
        model.tokenizer.save_pretrained(tmp_path / family)
        assert load_model(tmp_path / family).settings.view_grid == grid


@torch.no_grad()
def test_views_of_gemma_see_themselves_and_nobody_else_looks_ahead(words):
    """The last cell of a view reaches the first one; the next view reaches neither."""
    model = tiny_model("gemma3", words)
    batch = model.collator()([scene(model, 2, TALK[0])])
    mask = model.attention(batch, torch.float32)
    first, second = batch.layout.index[0].flatten(), batch.layout.index[1].flatten()
    for kind in ("full_attention", "sliding_attention"):
        seen = mask[kind][0, 0] == 0
        assert seen[first[0], first[-1]]
        assert not seen[first[-1], second[0]]
    allowed = attention_allowed(batch.segments)[0]
    full = mask["full_attention"][0, 0] == 0
    assert (full & ~allowed).sum() == 2 * (9 * 8) // 2
    assert not (allowed & ~full).any()


def test_a_view_grid_that_is_not_square_is_refused_for_qwen(words):
    backbone = SimpleNamespace()
    with pytest.raises(ValueError, match=r"view_grid must be too, got \(2, 3\)"):
        FAMILIES["qwen2_vl"](backbone, (2, 3))
