"""Packing: scenes with their conversations become one padded batch."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from stereopsis.annotations import COORD_TOKEN, GROUND_TOKEN
from stereopsis.data.batch import Batch
from stereopsis.data.layout import VisualLayout
from stereopsis.data.pack import Conversation, ScenePack
from stereopsis.data.prompt import ChatTemplate, ViewTemplate
from stereopsis.errors import StereopsisError


@dataclasses.dataclass(kw_only=True)
class _Row:
    """One sample's sequence while it grows."""

    axes: int
    ids: list[int] = dataclasses.field(default_factory=list)
    positions: list[tuple[int, ...]] = dataclasses.field(default_factory=list)
    segments: list[int] = dataclasses.field(default_factory=list)
    labels: list[int] = dataclasses.field(default_factory=list)

    def extend(self, ids: Sequence[int], start: int, segment: int) -> int:
        """Append words that begin at a position; returns the position behind them."""
        self.ids += ids
        self.positions += [(position,) * self.axes for position in range(start, start + len(ids))]
        self.segments += [segment] * len(ids)
        self.labels += [-100] * len(ids)
        return start + len(ids)

    def extend_view(self, view: ViewTemplate, start: int) -> int:
        """Append a view to the prefix; returns the position behind it."""
        self.ids += view.token_ids
        self.positions += view.positions(start)
        self.segments += [0] * len(view.token_ids)
        self.labels += [-100] * len(view.token_ids)
        return start + view.length


def attention_allowed(segments: Int64[Tensor, "batch tokens"]) -> Bool[Tensor, "batch tokens tokens"]:
    """Who sees whom: causal; a conversation sees the shared prefix and itself, never another conversation.

    Padding positions see themselves only, so that no row of a softmax is empty.
    """
    tokens = segments.shape[1]
    causal = torch.ones(tokens, tokens, dtype=torch.bool, device=segments.device).tril()
    query, key = segments[:, :, None], segments[:, None, :]
    allowed = causal & (key >= 0) & (query >= 0) & ((key == 0) | (key == query))
    return allowed | torch.eye(tokens, dtype=torch.bool, device=segments.device)


