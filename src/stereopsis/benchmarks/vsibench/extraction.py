"""How VLMEvalKit reads a letter or a number out of free text (its rules without a judge; VSI-Bench and its kin).

The rules are those of `vlmeval/dataset/utils/spatial_bench` (August 2026), to the letter, oddities included: "<answer>"
followed by a word that begins with A to J is a letter, "a cat" is none but "A cat" is, "twenty-one" is -1.
"""

import ast
import re
from collections.abc import Sequence

_INVISIBLE = re.compile("[\u200b\u200c\u200d\ufeff]")
_OPEN, _CLOSE = r"[(\[{（【]?\s*", r"\s*[)\]}）】]?"
_TAGGED_LETTER = re.compile(r"<\s*answer\b[^>]*>\s*([a-j]).*?<\s*/\s*answer\s*>", re.IGNORECASE | re.DOTALL)
_BEFORE_END = tuple(
    re.compile(rf"(?<![A-Za-z]){_OPEN}([A-F]){_CLOSE}\s*</\s*{tag}\s*>", re.IGNORECASE) for tag in ("answer", "think")
)
_OPTION_LINE = re.compile(r"^[*_>\-\s]*(?:option|选项)\s+[A-J]\s*[:：]", re.IGNORECASE)
_LONE = re.compile(r"\s*[*_`>（）\[\]【】()]*\s*([A-Fa-f])\s*[*_`（）\[\]【】()]*\s*")
_LABEL = re.compile(r"\s*([A-F])\s*[.．:：)\]】、-]\s+", re.IGNORECASE)
_INLINE = re.compile(r"(?<![A-Za-z])[*_`（\[{(]*\s*([A-F])\s*[*_`）\]})]*(?=$|[\s.,:;!?)\]】》」』，。；、：）])")
_CONCLUSION = re.compile(
    r"(?:final\s*answer|the\s*answer\s*is|answer(?:\s*is)?|correct\s*answer|答案|最终答案|结论|所以|因此|我选(?:择)?|选择|选)"
    rf"\s*[:：>＝=]?\s*{_OPEN}([A-F]){_CLOSE}(?:\b|[.)、。])",
    re.IGNORECASE,
)
_ANYWHERE = re.compile(rf"(?<![A-Za-z]){_OPEN}([A-F]){_CLOSE}(?![A-Za-z])")
_TAIL_LINES, _TAIL = 6, 800
_THINK = (r"</\s*think\s*>", r"<\s*think\s*>")

_NUMBER = r"[-+]?(?:\d*\.\d+|\d+)(?:[eE][-+]?\d+)?"
_TAGGED_NUMBER = re.compile(
    rf"<\s*answer\b[^>]*>\s*({_NUMBER})(?:[^\d<][^<]*)?<\s*/\s*answer\s*>", re.IGNORECASE | re.DOTALL
)
# fmt: off
_WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)
# fmt: on
_WORD = re.compile(rf"\b({'|'.join(_WORDS)})\b", re.IGNORECASE)


def letter_in(text: str) -> str | None:
    """The letter A to F (in ``<answer>`` A to J) that an answer chooses, if one can be told."""
    text = _INVISIBLE.sub("", text.strip())
    tail = text[-_TAIL:]
    found = _TAGGED_LETTER.search(text) or _BEFORE_END[0].search(tail) or _BEFORE_END[1].search(tail)
    if found:
        return found.group(1).upper()
    for part in (_after_thinking(text), tail):
        letter = _in_last_lines(part.splitlines()[-_TAIL_LINES:])
        if letter is not None:
            return letter
    if found := _CONCLUSION.search(text):
        return found.group(1).upper()
    rest = "\n".join(line for line in text.splitlines() if not _OPTION_LINE.search(line))
    letters = set(_ANYWHERE.findall(rest))
    return letters.pop() if len(letters) == 1 else None


def _in_last_lines(lines: Sequence[str]) -> str | None:
    """The letter of the last line that has one: alone, as a label, or as the only capital that stands by itself."""
    for line in reversed([line.strip() for line in lines if line.strip()]):
        if _OPTION_LINE.search(line):
            continue
        if found := _LONE.fullmatch(line) or _LABEL.match(line):
            return found.group(1).upper()
        letters = set(_INLINE.findall(line))
        if len(letters) == 1:
            return str(letters.pop())
    return None


def _after_thinking(text: str) -> str:
    """What follows the last ``</think>``, or else the last ``<think>``."""
    for tag in _THINK:
        if ends := [found.end() for found in re.finditer(tag, text, re.IGNORECASE)]:
            return text[ends[-1] :].strip()
    return text


def last_number(text: str) -> float | None:
    """The number in ``<answer>``, or else the last one after the thinking, or else the last one, if any.

    Words from "zero" to "twenty" count as digits. A text in brackets is a Python list, of which the first entry
    counts; if it is none, there is no number.
    """
    bare = text.strip()
    if bare.startswith("[") and bare.endswith("]"):
        try:
            listed = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
        text = str(listed[0]) if isinstance(listed, list) and listed else text
    text = _INVISIBLE.sub("", text.strip())
    text = _WORD.sub(lambda found: str(_WORDS.index(found.group(1).lower())), text)
    if found := _TAGGED_NUMBER.search(text):
        return float(found.group(1))
    for part in (_after_thinking(text), text):
        if numbers := re.findall(_NUMBER, part):
            return float(numbers[-1])
    return None
