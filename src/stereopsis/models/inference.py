"""Using a trained model: enter a scene once, then ask, find and describe as often as you like."""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor

from stereopsis.annotations import GROUND_TOKEN, Annotation
from stereopsis.benchmarks import Kind, benchmarks_of
from stereopsis.data.collate import Collator
from stereopsis.data.pack import Conversation, ScenePack
from stereopsis.errors import CheckpointError, StereopsisError
from stereopsis.models.answers import Answer, Found, Similarity
from stereopsis.models.pictures import views_sheet
from stereopsis.models.prefix import PrefixCache, packed_allowed
from stereopsis.models.spatial import SpatialModel
from stereopsis.packs.build import build_pack
from stereopsis.scenes.measuring import Measurement, Survey
from stereopsis.scenes.scene import Scene

Listener = Callable[[int, list[int]], bool]

MOST_TOGETHER = 64
LEAST_TOKENS = 512
"""Question tokens that may always be read in one pass, however short the prefix."""


def asked(kind: Kind, text: str, answer: str = "") -> Conversation:
    """What people ask themselves, in the words of the first benchmark of that kind."""
    benchmark = benchmarks_of(kind)[0]
    annotation = Annotation(id="", task=benchmark.name, scene_id="", type="", text=text)
    return Conversation(id="", task=benchmark.name, prompt=benchmark.prompt(annotation), answer=answer)


def about_box(box: Sequence[float]) -> Conversation:
    """The question what is at the centre of a box [6], aligned frame, metres."""
    return dataclasses.replace(asked("caption", ""), point=(box[0], box[1], box[2]))


def enter_scene(model: SpatialModel, scene: Scene, **options: Any) -> "EnteredScene":
    """Encode a scene once, to ask, find and describe in it.

    Args:
        model: a trained model.
        scene: posed RGB-D frames.
        options: fields of `stereopsis.packs.build.PackConfig` (``views=8``, ``proposals="detector"``, ...).
    """
    if options.get("proposals", "detector") == "detector" and not scene.proposals and scene.objects:
        warnings.warn(
            f"scene '{scene.id}' has no candidate boxes of a detector: 'find' chooses among the boxes of its "
            f"{len(scene.objects)} objects; say proposals='objects' to mean just that",
            stacklevel=2,
        )
    pack = build_pack(scene, model.pack_config(**{"proposals": "detector", **options}))
    return EnteredScene(model, pack, scene)


def _shifted(listen: Listener, by: int, number: int, said: list[int]) -> bool:
    return listen(by + number, said)


