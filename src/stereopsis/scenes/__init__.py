"""Scenes: posed RGB-D frames of one place, opened from any known layout, written in one."""

from stereopsis.annotations import Annotation
from stereopsis.scenes.bad_frames import verify_scene
from stereopsis.scenes.formats import open_scene
from stereopsis.scenes.scene import Frame, Proposal, Scene, SceneObject
from stereopsis.scenes.stored import read_scene, write_scene

Scene.above.update(open=open_scene, save=write_scene)

__all__ = [
    "Annotation",
    "Frame",
    "Proposal",
    "Scene",
    "SceneObject",
    "open_scene",
    "read_scene",
    "verify_scene",
    "write_scene",
]
