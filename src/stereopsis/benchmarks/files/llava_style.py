"""Annotations as Video-3D-LLM prepares them: ``data/processed/*_llava_style.json``.

Each record has ``id``, ``video`` ("scannet/SCENE"), ``conversations`` (what the human asks, what the model should say),
``metadata`` (``dataset``, ``question_type``, ``ann_id``, ``object_id``, ``answers``, as the benchmark has it) and
boxes. Ross3D and 3DRS use the same files.
"""

import dataclasses
from typing import Any

from stereopsis.benchmarks.files.annotation_files import Entry

_IMAGE = "<image>"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LlavaRecord:
    """The parts that all benchmarks share.

    Attributes:
        entry: the record itself.
        id: its id, the ``sample_id`` of prediction files.
        scene_id: the scene.
        words: the human's words, to the letter, without the image token and the one blank behind it.
        answer: the words that the model is trained to say.
        metadata: of the record; empty where it has none.
    """

    entry: Entry
    id: str
    scene_id: str
    words: str
    answer: str
    metadata: Entry

    @property
    def place(self) -> str:
        """Where it was read, for error messages."""
        return self.entry.place

    def between(self, before: str, after: str) -> str:
        """The bare question or description, without the benchmark's instruction around it.

        Its own blanks are kept. Where the instruction is another one, what is left of it stays.

        Args:
            before: what the benchmark's prompt begins with, with the blank or line break behind it.
            after: what it ends with, with the blank or line break before it.

        Raises:
            StereopsisError: nothing is left.
        """
        words = self.words
        if words.startswith(before) and words.endswith(after) and len(words) >= len(before) + len(after):
            bare = words[len(before) : len(words) - len(after)]
        else:
            bare = words.strip().removeprefix(before.strip()).strip().removesuffix(after.strip()).strip()
        if not bare.strip():
            around = before.strip() or after.strip()
            raise self.entry.wrong("conversations", f"a question or description around '{around}'")
        return bare

    def said(self) -> str:
        """The answer.

        Raises:
            StereopsisError: it is empty.
        """
        if not self.answer.strip():
            raise self.entry.wrong("conversations", "an answer of 'gpt' that is not empty")
        return self.answer


def is_llava_style(content: Any) -> bool:
    """Whether this is a list of such records."""
    return (
        isinstance(content, list) and bool(content) and isinstance(content[0], dict) and "conversations" in content[0]
    )


def llava_record(entry: Entry) -> LlavaRecord:
    """One record.

    Raises:
        StereopsisError: a part is missing or has another form.
    """
    said: dict[str, str] = {}
    for turn in entry.children("conversations"):
        speaker, value = turn.text("from"), turn.content.get("value")
        expected = "gpt" if said else "human"
        if speaker != expected or len(said) == 2 or not isinstance(value, str):
            raise turn.wrong("from", "'human' and then 'gpt', once each, with a text 'value'")
        said[speaker] = value
    if set(said) != {"human", "gpt"}:
        raise entry.wrong("conversations", "one turn of 'human' and one of 'gpt'")
    metadata = entry.child("metadata") if "metadata" in entry.content else Entry(f"{entry.place}: metadata", {})
    return LlavaRecord(
        entry=entry,
        id=entry.name("id"),
        scene_id=entry.text("video").rstrip("/").rsplit("/", 1)[-1],
        words=_words(said["human"]),
        answer=said["gpt"],
        metadata=metadata,
    )


def _words(asked: str) -> str:
    if not asked.startswith(_IMAGE):
        return asked.replace(_IMAGE, "", 1).strip()
    body = asked.removeprefix(_IMAGE)
    return body[1:] if body[:1] in (" ", "\n") else body
