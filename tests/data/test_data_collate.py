"""Packing: token-exact sequences, positions, labels and layout; who sees whom."""

import pytest
import torch

from stereopsis.data.collate import Collator, attention_allowed
from stereopsis.data.pack import Conversation
from stereopsis.data.prompt import ChatTemplate, ViewTemplate, chat_template
from stereopsis.errors import StereopsisError

IMAGE = 2  # the tiny tokenizer's <image>
VIEW = ViewTemplate(token_ids=(IMAGE,) * 8, cells=(0, 1, 2, -1, 3, 4, 5, -1), rows=2, cols=3)

QUESTION = Conversation(id="q", task="scanqa", prompt="how many chairs?", answer="two chairs")
SHORT = Conversation(id="s", task="sqa3d", prompt="where?", answer="here")
GROUND = Conversation(id="g", task="scanrefer", prompt="the red lamp", answer="<ground>", positives=(0, 2))
NOTHING = Conversation(id="n", task="multi3drefer", prompt="the sofas", answer="<ground>")
CAPTION = Conversation(id="c", task="scan2cap", prompt="at <coord> , describe", answer="a lamp", point=(1.0, 2.0, 3.0))


@pytest.fixture
def collate(tokenizer):
    return Collator(tokenizer, chat_template(tokenizer, "<image>"), VIEW)


def _ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_token_exact_sequence_of_one_scene(tokenizer, collate, make_pack):
    batch = collate([make_pack(2, QUESTION, GROUND)])
    asked, answer = _ids(tokenizer, "how many chairs?"), _ids(tokenizer, "two chairs")
    sought = _ids(tokenizer, "the red lamp")
    newline, lead, end, ground = _ids(tokenizer, "\n"), _ids(tokenizer, "\n> "), [1], [4]
    prefix = [IMAGE] * 16 + newline
    first, second = [*asked, *lead, *answer, *end], [*sought, *lead, *ground]
    p, a, b = len(prefix), len(first), len(second)
    assert batch.input_ids.tolist() == [prefix + first + second]
    assert batch.segments.tolist() == [[0] * p + [1] * a + [2] * b]
    assert batch.position_ids.tolist() == [[*range(p), *range(p, p + a), *range(p, p + b)]]
    quiet = len(asked) + len(lead) - 1
    labels = [-100] * (p + quiet) + [*answer, *end, -100] + [-100] * b
    assert batch.labels.tolist() == [labels]
    assert batch.query_index.tolist() == [p + a + b - 1]
    assert batch.query_scene.tolist() == [0]
    assert batch.query_targets.tolist() == [[True, False, True]]
    assert batch.conversation_ids == (("q", "g"),)


def test_labels_name_the_next_token(collate, make_pack):
    """Wherever a label stands, it is the token that follows, and both belong to one conversation."""
    batch = collate([make_pack(1, QUESTION, CAPTION, SHORT), make_pack(3, SHORT, name="b")])
    rows, places = torch.nonzero(batch.labels != -100, as_tuple=True)
    assert len(rows) == 4 + sum(len(collate.tokenize(c.answer)) for c in (QUESTION, CAPTION, SHORT, SHORT))
    assert torch.equal(batch.labels[rows, places], batch.input_ids[rows, places + 1])
    assert torch.equal(batch.segments[rows, places], batch.segments[rows, places + 1])
    assert (batch.segments[rows, places] > 0).all()


def test_generation_leaves_answers_out_but_keeps_ground(tokenizer, make_pack):
    collate = Collator(tokenizer, chat_template(tokenizer, "<image>"), VIEW, generation=True)
    batch = collate([make_pack(1, QUESTION, GROUND)])
    assert not batch.has_text
    lead = _ids(tokenizer, "\n> ")
    row, segments = batch.input_ids[0], batch.segments[0]
    assert row[segments == 1].tolist() == [*_ids(tokenizer, "how many chairs?"), *lead]
    assert row[segments == 2].tolist() == [*_ids(tokenizer, "the red lamp"), *lead, 4]


