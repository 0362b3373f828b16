"""Read posed RGB-D frames, check them, turn them upright, look from above, and write a prepared scene.

python examples/02_your_own_capture.py FOLDER [OUTPUT]

FOLDER holds frame-XXXXXX.color.jpg (or .png), .depth.png and .pose.txt, as 7-Scenes does. Without a folder, the
script makes such a capture from a procedural room, tilted as if somebody had held the camera askew.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from stereopsis.scenes import open_scene, verify_scene
from stereopsis.scenes.alignment import align_scene, with_birdseye
from stereopsis.scenes.draw import draw_birdseye
from stereopsis.scenes.rooms import RoomConfig, make_room
from stereopsis.scenes.stored import write_scene


def make_capture(folder: Path) -> Path:
    """A room written as a stranger's capture: no boxes, no words, and a world frame that is not upright."""
    room = make_room(3, RoomConfig(views=16, width=160, height=120))
    c, s = np.cos(0.4), np.sin(0.4)
    tilt = np.array([[1, 0, 0, 2.0], [0, c, -s, -1.0], [0, s, c, 0.5], [0, 0, 0, 1]])
    for number, frame in enumerate(room.frames):
        stem = folder / f"frame-{number:06d}"
        depth = frame.depth()
        assert depth is not None
        Image.fromarray(frame.colour()).save(f"{stem}.color.png")
        Image.fromarray((depth * 1000).round().astype(np.uint16)).save(f"{stem}.depth.png")
        np.savetxt(f"{stem}.pose.txt", tilt @ frame.T_world_camera)
    np.savetxt(folder / "camera-intrinsics.txt", room.frames[0].intrinsics.matrix)
    return folder


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(sys.argv[1]) if len(sys.argv) > 1 else make_capture(Path(temporary))
        output = Path(sys.argv[2]) if len(sys.argv) > 2 else Path("prepared")

        scene = verify_scene(open_scene(source, on_bad_frame="skip"), on_bad_frame="skip")
        print(f"{len(scene.frames)} frames, skipped: {dict(scene.provenance['skipped']) or 'none'}")

        upright = with_birdseye(align_scene(scene).scene, size=160)
        facts = upright.provenance["alignment"]
        print(f"alignment {facts['method']}, confidence {facts.get('confidence', 1.0):.2f}")
        print("up in the capture's own frame:", upright.T_aligned_world[2, :3].round(3))

        folder = output / "scene"
        write_scene(upright, folder)
        draw_birdseye(upright, scale=3).save(output / "above.png")
        print(f"written: {folder}, {output / 'above.png'}")


if __name__ == "__main__":
    main()
