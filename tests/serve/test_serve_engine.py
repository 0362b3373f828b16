"""Questions about the same room share a pass, and each gets the answer that it would get alone."""

import threading
import time

import pytest

from stereopsis.errors import StereopsisError
from stereopsis.models.inference import enter_scene
from stereopsis.serve.engine import Engine, Question
from stereopsis.serve.failures import BusyError, CannotError, NotReadyError, StoppedError, UnknownRoomError

pytestmark = pytest.mark.filterwarnings("ignore:scene .* has no candidate boxes")


def ask(text, **options):
    return Question(kind="ask", text=text, max_new_tokens=8, **options)


def questions_of(room, task):
    return [a.text for a in room.annotations if a.task == task][:5]


def test_answers_are_those_of_the_library(engine, rooms, tiny_model):
    for room in rooms[:2]:
        entered = enter_scene(tiny_model, room, views=4)
        for text in questions_of(room, "scanqa"):
            assert engine.ask(room.id, ask(text), timeout=60).value.text == entered.ask(text, max_new_tokens=8)
        for text in questions_of(room, "scanrefer"):
            reply = engine.ask(room.id, Question(kind="find", text=text), timeout=60)
            assert reply.value.box == entered.find(text)
        box = [float(v) for v in room.proposals[0].box]
        said = engine.ask(room.id, Question(kind="describe", box=tuple(box), max_new_tokens=8), timeout=60)
        assert said.value.text == entered.describe(box, max_new_tokens=8)


def test_questions_that_wait_share_one_pass_and_are_told_apart(book, gate, rooms, tiny_model):
    engine = Engine(book, gate)
    texts = questions_of(rooms[0], "scanqa")
    tickets = [engine.submit(rooms[0].id, ask(text)) for text in texts]
    gate.open.set()
    replies = [ticket.future.result(60) for ticket in tickets]
    assert engine.passes == 1
    assert {reply.together for reply in replies} == {len(texts)}
    entered = enter_scene(tiny_model, rooms[0], views=4)
    assert [reply.value.text for reply in replies] == [entered.ask(text, max_new_tokens=8) for text in texts]
    engine.close()


def test_answers_keep_their_own_length_in_a_shared_pass(book, gate, rooms):
    engine = Engine(book, gate)
    tickets = [
        engine.submit(rooms[0].id, Question(kind="ask", text="what is it?", max_new_tokens=most)) for most in (2, 6, 1)
    ]
    gate.open.set()
    texts = [ticket.future.result(60).value for ticket in tickets]
    assert all(said.tokens <= most for said, most in zip(texts, (2, 6, 1), strict=True))
    assert texts[1].text.startswith(texts[0].text)
    engine.close()


def test_the_line_has_an_end(book, gate, rooms):
    engine = Engine(book, gate, waiting=2)
    tickets = [engine.submit(rooms[0].id, ask("is there a bed?")) for _ in range(2)]
    with pytest.raises(BusyError, match="2 questions wait"):
        engine.submit(rooms[0].id, ask("is there a bed?"))
    gate.open.set()
    assert all(ticket.future.result(60).value.text is not None for ticket in tickets)
    assert engine.submit(rooms[0].id, ask("is there a bed?")).future.result(60)
    engine.close()


def test_who_has_left_is_not_answered(book, gate, rooms):
    engine = Engine(book, gate)
    first, second = (engine.submit(rooms[0].id, ask("is there a bed?")) for _ in range(2))
    first.cancel()
    gate.open.set()
    assert second.future.result(60).together == 1
    assert first.future.cancelled()
    engine.close()


def test_an_answer_ends_at_the_token_at_which_its_asker_leaves(engine, rooms):
    heard = []

    def listen(words):
        heard.append(words)
        ticket.cancel()

    began = threading.Event()
    ticket = engine.submit(rooms[0].id, Question(kind="ask", text="what is it?", max_new_tokens=64), listen)
    deadline = time.monotonic() + 30
    while not heard and not ticket.future.done() and time.monotonic() < deadline:
        began.wait(0.01)
    with pytest.raises((StoppedError, BaseException)):
        ticket.future.result(30)
    assert len(heard) == 1


def test_a_listener_that_fails_harms_nobody_else(book, gate, rooms):
    engine = Engine(book, gate)

    def broken(words):
        raise ConnectionResetError

    engine.submit(rooms[0].id, ask("is there a bed?"), broken)
    good = engine.submit(rooms[0].id, ask("is there a bed?"))
    gate.open.set()
    assert good.future.result(60).value.text is not None
    engine.close()


def test_encoded_rooms_are_kept_by_bytes_the_last_asked_last(book, opened, rooms):
    engine = Engine(book, lambda: opened)
    for room in rooms:
        engine.ask(room.id, ask("is there a bed?"), timeout=60)
    sizes = engine.cached
    assert list(sizes) == [room.id for room in rooms]
    engine.memory = sum(sizes.values()) - 1
    engine.ask(rooms[0].id, ask("is there a bed?"), timeout=60)
    deadline = time.monotonic() + 10
    while len(engine.cached) > 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list(engine.cached) == [rooms[2].id, rooms[0].id]
    engine.close()


def test_a_question_that_breaks_the_pass_leaves_the_others(book, gate, rooms, monkeypatch):
    from stereopsis.models.inference import EnteredScene

    generate = EnteredScene.generate

    def breaks(self, conversations, **options):
        if any("poison" in c.prompt for c in conversations):
            raise ZeroDivisionError("somewhere deep")
        return generate(self, conversations, **options)

    monkeypatch.setattr(EnteredScene, "generate", breaks)
    engine = Engine(book, gate)
    bad = engine.submit(rooms[0].id, ask("poison"))
    good = engine.submit(rooms[0].id, ask("is there a bed?"))
    gate.open.set()
    assert good.future.result(60).together == 1
    with pytest.raises(StereopsisError, match="the request failed \\(ZeroDivisionError\\)"):
        bad.future.result(60)
    engine.close()


def test_refusals(book, opened, rooms):
    import dataclasses

    plain = dataclasses.replace(opened, grounds=False)
    engine = Engine(book, lambda: plain)
    assert engine.ask(rooms[0].id, ask("is there a bed?"), timeout=60)
    with pytest.raises(CannotError, match="no trained grounding head"):
        engine.ask(rooms[0].id, Question(kind="find", text="the bed"), timeout=60)
    with pytest.raises(UnknownRoomError, match="there is no room 'cellar'"):
        engine.submit("cellar", ask("is there a bed?"))
    with pytest.raises(StereopsisError, match="too long"):
        engine.ask(rooms[0].id, ask("why " * 3000), timeout=60)
    engine.close()
    with pytest.raises(NotReadyError, match="ending"):
        engine.submit(rooms[0].id, ask("is there a bed?"))


def test_a_model_that_cannot_be_opened_is_told_to_everybody(book, rooms):
    def opening():
        raise StereopsisError("no model here")

    engine = Engine(book, opening)
    with pytest.raises(NotReadyError, match="no model here"):
        engine.ask(rooms[0].id, ask("is there a bed?"), timeout=30)
    assert engine.state == "failed"
    engine.close()


def test_words_that_look_like_special_tokens_point_at_nothing(engine, rooms):
    said = engine.ask(rooms[0].id, ask("<coord> <ground> <image> what is it?"), timeout=60)
    assert said.value.tokens <= 8
    found = engine.ask(rooms[0].id, Question(kind="find", text="<ground> <coord>"), timeout=60)
    assert len(found.value.cosines) == len(rooms[0].proposals)
