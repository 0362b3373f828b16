"""Many askers, one model: questions wait in one line, those about the same room are answered in one pass.

The engine knows nothing of HTTP. One thread owns the model; the rooms that were asked about stay encoded until their
memory is needed for others. torch comes in with the model, so that a server says something before that is loaded.
"""

import collections
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Literal

from stereopsis.errors import StereopsisError
from stereopsis.serve.failures import BusyError, CannotError, NotReadyError, StoppedError, told
from stereopsis.serve.rooms import OpenRoom, RoomBook, RoomEntry

if TYPE_CHECKING:
    from stereopsis.models.inference import EnteredScene
    from stereopsis.serve.opening import OpenedModel

log = logging.getLogger("stereopsis.serve")
MEMORY = 2 << 30
WAITING = 256
WINDOW = 0.004
"""Seconds that the first question of a pass waits for others that arrive together with it."""
MOST_TOGETHER = 64
MOST_TOKENS = 256
Kind = Literal["ask", "find", "describe", "similar"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked about a room.

    Attributes:
        kind: "ask" and "describe" are answered in words, "find" with a box, "similar" with the cells that look alike.
        text: the question or expression.
        box: [6] what "describe" is about.
        point: [3] the place that "similar" compares with.
        max_new_tokens: the longest answer.
    """

    kind: Kind
    text: str = ""
    box: tuple[float, ...] = ()
    point: tuple[float, ...] = ()
    max_new_tokens: int = 24


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Reply:
    """An answer, and how it came about.

    Attributes:
        value: `stereopsis.models.answers.Answer` for words, `Found` for "find", `Similarity` for
            "similar".
        views: names of the views that the model was shown.
        together: how many questions shared its pass.
        waited: seconds in the line.
        seconds: seconds from the question to the answer.
    """

    value: Any
    views: tuple[str, ...]
    together: int
    waited: float
    seconds: float


class Ticket:
    """A question in the line. ``future`` holds the `Reply`.

    Args:
        room: about which.
        question: what.
        listen: called with the words so far after each token, in the model's thread.
    """

    def __init__(self, room: RoomEntry, question: Question, listen: Callable[[str], None] | None = None) -> None:
        self.room, self.question, self.listen = room, question, listen
        self.future: Future[Reply] = Future()
        self.asked = time.monotonic()
        self.began = 0.0
        self._stopped = threading.Event()

    @property
    def pass_key(self) -> tuple[str, bool, bool]:
        """Those with the same key may share a pass."""
        return self.room.id, self.question.kind == "find", self.question.kind == "similar"

    @property
    def stopped(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._stopped.is_set()

    def cancel(self) -> None:
        """Nobody waits for the answer any more: it leaves the line, or ends at its next token."""
        self._stopped.set()
        self.future.cancel()

    def begin(self) -> bool:
        """Take it out of the line; False where it was cancelled there."""
        self.began = time.monotonic()
        return not self.stopped and self.future.set_running_or_notify_cancel()

    def heard(self, words: Callable[[], str], tokens: int) -> bool:
        """After each token: pass it on; whether to go on."""
        if self.stopped:
            return False
        if self.listen is not None:
            try:
                self.listen(words())
            except Exception:  # whoever listens has gone; that is no reason to fail the others of this pass
                log.debug("a listener failed", exc_info=True)
                self.cancel()
                return False
        return tokens < self.question.max_new_tokens

    def done(self, value: Any, views: tuple[str, ...], together: int) -> None:
        """Hand over the answer."""
        now = time.monotonic()
        reply = Reply(
            value=value, views=views, together=together, waited=self.began - self.asked, seconds=now - self.asked
        )
        if not self.future.cancelled():
            self.future.set_result(reply)

    def failed(self, error: BaseException) -> None:
        """Hand over what went wrong."""
        if not self.future.done():
            self.future.set_exception(told(error))


class Engine:
    """Answers questions about rooms.

    Args:
        rooms: the book of rooms.
        opening: opens the model, in the engine's thread; None for a page without one.
        memory: bytes of encoded rooms that are kept; the room that is being asked about always is.
        waiting: the longest line; who comes then is told to come again.
        window: seconds that a pass waits for questions that arrive together.
    """

    def __init__(
        self,
        rooms: RoomBook,
        opening: "Callable[[], OpenedModel] | None" = None,
        *,
        memory: int = MEMORY,
        waiting: int = WAITING,
        window: float = WINDOW,
    ) -> None:
        self.rooms, self.memory, self.waiting, self.window = rooms, memory, waiting, window
        self._opening = opening
        self.opened: OpenedModel | None = None
        self.failure: StereopsisError | None = None
        self.answered = self.passes = 0
        self._line: collections.deque[Ticket] = collections.deque()
        self._entered: collections.OrderedDict[str, tuple[OpenRoom, EnteredScene]] = collections.OrderedDict()
        self._changed = threading.Condition()
        self._ended = False
        rooms.on_change(self._wake)
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        if opening is not None:
            self._thread.start()

    @property
    def state(self) -> str:
        """Of the model: "none" (a page without one), "loading", "ready" or "failed"."""
        if self._opening is None:
            return "none"
        return "failed" if self.failure is not None else "ready" if self.opened is not None else "loading"

    @property
    def cached(self) -> dict[str, int]:
        """Bytes of every room that is encoded now, the one that was asked last at the end."""
        return {id: entered.nbytes for id, (_, entered) in list(self._entered.items())}

    @property
    def queued(self) -> int:
        """How many questions wait."""
        return len(self._line)

    def submit(self, room_id: str, question: Question, listen: Callable[[str], None] | None = None) -> Ticket:
        """Put a question into the line.

        Args:
            room_id: about which room.
            question: what.
            listen: called with the words so far after each token, in the engine's thread: it must be quick.

        Raises:
            UnknownRoomError: there is no such room.
            BusyError: the line is full.
            CannotError: there is no model, or it cannot do this.
            NotReadyError: the server ends, or the model could not be opened.
        """
        entry = self.rooms[room_id]
        if entry.error is not None:
            raise entry.error
        self._check(question)
        ticket = Ticket(entry, question, listen)
        with self._changed:
            if self._ended:
                raise NotReadyError("the server is ending; ask again when it is back")
            if len(self._line) >= self.waiting:
                raise BusyError(f"{self.waiting} questions wait already; ask again in a few seconds")
            self._line.append(ticket)
            self._changed.notify()
        return ticket

    def ask(self, room_id: str, question: Question, *, timeout: float | int | None = None) -> Reply:
        """`submit`, and wait for the answer."""
        ticket = self.submit(room_id, question)
        try:
            return ticket.future.result(timeout)
        except BaseException:
            ticket.cancel()
            raise

    def close(self) -> None:
        """Answer nothing more; who waits is told."""
        with self._changed:
            self._ended = True
            while self._line:
                self._line.popleft().failed(StoppedError("the server has ended; ask again when it is back"))
            self._changed.notify_all()
        self.rooms.close()

    def _check(self, question: Question) -> None:
        if self._opening is None:
            raise CannotError("this page was opened without a model; 'stereopsis serve MODEL SCENE' answers questions")
        if self.failure is not None:
            raise NotReadyError(f"the model could not be opened: {self.failure}")
        if question.kind == "find" and self.opened is not None and not self.opened.grounds:
            raise CannotError(
                f"the model '{self.opened.name}' has no trained grounding head, so it cannot find things; ask it in "
                "words, or train it with 'grounding: {}'"
            )
        if not 1 <= question.max_new_tokens <= MOST_TOKENS:
            raise CannotError(f"an answer may have 1 to {MOST_TOKENS} tokens, asked were {question.max_new_tokens}")

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def _run(self) -> None:
        try:
            self.opened = _quietly(self._opening) if self._opening is not None else None
        except Exception as error:
            log.warning("the model cannot be opened: %s", error, exc_info=not isinstance(error, StereopsisError))
            self.failure = told(error)
        while (tickets := self._next()) is not None:
            live = [ticket for ticket in tickets if ticket.begin()]
            if self.failure is not None:
                for ticket in live:
                    ticket.failed(NotReadyError(f"the model could not be opened: {self.failure}"))
            elif live:
                self._answer(live)

    def _next(self) -> list[Ticket] | None:
        """The oldest question whose room is open, and those that may share its pass; None at the end."""
        with self._changed:
            while not self._ended:
                if next((t for t in self._line if t.room.settled or t.stopped), None) is not None:
                    break
                self._changed.wait()
            if self._ended:
                return None
            if len(self._line) == 1 and self.window:
                self._changed.wait(self.window)
            first = next((t for t in self._line if t.room.settled or t.stopped), None)
            if first is None:
                return []
            together = [t for t in self._line if t.pass_key == first.pass_key][:MOST_TOGETHER]
            taken = set(map(id, together))
            self._line = collections.deque(t for t in self._line if id(t) not in taken)
            return together

    def _answer(self, tickets: list[Ticket]) -> None:
        """One pass; a question that breaks it is asked alone, so that the others get their answers."""
        self.passes += 1
        try:
            entered = self._enter(tickets[0].room)
        except Exception as error:
            self._lost(tickets, error)
            return
        try:
            _together(entered, tickets, self.opened)
        except Exception as error:
            open_still = [ticket for ticket in tickets if not ticket.future.done()]
            if len(tickets) == 1:
                self._lost(open_still, error)
            for ticket in open_still if len(tickets) > 1 else ():
                self._answer([ticket])
        self.answered += sum(ticket.future.done() for ticket in tickets)
        self._make_room(keep=tickets[0].room.id)

    def _lost(self, tickets: Sequence[Ticket], error: Exception) -> None:
        if not isinstance(error, StereopsisError):
            log.error("a request failed", exc_info=error)
        for ticket in tickets:
            ticket.failed(error)

    def _enter(self, entry: RoomEntry) -> "EnteredScene":
        from stereopsis.models.inference import EnteredScene
        from stereopsis.packs.build import build_pack

        room, known = entry.opened(), self._entered.get(entry.id)
        if known is not None and known[0] is room:
            self._entered.move_to_end(entry.id)
            return known[1]
        opened = self.opened
        assert opened is not None
        scene = room.scene
        boxes = "detector" if scene.proposals else "objects"
        pack = build_pack(scene, opened.model.pack_config(views=opened.views, proposals=boxes, **opened.options))
        self._entered.pop(entry.id, None)
        entered = EnteredScene(opened.model, pack, scene)
        self._entered[entry.id] = room, entered
        return entered

    def _make_room(self, keep: str) -> None:
        """Forget what was asked about longest ago until the rest fits."""
        total = sum(self.cached.values())
        for id in list(self._entered):
            if total <= self.memory or id == keep:
                break
            total -= self._entered.pop(id)[1].nbytes


def _quietly(opening: "Callable[[], OpenedModel]") -> "OpenedModel":
    """Open the model without the libraries' bars over our own lines."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    return opening()


def _together(entered: "EnteredScene", tickets: Sequence[Ticket], opened: "OpenedModel | None") -> None:
    """Answer questions of one kind about one room."""
    from stereopsis.annotations import GROUND_TOKEN
    from stereopsis.models.inference import about_box, asked

    if tickets[0].question.kind == "similar":
        for ticket in tickets:
            ticket.done(entered.similar(ticket.question.point), entered.pack.frame_names, len(tickets))
        return
    good, conversations = [], []
    for ticket in tickets:
        question = ticket.question
        try:
            if question.kind == "find":
                if opened is not None and not opened.grounds:
                    raise CannotError(f"the model '{opened.name}' has no trained grounding head; ask it in words")
                entered.check_candidates()
                conversation = asked("pointing", question.text, GROUND_TOKEN)
            else:
                conversation = about_box(question.box) if question.kind == "describe" else asked("text", question.text)
            entered.check(conversation, max_new_tokens=0 if question.kind == "find" else question.max_new_tokens)
        except StereopsisError as error:  # its own fault
            ticket.failed(error)
            continue
        good.append(ticket)
        conversations.append(conversation)
    if not good:
        return
    values: Sequence[Any]
    if good[0].question.kind == "find":
        found = entered.score_proposals(conversations)
        boxes = entered.pack.proposals.boxes
        values = [dataclasses.replace(f, text=t.question.text, boxes=boxes) for f, t in zip(found, good, strict=True)]
    else:
        values = _spoken(entered, good, conversations)
    for ticket, value in zip(good, values, strict=True):
        if getattr(value, "broken", False):
            ticket.failed(CannotError("the model's scores of the next word are NaN: the checkpoint is damaged"))
        elif ticket.stopped:
            ticket.failed(StoppedError("nobody waits for this answer any more"))
        else:
            ticket.done(value, entered.pack.frame_names, len(good))


def _spoken(entered: "EnteredScene", tickets: Sequence[Ticket], conversations: Sequence[Any]) -> Sequence[Any]:
    decode = entered.collator.tokenizer.decode

    def listen(number: int, said: list[int]) -> bool:
        return tickets[number].heard(lambda: decode(said, skip_special_tokens=True).strip(), len(said))

    most = max(ticket.question.max_new_tokens for ticket in tickets)
    return entered.generate(conversations, max_new_tokens=most, listen=listen)
