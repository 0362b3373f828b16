"""Multi3DRefer: F1 of the set of proposals picked for a description of none, one or several objects."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from stereopsis.benchmarks.protocols import Protocol, protocol_of
from stereopsis.benchmarks.records import Metric, Prediction, SampleScore, require_unique, sample_score
from stereopsis.benchmarks.scoring.boxes import IOU_THRESHOLDS, hit_rates, matched_f1
from stereopsis.errors import StereopsisError

METRICS = tuple(Metric(name=f"f1@{threshold}") for threshold in IOU_THRESHOLDS)
TYPES = ("zt_w_d", "zt_wo_d", "st_w_d", "st_wo_d", "mt")
TEMPERATURE = 0.07
THRESHOLD = 0.4
PROTOCOLS = (
    Protocol(
        task="multi3drefer",
        name="cumulative",
        differs="proposals by softmax(cosine / 0.07) until their probabilities reach 0.4; none if the zero target wins",
        used_by=("Video-3D-LLM", "3DRS", "Ross3D"),
        default=True,
    ),
    Protocol(
        task="multi3drefer",
        name="named",
        differs="every object that the system names counts; for systems that name objects instead of scoring them",
        used_by=("Chat-Scene",),
    ),
)


def select(
    scores: Float[np.ndarray, " proposals"],
    zero_target_score: float,
    *,
    temperature: float = TEMPERATURE,
    threshold: float = THRESHOLD,
) -> Int[np.ndarray, " chosen"]:
    """Which proposals are the answer, best first.

    None where the zero target scores above every proposal. Else the proposals in falling order of
    softmax(score / temperature), taken over proposals AND zero target, until their probabilities sum to the
    threshold; so at least one. Equal scores keep the proposals' order.

    Args:
        scores: cosine similarities, one per proposal.
        zero_target_score: cosine similarity of "no such object".
        temperature: of the grounding loss.
        threshold: cumulative probability at which to stop (0.4 in Video-3D-LLM's released code).
    """
    if len(scores) == 0 or zero_target_score > scores.max():
        return np.zeros(0, dtype=np.int64)
    logits = np.append(scores.astype(np.float64), zero_target_score) / temperature
    weights = np.exp(logits - logits.max())
    probabilities = weights[:-1] / weights.sum()
    order = np.argsort(-probabilities, kind="stable")
    enough = np.cumsum(probabilities[order]) >= threshold
    count = int(np.argmax(enough)) + 1 if enough.any() else len(order)
    return order[:count]


def score_named(prediction: Prediction) -> dict[str, float]:
    """F1@0.25 and F1@0.5 of the objects that the system named itself (see `matched_f1`).

    Raises:
        StereopsisError: it scored candidates and named none.
    """
    if prediction.named is None:
        raise StereopsisError(
            f"{prediction.label}: protocol 'named' is for systems that name objects; this one scored candidates, which "
            "protocol 'cumulative' chooses among"
        )
    values = matched_f1(prediction.boxes[list(prediction.named)], prediction.targets)
    return {metric.name: value for metric, value in zip(METRICS, values, strict=True)}


def score_sample(
    prediction: Prediction, *, temperature: float = TEMPERATURE, threshold: float = THRESHOLD
) -> dict[str, float]:
    """F1@0.25 and F1@0.5 of the selected proposals (see `select` and `matched_f1`).

    Raises:
        StereopsisError: proposals have no scores, the zero-target score is missing, or the scores are no
            cosines.
    """
    if prediction.named is not None:
        raise StereopsisError(
            f"{prediction.label}: protocol 'cumulative' needs the candidates' scores with the zero target's last, "
            "because it chooses among them; boxes alone are scored by protocol 'named'"
        )
    if len(prediction.boxes) and len(prediction.scores) == 0:
        raise StereopsisError(f"{prediction.label}: its {len(prediction.boxes)} proposals have no scores")
    if prediction.zero_target_score is None:
        raise StereopsisError(f"{prediction.label}: needs zero_target_score, the similarity of 'no such object'")
    largest = float(np.abs(np.append(prediction.scores, prediction.zero_target_score)).max())
    if largest > 1.01:
        raise StereopsisError(
            f"{prediction.label}: scores must be cosine similarities within [-1, 1], got {largest:.3g}; "
            "pass them before the division by the temperature"
        )
    chosen = select(prediction.scores, prediction.zero_target_score, temperature=temperature, threshold=threshold)
    values = matched_f1(prediction.boxes[chosen], prediction.targets)
    return {metric.name: value for metric, value in zip(METRICS, values, strict=True)}


def choose(prediction: Prediction) -> list[int]:
    """The selected proposals (see `select`), or those that the system named; none where there are no scores."""
    if prediction.named is not None:
        return list(prediction.named)
    if not len(prediction.scores) or prediction.zero_target_score is None:
        return []
    return select(prediction.scores, prediction.zero_target_score).tolist()


def chance(prediction: Prediction) -> dict[str, float]:
    """The exact expected F1 of one proposal picked uniformly at random.

    F1 is 2 / (1 + targets) where it hits any target; 0 where nothing is there to find, as a guess always names
    something. Without proposals: right if nothing is there, else wrong.
    """
    targets = len(prediction.targets)
    if len(prediction.boxes) == 0:
        return {metric.name: float(targets == 0) for metric in METRICS}
    worth = 2.0 / (1 + targets)
    return {metric.name: worth * share for metric, share in zip(METRICS, hit_rates(prediction), strict=True)}


def score(predictions: Sequence[Prediction], protocol: str | None = None) -> list[SampleScore]:
    """F1 of every prediction, in order.

    Raises:
        StereopsisError: as `score_sample`, an annotation was predicted twice, or there is no such protocol.
    """
    require_unique(predictions)
    rules = protocol_of(PROTOCOLS, protocol).name
    worth = score_named if rules == "named" else score_sample
    return [sample_score(prediction, worth(prediction), protocol=rules) for prediction in predictions]
