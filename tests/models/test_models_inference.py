"""An entered scene answers as a naive model without cache would, and as it was trained to."""

import dataclasses

import numpy as np
import pytest
import torch

from stereopsis.annotations import Annotation
from stereopsis.data.pack import conversation_of
from stereopsis.errors import StereopsisError
from stereopsis.geometry import Intrinsics
from stereopsis.models.inference import EnteredScene, Found, enter_scene
from stereopsis.scenes.scene import Frame, Proposal, Scene, SceneObject

SPOKEN = ("where", "many", "what")
POINTED = ("red", "both", "none")


def _naive(model, pack, conversation, most):
    """Greedy decoding by hand: after every word the whole sequence again, plain causal Hugging Face code, no cache."""
    backbone, tokenizer = model.backbone, model.tokenizer
    collator = model.collator(generation=True)
    batch = collator([pack])
    tokens = model.add_positions(model.visual_inputs(batch).tokens, batch)
    views, rows = tokens.shape[:2]
    newline = backbone.model.image_newline.expand(views, rows, 1, -1)
    visual = torch.cat([tokens, newline], dim=2).flatten(0, 2)
    ids = collator.prefix_ids(views) + collator.conversation_ids(conversation)[0]
    said: list[int] = []
    while len(said) < most:
        row = torch.tensor([ids + said])
        embeddings = backbone.get_input_embeddings()(row)
        embeddings[row == backbone.config.image_token_id] = visual
        if conversation.point is not None:
            embeddings[row == tokenizer.convert_tokens_to_ids("<coord>")] += model.encoding(
                torch.tensor(conversation.point)
            )
        word = int(backbone(inputs_embeds=embeddings).logits[0, -1].argmax())
        if word == tokenizer.eos_token_id:
            break
        said.append(word)
    return tokenizer.decode(said, skip_special_tokens=True).strip()


@pytest.fixture(scope="module")
def room(memorised):
    return EnteredScene(memorised.model, memorised.pack)


def test_it_says_what_it_was_taught(memorised, room, talk):
    """Training and inference agree on prompts, positions and where an answer ends; lengths differ."""
    assert memorised.loss < 0.1
    asked = [talk[name] for name in SPOKEN]
    assert room.answer(asked) == [conversation.answer for conversation in asked]


@torch.no_grad()
@pytest.mark.parametrize("most", [1, 3, 12])
def test_answers_equal_a_naive_decoder(memorised, talk, make_pack, most):
    """Also in a scene that it has never seen, where it babbles."""
    for pack in (memorised.pack, make_pack(2, seed=9)):
        room = EnteredScene(memorised.model, pack)
        asked = [talk[name] for name in SPOKEN]
        asked.append(dataclasses.replace(asked[0], id="new", prompt="the blue lamp beside the bed on the table?"))
        expected = [_naive(memorised.model, pack, c, most) for c in asked]
        assert room.answer(asked, max_new_tokens=most) == expected


@torch.no_grad()
def test_an_untrained_model_babbles_as_a_naive_decoder_does(make_model, make_pack, talk):
    model, pack = make_model(positions="none").eval(), make_pack(2, seed=3)
    asked = [talk[name] for name in SPOKEN]
    expected = [_naive(model, pack, c, 8) for c in asked]
    assert EnteredScene(model, pack).answer(asked, max_new_tokens=8) == expected
    assert any(expected)


def test_a_batch_of_questions_equals_one_by_one(room, talk):
    asked = [talk[name] for name in SPOKEN]
    asked += [
        dataclasses.replace(talk["what"], point=(0.3, 0.1, -0.2)),
        dataclasses.replace(talk["many"], prompt="lamp?"),
    ]
    assert room.answer(asked) == [room.answer([one])[0] for one in asked]
    assert room.answer(asked[::-1]) == room.answer(asked)[::-1]


def test_asking_leaves_no_trace(room, talk):
    """The cached prefix is reused, never extended."""
    before = room.cache.get_seq_length()
    first = room.answer([talk["where"], talk["many"]])
    room.score_proposals([talk["red"]])
    assert room.answer([talk["where"], talk["many"]]) == first
    assert room.cache.get_seq_length() == before == room.prefix_length


def test_nothing_asked_nothing_answered(room):
    assert room.answer([]) == []
    assert room.score_proposals([]) == []


def test_find_equals_the_training_path(memorised, room, talk, run_model):
    """Cosines = training logits x temperature, for packed and for single queries; and the right ones win."""
    asked = [talk[name] for name in POINTED]
    model = memorised.model
    with torch.no_grad():
        batch = model.collator()([memorised.pack.replace(conversations=tuple(asked))])
        cosines = run_model(model, batch).grounding.logits * model.grounding.temperature
    together = room.score_proposals(asked)
    for row, found, conversation in zip(cosines, together, asked, strict=True):
        torch.testing.assert_close(found.cosines, row[:-1], atol=2e-5, rtol=0)
        assert found.zero_cosine == pytest.approx(float(row[-1]), abs=2e-5)
        alone = room.score_proposals([conversation])[0]
        torch.testing.assert_close(alone.cosines, found.cosines, atol=2e-5, rtol=0)
        best = int(torch.argmax(row))
        assert best in (conversation.positives or (len(row) - 1,))


def test_special_tokens_in_a_question_are_plain_words(room, talk):
    """They are spelt out, and the answers to others' questions in the same pass are what they were alone."""
    odd = [
        dataclasses.replace(talk["where"], prompt=f"what is {token} ?") for token in ("<image>", "<ground>", "<end>")
    ]
    together = room.answer([odd[0], talk["where"], odd[1], talk["many"], odd[2]])
    assert [together[1], together[3]] == room.answer([talk["where"], talk["many"]])
    assert room.ask("is <coord> a <pad> ?") is not None
    room.find("the <ground> <image> chair")


