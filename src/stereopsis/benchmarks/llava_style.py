"""Annotations as Video-3D-LLM prepares them: ``data/processed/*_llava_style.json``.

Each record has ``id``, ``video`` ("scannet/SCENE"), ``conversations`` (what the human asks, what the model should say),
``metadata`` (``question_type``, ``ann_id``, ``object_id``, ``answers``, as the benchmark has it) and boxes. Ross3D and
3DRS use the same files.
"""

import dataclasses
from typing import Any

from stereopsis.benchmarks.annotation_files import Entry

_IMAGE = "<image>"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LlavaRecord:
    """The parts that all benchmarks share.

    Attributes:
        entry: the record itself.
        id: its id, the ``sample_id`` of prediction files.
        scene_id: the scene.
        asked: the human's words, without the image token.
        answer: the words that the model is trained to say.
        metadata: of the record; empty where it has none.
    """

    entry: Entry
    id: str
    scene_id: str
    asked: str
    answer: str
    metadata: Entry

    def between(self, prefix: str, suffix: str) -> str:
        """The human's words without the benchmark's instruction.

        Raises:
            StereopsisError: nothing is left.
        """
        words = self.asked.removeprefix(prefix).strip().removesuffix(suffix).strip()
        if not words:
            raise self.entry.wrong("conversations", f"a question or description around '{prefix or suffix}'")
        return words


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
        if speaker not in ("human", "gpt") or speaker in said or not isinstance(value, str):
            raise turn.wrong("from", "'human' and then 'gpt', once each, with a text 'value'")
        said[speaker] = value
    if set(said) != {"human", "gpt"}:
        raise entry.wrong("conversations", "one turn of 'human' and one of 'gpt'")
    metadata = entry.child("metadata") if "metadata" in entry.content else Entry(f"{entry.place}: metadata", {})
    return LlavaRecord(
        entry=entry,
        id=entry.name("id"),
        scene_id=entry.text("video").rstrip("/").rsplit("/", 1)[-1],
        asked=said["human"].replace(_IMAGE, "", 1).strip(),
        answer=said["gpt"],
        metadata=metadata,
    )
