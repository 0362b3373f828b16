"""Pictures of scenes for people: contact sheets, the room from above, and boxes drawn into views."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from stereopsis.errors import SceneError
from stereopsis.geometry.birdseye import BirdsEyeView, pixel_of
from stereopsis.geometry.camera import Intrinsics, invert_pose, transform
from stereopsis.scenes.scene import Scene

PALETTE = (
    (230, 80, 60),
    (50, 130, 220),
    (60, 170, 90),
    (240, 170, 40),
    (150, 90, 200),
    (30, 180, 190),
    (220, 90, 160),
    (140, 110, 70),
)
_NEAR = 0.05  # metres in front of the camera at which edges are cut off
_VOID_COLOUR = (236, 236, 240)
_INK = (40, 40, 46)
# Near is warm and bright, far is dark blue; lightness falls all the way, so that it reads in grey, too.
_DEPTH_STOPS = np.linspace(0.0, 1.0, 6)
_DEPTH_COLOURS = np.array(
    [(255, 244, 190), (252, 196, 104), (232, 124, 92), (164, 70, 122), (88, 44, 124), (24, 20, 70)],
    dtype=np.float64,
)
# Corners of a unit box as (x, y, z) signs in binary counting; edges join corners that differ in one bit.
_CORNERS = np.array([[(corner >> axis) & 1 for axis in range(3)] for corner in range(8)]) - 0.5
_EDGES = [(a, a | (1 << axis)) for a in range(8) for axis in range(3) if not a & (1 << axis)]


def colour_depth(
    depth: Float[np.ndarray, "height width"], *, nearest: float = 0.0, furthest: float
) -> UInt8[np.ndarray, "height width 3"]:
    """Depth as colour: near is bright yellow, far is dark blue, invalid is grey.

    Args:
        depth: metres, 0 = invalid.
        nearest: metres shown in the first colour.
        furthest: metres shown in the last colour.
    """
    share = np.clip((depth - nearest) / max(furthest - nearest, 1e-6), 0.0, 1.0)
    picture = np.stack([np.interp(share, _DEPTH_STOPS, _DEPTH_COLOURS[:, band]) for band in range(3)], axis=-1)
    picture[depth <= 0] = 128.0
    return np.rint(picture).astype(np.uint8)


def contact_sheet(scene: Scene, *, max_frames: int = 12, columns: int = 4, tile: int = 240) -> Image.Image:
    """The scene's views, each above its depth in colour, with names and a depth scale.

    Args:
        scene: any scene.
        max_frames: how many frames to show, evenly spread.
        columns: tiles side by side.
        tile: width of a tile, pixels.

    Raises:
        SceneError: the scene has no frames.
    """
    if not scene.frames:
        raise SceneError(f"scene '{scene.id}' has no frames to draw; open a scene that has some")
    chosen = np.unique(np.linspace(0, len(scene.frames) - 1, min(max_frames, len(scene.frames))).astype(int))
    frames = [scene.frames[index] for index in chosen]
    depths = [frame.depth() for frame in frames]
    known = np.concatenate([depth[depth > 0] for depth in depths if depth is not None] or [np.ones(1)])
    furthest = float(np.percentile(known, 99)) if len(known) else 1.0
    height = max(round(tile * frame.intrinsics.height / frame.intrinsics.width) for frame in frames)
    label, gap, head = 18, 6, 30
    cell = height + label + (height if any(depth is not None for depth in depths) else 0)
    rows = math.ceil(len(frames) / columns)
    sheet = Image.new("RGB", (columns * (tile + gap) + gap, head + rows * (cell + gap) + gap), "white")
    pen = ImageDraw.Draw(sheet)
    count = f"{len(frames)} of {len(scene.frames)} frames"
    title = f"{scene.id}: {count}; depth 0 to {furthest:.1f} m, bright is near"
    pen.text((gap, 8), title, fill=_INK, font=_font(14))
    for number, (frame, depth) in enumerate(zip(frames, depths, strict=True)):
        x = gap + (number % columns) * (tile + gap)
        y = head + (number // columns) * (cell + gap)
        pen.text((x, y), frame.name, fill=_INK, font=_font(12))
        sheet.paste(_fitted(frame.colour(), tile, height), (x, y + label))
        if depth is not None:
            picture = colour_depth(depth, furthest=furthest)
            sheet.paste(_fitted(picture, tile, height, smooth=False), (x, y + label + height))
    return sheet


def draw_birdseye(scene: Scene, *, scale: int = 2, labels: bool = True, camera_path: bool = True) -> Image.Image:
    """The scene from above, with its objects' boxes, the camera's path and a scale of one metre.

    The path runs from a hollow to a filled dot; short strokes tell where the camera looks.

    Args:
        scene: with its bird's-eye view.
        scale: how many picture pixels per pixel of the view.
        labels: write the objects' labels.
        camera_path: draw the cameras.

    Raises:
        SceneError: the scene has no bird's-eye view.
    """
    view = scene.birdseye
    if view is None:
        raise SceneError(
            f"scene '{scene.id}' has no bird's-eye view; render it first with "
            "stereopsis.scenes.alignment.with_birdseye(scene)"
        )
    pixels = np.where(view.void[..., None], np.array(_VOID_COLOUR, dtype=np.uint8), view.image)
    size = len(view.void) * scale
    picture = Image.fromarray(pixels).resize((size, size), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(picture)
    for number, item in enumerate(scene.objects):
        low, high = item.box[:2] - item.box[3:5] / 2, item.box[:2] + item.box[3:5] / 2
        left, bottom = pixel_of(view, low) * scale
        right, top = pixel_of(view, high) * scale
        colour = PALETTE[number % len(PALETTE)]
        pen.rectangle((left, top, right, bottom), outline=colour, width=2)
        if labels:
            _label(pen, (left + 3, top + 2), item.label, colour)
    if camera_path and scene.frames:
        _draw_cameras(pen, scene, view, scale)
    _draw_metre(pen, view, size, scale)
    return picture


def box_edges_in_view(
    box: Float[np.ndarray, "6"], intrinsics: Intrinsics, T_aligned_camera: Float[np.ndarray, "4 4"]
) -> Float[np.ndarray, "edges 2 2"]:
    """Image coordinates of the edges of a 3D box, cut off 5 cm in front of the camera.

    Args:
        box: [6] cx cy cz dx dy dz, aligned frame, metres.
        intrinsics: of the image.
        T_aligned_camera: camera to aligned world, metres.

    Returns:
        [edges, 2, 2]: start and end (u, v) of every edge that reaches in front of the camera; 0 to 12 edges.
    """
    corners = transform(invert_pose(T_aligned_camera), box[:3] + _CORNERS * box[3:])
    lines = []
    for first, second in _EDGES:
        a, b = corners[first], corners[second]
        if a[2] < _NEAR and b[2] < _NEAR:
            continue
        if a[2] < _NEAR:
            a = a + (b - a) * (_NEAR - a[2]) / (b[2] - a[2])
        elif b[2] < _NEAR:
            b = b + (a - b) * (_NEAR - b[2]) / (a[2] - b[2])
        ends = np.stack([a, b])
        focal, centre = np.array([intrinsics.fx, intrinsics.fy]), np.array([intrinsics.cx, intrinsics.cy])
        lines.append(ends[:, :2] / ends[:, 2:] * focal + centre)
    return np.array(lines).reshape(-1, 2, 2)


def draw_boxes_in_view(
    image: UInt8[np.ndarray, "height width 3"],
    intrinsics: Intrinsics,
    T_aligned_camera: Float[np.ndarray, "4 4"],
    boxes: Sequence[Float[np.ndarray, "6"]],
    colours: Sequence[tuple[int, int, int]] | None = None,
    labels: Sequence[str] | None = None,
) -> Image.Image:
    """A view with the edges of 3D boxes drawn on it, hidden ones too; parts behind the camera are cut.

    Args:
        image: the view.
        intrinsics: of the view.
        T_aligned_camera: camera to aligned world, metres.
        boxes: each [6] cx cy cz dx dy dz, aligned frame, metres.
        colours: RGB of each box; None takes `PALETTE` in turn.
        labels: a word for each box.

    Raises:
        ValueError: the numbers of boxes, colours and labels differ, or the image is not of the intrinsics'
            size.
    """
    if image.shape[:2] != (intrinsics.height, intrinsics.width):
        raise ValueError(
            f"the image is {image.shape[1]}x{image.shape[0]}, but its intrinsics speak of {intrinsics.width}x"
            f"{intrinsics.height}; resize them together (Intrinsics.resized)"
        )
    for what, values in (("colours", colours), ("labels", labels)):
        if values is not None and len(values) != len(boxes):
            raise ValueError(f"{len(boxes)} boxes but {len(values)} {what}; give one for each box")
    picture = Image.fromarray(np.ascontiguousarray(image))
    pen = ImageDraw.Draw(picture)
    width = max(1, round(intrinsics.width / 240))
    for number, box in enumerate(boxes):
        colour = PALETTE[number % len(PALETTE)] if colours is None else colours[number]
        edges = box_edges_in_view(box, intrinsics, T_aligned_camera)
        for (u0, v0), (u1, v1) in _clipped(edges, intrinsics):
            pen.line((u0 - 0.5, v0 - 0.5, u1 - 0.5, v1 - 0.5), fill=colour, width=width)
        if labels is not None and labels[number] and len(edges):
            visible = _clipped(edges, intrinsics).reshape(-1, 2)
            if len(visible):
                u, v = visible[np.argmin(visible[:, 1])]
                _label(pen, (float(u), max(float(v) - 14, 0.0)), labels[number], colour)
    return picture


def _clipped(edges: Float[np.ndarray, "edges 2 2"], intrinsics: Intrinsics) -> Float[np.ndarray, "kept 2 2"]:
    """The parts of 2D lines that lie in the image (Liang and Barsky's parametric clipping)."""
    kept = []
    for start, end in edges:
        step = end - start
        enter, leave = 0.0, 1.0
        for axis, limit in enumerate((intrinsics.width, intrinsics.height)):
            if step[axis] == 0.0:
                if not 0 <= start[axis] <= limit:
                    leave = -1.0
                continue
            at = sorted(((0 - start[axis]) / step[axis], (limit - start[axis]) / step[axis]))
            enter, leave = max(enter, at[0]), min(leave, at[1])
        if enter < leave:
            kept.append((start + enter * step, start + leave * step))
    return np.array(kept).reshape(-1, 2, 2)


def _draw_cameras(pen: ImageDraw.ImageDraw, scene: Scene, view: BirdsEyeView, scale: int) -> None:
    poses = np.stack([scene.T_aligned_camera(frame) for frame in scene.frames])
    positions = pixel_of(view, poses[:, :2, 3]) * scale
    ahead = pixel_of(view, poses[:, :2, 3] + 0.25 * poses[:, :2, 2]) * scale
    colour = PALETTE[0]
    pen.line([tuple(position) for position in positions], fill=colour, width=2)
    strokes = np.unique(np.linspace(0, len(positions) - 1, min(24, len(positions))).astype(int))
    for index in strokes:
        pen.line((*positions[index], *ahead[index]), fill=_INK, width=2)
    for position, fill in ((positions[0], "white"), (positions[-1], colour)):
        pen.ellipse((*(position - 5), *(position + 5)), outline=colour, fill=fill, width=2)


def _draw_metre(pen: ImageDraw.ImageDraw, view: BirdsEyeView, size: int, scale: int) -> None:
    length = scale / view.metres_per_pixel
    x, y = 12, size - 14
    pen.rectangle((x - 6, y - 22, x + length + 6, y + 8), fill="white")
    pen.line((x, y, x + length, y), fill=_INK, width=3)
    pen.text((x, y - 18), "1 m", fill=_INK, font=_font(12))


def _label(pen: ImageDraw.ImageDraw, position: tuple[float, float], text: str, colour: tuple[int, int, int]) -> None:
    font = _font(12)
    width, height = pen.im.size
    left, top, right, bottom = pen.textbbox(position, text, font=font)
    # Shift it into the picture where it would stick out.
    x = position[0] - max(0.0, right + 2 - width) + max(0.0, 2 - left)
    y = position[1] - max(0.0, bottom + 2 - height)
    left, top, right, bottom = pen.textbbox((x, y), text, font=font)
    pen.rectangle((left - 2, top - 1, right + 2, bottom + 1), fill=colour)
    pen.text((x, y), text, fill="white", font=font)


def _fitted(pixels: np.ndarray, width: int, height: int, *, smooth: bool = True) -> Image.Image:
    """Scaled to fit a tile, centred on white."""
    share = min(width / pixels.shape[1], height / pixels.shape[0])
    size = max(1, round(pixels.shape[1] * share)), max(1, round(pixels.shape[0] * share))
    way = Image.Resampling.BOX if smooth and share < 1 else Image.Resampling.NEAREST
    tile = Image.new("RGB", (width, height), "white")
    tile.paste(Image.fromarray(pixels).resize(size, way), ((width - size[0]) // 2, (height - size[1]) // 2))
    return tile


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)
