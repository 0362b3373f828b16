"""The code blocks of README and docs, and the commands in them."""

import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHELLS = ("bash", "sh", "shell", "console")
_FENCE = re.compile(r"^( *)```(\w+)[^\n]*\n(.*?)^\1```", re.M | re.S)


class Block(NamedTuple):
    page: str
    number: int
    text: str

    @property
    def key(self) -> str:
        return f"{self.page}#{self.number}"


def blocks(*languages: str) -> list[Block]:
    found = []
    for page in PAGES:
        text = [m for m in _FENCE.finditer(page.read_text()) if m[2] in languages and "--8<--" not in m[3]]
        name = str(page.relative_to(ROOT))
        found += [Block(name, number, textwrap.dedent(m[3])) for number, m in enumerate(text)]
    return found


def commands(block: Block) -> Iterator[list[str]]:
    """The words after 'stereopsis' of each of a block's lines that call it."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if "stereopsis" in words[:8] and "pip" not in words and not any(w in ("|", ">", "&&", "[...]") for w in words):
            yield words[words.index("stereopsis") + 1 :]
