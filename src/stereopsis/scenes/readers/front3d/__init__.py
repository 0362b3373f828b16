"""3D-FRONT houses: furnished rooms as meshes, photographed along a walk (posed RGB-D, instances, boxes)."""

from stereopsis.scenes.readers.front3d.config import Front3DConfig
from stereopsis.scenes.readers.front3d.reader import (
    EXPECTED_FILES,
    front3d_instances,
    front3d_mesh,
    front3d_rooms,
    front3d_scene_paths,
    is_front3d,
    open_front3d,
    read_front3d,
)

__all__ = [
    "EXPECTED_FILES",
    "Front3DConfig",
    "front3d_instances",
    "front3d_mesh",
    "front3d_rooms",
    "front3d_scene_paths",
    "is_front3d",
    "open_front3d",
    "read_front3d",
]