class EnteredScene:
    """A scene whose views are encoded once; every conversation reuses the cached key-value prefix.

    Questions are not padded into a batch, which would copy the prefix for each of them. They stand behind one another
    in a single row, as in training: each sees the shared prefix and itself. The prefix is stored once and read
    once per step for all of them, and an answer that has ended leaves the row.

    Args:
        model: a trained model.
        pack: the scene (its conversations are ignored).
        scene: where the pack comes from, to measure in it and to show it.

    Raises:
        CheckpointError: the model computes NaN for the scene.
    """

    def __init__(self, model: SpatialModel, pack: ScenePack, scene: Scene | None = None) -> None:
        self.model, self.pack, self.scene = model, pack, scene
        self._survey: Survey | None = None
        self.collator: Collator = model.collator(generation=True)
        self.batch = self.collator([pack.replace(conversations=())]).to(model.device)
        self.cache = PrefixCache()
        with torch.inference_mode():
            self.visual = model.visual_inputs(self.batch)
            embeddings = model.embed(self.batch)
            # Without a mask the prefix is plainly causal, and attention need not look at what it would hide.
            causal = not model.adapter.views_see_themselves
            self.hidden = model.adapter.decode(
                embeddings,
                model.add_positions(self.visual.tokens, self.batch),
                attention_mask=None if causal else model.attention(self.batch, embeddings.dtype),
                position_ids=self.batch.position_ids,
                deep=self.visual.deep,
                cache=self.cache,
                use_cache=True,
            ).hidden
            last = self.batch.layout.gather(self.hidden)
            self._proposals = model.grounding.object_keys(model.objects(self.visual, self.batch, last)[0])
        self.prefix_length = self.batch.input_ids.shape[1]
        self.prefix_end = self.collator.prefix_end(len(pack.images))
        if self.hidden.isnan().any():
            raise CheckpointError(
                f"scene '{pack.scene_id}': the model computes NaN for the scene itself, whatever is asked; the "
                "checkpoint is damaged or its training diverged: take another one"
            )

    def check(self, conversation: Conversation, *, max_new_tokens: int = 0) -> None:
        """Refuse a question that cannot be asked, before it shares a pass with others.

        Raises:
            StereopsisError: its words cannot be written, or are too many for the model.
        """
        length = len(self.collator.conversation_ids(conversation)[0])
        most = self.model.adapter.most_tokens
        if most is not None and self.prefix_end + length + max_new_tokens > most:
            raise StereopsisError(
                f"the question is too long: {length} tokens behind a scene of {self.prefix_end}, and up to "
                f"{max_new_tokens} for the answer; the model reads {most}"
            )

    def ask(self, question: str, *, max_new_tokens: int = 24) -> str:
        """Answer one question in a word or a phrase."""
        return self.answer([asked("text", question)], max_new_tokens=max_new_tokens)[0]

    def describe(self, box: Sequence[float], *, max_new_tokens: int = 48) -> str:
        """Describe what is at the centre of a box [6], aligned frame, metres."""
        return self.answer([about_box(box)], max_new_tokens=max_new_tokens)[0]

    def find(self, expression: str) -> list[float] | None:
        """The candidate box [6] that an expression means, aligned frame, metres, to the millimetre.

        Returns:
            None where the model says that there is no such object.

        Raises:
            StereopsisError: the scene has no candidates at all.
        """
        return self.look_for(expression).box

    def look_for(self, expression: str) -> Found:
        """Like `find`, with the score of every candidate and of "no such object".

        Raises:
            StereopsisError: the scene has no candidates at all.
        """
        self.check_candidates()
        found = self.score_proposals([asked("pointing", expression, GROUND_TOKEN)])[0]
        return dataclasses.replace(found, text=expression, boxes=self.pack.proposals.boxes)

    def check_candidates(self) -> None:
        """Refuse to look for something where there is nothing to choose from.

        Raises:
            StereopsisError: the scene has no candidates at all.
        """
        if not len(self.pack.proposals.boxes):
            raise StereopsisError(
                f"scene '{self.pack.scene_id}' has neither candidate boxes nor objects, so there is nothing to choose "
                "from; 'stereopsis prepare' makes candidate boxes (--proposals geometry, or a detector's file)"
            )

    def measure(self, a: Sequence[float], b: Sequence[float] | None = None) -> Measurement:
        """Distance of two points [3] or boxes [6], or the size of one (see `stereopsis.scenes.measuring`).

        Raises:
            StereopsisError: the scene's scale is not known, or this was entered without its scene.
        """
        if self.scene is None:
            raise StereopsisError("only a pack was entered, not its scene; measure with stereopsis.scenes.measuring")
        if self._survey is None:
            self._survey = Survey(self.scene)
        return self._survey.measure(a, b)

    def similar(self, point: Sequence[float]) -> Similarity:
        """What the model takes for the same as a place: the outputs of its visual tokens, compared.

        Args:
            point: [3] aligned frame, metres; the token whose centre is nearest stands for it.

        Raises:
            StereopsisError: no token's place is known.
        """
        places, valid = self.pack.coordinates, self.pack.coordinates_valid
        if not valid.any():
            raise StereopsisError(f"no place of scene '{self.pack.scene_id}' is known: its views have no depth")
        far = (places - torch.tensor(list(point), dtype=places.dtype)).norm(dim=-1).masked_fill(~valid, float("inf"))
        view, row, col = (int(i) for i in np.unravel_index(int(far.argmin()), tuple(far.shape)))
        last = self.batch.layout.gather(self.hidden).float()
        unit = torch.nn.functional.normalize(last - last.mean((0, 1, 2)), dim=-1)
        cosines = (unit @ unit[view, row, col]).cpu().numpy()
        return Similarity(cell=(view, row, col), cosines=cosines)

    def show(self, boxes: Sequence[Sequence[float]] = ()) -> Image.Image:
        """A still picture of the views that the model was shown, which notebooks display, with boxes drawn in.

        Args:
            boxes: each [6], aligned frame, metres.
        """
        return views_sheet(self.pack, boxes)

    @property
    def nbytes(self) -> int:
        """Memory that the encoded scene holds."""
        kept = [self.pack.images, self.hidden, self.visual.projected, self.visual.tokens, *self.visual.deep]
        tensors = [*kept, *(t for layer in self.cache.layers for t in layer.buffers())]
        survey = 0 if self._survey is None else self._survey.nbytes
        return survey + sum(t.numel() * t.element_size() for t in tensors)

    def passes(self, conversations: Sequence[Conversation], *, most: int = MOST_TOGETHER) -> list[range]:
        """Which conversations are read together: neighbours, so many that the pass stays worth its mask.

        Strangers in one row cost attention that the mask throws away; with question tokens up to half the prefix that
        is at most a third. The same list is always divided in the same way.

        Args:
            conversations: in the order in which they are answered.
            most: at most so many in one pass.
        """
        limit = max(LEAST_TOKENS, self.prefix_length // 2)
        groups: list[range] = []
        start = tokens = 0
        for index, conversation in enumerate(conversations):
            length = len(self.collator.conversation_ids(conversation)[0])
            if index > start and (index - start == most or tokens + length > limit):
                groups.append(range(start, index))
                start, tokens = index, 0
            tokens += length
        return [*groups, range(start, len(conversations))] if conversations else []

    def answer(self, conversations: Sequence[Conversation], *, max_new_tokens: int = 24) -> list[str]:
        """Greedy answers, in the order of the questions.

        Raises:
            StereopsisError: the words hold a token that is not theirs, or the model computes NaN.
        """
        answers = self.generate(conversations, max_new_tokens=max_new_tokens)
        for conversation, answer in zip(conversations, answers, strict=True):
            if answer.broken:
                raise StereopsisError(
                    f"conversation '{conversation.id}': the model's scores of the next word are NaN after "
                    f"{answer.tokens} words; the checkpoint is damaged or its training diverged: take another one"
                )
        return [answer.text for answer in answers]

    @torch.inference_mode()
    def generate(
        self, conversations: Sequence[Conversation], *, max_new_tokens: int = 24, listen: Listener | None = None
    ) -> list[Answer]:
        """Like `answer`, with the number of tokens, and with broken answers marked instead of raised.

        Args:
            conversations: the questions.
            max_new_tokens: longest answer.
            listen: called with a question's index and the ids said so far after each of its tokens; False ends it.
        """
        answers: list[Answer] = []
        for group in self.passes(conversations):
            hears = None if listen is None else functools.partial(_shifted, listen, group.start)
            answers += self._generate([conversations[i] for i in group], max_new_tokens, hears)
        return answers

    @torch.inference_mode()
    def score_proposals(self, conversations: Sequence[Conversation]) -> list[Found]:
        """Score the scene's proposals for any number of referring expressions."""
        found: list[Found] = []
        for group in self.passes(conversations):
            together = [conversations[i] for i in group]
            try:
                queries = self._read(together).last
            finally:
                self.cache.keep(self.prefix_length)
            cosines = self.model.grounding.cosines(queries, self._proposals).float().cpu()
            found += [Found(cosines=row[:-1], zero_cosine=float(row[-1])) for row in cosines]
        return found

    def _generate(
        self, conversations: Sequence[Conversation], most: int, listen: Listener | None = None
    ) -> list[Answer]:
        end, device = self.collator.tokenizer.eos_token_id, self.model.device
        said: list[list[int]] = [[] for _ in conversations]
        broken: set[int] = set()
        stopped: set[int] = set()
        try:
            read = self._read(conversations)
            owners, last, active = read.owners, read.last, list(range(len(said)))
            positions = read.positions
            for step in range(most):
                logits = self.model.adapter.logits(last)
                words, damaged = logits.argmax(-1).tolist(), logits.isnan().any(-1).tolist()
                broken.update(row for row, bad in zip(active, damaged, strict=True) if bad)
                going = {row: word for row, word in zip(active, words, strict=True) if word != end}
                active = [row for row in going if row not in broken]
                for row in active:
                    said[row].append(going[row])
                if listen is not None:
                    stopped.update(row for row in active if not listen(row, said[row]))
                    active = [row for row in active if row not in stopped]
                if not active or step + 1 == most:
                    break
                rows = torch.tensor(active, device=device)
                owners = torch.cat([owners, rows])
                newest = torch.tensor([[said[row][-1] for row in active]], device=device)
                positions = torch.cat([positions, step + read.lengths[rows]])
                last = self._decode(self.model.adapter.embed(newest), owners, positions)
        finally:
            self.cache.keep(self.prefix_length)
        decode = self.collator.tokenizer.decode
        return [
            Answer(
                text=decode(row, skip_special_tokens=True).strip(),
                tokens=len(row),
                broken=number in broken,
                stopped=number in stopped,
            )
            for number, row in enumerate(said)
        ]

    def _read(self, conversations: Sequence[Conversation]) -> "_Read":
        """Run the questions behind the prefix, one after another in one row; their keys and values stay."""
        device = self.model.device
        questions = [self.collator.conversation_ids(c)[0] for c in conversations]
        lengths = torch.tensor([len(q) for q in questions], device=device)
        ids = torch.tensor([token for q in questions for token in q], device=device)[None]
        positions = torch.tensor([position for q in questions for position in range(len(q))], device=device)
        owners = torch.repeat_interleave(torch.arange(len(questions), device=device), lengths)
        embeddings = self.model.adapter.embed(ids)
        points = [c.point for c in conversations if c.point is not None]
        if points:
            encoding = self.model.encoding(torch.tensor(points, device=device)).to(embeddings.dtype)
            embeddings = embeddings.clone()
            embeddings[ids == self.collator.coord_id] += encoding
        hidden = self._decode(embeddings, owners, positions)
        return _Read(owners=owners, positions=positions, lengths=lengths, last=hidden[lengths.cumsum(0) - 1])

    def _decode(
        self, embeddings: Float[Tensor, "1 new dim"], owners: Int64[Tensor, "tail"], positions: Int64[Tensor, "tail"]
    ) -> Float[Tensor, "new dim"]:
        """Run new tokens behind everything that is cached.

        ``owners`` and ``positions`` tell, for each token after the prefix, whose it is and where in that question.
        """
        new, prefix = embeddings.shape[1], self.batch.position_ids
        tail = (self.prefix_end + positions)[None]
        if prefix.ndim == 3:
            tail = tail[..., None].expand(-1, -1, prefix.shape[-1])
        adapter = self.model.adapter
        mask = adapter.mask(
            packed_allowed(self.prefix_length, owners, new),
            query_positions=tail[:, -new:],
            key_positions=torch.cat([prefix, tail], dim=1),
            same_view=None,
            dtype=embeddings.dtype,
        )
        return adapter.decode(
            embeddings, None, attention_mask=mask, position_ids=tail[:, -new:], cache=self.cache, use_cache=True
        ).hidden[0]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Read:
    """Questions that were read: whose each token is and its position in it, their lengths, each one's last state."""

    owners: Int64[Tensor, "tail"]
    positions: Int64[Tensor, "tail"]
    lengths: Int64[Tensor, "questions"]
    last: Float[Tensor, "questions dim"]
