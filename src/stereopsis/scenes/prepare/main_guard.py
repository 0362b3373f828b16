"""Whether worker processes can start: each of them imports the caller's script again, which must then do nothing."""

import ast
import sys
from pathlib import Path
from types import FrameType

from stereopsis.reading import read_bytes


def unguarded_script() -> Path | None:
    """The script whose top level led here, outside of ``if __name__ == "__main__":``; None where there is none.

    Such a script would start the same work again in every worker that imports it; and a script that came on standard
    input cannot be imported at all. A notebook, an interactive session and ``python -c`` have no file, and are fine.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == "__main__":
            file = frame.f_globals.get("__file__")
            if file is None or not hasattr(sys.modules.get("__main__"), "__file__"):
                return None
            return None if _guarded(Path(file), frame.f_lineno) else Path(file)
        frame = frame.f_back
    return None


def _guarded(file: Path, line: int) -> bool:
    """Whether a worker can import a script without coming to this line: it stands below a test of ``__name__``."""
    try:
        tree = ast.parse(read_bytes(file))
    except (SyntaxError, ValueError):  # no Python source, such as a console script of another kind
        return True
    except OSError:
        return False
    tests = (node for node in tree.body if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test))
    return any(node.lineno <= line <= (node.end_lineno or node.lineno) for node in tests)
