"""What a model says and finds, as values that notebooks can show."""

import dataclasses
import html
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """One candidate box for an expression.

    Attributes:
        index: among the scene's candidates.
        box: [6] aligned frame, metres, to the millimetre.
        score: cosine of the expression's state with the box's feature.
    """

    index: int
    box: tuple[float, ...]
    score: float


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """Grounding result of one query: cosine with each of the scene's proposals, and with the zero target.

    Attributes:
        cosines: one per candidate.
        zero_cosine: with "no such object".
        boxes: the candidates, aligned frame, metres; None where nobody asked for them.
        text: the expression.
    """

    cosines: Float[Tensor, "proposals"]
    zero_cosine: float
    boxes: Float[Tensor, "proposals 6"] | None = None
    text: str = ""

    @property
    def none(self) -> bool:
        """Whether the model says that there is no such object."""
        return not len(self.cosines) or self.zero_cosine > float(self.cosines.max())

    @property
    def box(self) -> list[float] | None:
        """The chosen box [6], to the millimetre; None where there is no such object."""
        return None if self.none else list(self.ranked(1)[0].box)

    def ranked(self, most: int = 5) -> list[Candidate]:
        """The best candidates, best first, whether or not the model thinks that there is such an object."""
        if self.boxes is None:
            raise ValueError("this result was made without boxes")
        # argmax, as `box` always was, decides between equals; a stable sort agrees with it
        order = torch.sort(self.cosines, descending=True, stable=True).indices[:most].tolist()
        return [
            Candidate(
                index=int(index),
                box=tuple(round(float(v), 3) for v in self.boxes[index]),
                score=float(self.cosines[index]),
            )
            for index in order
        ]

    def _repr_html_(self) -> str:
        rows = [(f"box {c.index}", c.score, _at(c.box)) for c in (self.ranked() if self.boxes is not None else [])]
        rows.append(("no such object", self.zero_cosine, ""))
        rows.sort(key=lambda row: -row[1])
        body = "".join(
            f"<tr{' style=font-weight:bold' * (not number)}><td>{name}</td><td>{score:.3f}</td><td>{where}</td></tr>"
            for number, (name, score, where) in enumerate(rows)
        )
        head = "<tr><th>candidate</th><th>cosine</th><th>centre; size, m</th></tr>"
        return f"<table><caption>{html.escape(self.text)}</caption>{head}{body}</table>"


def _at(box: Sequence[float]) -> str:
    centre, size = (", ".join(f"{v:.2f}" for v in part) for part in (box[:3], box[3:]))
    return f"{centre}; {size}"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Similarity:
    """What the model takes for the same as one place.

    Attributes:
        cell: view, row and column of the visual token that shows the place.
        cosines: its output's cosine with every token's, less the mean of all.
    """

    cell: tuple[int, int, int]
    cosines: Float[np.ndarray, "views rows cols"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """What was said to one question.

    Attributes:
        text: the decoded words, without special tokens and outer blanks.
        tokens: how many tokens were said, without the one that ends the answer.
        broken: the model's scores of the next word were NaN: the text ends there and means nothing.
        stopped: whoever listened wanted no more of it.
    """

    text: str
    tokens: int
    broken: bool = False
    stopped: bool = False

    def _repr_html_(self) -> str:
        note = " <em>(broken: the model computed NaN)</em>" if self.broken else ""
        return f"<p>{html.escape(self.text)}{note}</p>"
