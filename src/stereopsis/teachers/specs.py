"""How recipes name a teacher: "kind" or "kind:source", from a table that says what each kind is and who makes it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from stereopsis.errors import RecipeError, did_you_mean


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherKind:
    """One kind of teacher.

    Attributes:
        form: how its spec is written, such as "kl:PATH_OR_ID"; what stands before the colon is its name.
        what: a few words for people.
        make: makes the teacher; a module that needs heavy libraries is imported in it, not before.
    """

    form: str
    what: str
    make: Callable[..., Any]

    @property
    def name(self) -> str:
        """What stands before the colon."""
        return self.form.partition(":")[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherSpec:
    """A spec taken apart; `source` is empty where the kind has none."""

    kind: TeacherKind
    source: str


def table(*kinds: TeacherKind) -> dict[str, TeacherKind]:
    """The kinds by their names."""
    return {kind.name: kind for kind in kinds}


def listing(kinds: Mapping[str, TeacherKind]) -> str:
    """Every form and what it is, in one line."""
    return ", ".join(f"'{kind.form}' ({kind.what})" for kind in kinds.values())


def read_spec(spec: str, kinds: Mapping[str, TeacherKind], noun: str) -> TeacherSpec:
    """Take a spec apart.

    Args:
        spec: what the recipe says.
        kinds: what there is.
        noun: what it is called in errors: "latent tokenizer".

    Raises:
        RecipeError: unknown kind, or a source missing or too many.
    """
    name, colon, source = spec.partition(":")
    if name not in kinds:
        raise RecipeError(f"unknown {noun} '{spec}'{did_you_mean(name, kinds)}; use one of: {listing(kinds)}")
    kind = kinds[name]
    if bool(source) != (":" in kind.form) or (colon and not source):
        raise RecipeError(f"{noun} '{spec}' should read '{kind.form}'; use one of: {listing(kinds)}")
    return TeacherSpec(kind=kind, source=source)
