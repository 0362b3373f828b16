"""A house's JSON file: what it lists, checked as far as a room needs it.

The published layout (https://tianchi.aliyun.com/specials/promotion/alibaba-3d-scene-dataset): ``furniture``
(uid, jid = id of a 3D-FUTURE model, title, category, valid), ``mesh`` (uid, type, flat ``xyz`` and ``faces``,
material), ``material`` (uid, color), and ``scene.room`` (type, instanceid, ``children`` with ref = a uid, pos,
rot = quaternion x y z w, scale); y up, metres.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stereopsis.errors import SceneError, did_you_mean
from stereopsis.reading import read_json

_EXPECTED = "a 3D-FRONT house: lists 'furniture' and 'mesh', and 'scene' with a list 'room'"
_REMEDY = "restore the file from the data set"


class Damaged(Exception):  # noqa: N818 (the reason why a thing is left out, not an error that people see)
    """Something in a room cannot be used; the message says what and why."""


class Unavailable(Exception):  # noqa: N818
    """Something in a room is not part of the published data; ``kind`` names the reason in two words."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class HouseRoom:
    """A room as listed.

    Attributes:
        name: its instanceid; the second room of that name is called "NAME~2", and so on.
        type: kind of room, such as "LivingRoom".
        children: what stands in it, unchecked.
    """

    name: str
    type: str
    children: tuple[Any, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class House:
    """A parsed house.

    Attributes:
        path: the file.
        uid: the house's id.
        rooms: in file order.
        furniture: {uid: records}; more than one record where a uid is used for different things.
        meshes: {uid: records}, likewise.
        colours: {material uid: RGB} of the materials that have a colour.
    """

    path: Path
    uid: str
    rooms: tuple[HouseRoom, ...]
    furniture: Mapping[str, tuple[Mapping[str, Any], ...]]
    meshes: Mapping[str, tuple[Mapping[str, Any], ...]]
    colours: Mapping[str, tuple[int, int, int]]

    def room(self, name: str | None) -> HouseRoom:
        """The room of this name; None: the house's only room.

        Raises:
            SceneError: no such room, no name where there are several, or no rooms at all.
        """
        names = [room.name for room in self.rooms]
        if not names:
            raise SceneError(f"{self.path}: the house has no rooms; expected at least one; open another house")
        if name is None and len(names) == 1:
            return self.rooms[0]
        if name is None:
            raise SceneError(
                f"{self.path}: the house has {len(names)} rooms and none was named; choose one with room=..., or "
                f"open '{self.path}#ROOM'; the rooms are {', '.join(names)}"
            )
        for room in self.rooms:
            if room.name == name:
                return room
        raise SceneError(
            f"{self.path}: the house has no room '{name}'{did_you_mean(name, names)}; choose one of {', '.join(names)}"
        )


def read_house(path: Path) -> House:
    """Read a house file.

    Raises:
        SceneError: no such file, not JSON, or not a house.
    """
    try:
        content = read_json(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise SceneError(f"{path}: no such house file; expected {_EXPECTED}; check the path") from error
    except (OSError, ValueError, RecursionError) as error:
        raise SceneError(f"{path}: cannot be read as JSON ({error}); expected {_EXPECTED}; {_REMEDY}") from error
    if not isinstance(content, dict):
        raise SceneError(f"{path}: holds a {type(content).__name__}; expected {_EXPECTED}; {_REMEDY}")
    scene = content.get("scene")
    rooms = _records(path, scene if isinstance(scene, dict) else {}, "room", "scene.room")
    return House(
        path=path,
        uid=str(content.get("uid") or path.stem),
        rooms=_named(path, rooms),
        furniture=_by_uid(_records(path, content, "furniture", "furniture")),
        meshes=_by_uid(_records(path, content, "mesh", "mesh")),
        colours=_colours(content.get("material")),
    )


def _records(path: Path, content: Mapping[str, Any], key: str, name: str) -> list[dict[str, Any]]:
    value = content.get(key)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        found = "nothing" if value is None else f"a {type(value).__name__}" + (" with other things" * bool(value))
        raise SceneError(f"{path}: '{name}' is {found}, expected a list of records; expected {_EXPECTED}; {_REMEDY}")
    return value


def _named(path: Path, rooms: list[dict[str, Any]]) -> tuple[HouseRoom, ...]:
    named: list[HouseRoom] = []
    taken: dict[str, int] = {}
    for index, room in enumerate(rooms):
        kind = str(room.get("type") or "Room")
        name = str(room.get("instanceid") or f"{kind}-{index}")
        taken[name] = taken.get(name, 0) + 1
        if taken[name] > 1:
            name = f"{name}~{taken[name]}"
        children = room.get("children", [])
        if not isinstance(children, list):
            raise SceneError(
                f"{path}: room '{name}': 'children' is a {type(children).__name__}, expected a list of records; "
                f"{_REMEDY}"
            )
        named.append(HouseRoom(name=name, type=kind, children=tuple(children)))
    return tuple(named)


def _by_uid(records: list[dict[str, Any]]) -> dict[str, tuple[Mapping[str, Any], ...]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        uid = record.get("uid")
        if isinstance(uid, str):
            same = found.setdefault(uid, [])
            if record not in same:  # the same thing listed twice does no harm
                same.append(record)
    return {uid: tuple(records) for uid, records in found.items()}


def _colours(materials: Any) -> dict[str, tuple[int, int, int]]:
    colours = {}
    for material in materials if isinstance(materials, list) else []:
        if not isinstance(material, dict):
            continue
        colour = material.get("color")
        if not isinstance(colour, list) or len(colour) < 3:
            continue
        if all(isinstance(value, int) and 0 <= value <= 255 for value in colour[:3]):
            colours[str(material.get("uid"))] = (colour[0], colour[1], colour[2])
    return colours
