"""The evaluated scenes, opened only where the report shows them, and their pictures."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stereopsis.annotations import Annotation
from stereopsis.errors import FrameError, RunFolderError, SceneError
from stereopsis.geometry.birdseye import fill_small_holes, pixel_of
from stereopsis.report.images import EmbeddedImage, embed, embed_pixels
from stereopsis.report.values import mapping, read_json
from stereopsis.scenes.alignment import with_birdseye
from stereopsis.scenes.draw import draw_birdseye
from stereopsis.scenes.scene import Frame, Scene
from stereopsis.scenes.stored import read_scene

MAP_SIDE = 448
_MARK = (30, 30, 34)


def scene_folders(folder: Path | None) -> dict[str, Path]:
    """Scene id -> folder, for a folder of prepared scenes (or a single one); empty without a folder.

    Raises:
        RunFolderError: a scene's description is damaged, or nothing there is a scene.
    """
    if folder is None:
        return {}
    files = [folder / "scene.json"] if (folder / "scene.json").is_file() else sorted(folder.glob("*/scene.json"))
    if not files:
        raise RunFolderError(f"{folder} holds no prepared scenes (no */scene.json); run 'stereopsis prepare' again")
    found = {}
    for file in files:
        if not file.parent.name.startswith("."):
            found[str(mapping(read_json(file), str(file)).get("id", file.parent.name))] = file.parent
    return found


def open_room(folder: Path) -> Scene:
    """A prepared scene, with a view from above where its depth allows one.

    Raises:
        SceneError: the scene is damaged.
    """
    scene = read_scene(folder)
    if scene.birdseye is None and all(frame.load_depth is not None for frame in scene.frames):
        try:
            return with_birdseye(scene, size=160)
        except FrameError:
            raise
        except SceneError:  # nothing to see from above: the report then shows the views alone
            return scene
    return scene


def spread(count: int, wanted: int) -> list[int]:
    """At most ``wanted`` indices out of ``count``, evenly spread, first and last among them."""
    return sorted({round(each) for each in np.linspace(0, count - 1, min(wanted, count))}) if count else []


def view_pictures(scene: Scene, *, most: int = 8, largest: int = 240) -> tuple[EmbeddedImage, ...]:
    """Evenly spread views."""
    frames = [scene.frames[index] for index in spread(len(scene.frames), most)]
    return tuple(embed_pixels(frame.colour(), largest=largest) for frame in frames)


def map_picture(scene: Scene, asked: Sequence[tuple[int, Annotation]] = ()) -> EmbeddedImage | None:
    """The room from above with its objects, and where the agent of each numbered question stands and looks.

    Args:
        scene: the room.
        asked: question numbers and their annotations; those without a position are not drawn.

    Returns:
        None where the scene has no view from above.
    """
    view = scene.birdseye
    if view is None:
        return None
    scale = max(1, round(MAP_SIDE / len(view.void)))
    whole = scene.replace(birdseye=fill_small_holes(view, 2.0))
    picture = draw_birdseye(whole, scale=scale, camera_path=False)
    pen = ImageDraw.Draw(picture)
    for number, annotation in asked:
        if annotation.position is not None and annotation.yaw is not None:
            x, y = (float(v) for v in pixel_of(view, np.array(annotation.position[:2])) * scale)
            _agent(pen, x, y, annotation.yaw, str(number))
    return embed(picture, largest=max(picture.size))


def _agent(pen: ImageDraw.ImageDraw, x: float, y: float, yaw: float, label: str) -> None:
    """A numbered disc with an arrow; the picture's y points down, yaw turns counter-clockwise."""
    ahead = np.array([math.cos(yaw), -math.sin(yaw)])
    side = np.array([-ahead[1], ahead[0]])
    centre = np.array([x, y])
    tip = centre + 27 * ahead
    head = [tuple(tip), tuple(centre + 13 * ahead + 8 * side), tuple(centre + 13 * ahead - 8 * side)]
    pen.polygon(head, fill=_MARK, outline="white")
    pen.ellipse((x - 11, y - 11, x + 11, y + 11), fill=_MARK, outline="white", width=2)
    pen.text((x, y), label, fill="white", font=ImageFont.load_default(size=14), anchor="mm")


def enlarged(frame: Frame, side: int) -> tuple[Image.Image, Frame]:
    """A view's picture enlarged (or shrunk) to about ``side`` pixels wide, and the frame with fitting intrinsics."""
    colour = frame.colour()
    width = side
    height = max(1, round(side * colour.shape[0] / colour.shape[1]))
    way = Image.Resampling.NEAREST if colour.shape[1] <= side else Image.Resampling.LANCZOS
    picture = Image.fromarray(colour).resize((width, height), way)
    resized = Frame(
        name=frame.name,
        T_world_camera=frame.T_world_camera,
        intrinsics=frame.intrinsics.resized(width, height),
        load_colour=frame.load_colour,
    )
    return picture, resized
