"""The report in a few figures: what each arm reached, and whether a difference between arms means anything."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from stereopsis.benchmarks import benchmarks_of
from stereopsis.benchmarks.scoring.statistics import Interval, draw_scenes, percentile_interval, ratio
from stereopsis.report.read import ReportedArm, ReportSubject
from stereopsis.report.results import EvaluationRecord
from stereopsis.report.tables import type_baseline, type_columns

EM = "em"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MacroScore:
    """EM averaged over question types, in points.

    Attributes:
        first: of the first arm.
        difference: first - second, or None where there is no second arm. Same scenes drawn for both.
        types: how many question types.
    """

    first: Interval
    difference: Interval | None
    types: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArmHeadline:
    """One arm's figures.

    Attributes:
        arm: its index in the subject.
        em: EM averaged over the question types of the benchmarks answered in words, or None.
        types: how many types that averages over.
        over_blind: EM minus the blind arm's, same scenes, or None.
        majority: the majority's EM averaged over the same types; NaN where unknown.
        found: headline of the first benchmark that points, or None.
        chance: the same of a random proposal; NaN where unknown.
    """

    arm: int
    em: Interval | None
    types: int
    over_blind: Interval | None
    majority: float
    found: Interval | None
    chance: float

    @property
    def times_chance(self) -> float:
        """How many times the chance rate the arm finds the object; NaN where unknown."""
        if self.found is None or not self.chance > 0:
            return math.nan
        return self.found.mean / self.chance


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contrast:
    """EM of one sighted arm minus another's."""

    first: int
    second: int
    difference: Interval

    @property
    def separates(self) -> bool:
        """Whether the interval of the difference leaves 0 out."""
        return self.difference.low > 0 or self.difference.high < 0


def arm_headlines(subject: ReportSubject) -> tuple[ArmHeadline, ...]:
    """Figures of every evaluated arm that sees."""
    blind = next((arm for arm in subject.arms if arm.blind and arm.evaluation is not None), None)
    majority = {
        (column.task, name): value
        for column in type_columns()
        if column.metric == EM
        for name, value in type_baseline(subject, column).items()
    }
    pointing = benchmarks_of("pointing")[0]
    chance = subject.chance.overall.get(pointing.name, {}).get(pointing.headline)
    headlines = []
    for index, arm in enumerate(subject.arms):
        if arm.evaluation is None or arm.blind:
            continue
        questions = questions_of(arm)
        score = macro_em(questions, None if blind is None else questions_of(blind))
        keys = {(record.task, record.type) for record in questions}
        refer = arm.evaluation.tasks.get(pointing.name)
        headlines.append(
            ArmHeadline(
                arm=index,
                em=None if score is None else score.first,
                types=0 if score is None else score.types,
                over_blind=None if score is None else score.difference,
                majority=float(np.mean([majority.get(key, math.nan) for key in keys])) if keys else math.nan,
                found=None if refer is None else refer.overall.get(pointing.headline),
                chance=math.nan if chance is None else chance.mean,
            )
        )
    return tuple(headlines)


def contrasts(subject: ReportSubject) -> tuple[Contrast, ...]:
    """Every evaluated sighted arm against the first of them."""
    seeing = [(p, arm) for p, arm in enumerate(subject.arms) if arm.evaluation is not None and not arm.blind]
    found = []
    for index, arm in seeing[1:]:
        score = macro_em(questions_of(arm), questions_of(seeing[0][1]))
        if score is not None and score.difference is not None:
            found.append(Contrast(first=index, second=seeing[0][0], difference=score.difference))
    return tuple(found)


def questions_of(arm: ReportedArm) -> list[EvaluationRecord]:
    """The arm's records that are right or wrong by exact match."""
    records = () if arm.evaluation is None else arm.evaluation.records
    tasks = {column.task for column in type_columns() if column.metric == EM}
    return [record for record in records if record.task in tasks and EM in record.scores]


def macro_em(
    first: Sequence[EvaluationRecord], second: Sequence[EvaluationRecord] | None = None, *, n: int = 1000
) -> MacroScore | None:
    """EM averaged over question types, each type alike, with intervals from drawing whole scenes.

    With a second arm only questions that both answered count, and both are scored under the same draws.

    Args:
        first: question records of an arm.
        second: of the arm to compare with.
        n: bootstrap draws.

    Returns:
        None where there are no (common) questions.
    """
    others = {record.key: record for record in second} if second is not None else None
    common = [record for record in first if others is None or record.key in others]
    if not common:
        return macro_em(first, None, n=n) if others is not None and first else None
    types = sorted({(record.task, record.type) for record in common})
    one_hot = np.eye(len(types))[[types.index((record.task, record.type)) for record in common]]
    mine = np.array([record.scores["em"] for record in common])
    theirs = np.zeros(len(common)) if others is None else np.array([others[r.key].scores["em"] for r in common])
    columns = np.concatenate([one_hot * mine[:, None], one_hot * theirs[:, None], one_hot], axis=1)
    draws = draw_scenes(columns, [record.scene_id for record in common], n)
    sums = np.concatenate([draws.observed[None], draws.drawn]).reshape(-1, 3, len(types))
    means = 100.0 * np.nanmean(ratio(sums[:, :2], np.broadcast_to(sums[:, 2:], sums[:, :2].shape)), axis=2)
    scenes = len({record.scene_id for record in common})
    gap = means[:, 0] - means[:, 1]
    return MacroScore(
        first=percentile_interval(float(means[0, 0]), means[1:, 0], scenes=scenes),
        difference=None if others is None else percentile_interval(float(gap[0]), gap[1:], scenes=scenes),
        types=len(types),
    )
