"""Reconstructions side by side: what was hidden, what every arm made of it, and what a trivial guess gives."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from stereopsis.benchmarks.scoring.statistics import Interval, bootstrap_by_scene
from stereopsis.report.images import EmbeddedImage, embed_file, fingerprint
from stereopsis.report.read import Picture, ReportSubject

MOST_GROUPS = 6
CONTEXT_SIDE = 96


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShownReconstruction:
    """One arm's picture; ``psnr`` in dB, NaN where not measured."""

    arm: int
    image: EmbeddedImage
    psnr: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureGroup:
    """One target with all that arms made of it.

    Attributes:
        scene_id: the scene.
        view: the hidden view's name, or empty.
        target: the true picture.
        reconstructions: one for each arm that has one.
        baseline: a trivial guess, or None.
        baseline_psnr: its PSNR, dB.
        context: the views that the model saw.
    """

    scene_id: str
    view: str
    target: EmbeddedImage
    reconstructions: tuple[ShownReconstruction, ...]
    baseline: EmbeddedImage | None
    baseline_psnr: float
    context: tuple[EmbeddedImage, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureScore:
    """Mean PSNR of an arm over all its pictures of one kind, and of the best trivial guess on the same pictures.

    Attributes:
        arm: its place in the subject.
        count: how many pictures.
        psnr: dB.
        guess: name of the trivial guess whose mean is highest; empty where none was measured.
        guess_psnr: its mean, dB; NaN where none was measured.
        margin: the arm's PSNR minus that guess's, picture by picture, with an interval over scenes.
    """

    arm: int
    count: int
    psnr: float
    guess: str
    guess_psnr: float
    margin: Interval

    @property
    def verdict(self) -> str:
        """Whether the arm imagines more than a guess that looks at nothing; empty where that was not measured."""
        if not self.guess:
            return ""
        if math.isnan(self.margin.low):
            return "one scene tells nothing yet"
        if self.margin.low > 0:
            return "better than every trivial guess"
        if self.margin.high < 0:
            return "worse than a trivial guess: it has not learnt to imagine this"
        return "not told apart from a trivial guess"


def picture_groups(subject: ReportSubject, kind: str) -> tuple[PictureGroup, ...]:
    """At most `MOST_GROUPS` targets of a kind, in the order they were written, arms side by side."""
    grouped: dict[tuple[str, ...], list[tuple[int, Picture]]] = {}
    for index, arm in enumerate(subject.arms):
        for picture in arm.run.pictures if arm.run is not None else ():
            if picture.kind == kind:
                shown = [fingerprint(file) for file in (picture.target, *picture.context)]
                grouped.setdefault((picture.scene_id, picture.view, *shown), []).append((index, picture))
    return tuple(_group(members) for members in list(grouped.values())[:MOST_GROUPS])


def _group(members: list[tuple[int, Picture]]) -> PictureGroup:
    first = members[0][1]
    guess = next((picture for _, picture in members if picture.baseline is not None), None)
    return PictureGroup(
        scene_id=first.scene_id,
        view=first.view,
        target=embed_file(first.target),
        reconstructions=tuple(
            ShownReconstruction(arm=index, image=embed_file(picture.reconstruction), psnr=picture.psnr)
            for index, picture in members
        ),
        baseline=None if guess is None or guess.baseline is None else embed_file(guess.baseline),
        baseline_psnr=math.nan if guess is None else guess.baseline_psnr,
        context=tuple(embed_file(file, largest=CONTEXT_SIDE) for file in first.context),
    )


def picture_scores(subject: ReportSubject, kind: str) -> tuple[PictureScore, ...]:
    """Mean PSNR of every arm over all its pictures of a kind (not only those that are shown)."""
    scores = []
    for index, arm in enumerate(subject.arms):
        pictures = [p for p in (arm.run.pictures if arm.run is not None else ()) if p.kind == kind]
        if pictures:
            scores.append(_score(index, pictures))
    return tuple(scores)


def _score(arm: int, pictures: Sequence[Picture]) -> PictureScore:
    common = set.intersection(*(set(p.guesses) for p in pictures))
    means = {name: float(np.mean([p.guesses[name] for p in pictures])) for name in sorted(common)}
    guess = max((name for name in means if not math.isnan(means[name])), key=means.__getitem__, default="")
    measured = [p for p in pictures if guess and math.isfinite(p.psnr - p.guesses[guess])]
    gaps = np.array([p.psnr - p.guesses[guess] for p in measured])
    unknown = Interval(mean=math.nan, low=math.nan, high=math.nan)
    return PictureScore(
        arm=arm,
        count=len(pictures),
        psnr=float(np.mean([p.psnr for p in pictures])),
        guess=guess,
        guess_psnr=means.get(guess, math.nan),
        margin=bootstrap_by_scene(gaps, [p.scene_id for p in measured]) if measured else unknown,
    )
