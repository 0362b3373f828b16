"""Prediction files that somebody else wrote: what is in them, read strictly, before anything is scored.

Three forms, told apart by content:

- JSON lines, one object per sample, as Video-3D-LLM, 3DRS and Ross3D write them (``sample_id``, ``pred_response``,
  ``gt_response``, ``question_type``; where there may be no target: ``scores``, the zero target's last, and
  ``objects``), and as ``stereopsis evaluate`` writes ``records.jsonl``;
- a JSON list of such objects, as official evaluations take them (``question_id``, ``answer_top10``);
- a JSON object ``{id: answer}``, where an answer is a text, a list with one text, a box, or an object as
  above.

A run that was killed leaves a torn last line; it is passed over and counted. Any other damage is an error that names
the line.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from stereopsis.benchmarks.registry import all_benchmarks, benchmark_named
from stereopsis.errors import StereopsisError

ID_KEYS = ("sample_id", "question_id", "id")
TEXT_KEYS = ("pred_response", "prediction", "answer", "answer_top10")
BOX_KEYS = ("objects", "boxes")
SHOWN = 5
"""How many ids an error names."""

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


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PredictionFile:
    """A file's samples, in its order.

    Attributes:
        path: the file.
        form: what it turned out to be.
        samples: one per id.
        torn_lines: last lines that a kill cut short (0 or 1).
    """

    path: Path
    form: Literal["json lines", "json list", "json object"]
    samples: tuple[PredictedSample, ...]
    torn_lines: int = 0


def read_predictions(path: Path, task: str) -> PredictionFile:
    """Read a prediction file of any known form.

    Raises:
        StereopsisError: the file is absent, empty or damaged, an id occurs twice, or a sample lacks what its task
            needs (a text; a box; scores that are finite numbers).
    """
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
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
        whole = _parse(content, str(path))
        if isinstance(whole, list):
            form, records = "json list", [(f"{path}, item {place}", each) for place, each in enumerate(whole)]
        elif isinstance(whole, dict):
            form, records = "json object", [(f"{path}, '{key}'", _keyed(key, value)) for key, value in whole.items()]
        else:
            raise StereopsisError(f"{path} holds {_shown(whole)}; expected an object {{id: answer}} or one per line")
    samples = tuple(_sample(record, where, task) for where, record in records if not _of_another(record, task))
    if not samples:
        raise StereopsisError(f"{path} holds no prediction {f'of {task}' if records else 'at all'}")
    refuse_repeated([sample.id for sample in samples], str(path))
    return PredictionFile(path=path, form=form, samples=samples, torn_lines=torn)


def _of_another(record: Any, task: str) -> bool:
    """Whether a record of ours, which names its benchmark, belongs to another one."""
    return isinstance(record, dict) and record.get("task") in all_benchmarks() and record["task"] != task


def refuse_repeated(ids: Sequence[str], where: str) -> None:
    """Raise if an id occurs twice.

    Raises:
        StereopsisError: with how many, and which.
    """
    repeated = [name for name, count in Counter(ids).items() if count > 1]
    if repeated:
        raise StereopsisError(
            f"{where}: {len(repeated)} ids occur more than once ({some(repeated)}); a file that two runs appended to? "
            "Keep one prediction per sample"
        )


def some(names: Sequence[str]) -> str:
    """The first few names, for a message."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def read_boxes(path: Path) -> dict[str, Float[np.ndarray, "boxes 6"]]:
    """Read ``{scene: [[cx, cy, cz, dx, dy, dz], ...]}``, aligned frame, metres.

    Video-3D-LLM's ``scannet_val_pred_box.json`` has this form, with "scannet/" before each scene, which is taken off.

    Raises:
        StereopsisError: the file cannot be read, or holds something else.
    """
    try:
        content = _parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise StereopsisError(f"{path} cannot be read ({error}); give a JSON file {{scene: [boxes]}}") from error
    if not isinstance(content, dict):
        raise StereopsisError(f"{path} holds {_shown(content)}; expected {{scene: [[cx, cy, cz, dx, dy, dz], ...]}}")
    found = {scene_of(scene): boxes_of(boxes, f"{path}, scene '{scene}'") for scene, boxes in content.items()}
    if len(found) != len(content):
        raise StereopsisError(f"{path} names a scene twice, with and without 'scannet/'; keep one of the two")
    return found


