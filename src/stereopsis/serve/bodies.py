"""What requests say, checked; and the words of their answers."""

from typing import Annotated, Any, Literal

import pydantic

Point = Annotated[list[float], pydantic.Field(min_length=3, max_length=3)]
Box = Annotated[list[float], pydantic.Field(min_length=6, max_length=6)]
Words = Annotated[str, pydantic.Field(min_length=1, max_length=4000)]


class Body(pydantic.BaseModel):
    """A request's JSON: nothing unknown, no NaN, no Infinity."""

    model_config = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)


class Ask(Body):
    """A question about a room."""

    question: Words
    max_new_tokens: int = pydantic.Field(default=24, ge=1, le=256)


class Find(Body):
    """Something to look for."""

    expression: Words
    ranked: int = pydantic.Field(default=5, ge=1, le=50)


class Describe(Body):
    """A box [cx, cy, cz, dx, dy, dz], or a point: the smallest candidate box around it is described."""

    box: Box | None = None
    point: Point | None = None
    max_new_tokens: int = pydantic.Field(default=48, ge=1, le=256)

    @pydantic.model_validator(mode="after")
    def _one_of_both(self) -> "Describe":
        if (self.box is None) == (self.point is None):
            raise ValueError("give either a box or a point")
        return self


Thing = Point | Box | Words


class Measure(Body):
    """One or two things: points, boxes, or words that `find` looks for first."""

    a: Thing
    b: Thing | None = None


class Pick(Body):
    """A place in a view: pixels as shares of width and height."""

    view: int = pydantic.Field(ge=0)
    x: float = pydantic.Field(ge=0, le=1)
    y: float = pydantic.Field(ge=0, le=1)


class Similar(Body):
    """A place in the room, or in one of the views that the model was shown."""

    point: Point | None = None
    pick: Pick | None = None


class Said(pydantic.BaseModel):
    """One message of a chat, as OpenAI's clients write it."""

    model_config = pydantic.ConfigDict(extra="ignore")
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None


class Chat(pydantic.BaseModel):
    """A chat completion's request; fields that mean nothing here (temperature, ...) are passed over."""

    model_config = pydantic.ConfigDict(extra="ignore", allow_inf_nan=False)
    model: str = pydantic.Field(default="", max_length=400)
    messages: list[Said] = pydantic.Field(min_length=1, max_length=200)
    room: str | None = pydantic.Field(default=None, max_length=400)
    stream: bool = False
    max_tokens: int | None = pydantic.Field(default=None, ge=1, le=256)
    max_completion_tokens: int | None = pydantic.Field(default=None, ge=1, le=256)
    n: int = pydantic.Field(default=1, ge=1, le=1)


def in_words(problems: Any) -> str:
    """What pydantic found wrong, in one sentence."""
    told = []
    for each in list(problems)[:3]:
        where = ".".join(str(part) for part in each.get("loc", ()) if part not in ("body",))
        told.append(f"{where or 'the body'}: {each.get('msg', 'wrong')}")
    return f"the request is not what was expected ({'; '.join(told)}); see /docs"
