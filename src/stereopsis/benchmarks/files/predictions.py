"""Prediction files that somebody else wrote: what is in them, read strictly, before anything is scored.

Three forms, told apart by content:

- JSON lines, one object per sample, as Video-3D-LLM, 3DRS and Ross3D write them (``sample_id``, ``pred_response``,
  ``gt_response``, ``question_type``; where there may be no target: ``scores``, the zero target's last, and
  ``objects``), and as ``stereopsis evaluate`` writes ``records.jsonl``;
- a JSON list of such objects, as official evaluations take them (``question_id``, ``answer_top10``);
- a JSON object ``{id: answer}``, where an answer is a text, a list with one text, a box, or an object as
  above.

The records may also be Chat-Scene's, LLaVA's, lmms-eval's, or of a benchmark's own submission form
(`stereopsis.benchmarks.files.foreign`).

A run that was killed leaves a torn last line; it is passed over and counted. Any other damage is an error that names
the line.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from stereopsis.benchmarks.files.box_files import boxes_of, scene_of
from stereopsis.benchmarks.files.foreign import listed_samples, understood
from stereopsis.benchmarks.files.strict_json import DamagedError, parse_strictly, refuse_repeated, shown
from stereopsis.benchmarks.registry import all_benchmarks, benchmark_named
from stereopsis.errors import StereopsisError
from stereopsis.reading import read_text

ID_KEYS = ("sample_id", "question_id", "id", "doc_id")
TEXT_KEYS = ("pred_response", "prediction", "answer", "answer_top10")
BOX_KEYS = ("objects", "boxes")
_CAPTION_START, _CAPTION_END = "sos ", " eos"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PredictedSample:
    """What a file says about one sample; nothing is filled in that the file does not say.

    Boxes are cx cy cz dx dy dz, aligned frame, metres.

    Attributes:
        id: the file's own id, as text.
        where: file and line, for messages.
        text: the answer or caption; None where the task points.
        ranked: the answers, best first, where the file gives several (``answer_top10``).
        boxes: candidates, or the one box that was picked; None where the file leaves them out.
        scores: one per candidate, and the zero target's last where the file has it.
        zero_target_score: the zero target's where the file states it apart.
        true_boxes: what the file calls the truth, where that is boxes; None where it says nothing.
        references: what the file calls the truth, where that is text.
        type: the question's type, or empty.
        scene_id: the scene, or empty.
        protocol: by which the sample was asked, where that is stated (our own records).
        words: what the model was asked, where the file has no ids and its samples are known by that.
        about: the objects that the file says the sample is about; None where it says nothing.
        instances: the candidates that the answer names, by their places among the scene's; None where it names none.
        by_place: whether the id is a place in the benchmark's file, counted from 0.
    """

    id: str
    where: str
    text: str | None = None
    ranked: tuple[str, ...] = ()
    boxes: Float[np.ndarray, "candidates 6"] | None = None
    scores: Float[np.ndarray, " scores"] | None = None
    zero_target_score: float | None = None
    true_boxes: Float[np.ndarray, "targets 6"] | None = None
    references: tuple[str, ...] = ()
    type: str = ""
    scene_id: str = ""
    protocol: str = ""
    words: str = ""
    about: tuple[int, ...] | None = None
    instances: tuple[int, ...] | None = None
    by_place: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PredictionFile:
    """A file's samples, in its order.

    Attributes:
        path: the file.
        form: what it turned out to be.
        samples: one per id.
        writer: the system whose form the records have, where that is another than Video-3D-LLM's or ours.
        torn_lines: last lines that a kill cut short (0 or 1).
    """

    path: Path
    form: Literal["json lines", "json list", "json object"]
    samples: tuple[PredictedSample, ...]
    torn_lines: int = 0
    writer: str = ""


def read_predictions(path: Path, task: str) -> PredictionFile:
    """Read a prediction file of any known form.

    Raises:
        StereopsisError: the file is absent, empty or damaged, an id occurs twice, or a sample lacks what its task
            needs (a text; a box; scores that are finite numbers).
    """
    try:
        content = read_text(path)
    except (OSError, ValueError) as error:
        raise StereopsisError(
            f"{path} cannot be read as UTF-8 text ({error}); give a JSON or JSON lines file"
        ) from error
    if not content.strip():
        raise StereopsisError(f"{path} is empty; it should hold one prediction per sample")
    torn = 0
    form: Literal["json lines", "json list", "json object"]
    if _is_lines(content):
        form = "json lines"
        records, torn = _json_lines(path, content)
    else:
        whole = listed_samples(parse_strictly(content, str(path)))
        if isinstance(whole, list):
            form, records = "json list", [(f"{path}, item {place}", each) for place, each in enumerate(whole)]
        elif isinstance(whole, dict):
            form, records = "json object", [(f"{path}, '{key}'", _keyed(key, value)) for key, value in whole.items()]
        else:
            raise StereopsisError(f"{path} holds {shown(whole)}; expected an object {{id: answer}} or one per line")
    mine = [(where, record) for where, record in records if not _of_another(record, task)]
    found = [_sample(record, place, where, task) for place, (where, record) in enumerate(mine)]
    if not found:
        raise StereopsisError(f"{path} holds no prediction {f'of {task}' if records else 'at all'}")
    refuse_repeated([sample.id for _, sample in found], str(path))
    samples = tuple(sample for _, sample in found)
    return PredictionFile(path=path, form=form, samples=samples, torn_lines=torn, writer=found[0][0])


def _of_another(record: Any, task: str) -> bool:
    """Whether a record of ours, which names its benchmark, belongs to another one."""
    return isinstance(record, dict) and record.get("task") in all_benchmarks() and record["task"] != task


def _is_lines(content: str) -> bool:
    """Whether the first line is an object by itself, and either more follows or it is one sample."""
    first, _, rest = content.strip().partition("\n")
    if not first.startswith("{") or (rest and not rest.lstrip().startswith("{")):
        return False
    if rest:
        return True
    try:
        alone = json.loads(first)
    except (ValueError, RecursionError):
        return True  # one line, cut short: said so when it is read as a line
    if isinstance(alone, dict) and isinstance(alone.get("logs"), list):
        return False
    said = (*TEXT_KEYS, *BOX_KEYS, "scores", "cosines", "text", "filtered_resps")
    return isinstance(alone, dict) and all(any(key in alone for key in keys) for keys in (ID_KEYS, said))


def _json_lines(path: Path, content: str) -> tuple[list[tuple[str, Any]], int]:
    records: list[tuple[str, Any]] = []
    # not splitlines(): JSON strings may hold U+2028 and other characters that it would split at
    lines = content.split("\n")
    last = max(place for place, line in enumerate(lines) if line.strip())
    for place, line in enumerate(lines):
        if not line.strip():
            continue
        where = f"{path}, line {place + 1}"
        try:
            records.append((where, parse_strictly(line, where)))
        except DamagedError:
            if place == last and place == len(lines) - 1 and records:
                return records, 1
            raise
    return records, 0


def _keyed(key: str, value: Any) -> Any:
    return {**value, "sample_id": key} if isinstance(value, dict) else {"sample_id": key, "pred_response": value}


def _sample(record: Any, place: int, where: str, task: str) -> tuple[str, PredictedSample]:
    """Whose form a record has, and what it says."""
    if not isinstance(record, dict):
        raise StereopsisError(f"{where}: expected an object with {' or '.join(ID_KEYS)}, found {shown(record)}")
    benchmark = benchmark_named(task)
    read = understood(record, place, where, benchmark)
    record = read.record
    found = _first(record, ID_KEYS)
    if isinstance(found, bool) or not isinstance(found, (str, int)):
        raise StereopsisError(f"{where}: needs an id ({', '.join(ID_KEYS)}), found {shown(found)}")
    name = str(found)
    where = where if f"'{name}'" in where else f"{where}, sample '{name}'"
    pointed: dict[str, Any]
    if benchmark.points:
        pointed = {} if read.instances is not None else _pointed(record, where)
    else:
        pointed = {
            "text": _text(record, where, framed=benchmark.captions),
            "ranked": _ranked(record),
            "references": tuple(_references(record)),
        }
        if benchmark.captions and "boxes" in record and "targets" in record:  # our own: what the caption speaks of
            pointed["boxes"] = boxes_of(record["boxes"], where)
            pointed["true_boxes"] = boxes_of(record["targets"], f"{where}: truth")
    return read.writer, PredictedSample(
        id=name,
        where=where,
        type=_plain(record, ("question_type", "type")),
        scene_id=scene_of(_plain(record, ("scene", "scene_id", "video"))),
        protocol=_plain(record, ("protocol",)),
        words=read.words,
        about=read.about,
        instances=read.instances,
        by_place=read.by_place,
        **pointed,
    )


def _text(record: Mapping[str, Any], where: str, *, framed: bool) -> str:
    value = _first(record, TEXT_KEYS)
    if isinstance(value, list) and value and isinstance(value[0], str):
        value = value[0]  # ranked answers, or a caption in a list of one
    if not isinstance(value, str):
        raise StereopsisError(
            f"{where}: needs its answer as text ({', '.join(TEXT_KEYS)}), found {shown(value)}; "
            "put numbers into quotes, and write an empty answer as an empty text"
        )
    if framed and value.startswith(_CAPTION_START) and value.endswith(_CAPTION_END):
        return value[len(_CAPTION_START) : -len(_CAPTION_END)].strip()  # captions are published in this frame
    return value


def _ranked(record: Mapping[str, Any]) -> tuple[str, ...]:
    value = record.get("ranked") or _first(record, TEXT_KEYS)
    several = isinstance(value, list) and len(value) > 1 and all(isinstance(each, str) for each in value)
    return tuple(value) if several else ()


def _references(record: Mapping[str, Any]) -> Iterator[str]:
    truth = record.get("gt_response", record.get("answers"))
    for each in truth if isinstance(truth, list) else [truth]:
        if isinstance(each, str):
            yield each


def _pointed(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Boxes, scores and truth of a sample whose answer is a place."""
    picked = record.get("pred_response")
    candidates = _first(record, BOX_KEYS)
    boxes: np.ndarray | None = None
    if candidates is not None:
        boxes = boxes_of(candidates, where)
    elif picked is not None:
        boxes = boxes_of([picked] if _is_flat(picked) else picked, where)
    ours = record.get("cosines")
    given = ours if ours is not None else record.get("scores")
    scores = None if given is None or isinstance(given, dict) else _scores(given, where)
    if scores is None and candidates is not None and picked is not None:
        boxes = boxes_of([picked] if _is_flat(picked) else picked, where)
    if scores is None and boxes is None:
        raise StereopsisError(
            f"{where}: needs a box (pred_response) or scores of the candidates (scores, with objects or --boxes), "
            f"found {', '.join(record)}"
        )
    truth = record.get("gt_response", record.get("targets"))
    zero = _first(record, ("zero_target_score", "zero_cosine"))
    return {
        "boxes": boxes,
        "scores": scores,
        "zero_target_score": None if zero is None else float(_scores([zero], where)[0]),
        "true_boxes": None if truth is None else boxes_of([truth] if _is_flat(truth) else truth, f"{where}: truth"),
    }


def _is_flat(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and not isinstance(value[0], list)


def _scores(value: Any, where: str) -> Float[np.ndarray, " scores"]:
    numeric = isinstance(value, list) and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in value)
    wrong = f"{where}: scores must be a list of numbers, one per candidate, found {shown(value)}"
    if not numeric:
        raise StereopsisError(wrong)
    try:
        scores = np.array(value, dtype=np.float64)
    except OverflowError as error:
        raise StereopsisError(wrong) from error
    if not np.isfinite(scores).all():
        bad = int(np.argmax(~np.isfinite(scores)))
        raise StereopsisError(
            f"{where}: score {bad} is {scores[bad]}; scores must be finite (a NaN here usually means half precision "
            "that overflowed, or a training that diverged)"
        )
    return scores


def _first(record: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((record[key] for key in keys if record.get(key) is not None), None)


def _plain(record: Mapping[str, Any], keys: Sequence[str]) -> str:
    value = _first(record, keys)
    return value if isinstance(value, str) else ""
