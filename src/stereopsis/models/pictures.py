"""What a model was shown, as a picture."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from stereopsis.data.pack import ScenePack
from stereopsis.geometry.camera import Intrinsics
from stereopsis.scenes.draw import draw_boxes_in_view

COLUMNS, SIDE, GAP = 4, 240, 6


def views_sheet(pack: ScenePack, boxes: Sequence[Sequence[float]] = ()) -> Image.Image:
    """The views of a pack beside each other, with boxes drawn in.

    Args:
        pack: the scene as the model was given it.
        boxes: each [6], aligned frame, metres.
    """
    count = len(pack.images)
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    sheet = Image.new("RGB", (columns * (SIDE + GAP) - GAP, rows * (SIDE + GAP) - GAP), (255, 255, 255))
    drawn = [np.asarray(box, dtype=np.float64) for box in boxes]
    for number, image in enumerate(pack.images):
        pixels = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((SIDE, SIDE))
        camera = Intrinsics.from_matrix(pack.intrinsics[number].numpy(), image.shape[2], image.shape[1])
        # Cameras of packs are single precision; poses are checked as if they were double.
        pose = orthogonal(pack.cameras[number].numpy().astype(np.float64))
        view = draw_boxes_in_view(np.asarray(pixels), camera.resized(SIDE, SIDE), pose, drawn)
        sheet.paste(view, (number % columns * (SIDE + GAP), number // columns * (SIDE + GAP)))
    return sheet


def orthogonal(pose: np.ndarray) -> np.ndarray:
    """The same pose with the nearest true rotation."""
    u, _, v = np.linalg.svd(pose[:3, :3])
    exact = pose.copy()
    exact[:3, :3] = u @ v
    return exact
