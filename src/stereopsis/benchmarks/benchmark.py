"""A benchmark: one object that says everything that the rest of the package has to know about it."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from stereopsis.annotations import Annotation, AnnotationRecord
from stereopsis.benchmarks.files.annotation_files import AnnotationFile
from stereopsis.benchmarks.files.llava_style import LlavaRecord
from stereopsis.benchmarks.protocols import Protocol, protocol_of
from stereopsis.benchmarks.published import Published
from stereopsis.benchmarks.records import Metric, Prediction, SampleScore
from stereopsis.errors import StereopsisError

Kind = Literal["text", "caption", "pointing", "choice", "number"]
KINDS: tuple[Kind, ...] = ("text", "caption", "pointing", "choice", "number")

SCANNET_SCENES = r"scene\d{4}_\d{2}"


def outer_spaces_off(text: str) -> str:
    """The plainest form in which answers are compared."""
    return text.strip()


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Benchmark:
    """What is asked, what is expected, what an answer is worth, and what others have reached.

    Declared once, as ``BENCHMARK`` in the benchmark's own folder, or by another package under the entry point
    ``stereopsis.benchmarks``; everything else asks this object (docs/extending.md).

    Attributes:
        name: by which commands, recipes and files call it.
        title: by which people do.
        kind: how it is answered: "text" (a word or phrase), "caption" (a description of the object in a box),
            "pointing" (candidate boxes), "choice" (the letter of an option), "number". A "choice" benchmark may
            hold questions without `Annotation.options`; those are answered with a number.
        read: the authors' annotation file to records; ids are unique.
        prompt: the words that ask for an annotation; a `Protocol` may have its own.
        target: the words that a model is trained to answer.
        normalise: an answer in the form in which it is compared.
        score: predictions and a protocol's name to one score per prediction, in order; takes ``meteor`` where one of
            `metrics` is METEOR.
        metrics: in the order of tables, the one that the benchmark is known by first.
        headline: the metric that stands for the benchmark where there is room for one.
        protocols: the default first.
        splits: split -> samples; "train" as Video-3D-LLM trains on it.
        evaluated: the split on which papers report.
        citation: authors, title, venue, year.
        published: figures that papers print.
        files: what its file is called in a folder, "{split}" standing for the split.
        processed: all of Video-3D-LLM's processed records in a file, and its split where that is known, to records with
            the places that they were read from; None where there is no such form.
        submitted: a record of a file that the authors' own benchmark takes, and where it stands, to one with
            ``sample_id`` and ``pred_response``; None (also as its answer) where that is not its form.
        submission: predictions to what the authors' server takes, as plain data; None where there is none.
        zero_target: whether "no such object" may be the answer (pointing); else there is exactly one target.
        choose: which candidates a prediction means (pointing), as places in its boxes.
        chance: metric -> expected score of a guess, as a fraction; None where a guess has none.
        type_groups: reported type -> the question types that it averages.
        over: what the value over everything averages: "samples", or "types" (groups and types outside any group
            alike).
        max_new_tokens: longest answer.
        examples: question types that a report shows first.
        data: what its scenes are, for people.
        scenes: how its scenes are called (a regular expression); published figures are set beside results on these.
        order: its place in tables; the five of Video-3D-LLM stand at 10, 20, ... 50.
    """

    name: str
    title: str
    kind: Kind
    read: Callable[[AnnotationFile], tuple[AnnotationRecord, ...]]
    prompt: Callable[[Annotation], str]
    target: Callable[[Annotation], str]
    score: Callable[..., list[SampleScore]]
    metrics: tuple[Metric, ...]
    headline: str
    protocols: tuple[Protocol, ...]
    splits: Mapping[str, int]
    evaluated: str
    citation: str
    normalise: Callable[[str], str] = outer_spaces_off
    published: tuple[Published, ...] = ()
    files: tuple[str, ...] = ()
    processed: Callable[[Sequence[LlavaRecord], str | None], Iterable[tuple[str, AnnotationRecord]]] | None = None
    submitted: Callable[[Mapping[str, Any], str], Mapping[str, Any] | None] | None = None
    submission: Callable[[Sequence[Prediction]], list[dict[str, Any]]] | None = None
    zero_target: bool = False
    choose: Callable[[Prediction], list[int]] | None = None
    chance: Callable[[Prediction], dict[str, float]] | None = None
    type_groups: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    over: Literal["samples", "types"] = "samples"
    max_new_tokens: int = 32
    examples: tuple[str, ...] = ()
    data: str = "ScanNet"
    scenes: str = SCANNET_SCENES
    order: int = 1000

    def __post_init__(self) -> None:
        named = [metric.name for metric in self.metrics]
        problems = [
            text
            for wrong, text in (
                (not re.fullmatch(r"[a-z][a-z0-9_]*", self.name), "its name must be lower case letters and digits"),
                (self.kind not in KINDS, f"its kind '{self.kind}' must be one of {', '.join(KINDS)}"),
                (len(set(named)) < len(named), "two of its metrics have one name"),
                (self.headline not in named, f"its headline '{self.headline}' is none of its metrics"),
                ([p.default for p in self.protocols] != [True] + [False] * (len(self.protocols) - 1),
                 "exactly its first protocol must be the default"),
                (any(p.task != self.name for p in self.protocols), "a protocol names another task"),
                (any(row.task != self.name for row in self.published), "a published figure names another task"),
                (self.evaluated not in self.splits, f"it has no split '{self.evaluated}'"),
                (self.kind == "pointing" and self.choose is None, "a pointing benchmark must say what it chooses"),
            )
            if wrong
        ]  # fmt: skip
        if problems:
            raise StereopsisError(f"benchmark '{self.name}': {'; '.join(problems)}")

    @property
    def points(self) -> bool:
        """Whether it is answered with boxes instead of words."""
        return self.kind == "pointing"

    @property
    def captions(self) -> bool:
        """Whether an object is described."""
        return self.kind == "caption"

    @property
    def one_target(self) -> bool:
        """Whether every annotation speaks of exactly one object."""
        return self.captions or (self.points and not self.zero_target)

    def unanswered(self, annotations: Iterable[Annotation]) -> bool:
        """Whether these are questions of a split whose answers the authors keep, to be sent to them."""
        return self.submission is not None and not any(text.strip() for each in annotations for text in each.answers)

    @property
    def scored_alone(self) -> bool:
        """Whether what a sample is worth does not depend on the other samples."""
        return not any(metric.over_set for metric in self.metrics)

    @property
    def has_meteor(self) -> bool:
        """Whether one of its metrics is METEOR, which needs Java."""
        return any(metric.meteor for metric in self.metrics)

    def metric(self, name: str) -> Metric:
        """One of its metrics.

        Raises:
            StereopsisError: there is none of that name.
        """
        for metric in self.metrics:
            if metric.name == name:
                return metric
        raise StereopsisError(f"{self.name} has no metric '{name}' (it has {', '.join(m.name for m in self.metrics)})")

    def protocol(self, name: str | None = None) -> Protocol:
        """One of its protocols, or its default.

        Raises:
            StereopsisError: there is none of that name.
        """
        return protocol_of(self.protocols, name)
