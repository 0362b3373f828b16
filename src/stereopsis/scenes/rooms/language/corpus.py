"""All words of many rooms, one line each, to train a tokenizer on."""

from collections.abc import Iterable, Iterator

from stereopsis.annotations import Annotation
from stereopsis.scenes.rooms.language.annotate import annotate
from stereopsis.scenes.rooms.language.config import LanguageConfig
from stereopsis.scenes.rooms.language.views import view_annotations


def corpus(seeds: Iterable[int], config: LanguageConfig = LanguageConfig()) -> Iterator[str]:  # noqa: B008
    """Every line of text about the rooms with these seeds and about each of their views.

    Args:
        seeds: of rooms; a few hundred hold every word (`split_seeds("train", 300)`).
        config: how much is said about each room.
    """
    from stereopsis.scenes.rooms.room import render_room

    for seed in seeds:
        room = render_room(seed)
        for record in annotate(room.scene, seed, config):
            yield from lines(record)
        for index, instances in enumerate(room.instances):
            for said in view_annotations(room.scene, instances, index, seed):
                yield from (said.question, said.answer)


def lines(record: Annotation) -> Iterator[str]:
    """The non-empty texts of one record."""
    yield from (text for text in (record.situation, record.text, *record.options, *record.answers) if text)
