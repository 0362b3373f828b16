"""What other systems write about one sample, as the record that `stereopsis.benchmarks.files.predictions` reads.

Four forms besides those of Video-3D-LLM's line:

- **Chat-Scene** (``preds_epoch*_step*_*.json``): ``scene_id``, ``gt_id``, ``pred_id``, ``qid``, ``prompt``, ``pred``,
  ``ref_captions``, ``type_info``. There is no id: a sample is known by its scene, its words, its object and its
  references. Answers are sentences ("Brown."); as its own evaluator does, the last full stop goes and the first letter
  becomes small. It points by naming instances, ``<OBJ012>``, or by ``<LOCnnn>`` tokens (centimetres from -5 m).
- **lmms-eval** (``*_samples_*.jsonl``, and the ``logs`` of older versions): ``doc_id``, ``target``,
  ``filtered_resps``. The id is that of the document where the log repeats it, else ``doc_id``, a place in the data set.
- **The authors' own submissions**, where a benchmark has such a form (`Benchmark.submitted`).
- **LLaVA** (``answers.jsonl``): ``question_id``, ``text``, ``answer_id``, ``model_id``.
"""

import ast
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from stereopsis.benchmarks.benchmark import Benchmark
from stereopsis.errors import StereopsisError

INSTANCE = re.compile(r"<OBJ(\d{3})>")
LOCATION = re.compile(r"<LOC(\d{3})>")
END_OF_LOCATION = "</LOCATION>"
_STATED_TYPE = re.compile(r"[a-z][a-z_ ]*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForeignRecord:
    """A record in the form of `stereopsis.benchmarks.files.predictions`, and what that form has no key for.

    Attributes:
        writer: whose form it was, for people; empty where it needed no change.
        record: the record.
        words: what the model was asked, where a sample is known by that.
        about: the objects that the file says the sample is about; None where it says nothing.
        instances: the candidates that the answer names, by their place among the scene's; None where it names none.
        by_place: whether the id is a place in the data set.
    """

    writer: str
    record: Mapping[str, Any]
    words: str = ""
    about: tuple[int, ...] | None = None
    instances: tuple[int, ...] | None = None
    by_place: bool = False


def understood(record: Mapping[str, Any], place: int, where: str, benchmark: Benchmark) -> ForeignRecord:
    """A record of any form that is known; one of another form comes back as it is.

    Args:
        record: as it stands in the file.
        place: its number in the file, counted from 0.
        where: file and line, for messages.
        benchmark: whose predictions they are.

    Raises:
        StereopsisError: the record is of one of the forms above and is damaged.
    """
    submitted = None if benchmark.submitted is None else benchmark.submitted(record, where)
    if submitted is not None:
        return ForeignRecord(writer="the authors' benchmark", record=submitted)
    for marks, convert in _FORMS:
        if marks <= record.keys():
            return convert(record, place, where, benchmark)
    if "text" in record and {"answer_id", "model_id"} & record.keys():
        return ForeignRecord(writer="LLaVA", record={"pred_response": record["text"], **record})
    return ForeignRecord(writer="", record=record)


def listed_samples(content: Any) -> Any:
    """The samples inside lmms-eval's older logs, one object with ``logs``; anything else as it is."""
    logs = content.get("logs") if isinstance(content, dict) else None
    return logs if isinstance(logs, list) and logs and "doc_id" in logs[0] else content


def _chat_scene(record: Mapping[str, Any], place: int, where: str, benchmark: Benchmark) -> ForeignRecord:
    said, references, kind = record["pred"], record["ref_captions"], record.get("type_info")
    if not isinstance(said, str) or not isinstance(record["prompt"], str) or not isinstance(references, list):
        raise StereopsisError(f"{where}: expected Chat-Scene's texts 'pred' and 'prompt' and its list 'ref_captions'")
    objects = references if benchmark.zero_target else [record.get("gt_id")]
    about = tuple(each for each in objects if isinstance(each, int)) if benchmark.points or benchmark.captions else None
    plain = {
        "sample_id": f"#{place}",
        "scene_id": record["scene_id"],
        "pred_response": said,
        "question_type": kind if isinstance(kind, str) and _STATED_TYPE.fullmatch(kind) else "",
    }
    instances: tuple[int, ...] | None = None
    if not benchmark.points:
        plain["gt_response"] = references
        plain["pred_response"] = said if benchmark.captions else as_word(said)
    elif END_OF_LOCATION in said:
        plain["pred_response"] = located(said)
    else:
        instances = tuple(int(number) for number in INSTANCE.findall(said))
        del plain["pred_response"]
    return ForeignRecord(writer="Chat-Scene", record=plain, words=record["prompt"], about=about, instances=instances)


def as_word(sentence: str) -> str:
    """An answer that was trained as a sentence ("Brown.") as the word that it stands for."""
    if len(sentence) < 2:
        return sentence
    bare = sentence.removesuffix(".")
    return bare[0].lower() + bare[1:]


def located(text: str) -> list[list[float]]:
    """Boxes cx cy cz dx dy dz (metres) that an answer spells, six ``<LOCnnn>`` before each ``</LOCATION>``."""
    spelt = [LOCATION.findall(part) for part in text.split(END_OF_LOCATION)[:-1]]
    return [[(int(number) - 500) / 100 for number in six] for six in spelt if len(six) == 6]


def _lmms_eval(record: Mapping[str, Any], place: int, where: str, benchmark: Benchmark) -> ForeignRecord:
    said: Any = record.get("filtered_resps", record.get("resps"))
    while isinstance(said, list) and len(said) == 1:
        said = said[0]
    document = next(_documents(record), None)
    plain = {"pred_response": said, "gt_response": _target(record.get("target"))}
    if document is not None:
        kept = {key: document[key] for key in ("id", "question_id", "scene_id", "scene_name") if key in document}
        plain |= {"sample_id": kept.get("question_id", kept.get("id")), "scene_id": kept.get("scene_id", "")}
    else:
        plain["sample_id"] = record["doc_id"]
    return ForeignRecord(writer="lmms-eval", record=plain, by_place=document is None)


def _target(value: Any) -> Any:
    """What a log calls the target; a list of accepted answers is written as Python prints it."""
    if isinstance(value, str) and value.startswith("["):
        try:
            return ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return value
    return value


def _documents(record: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The document itself, wherever a log repeats it: under ``doc``, or in what the task hands to its metrics."""
    for value in (record.get("doc"), *record.values()):
        for inside in (value, value.get("doc")) if isinstance(value, dict) else ():
            if isinstance(inside, dict) and {"id", "question_id"} & inside.keys():
                yield inside


_FORMS: tuple[tuple[set[str], Callable[..., ForeignRecord]], ...] = (
    ({"scene_id", "prompt", "pred", "ref_captions"}, _chat_scene),
    ({"doc_id", "filtered_resps"}, _lmms_eval),
    ({"doc_id", "resps"}, _lmms_eval),
)
"""Which keys a form is known by, and what turns a record of it."""
