"""Using a trained model: enter a scene once, then ask, find and describe as often as you like."""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from stereopsis.benchmarks.scan2cap.prompt import PROMPT as DESCRIBE
from stereopsis.benchmarks.scanrefer.prompt import PREFIX as IDENTIFY
from stereopsis.benchmarks.sqa3d.prompt import SUFFIX as SHORT_ANSWER
from stereopsis.data.collate import Collator
from stereopsis.data.pack import GROUND_TOKEN, Conversation, ScenePack
from stereopsis.models.spatial import SpatialModel


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """Grounding result of one query: cosine with each of the scene's proposals, and with the zero target."""

    cosines: Float[Tensor, "proposals"]
    zero_cosine: float


def _asked(task: str, prompt: str, answer: str) -> Conversation:
    return Conversation(id="", task=task, prompt=prompt, answer=answer)


class EnteredScene:
    """A scene whose views are encoded once; every conversation reuses the cached key-value prefix.

    Args:
        model: a trained model.
        pack: the scene (its conversations are ignored).
    """

    def __init__(self, model: SpatialModel, pack: ScenePack) -> None:
        self.model, self.pack = model, pack
        self.collator: Collator = model.collator(generation=True)
        self.batch = self.collator([pack.replace(conversations=())]).to(model.device)
        with torch.inference_mode():
            self.visual = model.visual_inputs(self.batch)
            tokens = model.place(self.visual.tokens, self.batch)
            decoded = self._decode(model.embed(self.batch), tokens, None, None, self.batch.position_ids)
        self.prefix_length = self.batch.input_ids.shape[1]
        self.cache = decoded.cache
        self.hidden = decoded.hidden

    def ask(self, question: str, *, max_new_tokens: int = 24) -> str:
        """Answer one question in a word or a phrase."""
        prompt = f"{question} {SHORT_ANSWER}"
        return self.answer([_asked("scanqa", prompt, "")], max_new_tokens=max_new_tokens)[0]

    def describe(self, box: Sequence[float], *, max_new_tokens: int = 48) -> str:
        """Describe what is at the centre of a box [6], aligned frame, metres."""
        asked = dataclasses.replace(_asked("scan2cap", DESCRIBE, ""), point=(box[0], box[1], box[2]))
        return self.answer([asked], max_new_tokens=max_new_tokens)[0]

    def find(self, expression: str) -> list[float] | None:
        """The proposal [6] that an expression means, aligned frame, metres; None where the model finds none."""
        asked = _asked("scanrefer", f"{IDENTIFY}\n{expression}", GROUND_TOKEN)
        found = self.score_proposals([asked])[0]
        if not len(found.cosines) or found.zero_cosine > float(found.cosines.max()):
            return None
        return [float(v) for v in self.pack.proposals.boxes[int(found.cosines.argmax())]]

    @torch.inference_mode()
    def answer(self, conversations: Sequence[Conversation], *, max_new_tokens: int = 24) -> list[str]:
        """Greedy answers to a batch of questions."""
        if not conversations:
            return []
        ids, lengths, embeddings = self._questions(conversations)
        number, width = ids.shape
        positions = self.prefix_length + torch.arange(width, device=ids.device).expand(number, width)
        known = positions - self.prefix_length < lengths[:, None]
        cache = self._repeat(number)
        hidden = self._decode(embeddings, None, cache, known, positions).hidden
        last = hidden[torch.arange(number), lengths - 1]
        end = self.collator.tokenizer.eos_token_id
        finished = torch.zeros(number, dtype=torch.bool, device=ids.device)
        said: list[Tensor] = []
        for step in range(max_new_tokens):
            token = self.model.adapter.logits(last).argmax(-1)
            token = torch.where(finished, torch.full_like(token, end), token)
            said.append(token)
            finished |= token == end
            if bool(finished.all()):
                break
            known = torch.cat([known, torch.ones_like(known[:, :1])], dim=1)
            place = (self.prefix_length + lengths + step)[:, None]
            last = self._decode(self.model.adapter.embed(token[:, None]), None, cache, known, place).hidden[:, 0]
        texts = []
        for row in torch.stack(said, dim=1).tolist():
            words = row[: row.index(end)] if end in row else row
            texts.append(self.collator.tokenizer.decode(words, skip_special_tokens=True).strip())
        return texts

    @torch.inference_mode()
    def score_proposals(self, conversations: Sequence[Conversation]) -> list[Found]:
        """Score the scene's proposals for a batch of referring expressions."""
        if not conversations:
            return []
        ids, lengths, embeddings = self._questions(conversations)
        number, width = ids.shape
        positions = self.prefix_length + torch.arange(width, device=ids.device).expand(number, width)
        known = positions - self.prefix_length < lengths[:, None]
        hidden = self._decode(embeddings, None, self._repeat(number), known, positions).hidden
        queries = hidden[torch.arange(number), lengths - 1]
        scene = torch.zeros(number, dtype=torch.int64, device=ids.device)
        logits = self.model.grounding(queries, scene, self.model.objects(self.visual, self.batch)).logits
        cosines = (logits * self.model.grounding.temperature).float().cpu()
        return [Found(cosines=row[:-1], zero_cosine=float(row[-1])) for row in cosines]

    def _questions(self, conversations: Sequence[Conversation]) -> tuple[Tensor, Tensor, Tensor]:
        """Right-padded ids, their lengths, and embeddings with <coord> points added."""
        questions = [self.collator.conversation_ids(c)[0] for c in conversations]
        lengths = torch.tensor([len(q) for q in questions])
        ids = torch.full((len(questions), int(lengths.max())), self.collator.pad_id)
        for row, question in enumerate(questions):
            ids[row, : len(question)] = torch.tensor(question)
        ids, lengths = ids.to(self.model.device), lengths.to(self.model.device)
        embeddings = self.model.adapter.embed(ids)
        points = [c.point for c in conversations if c.point is not None]
        if points:
            encoding = self.model.encoding(torch.tensor(points, device=ids.device)).to(embeddings.dtype)
            embeddings = embeddings.clone()
            embeddings[ids == self.collator.coord_id] += encoding
        return ids, lengths, embeddings

    def _repeat(self, times: int) -> Any:
        cache = copy.deepcopy(self.cache)
        cache.batch_repeat_interleave(times)
        return cache

    def _decode(
        self, embeddings: Tensor, tokens: Tensor | None, cache: Any, known: Tensor | None, positions: Tensor
    ) -> Any:
        """Run new tokens behind the cache; ``known`` marks the real ones among all tokens after the prefix."""
        number, new = embeddings.shape[:2]
        past = 0 if cache is None else cache.get_seq_length()
        causal = torch.ones(new, past + new, dtype=torch.bool, device=embeddings.device).tril(past)
        allowed = causal.expand(number, -1, -1)
        if known is not None:
            keys = torch.cat([known.new_ones(number, past + new - known.shape[1]), known], dim=1)
            itself = torch.eye(new, dtype=torch.bool, device=keys.device)
            allowed = allowed & keys[:, None]
            allowed = torch.cat([allowed[..., :past], allowed[..., past:] | itself], dim=-1)
        mask = torch.zeros(allowed.shape, dtype=embeddings.dtype, device=embeddings.device)
        mask = mask.masked_fill(~allowed, torch.finfo(mask.dtype).min)
        return self.model.adapter.decode(
            embeddings,
            tokens,
            attention_mask=mask[:, None],
            position_ids=positions,
            cache=cache,
            use_cache=True,
        )
