"""Scan2Cap: captions of an object that has to be located first (CIDEr, METEOR, ROUGE-L, BLEU at IoU 0.5)."""

from collections.abc import Sequence

from stereopsis.benchmarks.protocols import Protocol, protocol_of
from stereopsis.benchmarks.records import Prediction, SampleScore, references, require_unique, sample_score
from stereopsis.benchmarks.scoring.boxes import CAPTION_IOU, evaluated_iou
from stereopsis.benchmarks.scoring.text import score_texts, text_metrics
from stereopsis.errors import StereopsisError

SUFFIX = "@0.5"
METRICS = text_metrics(SUFFIX)
PROTOCOLS = (
    Protocol(
        task="scan2cap",
        name="strict",
        differs="a caption whose box misses the object (IoU < 0.5) counts as empty",
        requires_box=True,
        used_by=("Video-3D-LLM", "3DRS"),
        default=True,
    ),
    Protocol(
        task="scan2cap",
        name="released",
        differs="the caption of the best-matching box counts, however badly that box fits",
        used_by=("Ross3D's released code",),
    ),
)


def wrapped(text: str) -> str:
    """The form in which captions are compared: lower case, stops and commas apart, "sos ... eos" around."""
    return f"sos {text.replace('.', ' . ').replace(',', ' , ').lower()} eos"


def normalise(text: str) -> str:
    """A caption as it is compared, spaces around it off."""
    return wrapped(text.strip())


def located(prediction: Prediction) -> bool:
    """Whether the captioned box overlaps the object with IoU >= 0.5.

    Raises:
        StereopsisError: the true box is missing, or several boxes were captioned at once.
    """
    if len(prediction.targets) != 1 or len(prediction.boxes) > 1:
        raise StereopsisError(
            f"{prediction.label}: needs exactly one target box (the object) and at most one box (the "
            f"captioned proposal, see query_box), got {len(prediction.targets)} and {len(prediction.boxes)}"
        )
    return bool((evaluated_iou(prediction.boxes, prediction.targets) >= CAPTION_IOU).any())


def score(predictions: Sequence[Prediction], protocol: str | None = None, *, meteor: bool = False) -> list[SampleScore]:
    """All metrics of every prediction, in order.

    A caption whose box misses the object (IoU < 0.5) counts as empty under ``strict``, Video-3D-LLM's
    protocol; it is compared all the same under ``released``, what Ross3D's code does. CIDEr depends on the
    set (see `stereopsis.benchmarks.scoring.text`): pass the whole split. An empty caption still shares "sos" and
    "eos" with the references, so that its ROUGE-L and BLEU are a little above 0, as in the official code.

    Args:
        predictions: captions are taken to the letter, spaces included; ``released`` needs no boxes.
        protocol: one of `PROTOCOLS`, by default ``strict``.
        meteor: whether METEOR is computed too, if Java is there.

    Raises:
        StereopsisError: a caption has no reference or no target box, was predicted twice, or there is no such
            protocol.
    """
    require_unique(predictions)
    rules = protocol_of(PROTOCOLS, protocol).name
    kept = [rules == "released" or located(prediction) for prediction in predictions]
    values = score_texts(
        [wrapped(p.text if keep else "") for p, keep in zip(predictions, kept, strict=True)],
        [[wrapped(caption) for caption in references(prediction.annotation)] for prediction in predictions],
        meteor=meteor,
    )
    return [
        sample_score(
            prediction,
            values.scores(index, SUFFIX),
            protocol=rules,
            bleu_counts=values.bleu_counts[index],
            meteor_counts=values.counts_of_meteor(index),
            unavailable=values.unavailable(SUFFIX),
        )
        for index, prediction in enumerate(predictions)
    ]
