"""Chat template and visual placeholders: how words and views become one token sequence."""

import dataclasses
from typing import Any

from stereopsis.data.template_limits import guarded_template
from stereopsis.errors import CheckpointError, StereopsisError

_SLOT = "§QUESTION§"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewTemplate:
    """How one view is written as tokens; each model family has its own.

    Attributes:
        token_ids: placeholder and separator ids of one view, in order.
        cells: for each of them the row-major cell it stands for, -1 for newlines and separators.
        rows: rows of the token grid.
        cols: columns of the token grid.
        offsets: position of each token, counted from the view's first, on every axis of the family's rotary positions
            (Qwen-VL: time, height, width); None where tokens are simply counted.
        advance: how far positions have moved on behind the view; None = one per token.
    """

    token_ids: tuple[int, ...]
    cells: tuple[int, ...]
    rows: int
    cols: int
    offsets: tuple[tuple[int, ...], ...] | None = None
    advance: int | None = None

    @property
    def axes(self) -> int:
        """Axes of the rotary positions."""
        return 1 if self.offsets is None else len(self.offsets[0])

    @property
    def length(self) -> int:
        """How far positions have moved on behind the view."""
        return len(self.token_ids) if self.advance is None else self.advance

    def positions(self, start: int) -> list[tuple[int, ...]]:
        """Position of each token, for a view that begins at ``start``."""
        if self.offsets is None:
            return [(start + offset,) for offset in range(len(self.token_ids))]
        return [tuple(start + offset for offset in offsets) for offsets in self.offsets]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatTemplate:
    """The fixed parts of a one-turn conversation, tokenized.

    Attributes:
        before_views: ids up to the first view.
        after_views: ids between the last view and the question (shared by all conversations of a scene).
        after_question: ids between question and answer.
        after_answer: ids that end the answer; the model learns to say them.
    """

    before_views: tuple[int, ...]
    after_views: tuple[int, ...]
    after_question: tuple[int, ...]
    after_answer: tuple[int, ...]


def chat_template(tokenizer: Any, image_token: str, instruction: str = "") -> ChatTemplate:
    """Split the tokenizer's own chat template around the views, the question and the answer.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template.
        image_token: the text of the family's image placeholder.
        instruction: words put before every question (Video-3D-LLM's spatial instruction); shared by the scene.

    Raises:
        StereopsisError: the instruction holds a special token.
        CheckpointError: the tokenizer has no chat template, or one that hides the placeholders or cannot be used.
    """
    if not tokenizer.chat_template:
        raise CheckpointError("the tokenizer has no chat template; take it from the model's instruction-tuned release")
    ids_of = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    if instruction and not ids_of.isdisjoint(tokenizer(instruction, add_special_tokens=False)["input_ids"]):
        raise StereopsisError(
            f"model.instruction '{instruction[:80]}' holds one of the tokenizer's special tokens, which only the "
            "program may write; remove it"
        )
    content = f"{image_token}\n" + (f"{instruction}\n" if instruction else "") + _SLOT
    opening, whole = _written(tokenizer, content, structured=False)
    if _SLOT not in opening:  # some templates (SmolVLM's) know messages in parts only
        opening, whole = _written(tokenizer, content, structured=True)
    if image_token not in opening or opening.count(_SLOT) != 1 or whole.count(_SLOT) != 2:
        raise CheckpointError("the tokenizer's chat template does not keep the user's words as they are")
    head, after_question = opening.split(_SLOT)
    before, after_views = head.split(image_token, 1)

    def ids(text: str) -> tuple[int, ...]:
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else ()

    end = whole.split(_SLOT)[2].rstrip("\n")
    return ChatTemplate(
        before_views=ids(before),
        after_views=ids(after_views),
        after_question=ids(after_question),
        after_answer=ids(end),
    )


def _written(tokenizer: Any, content: str, *, structured: bool) -> tuple[str, str]:
    """The question up to where the answer begins, and question and answer, in the tokenizer's chat template."""

    def turn(role: str, words: str) -> dict[str, Any]:
        return {"role": role, "content": [{"type": "text", "text": words}] if structured else words}

    asked = [turn("user", content)]
    with guarded_template():
        opening = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        return opening, tokenizer.apply_chat_template([*asked, turn("assistant", _SLOT)], tokenize=False)
