"""The data folder of Video-3D-LLM, Ross3D and 3DRS, as their users have it on disk.

    data/
      embodiedscan/embodiedscan_infos_{train,val,test}.pkl    alignment, intrinsics, frame lists
      metadata/scannet_{train,val}_gt_box.json                true boxes: {"scannet/SCENE": [[6 numbers], ...]}
      metadata/scannet_{val,test}_pred_box.json               Mask3D's boxes, the proposals
      metadata/scannet_select_frames.json                     frames by maximum coverage
      processed/**/*_llava_style.json                         questions and answers (stereopsis.benchmarks reads them)
      scannet/posed_images/SCENE/                             frames
      scannet/scans/SCENE/view_0.jpg                          Ross3D's picture from above
      scannet/pcd_with_object_aabbs/SPLIT/SCENE.pth           true boxes with ScanNet's object ids
      scannet/posed_images_3d_feature_vggt/SCENE/vggt.npz     3DRS's teacher features

Everything is optional but the frames; what is asked for and absent is named in the error. Boxes are cx cy cz dx dy dz
in the aligned frame, metres.
"""

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from stereopsis.annotations import Annotation, AnnotationRecord
from stereopsis.errors import SceneError, did_you_mean
from stereopsis.geometry.boxes import check_boxes
from stereopsis.reading import read_json
from stereopsis.scenes.bad_frames import MAX_BAD_FRACTION, OnBadFrame
from stereopsis.scenes.images import read_colour, read_header
from stereopsis.scenes.pickles.safe_pickle import load_torch
from stereopsis.scenes.readers.embodiedscan import FOLDERS
from stereopsis.scenes.readers.posed_images import Frames, frame_names, is_posed_images, read_posed_images
from stereopsis.scenes.readers.view_features import FeatureArchive, open_features
from stereopsis.scenes.scene import Proposal, Scene, SceneObject

SPLITS = ("train", "val", "test")
_SAME_BOX = 0.01  # metres; files that round differently still speak of the same box


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrameSelection:
    """A scene's frames by maximum coverage, the most useful first.

    Attributes:
        names: frames, in the order in which they were chosen.
        new_voxels: 10 cm voxels that each adds; empty where the file does not say.
        total_voxels: voxels of the scene; 0 where the file does not say.
    """

    names: tuple[str, ...]
    new_voxels: tuple[int, ...] = ()
    total_voxels: int = 0

    def take(self, count: int, *, coverage: float = 1.0) -> tuple[str, ...]:
        """The first frames, at most `count`, until the share `coverage` of the voxels is seen; in capture order."""
        chosen, seen = list(self.names[:count]), 0
        if coverage < 1.0:
            for number, voxels in enumerate(self.new_voxels[:count]):
                seen += voxels
                if seen >= coverage * self.total_voxels:
                    chosen = chosen[: number + 1]
                    break
        return tuple(sorted(chosen, key=int))


