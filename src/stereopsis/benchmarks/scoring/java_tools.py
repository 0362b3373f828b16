"""METEOR 1.5 and the PTB tokeniser: the Java programs that pycocoevalcap brings along.

Both exist in Java only, and other implementations give other numbers. Where Java or pycocoevalcap is missing, the
functions raise `UnavailableError` with the reason, and the metrics that need them are reported as not available.

METEOR of a corpus is no mean of sentence values: the program sums 23 counts over all sentences (`METEOR_COUNTS`) and
computes one value from the sums. So do we (`meteor_of_counts`), for any set of samples.
"""

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from stereopsis.errors import StereopsisError

METEOR_COUNTS = 23
MOST_WORDS = 2000
"""METEOR's aligner is made for sentences: its time grows without bounds on texts that repeat themselves."""

_SECONDS = 1800
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_STAGE_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])
_LINE_ENDS = re.compile(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
# What coco-caption takes out of the tokens.
_PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)


class UnavailableError(StereopsisError):
    """A metric cannot be computed on this machine; everything else can."""


def _jar(folder: str, name: str) -> Path:
    spec = importlib.util.find_spec("pycocoevalcap")
    for place in [] if spec is None else list(spec.submodule_search_locations or []):
        if (jar := Path(place) / folder / name).is_file():
            return jar
    raise UnavailableError(f"needs {name} of the package pycocoevalcap (pip install 'stereopsis[metrics]')")


def _java(arguments: Sequence[str], text: str, what: str) -> list[str]:
    """The lines that a Java program writes for these lines."""
    java = shutil.which("java")
    if java is None:
        raise UnavailableError(f"{what} needs Java, and there is no 'java' on the PATH (a JRE 8 or newer will do)")
    try:
        done = subprocess.run(
            [java, "-Dfile.encoding=UTF-8", *arguments],
            input=text.encode("utf-8", errors="replace"),
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"{what} did not end within {_SECONDS} seconds") from error
    except OSError as error:
        raise UnavailableError(f"{what}: {java} cannot be started ({error.strerror or error})") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise UnavailableError(f"{what} failed (exit status {done.returncode}): {said[-1] if said else 'no message'}")
    lines = done.stdout.decode("utf-8", errors="replace").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def ptb_tokenise(texts: Sequence[str]) -> list[str]:
    """Lower-case PTB tokens without punctuation, joined by spaces, as coco-caption prepares captions.

    Raises:
        UnavailableError: there is no Java, no pycocoevalcap, or the program fails.
    """
    if not texts:
        return []
    what = "PTB tokenisation"
    jar = _jar("tokenizer", "stanford-corenlp-3.4.1.jar")
    arguments = ["-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    # A last line that is never empty: the program leaves empty lines at the end out.
    lines = _java(arguments, "".join(f"{_LINE_ENDS.sub(' ', text)}\n" for text in texts) + "end\n", what)
    if len(lines) != len(texts) + 1:
        raise UnavailableError(f"{what}: {len(texts)} texts gave {len(lines) - 1} lines")
    return [" ".join(word for word in line.rstrip().split(" ") if word not in _PUNCTUATION) for line in lines[:-1]]


def meteor_counts(texts: Sequence[str], references: Sequence[Sequence[str]]) -> Float[np.ndarray, "samples 23"]:
    """METEOR's counts of each text against its best-matching reference (English, default modules, ``-norm``).

    Raises:
        UnavailableError: there is no Java, no pycocoevalcap, a text is too long, or the program fails.
    """
    if not texts:
        return np.zeros((0, METEOR_COUNTS))
    what = "METEOR"
    jar = _jar("meteor", "meteor-1.5.jar")
    for index, text in enumerate(texts):
        if len(text) > 40 * MOST_WORDS or text.count(" ") > MOST_WORDS:
            raise UnavailableError(
                f"{what} cannot align text {index}, which has {len(text)} characters (limit: {MOST_WORDS} words)"
            )
    arguments = ["-jar", "-Xmx2G", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
    asked = [
        " ||| ".join(
            [
                "SCORE",
                *(_LINE_ENDS.sub(" ", reference) for reference in accepted),
                _LINE_ENDS.sub(" ", text).replace("|||", "").replace("  ", " "),
            ]
        )
        for text, accepted in zip(texts, references, strict=True)
    ]
    lines = _java(arguments, "".join(f"{line}\n" for line in asked), what)
    try:
        counts = np.array([[float(number) for number in line.split()] for line in lines], dtype=np.float64)
    except ValueError as error:
        raise UnavailableError(f"{what} said something else than counts: {error}") from error
    if counts.shape != (len(texts), METEOR_COUNTS):
        raise UnavailableError(f"{what}: {len(texts)} texts gave counts of shape {counts.shape}")
    return without_perfect_chunks(counts)


def without_perfect_chunks(counts: Float[np.ndarray, "samples 23"]) -> Float[np.ndarray, "samples 23"]:
    """The counts as the program adds them up: a text that equals its reference brings no chunk into the sum."""
    perfect = (counts[:, 21:23] == counts[:, 0:2]).all(axis=1) & (counts[:, 20] == 1)
    summed = counts.copy()
    summed[perfect, 20] = 0.0
    return summed


def meteor_of_counts(counts: Float[np.ndarray, "*sets 23"]) -> Float[np.ndarray, "*sets"]:
    """METEOR (a fraction) from (sums of) counts; NaN for a set without references.

    The counts, in the program's order: words of text and reference; function words of both; for each of the modules
    exact, stem, synonym and paraphrase the matched content words of text and reference and the matched function words
    of both; chunks (see `without_perfect_chunks`); matched words of both. Parameters are those for English (Denkowski
    and Lavie, WMT 2014).
    """
    length, function = counts[..., 0:2], counts[..., 2:4]
    stages = counts[..., 4:20].reshape(*counts.shape[:-1], 4, 4)
    matched = np.moveaxis(_DELTA * stages[..., 0:2] + (1 - _DELTA) * stages[..., 2:4], -1, -2) @ _STAGE_WEIGHTS
    weighed = _DELTA * (length - function) + (1 - _DELTA) * function
    share = np.divide(matched, weighed, out=np.zeros_like(matched), where=weighed > 0)
    precision, recall = share[..., 0], share[..., 1]
    both = (1 - _ALPHA) * recall + _ALPHA * precision
    mean = np.divide(precision * recall, both, out=np.zeros_like(both), where=both > 0)
    chunks, words = counts[..., 20], counts[..., 21:23]
    average = words.sum(axis=-1) / 2
    broken = np.divide(chunks, average, out=np.zeros_like(chunks), where=average > 0)
    return np.where(length[..., 1] > 0, mean * (1 - _GAMMA * broken**_BETA), np.nan)