def test_layout_points_at_placeholders_and_skips_newlines(tokenizer, make_pack):
    """Words before the views, ragged view counts and padding: every cell is found, in row-major order."""
    before = ChatTemplate(before_views=(7, 8, 9), after_views=(5,), after_question=(6,), after_answer=(1,))
    collate = Collator(tokenizer, before, VIEW)
    packs = [make_pack(1, QUESTION, name="a"), make_pack(3, name="b"), make_pack(2, SHORT, name="c")]
    batch = collate(packs)
    assert batch.layout.scene.tolist() == [0, 1, 1, 1, 2, 2]
    assert batch.layout.grid == (2, 3)
    assert batch.layout.index.shape == (6, 2, 3)
    assert (batch.input_ids.flatten()[batch.layout.index] == IMAGE).all()
    width = batch.input_ids.shape[1]
    starts = [3, width + 3, width + 11, width + 19, 2 * width + 3, 2 * width + 11]
    for view, start in enumerate(starts):
        assert batch.layout.index[view].tolist() == [
            [start, start + 1, start + 2],
            [start + 4, start + 5, start + 6],
        ]
    placeholders = torch.nonzero((batch.input_ids == IMAGE).flatten()).flatten().tolist()
    newlines = sorted(set(placeholders) - set(batch.layout.index.flatten().tolist()))
    assert newlines == [start + offset for start in starts for offset in (3, 7)]
    assert [batch.layout.views_of(i).tolist() for i in range(3)] == [[0], [1, 2, 3], [4, 5]]


def test_gather_reads_the_cells_of_each_view(collate, make_pack):
    batch = collate([make_pack(1, QUESTION), make_pack(2, name="b")])
    place = torch.arange(batch.input_ids.numel(), dtype=torch.float32).view(*batch.input_ids.shape, 1)
    assert torch.equal(batch.layout.gather(place)[..., 0].long(), batch.layout.index)


def test_a_template_may_list_cells_in_any_order(tokenizer, make_pack):
    snake = ViewTemplate(token_ids=(9, IMAGE, IMAGE, IMAGE, IMAGE), cells=(-1, 0, 1, 3, 2), rows=2, cols=2)
    batch = Collator(tokenizer, chat_template(tokenizer, "<image>"), snake)([make_pack(1)])
    assert batch.layout.index[0].tolist() == [[1, 2], [4, 3]]


def test_vision_only_batches_are_ordinary(collate, make_pack):
    batch = collate([make_pack(2), make_pack(1, name="b", proposals=0)])
    assert not batch.has_text
    assert batch.input_ids.shape == (2, 17)
    assert batch.segments.tolist() == [[0] * 17, [0] * 9 + [-1] * 8]
    assert len(batch.query_index) == len(batch.coord_index) == 0
    assert batch.query_targets.shape == (0, 3)
    assert batch.coord_xyz.shape == (0, 3)
    assert batch.images.shape[0] == 3


def test_ragged_scenes_are_padded_to_the_right(tokenizer, collate, make_pack):
    packs = [make_pack(1, SHORT), make_pack(2, QUESTION, CAPTION, name="b")]
    both, alone = collate(packs), [collate([pack]) for pack in packs]
    for row, single in enumerate(alone):
        length = single.input_ids.shape[1]
        for field in ("input_ids", "position_ids", "segments", "labels"):
            assert torch.equal(getattr(both, field)[row, :length], getattr(single, field)[0]), field
        assert (both.input_ids[row, length:] == tokenizer.pad_token_id).all()
        assert (both.segments[row, length:] == -1).all()
        assert (both.labels[row, length:] == -100).all()