class Collator:
    """Turns scene packs into a `Batch`.

    Args:
        tokenizer: the backbone's tokenizer (with <coord> and <ground> as special tokens).
        chat: its chat template, split.
        view: how the family writes one view.
        generation: leave the answers out (evaluation): every conversation ends where the answer would begin;
            grounding conversations keep their <ground> token.
    """

    def __init__(self, tokenizer: Any, chat: ChatTemplate, view: ViewTemplate, *, generation: bool = False) -> None:
        self.tokenizer, self.chat, self.view, self.generation = tokenizer, chat, view, generation
        self.ground_id = tokenizer.convert_tokens_to_ids(GROUND_TOKEN)
        self.coord_id = tokenizer.convert_tokens_to_ids(COORD_TOKEN)
        self.pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        placeholders = (token for token, cell in zip(view.token_ids, view.cells, strict=True) if cell >= 0)
        special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
        self._special = {self.ground_id, self.coord_id, *placeholders, *special, *tokenizer.all_special_ids}
        self._special.discard(tokenizer.unk_token_id)  # it stands for letters that the vocabulary lacks
        self._known: dict[str, list[int]] = {}

    def __call__(self, packs: Sequence[ScenePack]) -> Batch:
        """Pack scenes; all views of a batch must share one image size and one token grid."""
        rows = [self._row(pack) for pack in packs]
        width = max(len(row.ids) for row in rows)

        def pad(field: str, value: int) -> Int64[Tensor, "batch tokens *axes"]:
            tensors = [torch.tensor(getattr(row, field), dtype=torch.int64) for row in rows]
            return pad_sequence(tensors, batch_first=True, padding_value=value)

        input_ids, segments = pad("ids", self.pad_id), pad("segments", -1)
        cached = [pack.encoder_tokens for pack in packs]
        flat = torch.arange(input_ids.numel()).view_as(input_ids)
        queries = flat[(input_ids == self.ground_id) & (segments > 0)]
        coords = flat[(input_ids == self.coord_id) & (segments > 0)]
        points = [c.point for pack in packs for c in pack.conversations if c.point is not None]
        positions = pad("positions", 0)
        return Batch(
            input_ids=input_ids,
            position_ids=positions.squeeze(-1) if self.view.axes == 1 else positions,
            segments=segments,
            labels=pad("labels", -100),
            layout=self._layout(packs, width),
            images=torch.cat([p.images for p in packs]),
            coordinates=torch.cat([p.coordinates for p in packs]),
            coordinates_valid=torch.cat([p.coordinates_valid for p in packs]),
            cameras=torch.cat([p.cameras for p in packs]),
            intrinsics=torch.cat([p.intrinsics for p in packs]),
            encoder_tokens=None if any(c is None for c in cached) else torch.cat([c for c in cached if c is not None]),
            proposals=tuple(p.proposals for p in packs),
            query_index=queries,
            query_scene=queries // width,
            query_targets=_query_targets(packs),
            coord_index=coords,
            coord_xyz=torch.tensor(points, dtype=torch.float32).reshape(-1, 3),
            targets=_targets(packs),
            scene_ids=tuple(p.scene_id for p in packs),
            conversation_ids=tuple(tuple(c.id for c in p.conversations) for p in packs),
        )

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a piece of text, without special additions; remembered, since rooms repeat themselves."""
        if text not in self._known:
            if len(self._known) > 200_000:
                self._known.clear()
            self._known[text] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return self._known[text]

    def words(self, text: str) -> list[int]:
        """Token ids of somebody's words: what looks like a special token is spelt out, and means nothing special.

        Raises:
            StereopsisError: the tokenizer cannot spell it out.
        """
        ids = self.tokenize(text)
        if self._special.isdisjoint(ids):
            return ids
        spelt: list[int] = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        if not self._special.isdisjoint(spelt):
            raise StereopsisError(
                f"the words '{text[:80]}' hold a special token that this model's tokenizer cannot spell out; remove it"
            )
        return spelt

    def prefix_end(self, views: int) -> int:
        """The position of the first token behind the shared prefix of a scene with this many views."""
        return len(self.chat.before_views) + self.view.length * views + len(self.chat.after_views)

    def prefix_ids(self, views: int) -> list[int]:
        """Ids of the shared prefix of a scene with this many views."""
        return [*self.chat.before_views, *(self.view.token_ids * views), *self.chat.after_views]

    def conversation_ids(self, conversation: Conversation) -> tuple[list[int], list[int]]:
        """Ids of the question (with what leads to the answer) and of the answer (with what ends it).

        The only special tokens in them are the program's own: one <coord> for the conversation's point, and <ground>
        where it points. Whatever else looks like one is spelt out (`words`).

        Raises:
            StereopsisError: a conversation with a point has not one <coord> in its prompt.
        """
        question = [*self._prompt_ids(conversation), *self.chat.after_question]
        if conversation.grounds:
            return [*question, self.ground_id], []
        if self.generation:
            return question, []
        return question, [*self.words(conversation.answer), *self.chat.after_answer]

    def _prompt_ids(self, conversation: Conversation) -> list[int]:
        if conversation.point is None:
            return self.words(conversation.prompt)
        parts = conversation.prompt.split(COORD_TOKEN)
        if len(parts) != 2:
            raise StereopsisError(
                f"conversation '{conversation.id}': expected one {COORD_TOKEN} in its prompt, which stands for its "
                f"point, found {len(parts) - 1}; correct the words"
            )
        ids = self.tokenize(conversation.prompt)
        if self._special.intersection(ids) == {self.coord_id} and ids.count(self.coord_id) == 1:
            return ids
        return [*self.words(parts[0]), self.coord_id, *self.words(parts[1])]

    def _row(self, pack: ScenePack) -> _Row:
        row = _Row(axes=self.view.axes)
        start = row.extend(self.chat.before_views, 0, 0)
        for _ in range(len(pack.images)):
            start = row.extend_view(self.view, start)
        start = row.extend(self.chat.after_views, start, 0)
        for number, conversation in enumerate(pack.conversations, start=1):
            question, answer = self.conversation_ids(conversation)
            first = len(row.ids)
            row.extend([*question, *answer], start, number)
            for offset, token in enumerate(answer):
                row.labels[first + len(question) + offset - 1] = token
        return row

    def _layout(self, packs: Sequence[ScenePack], width: int) -> VisualLayout:
        template = torch.tensor(self.view.cells)
        cells = torch.nonzero(template >= 0).flatten()
        order = cells[torch.argsort(template[cells])].view(self.view.rows, self.view.cols)
        index, scene = [], []
        for number, pack in enumerate(packs):
            for view in range(len(pack.images)):
                index.append(order + len(self.chat.before_views) + view * len(template) + number * width)
                scene.append(number)
        return VisualLayout(index=torch.stack(index), scene=torch.tensor(scene))


def _query_targets(packs: Sequence[ScenePack]) -> Bool[Tensor, "queries max_proposals"]:
    """[queries, widest proposal list] True for each query's right proposals."""
    widest = max(len(pack.proposals.boxes) for pack in packs)
    asked = [c for pack in packs for c in pack.conversations if c.grounds]
    targets = torch.zeros(len(asked), widest, dtype=torch.bool)
    for row, conversation in enumerate(asked):
        targets[row, list(conversation.positives)] = True
    return targets


def _targets(packs: Sequence[ScenePack]) -> dict[str, Tensor]:
    """Teachers' targets that every pack of the batch has."""
    joined = {
        key: torch.cat([p.view_targets[key] for p in packs])
        for key in packs[0].view_targets
        if all(key in p.view_targets for p in packs)
    }
    for key in packs[0].scene_targets:
        if all(key in p.scene_targets for p in packs):
            joined[key] = torch.stack([p.scene_targets[key] for p in packs])
    return joined