def test_a_question_that_is_too_long_is_told_before_it_shares_a_pass(room, talk):
    most = room.model.adapter.most_tokens
    long = dataclasses.replace(talk["where"], prompt="where is it? " * most)
    with pytest.raises(StereopsisError, match=f"too long: .*the model reads {most}"):
        room.check(long)
    room.check(talk["where"])


def test_the_views_matter(memorised, talk, make_pack):
    """The prefix state is this scene's and no other's."""
    one, two = (EnteredScene(memorised.model, make_pack(3, seed=seed)) for seed in (0, 5))
    assert not torch.allclose(one.hidden, two.hidden, atol=1e-3)
    assert not torch.allclose(
        one.score_proposals([talk["red"]])[0].cosines,
        two.score_proposals([talk["red"]])[0].cosines,
        atol=1e-3,
    )


def test_a_scene_without_objects_finds_nothing(memorised, make_pack, talk):
    found = EnteredScene(memorised.model, make_pack(1, proposals=0)).score_proposals([talk["red"]])[0]
    assert found.cosines.shape == (0,)
    assert -1 <= found.zero_cosine <= 1


def test_conversations_of_the_pack_are_ignored(memorised, room):
    other = EnteredScene(memorised.model, memorised.pack.replace(conversations=()))
    assert torch.equal(other.hidden, room.hidden)
    assert other.batch.conversation_ids == ((),)


def _conversation(**annotation_fields):
    annotation = Annotation(id="a", scene_id="s", type="t", **annotation_fields)
    lamp = SceneObject(id=1, label="lamp", box=np.array([1.0, -2.0, 0.5, 0.2, 0.2, 0.2]))
    return conversation_of(annotation, Scene(id="s", frames=(), objects=(lamp,)), np.zeros((0, 6)))


def test_people_ask_in_the_benchmarks_words(room):
    """`ask`, `describe` and `find` are the sqa3d, scan2cap and scanrefer prompts that models are trained on."""
    asked = _conversation(task="sqa3d", text="where is it?", answers=("x",))
    assert room.ask("where is it?", max_new_tokens=6) == room.answer([asked], max_new_tokens=6)[0]
    caption = _conversation(task="scan2cap", answers=("x",), object_ids=(1,))
    described = room.describe([1.0, -2.0, 0.5, 9.0, 9.0, 9.0], max_new_tokens=6)
    assert described == room.answer([caption], max_new_tokens=6)[0]
    sought = _conversation(task="scanrefer", text="the lamp", object_ids=(1,))
    scores = room.score_proposals([sought])[0]
    best = int(scores.cosines.argmax())
    expected = room.pack.proposals.boxes[best].tolist() if float(scores.cosines[best]) >= scores.zero_cosine else None
    assert room.find("the lamp") == (None if expected is None else pytest.approx(expected, abs=5e-4))


@pytest.mark.parametrize(
    ("cosines", "zero", "expected"), [([0.1, 0.9, 0.2, 0.0], 0.5, 1), ([0.1, 0.4, 0.2, 0.0], 0.5, None)]
)
def test_find_gives_the_best_box_or_none(memorised, monkeypatch, cosines, zero, expected):
    room = EnteredScene(memorised.model, memorised.pack)
    scores = Found(cosines=torch.tensor(cosines), zero_cosine=zero)
    monkeypatch.setattr(room, "score_proposals", lambda conversations: [scores])
    boxes = memorised.pack.proposals.boxes
    assert room.find("anything") == (None if expected is None else [round(v, 3) for v in boxes[expected].tolist()])


def test_find_needs_something_to_find(memorised, make_pack):
    with pytest.raises(StereopsisError, match="neither candidate boxes nor objects"):
        EnteredScene(memorised.model, make_pack(1, proposals=0)).find("the lamp")


def test_a_model_enters_a_scene(make_model):
    """`enter` builds the pack that the model's sizes ask for, with detections as candidates where there are any."""
    camera = Intrinsics(fx=20.0, fy=20.0, cx=16.0, cy=12.0, width=32, height=24)
    frames = tuple(
        Frame(
            name=str(i),
            T_world_camera=np.eye(4),
            intrinsics=camera,
            load_colour=lambda i=i: np.full((24, 32, 3), 40 * i, dtype=np.uint8),
            load_depth=lambda: np.full((24, 32), 2.0, dtype=np.float32),
        )
        for i in range(5)
    )
    detected = Proposal(box=np.array([0.0, 0.0, 2.0, 1.0, 1.0, 1.0]))
    entered = enter_scene(make_model(), Scene(id="s", frames=frames, proposals=(detected,)), views=3)
    assert isinstance(entered, EnteredScene)
    assert entered.pack.frame_names == ("0", "2", "4")
    assert entered.pack.images.shape == (3, 3, 24, 24)
    assert entered.pack.proposals.boxes.tolist() == [detected.box.tolist()]
    assert entered.find("the box") in (None, detected.box.tolist())
    known = SceneObject(id=1, label="box", box=np.array([0.123456, 0.0, 2.0, 1.0, 1.0, 1.0]))
    scene = Scene(id="s", frames=frames, objects=(known,))
    with pytest.warns(UserWarning, match="no candidate boxes of a detector: 'find' chooses among the boxes of its 1"):
        entered = enter_scene(make_model(), scene, views=3)
    assert entered.find("the box") in (None, [0.123, 0.0, 2.0, 1.0, 1.0, 1.0])  # nobody reads 17 digits
    enter_scene(make_model(), scene, views=3, proposals="objects")  # said on purpose: no note
