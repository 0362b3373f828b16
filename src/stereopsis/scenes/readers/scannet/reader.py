"""Reader of ScanNet's scan folders: ``scans/SCENE/`` with a .sens file or exported frames, mesh and annotations."""

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from stereopsis.errors import SceneError
from stereopsis.scenes.bad_frames import MAX_BAD_FRACTION, OnBadFrame, check_policy, check_skipped
from stereopsis.scenes.conventions import Conventions, ReadOptions
from stereopsis.scenes.readers.listed_files import given_name
from stereopsis.scenes.readers.scannet.annotations import (
    LabelMapRow,
    ScanInstances,
    make_instances,
    read_aggregation,
    read_label_map,
    read_segments,
)
from stereopsis.scenes.readers.scannet.exported import COLOUR_FOLDERS, POSE_FOLDERS, exported_frames, find_folders
from stereopsis.scenes.readers.scannet.frames import ScanFrames, sens_frames
from stereopsis.scenes.readers.scannet.metadata import ALIGNMENT_FILE, ScanMetadata, read_alignment, read_metadata
from stereopsis.scenes.scene import Scene
from stereopsis.scenes.surfaces.mesh_depth import with_mesh_depth
from stereopsis.scenes.surfaces.meshes import read_indexed_mesh

EXPECTED_FILES = (
    "SCENE.sens, or posed_images/ (NNNNN.jpg, NNNNN.txt, optionally NNNNN.png) beside SCENE_vh_clean_2.ply, or "
    "SensReader's color/, pose/ and depth/; optionally SCENE.txt, SCENE_vh_clean_2.ply, "
    "SCENE_vh_clean_2.0.010000.segs.json and SCENE.aggregation.json"
)
LABEL_MAP = "scannetv2-labels.combined.tsv"
MESHES = ("_vh_clean_2.ply", "_vh_clean.ply")
_SCAN_FILE = re.compile(
    r"^([^.].*?)(\.sens|(_vh_clean)?\.aggregation\.json|_vh_clean(_2)?\.ply|_vh_clean(_2\.0\.010000)?\.segs\.json)$"
)
_NUMBERED_POSE = re.compile(r"^[0-9]{1,9}\.txt$", re.IGNORECASE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Scan:
    """A folder's files, by their ordinary names."""

    id: str
    folder: Path
    names: frozenset[str]

    def file(self, suffix: str) -> Path | None:
        """The scan's file of this suffix, where the folder lists it."""
        name = f"{self.id}{suffix}"
        return self.folder / name if name in self.names else None


def scan_id(path: Path) -> str:
    """The scan that a folder's files are named after; the folder's name where they name none.

    Raises:
        SceneError: the folder cannot be listed, or holds files of several scans.
    """
    return _find_scan(path).id


def is_scannet(path: Path) -> bool:
    """Whether a folder holds a file named as ScanNet names those of a scan, or SensReader's folders."""
    if not path.is_dir():
        return False
    names = os.listdir(path)
    return any(map(_SCAN_FILE.match, names)) or any(
        {colour, pose} <= set(names) and any(_NUMBERED_POSE.match(name) for name in _listed(path / pose))
        for colour in COLOUR_FOLDERS
        for pose in POSE_FOLDERS
    )


def _listed(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def read_scannet(
    path: Path,
    *,
    options: ReadOptions = ReadOptions(),  # noqa: B008
    on_bad_frame: OnBadFrame = "raise",
    max_bad_fraction: float = MAX_BAD_FRACTION,
    every: int = 1,
    objects: bool = True,
    label_map: Path | None = None,
) -> Scene:
    """Open a ScanNet scan; images are read when asked for, the index of frames and the annotations now.

    Frames come from ``SCENE.sens`` where it exists, otherwise from an export (see
    `stereopsis.scenes.readers.scannet.exported`). Where an export has no depth and the scan has its mesh, depth is
    cast from the mesh (`stereopsis.scenes.surfaces.mesh_depth`).

    Args:
        path: the scan's folder.
        options: what a person says of poses and depth; goes before the layout's own.
        on_bad_frame: "raise" stops at the first bad frame, which in ScanNet is often one whose pose was lost (-inf);
            "skip" leaves bad frames out and counts them.
        max_bad_fraction: the share of bad frames at which "skip" stops, too.
        every: take every how many frames; a scan has thousands.
        objects: read the instances; False leaves mesh and annotations alone.
        label_map: ScanNet's ``scannetv2-labels.combined.tsv``; None looks for it in the folder and the two above it.

    Returns:
        A scene named after the scan's files, with its objects and their boxes in the aligned frame. The provenance
        tells where frames, depth and alignment come from, and what was skipped.

    Raises:
        FrameError: a frame is bad and the policy is "raise".
        SceneError: no frames, files that are damaged or do not belong together, or too many bad frames.
    """
    path = Path(path)
    check_policy(on_bad_frame)
    if every < 1:
        raise SceneError(f"every={every}: expected 1 (all frames) or more; choose how many frames to step")
    scan = _find_scan(path)
    text = scan.file(".txt")
    metadata = ScanMetadata() if text is None else read_metadata(text)
    found = _read_frames(scan, metadata, options, on_bad_frame, every)
    check_skipped(str(path), len(found.frames) + len(found.skipped), found.skipped, max_bad_fraction)
    T_aligned_world, alignment = _alignment(scan, metadata)
    instances = _read_instances(scan, T_aligned_world, label_map) if objects else None
    provenance: dict[str, Any] = {
        "format": "scannet",
        "path": str(path),
        "skipped": dict(found.skipped),
        "frames": {"source": found.source, "stored": found.stored, "every": every},
        "axis_alignment": alignment,
        "notes": list(found.notes),
        **found.conventions.record(),
    }
    if metadata.scene_type:
        provenance["scene_type"] = metadata.scene_type
    if instances is not None:
        provenance["objects"] = {
            "skipped": dict(instances.skipped),
            "contested_vertices": instances.contested_vertices,
            "unknown_labels": dict(instances.unknown_labels),
        }
    scene = Scene(
        id=scan.id,
        frames=found.frames,
        T_aligned_world=T_aligned_world,
        objects=() if instances is None else instances.objects,
        provenance=provenance,
    )
    mesh = _mesh(scan)
    if mesh is not None:
        scene = scene.replace(provenance={**provenance, "mesh": str(mesh)})
    if mesh is not None and any(frame.load_depth is None for frame in scene.frames):
        return with_mesh_depth(scene, mesh)
    return scene


def read_scan_instances(path: Path, *, label_map: Path | None = None) -> ScanInstances:
    """The instances of a scan with the object of each mesh vertex, apart from any frames.

    Args:
        path: the scan's folder.
        label_map: as for `read_scannet`.

    Raises:
        SceneError: there are none, or the files are damaged or do not belong together.
    """
    scan = _find_scan(Path(path))
    text = scan.file(".txt")
    T_aligned_world = _alignment(scan, ScanMetadata() if text is None else read_metadata(text))[0]
    instances = _read_instances(scan, T_aligned_world, label_map)
    if instances is None:
        raise SceneError(f"{path}: holds no {scan.id}.aggregation.json, which lists the objects; restore the file")
    return instances


def _find_scan(path: Path) -> _Scan:
    if not path.is_dir():
        raise SceneError(f"{path}: no such folder; expected one that holds {EXPECTED_FILES}; check the path")
    try:
        names = frozenset(os.listdir(path))
    except OSError as error:
        raise SceneError(f"{path}: cannot be listed ({error.strerror}); check its permissions") from error
    ids = {match[1] for match in map(_SCAN_FILE.match, names) if match}
    own = next((name for name in (given_name(path), path.resolve().name) if name in ids), given_name(path))
    if len(ids) > 1 and own not in ids:
        raise SceneError(
            f"{path}: holds files of {len(ids)} scans ({', '.join(sorted(ids)[:4])}); expected one scan per folder; "
            "move each into a folder of its own"
        )
    return _Scan(id=own if own in ids or not ids else ids.pop(), folder=path, names=names)


def _read_frames(
    scan: _Scan, metadata: ScanMetadata, options: ReadOptions, on_bad_frame: OnBadFrame, every: int
) -> ScanFrames:
    sens = scan.file(".sens")
    if sens is not None:
        found = sens_frames(sens, options=options, on_bad_frame=on_bad_frame, every=every)
    else:
        folders = find_folders(scan.folder)
        if folders is None:
            raise SceneError(
                f"{scan.folder}: holds files of scan {scan.id}, but no frames; expected {EXPECTED_FILES}; download "
                f"{scan.id}.sens, or export its frames here"
            )
        found = exported_frames(
            scan.folder,
            folders,
            metadata,
            conventions=Conventions().with_options(options, str(scan.folder)),
            on_bad_frame=on_bad_frame,
            every=every,
        )
    if not found.stored:
        raise SceneError(f"{scan.folder / found.source}: holds no frames; expected at least one; download it again")
    return found


def _alignment(scan: _Scan, metadata: ScanMetadata) -> tuple[Float[np.ndarray, "4 4"], str]:
    """The transform to the aligned frame, and where it comes from."""
    if metadata.T_aligned_world is not None:
        return metadata.T_aligned_world, f"axisAlignment of {scan.id}.txt"
    if ALIGNMENT_FILE in scan.names:
        return read_alignment(scan.folder / ALIGNMENT_FILE), ALIGNMENT_FILE
    return np.eye(4), (
        f"none: neither axisAlignment in {scan.id}.txt nor {ALIGNMENT_FILE} was found, so the scan's own world (z up, "
        "walls at any angle) serves as the aligned frame"
    )


def _mesh(scan: _Scan) -> Path | None:
    return next((file for suffix in MESHES if (file := scan.file(suffix)) is not None), None)


def _read_instances(
    scan: _Scan, T_aligned_world: Float[np.ndarray, "4 4"], label_map: Path | None
) -> ScanInstances | None:
    """The objects; None where the scan has no aggregation (the test scans' are not public)."""
    aggregation = scan.file(".aggregation.json")
    if aggregation is None:
        return None
    # Segments number the vertices of this mesh and of no other one.
    needed = {suffix: scan.file(suffix) for suffix in ("_vh_clean_2.ply", "_vh_clean_2.0.010000.segs.json")}
    mesh, segments = needed.values()
    if mesh is None or segments is None:
        missing = " and ".join(f"{scan.id}{suffix}" for suffix, file in needed.items() if file is None)
        raise SceneError(
            f"{scan.folder}: {aggregation.name} lists objects, but {missing} is missing, without which they have no "
            "place; download it, or read the scan with read_scannet(..., objects=False)"
        )
    return make_instances(
        read_indexed_mesh(mesh).vertices,
        read_segments(segments),
        read_aggregation(aggregation),
        T_aligned_world,
        label_map=_label_map(scan, label_map),
        where=str(scan.folder),
    )


def _label_map(scan: _Scan, given: Path | None) -> Mapping[str, LabelMapRow] | None:
    if given is not None:
        return read_label_map(given)
    folder = scan.folder.resolve()
    for candidate in (folder, *list(folder.parents)[:2]):
        if (candidate / LABEL_MAP).is_file():
            return read_label_map(candidate / LABEL_MAP)
    return None