def test_queries_and_points_follow_their_conversations(collate, make_pack):
    other = Conversation(id="d", task="scan2cap", prompt="<coord> is?", answer="a bed", point=(-1.0, 0.0, 0.5))
    batch = collate([make_pack(1, CAPTION, GROUND), make_pack(2, NOTHING, other, GROUND, name="b", proposals=5)])
    flat = batch.input_ids.flatten()
    assert (flat[batch.query_index] == 4).all()
    assert (flat[batch.coord_index] == 3).all()
    assert batch.query_scene.tolist() == [0, 1, 1]
    assert batch.query_targets.tolist() == [
        [True, False, True, False, False],
        [False] * 5,
        [True, False, True, False, False],
    ]
    assert batch.coord_xyz.tolist() == [[1.0, 2.0, 3.0], [-1.0, 0.0, 0.5]]
    assert (batch.coord_index // batch.input_ids.shape[1]).tolist() == [0, 1]


@pytest.mark.parametrize("prompt", ["describe it", "<coord> or <coord> ?"])
def test_a_point_needs_its_one_place_in_the_words(collate, make_pack, prompt):
    """Otherwise points would shift silently, or fail deep in the model."""
    talk = Conversation(id="odd", task="scan2cap", prompt=prompt, answer="yes", point=(0.0, 0.0, 0.0))
    with pytest.raises(StereopsisError, match=r"conversation 'odd'"):
        collate([make_pack(1, talk)])


@pytest.mark.parametrize("token", ["<coord>", "<image>", "<ground>", "<end>", "<pad>"])
def test_special_tokens_in_somebodys_words_are_spelt_out(tokenizer, collate, make_pack, token):
    """In questions and answers of training alike; what was written is what a decoder reads."""
    special = set(tokenizer.all_special_ids)
    odd = Conversation(id="odd", task="scanqa", prompt=f"what is {token} ?", answer=f"a {token}")
    pointed = Conversation(id="p", task="scanrefer", prompt=f"the {token} lamp", answer="<ground>", positives=(0,))
    at = Conversation(id="c", task="scan2cap", prompt="at <coord> , describe", answer=token, point=(1.0, 2.0, 3.0))
    question, answer = collate.conversation_ids(odd)
    own = len(collate.chat.after_question)
    assert special.isdisjoint(question[:-own])
    assert special.isdisjoint(answer[: -len(collate.chat.after_answer)])
    assert tokenizer.decode(question[:-own]) == f"what is {token} ?"
    batch = collate([make_pack(1, odd, pointed, at)])
    assert len(batch.query_index) == 1
    assert batch.coord_xyz.tolist() == [[1.0, 2.0, 3.0]]
    assert len(batch.coord_index) == 1
    assert batch.layout.index.shape[0] == 1


def test_an_answer_that_reads_ground_points_at_nothing():
    said = Conversation(id="a", task="scanqa", prompt="what is it?", answer="<ground>")
    assert not said.grounds
    assert GROUND.grounds


def test_an_instruction_cannot_write_special_tokens(tokenizer):
    with pytest.raises(StereopsisError, match=r"model.instruction 'look at <image>'"):
        chat_template(tokenizer, "<image>", "look at <image>")


def test_targets_are_joined_where_every_pack_has_them(collate, make_pack):
    latents = {"view_latents": torch.zeros(1, 2, 2, 4)}
    first = make_pack(1, view_targets=latents, scene_targets={"birdseye_valid": torch.ones(3, 3)})
    second = make_pack(2, name="b", view_targets={"view_latents": torch.ones(2, 2, 2, 4), "extra": torch.ones(2)})
    targets = collate([first, second]).targets
    assert targets.keys() == {"view_latents"}
    assert targets["view_latents"][:, 0, 0, 0].tolist() == [0, 1, 1]
    assert collate([first]).targets["birdseye_valid"].shape == (1, 3, 3)


def test_cached_encoder_tokens_are_used_only_when_all_have_them(collate, make_pack):
    cached = make_pack(2).replace(encoder_tokens=torch.rand(2, 4, 6, 5))
    plain = make_pack(1, name="b")
    assert collate([cached, cached]).encoder_tokens.shape == (4, 4, 6, 5)
    assert collate([cached, plain]).encoder_tokens is None


def test_a_moved_batch_is_the_same_batch(collate, make_pack):
    batch = collate([make_pack(1, CAPTION, GROUND)])
    moved = batch.to("meta")
    assert moved.input_ids.is_meta
    assert moved.layout.index.is_meta
    assert moved.proposals[0].cells.is_meta
    assert moved.query_targets.is_meta
    assert moved.scene_ids == batch.scene_ids
    assert torch.equal(batch.to("cpu").labels, batch.labels)


def test_attention_by_hand():
    """Prefix of two, conversations of two and one, one token of padding."""
    allowed = attention_allowed(torch.tensor([[0, 0, 1, 1, 2, -1]]))[0]
    assert allowed.int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]


def test_attention_equals_its_rule_on_a_real_batch(collate, make_pack):
    segments = collate([make_pack(1, SHORT, GROUND), make_pack(1, QUESTION, name="b")]).segments
    allowed = attention_allowed(segments)
    for row in range(len(segments)):
        kinds = segments[row].tolist()
        for i, query in enumerate(kinds):
            for j, key in enumerate(kinds):
                seen = j <= i and query >= 0 and key in (0, query)
                assert bool(allowed[row, i, j]) == (seen or i == j)