class Video3DLLMData:
    """One data folder; files are read when something in them is asked for, and once.

    Args:
        root: the data folder, or the project's folder that holds ``data/``.

    Raises:
        SceneError: there is no ``scannet/posed_images`` in either.
    """

    def __init__(self, root: str | Path) -> None:
        candidates = (Path(root), Path(root) / "data")
        found = next((folder for folder in candidates if (folder / "scannet" / "posed_images").is_dir()), None)
        if found is None:
            raise SceneError(
                f"{root}: holds neither scannet/posed_images nor data/scannet/posed_images; expected the data folder "
                "of Video-3D-LLM, Ross3D or 3DRS; check the path"
            )
        self.root = found
        self._json: dict[Path, Any] = {}

    def scene_ids(self) -> tuple[str, ...]:
        """The scenes that have frames, sorted."""
        folder = self.root / "scannet" / "posed_images"
        return tuple(sorted(entry.name for entry in folder.iterdir() if is_posed_images(entry)))

    def scene(
        self,
        scene_id: str,
        *,
        records: Sequence[AnnotationRecord] = (),
        boxes: bool = True,
        frames: Frames = "listed",
        on_bad_frame: OnBadFrame = "raise",
        max_bad_fraction: float = MAX_BAD_FRACTION,
    ) -> Scene:
        """Open a scene with its boxes and, where asked for, its annotations.

        Objects are the true boxes under ScanNet's ids; proposals the detector's, where the folder has them for this
        scene's split (otherwise the objects serve, as these systems do in training).

        Args:
            scene_id: such as "scene0000_00".
            records: what is said about this scene (see `stereopsis.benchmarks.files.processed`): their annotations are
                attached, and true boxes in them complete the objects.
            boxes: attach objects and proposals. They need the aligned frame.
            frames: see `read_posed_images`.
            on_bad_frame: likewise.
            max_bad_fraction: likewise.

        Raises:
            FrameError: a frame is bad and the policy is "raise".
            SceneError: the scene or a file that was asked for is absent or wrong, boxes were asked for and the
                alignment is unknown, or the detector's list of this scene is empty.
        """
        path = self._folder(scene_id)
        scene = read_posed_images(
            path, root=self.root, frames=frames, on_bad_frame=on_bad_frame, max_bad_fraction=max_bad_fraction
        )
        scene = scene.replace(annotations=_distinct(record.annotation for record in records))
        if not boxes:
            return scene
        objects, source = self._objects(scene_id)
        objects = self._with_true_boxes(scene_id, objects, records)
        proposals = self.proposals(scene_id)
        if (objects or proposals) and "alignment" not in scene.provenance:
            raise SceneError(
                f"{path}: the boxes of this scene are in the aligned frame, but no alignment is known: expected an "
                f"entry in {self.root / FOLDERS[0]}/embodiedscan_infos_*.pkl or axisAlignment in "
                f"{self.root / 'scannet' / 'scans' / scene_id / (scene_id + '.txt')}; add one of them, or do without "
                "boxes with boxes=False"
            )
        return scene.replace(
            objects=objects, proposals=proposals, provenance={**scene.provenance, "objects_from": source}
        )

    def objects(self, scene_id: str) -> tuple[SceneObject, ...]:
        """The true boxes under ScanNet's object ids; labels from ``SCENE.aggregation.json`` where it is there, else "".

        Read from ``scannet_{train,val,test}_gt_box.json`` (an object's place in the list is its id), else from
        ``pcd_with_object_aabbs``; empty where neither has the scene.

        Raises:
            SceneError: a file is damaged or its boxes are wrong.
        """
        return self._objects(scene_id)[0]

    def proposals(self, scene_id: str) -> tuple[Proposal, ...]:
        """The detector's boxes (``scannet_{train,val,test}_pred_box.json``); empty where no file has the scene.

        The files hold no scores: all are 1, in the file's order.

        Raises:
            SceneError: a file is damaged, its boxes are wrong, or its list of this scene is empty.
        """
        found = self._box_list(scene_id, "pred")
        if found is None:
            return ()
        values, path = found
        if not len(values):
            raise SceneError(
                f"{path}: the list of 'scannet/{scene_id}' is empty; without proposals the true boxes would be taken "
                "instead; detect objects in this scene again, or take the entry out to accept that"
            )
        return tuple(Proposal(box=box) for box in values)

    def selected_frames(self, scene_id: str) -> FrameSelection:
        """The scene's frames by maximum coverage (``scannet_select_frames.json``).

        Raises:
            SceneError: no such file, or the scene is not in it or its entry is of another form.
        """
        path = self.root / "metadata" / "scannet_select_frames.json"
        content = self._read_json(path, list)
        key = f"scannet/{scene_id}"
        entries = [entry for entry in content if isinstance(entry, dict) and entry.get("video_id") == key]
        if len(entries) != 1:
            raise SceneError(f"{path}: has {len(entries)} entries of '{key}', expected one; select frames again")
        return _selection(entries[0], f"{path}: '{key}'")

    def birdseye_image(self, scene_id: str) -> UInt8[np.ndarray, "height width 3"]:
        """Ross3D's picture from above, ``scans/SCENE/view_0.jpg``; black where nothing was seen.

        It says neither its scale nor where it lies, so it is no `BirdsEyeView`; `with_birdseye` draws one of these.

        Raises:
            SceneError: the picture is absent or damaged.
        """
        path = self.root / "scannet" / "scans" / scene_id / "view_0.jpg"
        if not path.is_file():
            raise SceneError(
                f"{path}: does not exist; render it, or draw the view with stereopsis.scenes.alignment.with_birdseye"
            )
        return read_colour(path)

    def features(self, scene_id: str, *, teacher: str = "vggt") -> FeatureArchive:
        """A teacher's features of the scene's views, keyed by frame name and read one view at a time.

        Args:
            scene_id: the scene.
            teacher: "vggt", "dinov2", "siglip2": the folder's and the file's name.

        Raises:
            SceneError: the archive is absent or of another form, or the scene has no frames to name its views by.
        """
        folder = self._folder(scene_id)
        names = frame_names(folder)
        size = read_header(folder / f"{names[0]}.jpg").size
        path = self.root / "scannet" / f"posed_images_3d_feature_{teacher}" / scene_id / f"{teacher}.npz"
        return open_features(path, names, size)

    def _folder(self, scene_id: str) -> Path:
        path = self.root / "scannet" / "posed_images" / scene_id
        if not path.is_dir() or path.parent != self.root / "scannet" / "posed_images":
            near = did_you_mean(scene_id, known) if len(known := self.scene_ids()) else ""
            hint = near if "did you mean" in near else f" (there are {len(known)}, see scene_ids)"
            raise SceneError(f"{path}: no such scene{hint}; check the id")
        return path

    def _read_json(self, path: Path, kind: type) -> Any:
        if path not in self._json:
            try:
                self._json[path] = read_json(path)
            except FileNotFoundError as error:
                raise SceneError(f"{path}: does not exist; get or write it, or check the path") from error
            except (OSError, ValueError, RecursionError) as error:
                raise SceneError(f"{path}: cannot be read as JSON ({error}); copy the file again") from error
        if not isinstance(self._json[path], kind):
            found = type(self._json[path]).__name__
            raise SceneError(f"{path}: found a {found}, expected a {kind.__name__}; write the file again")
        return self._json[path]

    def _box_list(self, scene_id: str, kind: str) -> tuple[Float[np.ndarray, "boxes 6"], Path] | None:
        """A scene's boxes from whichever split's file has them, and the file."""
        for split in SPLITS:
            path = self.root / "metadata" / f"scannet_{split}_{kind}_box.json"
            if path.exists() and f"scannet/{scene_id}" in (content := self._read_json(path, dict)):
                return _boxes(content[f"scannet/{scene_id}"], f"{path}: 'scannet/{scene_id}'"), path
        return None

    def _objects(self, scene_id: str) -> tuple[tuple[SceneObject, ...], str | None]:
        """Objects and the file that they are from."""
        found = self._box_list(scene_id, "gt")
        if found is not None:
            by_id, source = dict(enumerate(found[0])), found[1]
        else:
            folder = self.root / "scannet" / "pcd_with_object_aabbs"
            files = [folder / split / f"{scene_id}.pth" for split in SPLITS]
            present = [path for path in files if path.is_file()]
            if not present:
                return (), None
            source = present[0]
            by_id = _point_cloud_boxes(source)
        labels = self._labels(scene_id)
        objects = tuple(SceneObject(id=key, label=labels.get(key, ""), box=box) for key, box in sorted(by_id.items()))
        return objects, str(source)

    def _labels(self, scene_id: str) -> dict[int, str]:
        path = self.root / "scannet" / "scans" / scene_id / f"{scene_id}.aggregation.json"
        if not path.exists():
            return {}
        try:
            return {int(group["objectId"]): str(group["label"]) for group in self._read_json(path, dict)["segGroups"]}
        except (KeyError, TypeError, ValueError) as error:
            raise SceneError(f"{path}: 'segGroups' lacks objectId or label ({error!r}); get the file again") from error

    def _with_true_boxes(
        self, scene_id: str, objects: tuple[SceneObject, ...], records: Iterable[AnnotationRecord]
    ) -> tuple[SceneObject, ...]:
        """The objects, completed by those that only annotations know; refuses annotations that contradict."""
        known = {item.id: item for item in objects}
        labels = self._labels(scene_id)
        for record in records:
            for object_id, values in zip(record.annotation.object_ids, record.targets or (), strict=False):
                box = np.array(values)
                if object_id not in known:
                    known[object_id] = SceneObject(id=object_id, label=labels.get(object_id, ""), box=box)
                elif np.abs(known[object_id].box - box).max() > _SAME_BOX:
                    raise SceneError(
                        f"{self.root}: {record.annotation.task} '{record.annotation.id}' gives object {object_id} of "
                        f"{scene_id} the box {np.round(box, 2).tolist()}, but another file "
                        f"{np.round(known[object_id].box, 2).tolist()}; the files are of different versions; write "
                        "the processed files and the boxes again from the same ScanNet"
                    )
        return tuple(known[key] for key in sorted(known))


