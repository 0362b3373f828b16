"""What is said about procedural rooms: true, seen, and not to be guessed."""

from stereopsis.scenes.rooms.language.annotate import annotate
from stereopsis.scenes.rooms.language.config import LANGUAGE_VERSION, LanguageConfig, Margins, ViewConfig
from stereopsis.scenes.rooms.language.corpus import corpus, lines
from stereopsis.scenes.rooms.language.splits import SPLITS, split_of, split_seeds
from stereopsis.scenes.rooms.language.views import ViewAnnotation, view_annotations

__all__ = [
    "LANGUAGE_VERSION",
    "SPLITS",
    "LanguageConfig",
    "Margins",
    "ViewAnnotation",
    "ViewConfig",
    "annotate",
    "corpus",
    "lines",
    "split_of",
    "split_seeds",
    "view_annotations",
]
