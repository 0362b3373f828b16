"""Measure what a video of colours alone gives, against a capture with depth and poses, and write results/video_in.md.

    python scripts/video_card.py CAPTURE --work data/video_card

The capture's colours become a 30 fps video on its side with a rotation flag, which `stereopsis prepare --geometry
colmap` turns into a scene; so does the capture itself. Prepared scenes are kept: start it again to go on.
"""

import argparse
import json
import resource
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from stereopsis.files import replacing
from stereopsis.scenes import open_scene
from stereopsis.scenes.scene import Scene


def film(scene: Scene, path: Path) -> None:
    """The frames' colours at 30 a second, stored on their side, with the flag that turns them back."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "12"})
        for frame in scene.frames:
            pixels = np.ascontiguousarray(np.rot90(frame.colour()))
            stream.height, stream.width = pixels.shape[:2]
            stream.pix_fmt = "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    data = bytearray(path.read_bytes())
    start = data.find(b"tkhd") + 4 + 4 + 20 + 16
    one = 0x10000
    data[start : start + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 0, 0, 0x40000000)
    path.write_bytes(data)


def similarity(source: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Scale, rotation and translation that lay points onto others (Umeyama 1991)."""
    a, b = source - source.mean(0), target - target.mean(0)
    U, S, Vt = np.linalg.svd(b.T @ a)
    D = np.diag([1.0, 1.0, np.sign(np.linalg.det(U @ Vt))])
    R = U @ D @ Vt
    s = float((S * np.diag(D)).sum() / (a**2).sum())
    return s, R, target.mean(0) - s * R @ source.mean(0)


def measured(found: Scene, real: Scene) -> dict[str, float]:
    """Errors of estimated poses and depth, both after one similarity alignment of the camera centres."""
    pairs = [(frame, real.frames[int(frame.name.split("-")[1])]) for frame in found.frames]
    ours = np.array([frame.T_world_camera[:3, 3] for frame, _ in pairs])
    theirs = np.array([frame.T_world_camera[:3, 3] for _, frame in pairs])
    s, R, t = similarity(ours, theirs)
    error = np.linalg.norm(s * ours @ R.T + t - theirs, axis=1)
    turns = [R @ a.T_world_camera[:3, :3] @ b.T_world_camera[:3, :3].T for a, b in pairs]
    angles = [np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))) for turn in turns]
    ratios, known = [], []
    for frame, other in pairs:
        depth = frame.depth()
        if depth is None:
            known.append(0.0)
            continue
        truth = np.array(Image.fromarray(other.depth()).resize(depth.shape[::-1], Image.Resampling.NEAREST))
        ok = (depth > 0) & (truth > 0)
        ratios.append(s * depth[ok] / truth[ok])
        known.append(float((depth > 0).mean()))
    ratio = np.concatenate(ratios)
    return {
        "views": len(pairs),
        "of": len(real.frames),
        "ATE RMSE, cm": float(np.sqrt((error**2).mean()) * 100),
        "ATE median, cm": float(np.median(error) * 100),
        "rotation, median degrees": float(np.median(angles)),
        "depth AbsRel": float(np.abs(ratio - 1).mean()),
        "depth AbsRel, median": float(np.median(np.abs(ratio - 1))),
        "depth, median ratio": float(np.median(ratio)),
        "delta < 1.25": float((np.maximum(ratio, 1 / ratio) < 1.25).mean()),
        "pixels with depth": float(np.mean(known)),
    }


def prepare(source: Path, output: Path, *options: str) -> dict[str, float]:
    """Prepare as a user does; seconds and the children's largest memory where it was not there already."""
    started = time.monotonic()
    command = [
        sys.executable,
        "-m",
        "stereopsis",
        "prepare",
        str(source),
        "-o",
        str(output),
        "--workers",
        "1",
        *options,
    ]
    subprocess.run(command, check=True)
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    return {"seconds": round(time.monotonic() - started, 1), "GB": round(memory, 2)}


def side_by_side(measured_scene: Scene, estimated: Scene, path: Path) -> None:
    """Both views from above, the measured one on the left."""
    pictures = [scene.birdseye.image for scene in (measured_scene, estimated) if scene.birdseye is not None]
    Image.fromarray(np.hstack(pictures)).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("capture", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("results/video_in.md"))
    parser.add_argument("--hardware", default="AMD EPYC, AVX2, 2 cores")
    parser.add_argument("--date", default=time.strftime("%Y-%m-%d"))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    real, video, took = open_scene(given.capture), given.work / "kitchen.mp4", given.work / "took.json"
    if not video.is_file():
        film(real, video)
    cost = prepare(video, given.work / "estimated", "--geometry", "colmap")
    if not took.is_file():
        with replacing(took) as partial:
            partial.write_text(json.dumps(cost))
    prepare(given.capture, given.work / "measured")
    found = open_scene(given.work / "estimated" / "kitchen")
    above = next((given.work / "measured").glob("*/scene.json")).parent
    picture = given.output.with_suffix(".above.png")
    side_by_side(open_scene(above), found, picture)
    write(given, measured(found, real), json.loads(took.read_text()), picture.name, found)


def write(given: argparse.Namespace, figures: dict[str, float], cost: dict, picture: str, found: Scene) -> None:
    """The page."""
    rows = "\n".join(f"| {name} | {value:.4g} |" for name, value in {**figures, **cost}.items())
    told = json.dumps({k: found.provenance.get(k) for k in ("geometry", "alignment", "scale")}, default=str)
    text = f"""# Video in: a room from colours alone

`python scripts/video_card.py {given.capture.name} --work DIR`, {given.date}, {given.hardware} (shared
with other work, so that times are upper bounds), seed 0. The {figures["of"]} colour images of the capture became a
30 fps video on its side with a rotation flag; `stereopsis prepare kitchen.mp4 --geometry colmap` (COLMAP's cameras,
depth by plane sweeping) saw nothing else. Errors are after one similarity alignment of the camera centres; depth is
scaled by the same factor, not fitted.

| | |
|---|---|
{rows}

Left: from above, by the capture's own depth and poses. Right: from colours alone (turned and scaled as gravity and
walls were found).

![from above]({picture})

What `scene.json` says: `{told}`
"""
    with replacing(given.output) as partial:
        partial.write_text(text)


if __name__ == "__main__":
    main()
