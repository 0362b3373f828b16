"""Procedural indoor rooms: seeded layouts, ray-cast RGB-D views, exact poses, boxes and instance maps."""

from stereopsis.scenes.rooms.catalogue import CATEGORIES
from stereopsis.scenes.rooms.config import RoomConfig
from stereopsis.scenes.rooms.layout import Layout, Placed, make_layout
from stereopsis.scenes.rooms.paint import COLOURS, MATERIALS
from stereopsis.scenes.rooms.render import RoomMesh
from stereopsis.scenes.rooms.room import (
    GENERATOR_VERSION,
    RenderedRoom,
    make_room,
    make_room_mesh,
    render_room,
)

__all__ = [
    "CATEGORIES",
    "COLOURS",
    "GENERATOR_VERSION",
    "MATERIALS",
    "Layout",
    "Placed",
    "RenderedRoom",
    "RoomConfig",
    "RoomMesh",
    "make_layout",
    "make_room",
    "make_room_mesh",
    "render_room",
]
