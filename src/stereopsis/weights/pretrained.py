"""Opening what transformers reads: nothing that came with the files is run, and whatever goes wrong is a sentence."""

from pathlib import Path
from typing import Any

from stereopsis.errors import CheckpointError, StereopsisError


def open_pretrained(kind: Any, source: str | Path, **options: Any) -> Any:
    """``kind.from_pretrained`` of a folder or hub id, without the code that may lie in it.

    Args:
        kind: one of transformers' Auto classes.
        source: a folder, or an id "org/name".
        options: of ``from_pretrained``.

    Raises:
        CheckpointError: the files are absent or damaged, or cannot be used without code of their own.
    """
    try:
        return kind.from_pretrained(source, trust_remote_code=False, **options)
    except StereopsisError:
        raise
    except Exception as error:  # transformers raises whatever it meets in damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        if "trust_remote_code" in reason or "custom code" in reason:
            raise CheckpointError(
                f"{source}: needs Python code that came with it ('auto_map' in its files), and such code is never run; "
                "take a model whose classes transformers has itself"
            ) from error
        raise CheckpointError(
            f"{source}: transformers cannot open it as {_NAMES.get(kind.__name__, kind.__name__)} "
            f"({type(error).__name__}: {reason[:300]}); copy its files again, all of the same model"
        ) from error


_NAMES = {
    "AutoConfig": "a model (config.json)",
    "AutoTokenizer": "a tokenizer (tokenizer.json, tokenizer_config.json)",
    "AutoModel": "a model (config.json and weights)",
    "AutoModelForImageTextToText": "a model (config.json and weights)",
}
