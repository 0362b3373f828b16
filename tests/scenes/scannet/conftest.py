"""ScanNet files made by hand, as fixtures."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scannet_files import (
    GROUPS,
    SCAN,
    SEGMENTS,
    TEXT,
    WALL,
    WALL_TRIANGLES,
    export,
    plain_frames,
    sens_bytes,
    write_ply,
)


@pytest.fixture
def make_sens(tmp_path: Path) -> Callable[[bytes], Path]:
    """A function that puts bytes into a .sens file."""

    def make(data: bytes) -> Path:
        path = tmp_path / f"{SCAN}.sens"
        path.write_bytes(data)
        return path

    return make


@pytest.fixture
def make_scan(tmp_path: Path) -> Callable[..., Path]:
    """A function that makes a scan's folder: frames of the named kind, and all that can lie beside them."""

    def make(kind: str = "sens", frames: int = 3, poses: dict[int, np.ndarray] | None = None) -> Path:
        folder = tmp_path / SCAN
        folder.mkdir()
        if kind == "sens":
            (folder / f"{SCAN}.sens").write_bytes(sens_bytes(plain_frames(frames, poses)))
        elif kind in ("posed", "posed with depth"):
            export(folder / "posed_images", folder / "posed_images", folder / "posed_images", "{:05d}", frames, kind)
        elif kind == "sensreader":
            export(folder / "color", folder / "depth", folder / "pose", "{}", frames, "posed with depth")
        write_ply(folder / f"{SCAN}_vh_clean_2.ply", WALL, WALL_TRIANGLES)
        (folder / f"{SCAN}_vh_clean_2.0.010000.segs.json").write_text(json.dumps({"segIndices": SEGMENTS}))
        (folder / f"{SCAN}.aggregation.json").write_text(json.dumps({"sceneId": SCAN, "segGroups": GROUPS}))
        (folder / f"{SCAN}.txt").write_text(TEXT)
        return folder

    return make