def scene_of(name: str) -> str:
    """A scene's id without the data set's folder before it ("scannet/scene0011_00")."""
    return name.rsplit("/", 1)[-1]


def boxes_of(value: Any, where: str) -> Float[np.ndarray, "boxes 6"]:
    """A list of boxes, checked.

    Raises:
        StereopsisError: not lists of six finite numbers with sizes >= 0.
    """
    try:
        boxes = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise StereopsisError(f"{where}: boxes must be lists of six numbers, found {_shown(value)}") from error
    if boxes.size == 0:
        return np.zeros((0, 6))
    if boxes.ndim != 2 or boxes.shape[1] != 6:
        raise StereopsisError(f"{where}: boxes must be [cx, cy, cz, dx, dy, dz] each, found {_shown(value)}")
    bad = np.flatnonzero(~np.isfinite(boxes).all(axis=1) | (boxes[:, 3:] < 0).any(axis=1))
    if len(bad):
        raise StereopsisError(
            f"{where}: box {bad[0]} is {boxes[bad[0]].tolist()}; boxes must be finite, with sizes >= 0 (metres)"
        )
    return boxes


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
    said = (*TEXT_KEYS, *BOX_KEYS, "scores", "cosines")
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
            records.append((where, _parse(line, where)))
        except _DamagedError:
            if place == last and place == len(lines) - 1 and records:
                return records, 1
            raise
    return records, 0


class _DamagedError(StereopsisError):
    """Text that is not JSON."""


def _parse(content: str, where: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            refuse_repeated([key for key, _ in pairs], where)
        return found

    try:
        return json.loads(content, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise _DamagedError(f"{where}: not valid JSON ({error}); write the file again") from error


def _keyed(key: str, value: Any) -> Any:
    return {**value, "sample_id": key} if isinstance(value, dict) else {"sample_id": key, "pred_response": value}


def _sample(record: Any, where: str, task: str) -> PredictedSample:
    if not isinstance(record, dict):
        raise StereopsisError(f"{where}: expected an object with {' or '.join(ID_KEYS)}, found {_shown(record)}")
    found = _first(record, ID_KEYS)
    if isinstance(found, bool) or not isinstance(found, (str, int)):
        raise StereopsisError(f"{where}: needs an id ({', '.join(ID_KEYS)}), found {_shown(found)}")
    name = str(found)
    where = where if f"'{name}'" in where else f"{where}, sample '{name}'"
    benchmark = benchmark_named(task)
    if benchmark.points:
        pointed = _pointed(record, where)
    else:
        pointed = {
            "text": _text(record, where, framed=benchmark.captions),
            "ranked": _ranked(record),
            "references": tuple(_references(record)),
        }
        if benchmark.captions and "boxes" in record and "targets" in record:  # our own: what the caption speaks of
            pointed["boxes"] = boxes_of(record["boxes"], where)
            pointed["true_boxes"] = boxes_of(record["targets"], f"{where}: truth")
    return PredictedSample(
        id=name,
        where=where,
        type=_plain(record, ("question_type", "type")),
        scene_id=scene_of(_plain(record, ("scene", "scene_id", "video"))),
        protocol=_plain(record, ("protocol",)),
        **pointed,
    )


def _text(record: Mapping[str, Any], where: str, *, framed: bool) -> str:
    value = _first(record, TEXT_KEYS)
    if isinstance(value, list) and value and isinstance(value[0], str):
        value = value[0]  # ranked answers, or a caption in a list of one
    if not isinstance(value, str):
        raise StereopsisError(
            f"{where}: needs its answer as text ({', '.join(TEXT_KEYS)}), found {_shown(value)}; "
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
    wrong = f"{where}: scores must be a list of numbers, one per candidate, found {_shown(value)}"
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


def _shown(value: Any) -> str:
    shown = "nothing" if value is None else repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
