"""Errors that people see: what was wrong, what was expected, and what to do next."""

import difflib
import errno
from collections.abc import Iterable, Mapping


class StereopsisError(Exception):
    """Base of every error that this package raises on purpose; the CLI prints it without a traceback."""


class SceneError(StereopsisError):
    """A scene as a whole cannot be read, written or used."""


class FrameError(SceneError):
    """One frame of a scene is unusable: image, depth, pose or intrinsics."""


class RecipeError(StereopsisError):
    """A recipe holds an unknown key, a wrong value, or a combination that cannot run."""


class CheckpointError(StereopsisError):
    """A saved model does not match the architecture that is asked to load it."""


class DivergenceError(StereopsisError):
    """Training met a loss, a gradient or a weight that is no longer a number."""


class RunFolderError(StereopsisError):
    """An output folder is in the way, incomplete, or belongs to another run."""


class CacheError(StereopsisError):
    """A cache does not belong to the scenes, frames or teacher that ask for it."""


class MissingExtraError(StereopsisError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str, *, command: str | None = None) -> None:
        """Name the command that brings the package (or several, with commas between): our extra's, or `command`."""
        command = command or f"pip install 'stereopsis[{extra}]'"
        names = [f"'{name}'" for name in package.split(", ")]
        what = f"the package {names[0]}, which is" if len(names) == 1 else f"the packages {', '.join(names)}, which are"
        it = "it" if len(names) == 1 else "them"
        super().__init__(f"{purpose} needs {what} not installed; install {it} with: {command}")


def os_sentence(error: OSError) -> str:
    """What the system refused, and what to do next."""
    reason = error.strerror or str(error) or type(error).__name__
    place = "" if error.filename is None else f"{error.filename}: "
    remedy = "check the path, then run the same command again"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        remedy = "free some space; then the same command goes on (training with --resume)"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        remedy = "choose a place that you may read and write, then run the same command again"
    return f"{place}{reason}; nothing half-written counts; {remedy}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the nearest known name, or the list of known names."""
    options = sorted(known)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if close:
        return f" (did you mean '{close[0]}'?)"
    return f" (known: {', '.join(options)})" if options else ""


def check_ranges(settings: object, ranges: Mapping[str, tuple[float | int, float | int]]) -> None:
    """Refuse settings that are out of range.

    Args:
        settings: any object with these attributes.
        ranges: {attribute: (least, most)}.

    Raises:
        SceneError: names the first setting that is out of its range.
    """
    for name, (low, high) in ranges.items():
        value = getattr(settings, name)
        if not low <= value <= high:
            raise SceneError(
                f"{type(settings).__name__}.{name} is {value}, expected {low} to {high}; change that setting"
            )