def _distinct(annotations: Iterable[Annotation]) -> tuple[Annotation, ...]:
    found = tuple(annotations)
    counts = collections.Counter((annotation.task, annotation.id) for annotation in found)
    twice = next((each for each, count in counts.items() if count > 1), None)
    if twice is not None:
        raise SceneError(f"two annotations have the id '{twice[1]}'; name each processed file once, one of its kind")
    return found


def _boxes(values: Any, where: str) -> Float[np.ndarray, "boxes 6"]:
    try:
        boxes = np.array(values, dtype=np.float64).reshape(-1, 6) if values == [] else np.array(values, np.float64)
        check_boxes(boxes)
        if boxes.ndim != 2:
            raise ValueError(f"shape {boxes.shape}")
    except (TypeError, ValueError) as error:
        raise SceneError(
            f"{where}: unusable boxes ({error}); expected a list of cx cy cz dx dy dz, finite, metres; write the file "
            "again with Video-3D-LLM's preprocessing scripts"
        ) from error
    return boxes


def _point_cloud_boxes(path: Path) -> dict[int, Float[np.ndarray, "6"]]:
    """{object id: box} from the corners in a ``pcd_with_object_aabbs`` file."""
    content = load_torch(path)
    ids = content.get("aabb_obj_ids") if isinstance(content, dict) else None
    corners = content.get("aabb_corner_xyz") if isinstance(content, dict) else None
    if ids is None and corners is None and isinstance(content, dict) and "aabb_obj_ids" in content:
        return {}  # test scenes are written without objects
    known = isinstance(ids, np.ndarray) and ids.ndim == 1 and ids.dtype.kind in "iu"
    if ids is None or not known or not isinstance(corners, np.ndarray) or corners.shape != (len(ids), 8, 3):
        raise SceneError(
            f"{path}: expected 'aabb_obj_ids' [n] and 'aabb_corner_xyz' [n, 8, 3]; extract the point cloud again"
        )
    low, high = corners.astype(np.float64).min(axis=1), corners.astype(np.float64).max(axis=1)
    boxes = _boxes(np.concatenate([(low + high) / 2, high - low], axis=1).tolist(), str(path))
    return {int(key): box for key, box in zip(ids, boxes, strict=True)}


def _selection(entry: Mapping[str, Any], where: str) -> FrameSelection:
    files, voxels, total = entry.get("frame_files"), entry.get("voxel_nums", []), entry.get("num_all_voxels", 0)
    texts = [file for file in files if isinstance(file, str)] if isinstance(files, list) else []
    names = tuple(Path(file).stem for file in texts) if texts == files else ()
    counted = isinstance(voxels, list) and len(voxels) in (0, len(names)) and isinstance(total, int)
    if not names or len(set(names)) < len(names) or not all(map(str.isdigit, names)) or not counted:
        raise SceneError(
            f"{where}: expected 'frame_files', a list of different '.../NNNNN.jpg', and as many 'voxel_nums'; select "
            "frames again with Video-3D-LLM's preprocessing scripts"
        )
    return FrameSelection(names=names, new_voxels=tuple(map(int, voxels)), total_voxels=total)
