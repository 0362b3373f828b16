"""Readers of 3D detectors' files: masks over a mesh's vertices, or boxes.

Known are
    *.npz   ``masks`` [instances, vertices] of 0 and 1 (or transposed), and optionally ``scores`` and ``labels``;
            or a scipy.sparse matrix of the masks, as LEO and Video-3D-LLM use Mask3D's output
    *.txt   the ScanNet benchmark's index: "mask file, label, score" a line, and mask files of one 0 or 1 per
            vertex, as Mask3D writes them
    *.json  boxes: a list of {"box", "score", "label"} or of six numbers; or {scene: such a list}, as
            Video-3D-LLM's ``scannet_val_pred_box.json``
Boxes are cx cy cz dx dy dz in the aligned frame, metres. Nothing in a file is ever executed: arrays that need
pickle are refused.
"""

import dataclasses
import io
import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import sparse

from stereopsis.errors import SceneError, did_you_mean
from stereopsis.geometry.boxes import box_from_points, check_boxes
from stereopsis.reading import check_archive, parse_json, read_bytes, read_text
from stereopsis.scenes.scene import Proposal

EXPECTED_FILES = (
    "*.npz (masks over vertices), *.txt (ScanNet benchmark index of mask files) or *.json (boxes cx cy cz dx dy dz)"
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
    """What a detector's file says of one scene.

    Attributes:
        proposals: best score first.
        skipped: {instance: why it gives no box}; instances without any vertex.
    """

    proposals: tuple[Proposal, ...]
    skipped: Mapping[str, str] = dataclasses.field(default_factory=dict)


def read_detections(
    path: str | Path,
    scene_id: str,
    *,
    vertices: Float[np.ndarray, "vertices 3"] | None = None,
    max_instances: int | None = None,
) -> Detections:
    """Read a detector's proposals for one scene.

    Args:
        path: the file; its suffix says what it is (see the module's docstring).
        scene_id: whose boxes to take of a file of many scenes; "scannet/ID" is known as well.
        vertices: [n, 3] the mesh's vertices in the ALIGNED frame, metres, in the mesh's order; needed for masks.
        max_instances: take the first so many instances of a mask file; Video-3D-LLM takes 50.

    Raises:
        SceneError: the file is absent, unreadable, does not fit the vertices, holds scores or boxes that are no
            numbers, or does not know the scene.
    """
    path = Path(path)
    if not path.is_file():
        raise SceneError(f"{path}: no such file; expected {EXPECTED_FILES}; check the path")
    if path.suffix == ".json":
        return _sorted(_read_json(path, scene_id), {})
    if path.suffix not in (".npz", ".txt"):
        raise SceneError(f"{path}: unknown kind of detector file '{path.suffix}'; expected {EXPECTED_FILES}")
    if vertices is None:
        raise SceneError(
            f"{path}: masks say which vertices of the scene's mesh are an object; pass the mesh's vertices, in the "
            "aligned frame, as vertices=..."
        )
    if not np.isfinite(vertices).all():
        raise SceneError(f"{path}: the vertices passed with it hold NaN or inf; pass the mesh's own vertices")
    masks = _read_npz(path, len(vertices)) if path.suffix == ".npz" else _read_index(path, len(vertices))
    proposals, skipped = [], {}
    for number, (mask, score, label) in enumerate(masks[:max_instances]):
        if mask.any():
            proposals.append(Proposal(box=box_from_points(vertices[mask]), score=score, label=label))
        else:
            skipped[f"instance {number}"] = "its mask holds no vertex"
    return _sorted(proposals, skipped)


_Mask = tuple[Bool[np.ndarray, "vertices"], float, str]


def _sorted(proposals: list[Proposal], skipped: dict[str, str]) -> Detections:
    return Detections(proposals=tuple(sorted(proposals, key=lambda item: -item.score)), skipped=skipped)


def _read_npz(path: Path, vertices: int) -> list[_Mask]:
    try:
        data = read_bytes(path)
        check_archive(data)
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            names = set(file.files)
            if {"indptr", "indices", "shape", "format"} <= names:
                matrix = sparse.load_npz(io.BytesIO(data))
                if vertices not in matrix.shape:
                    raise _other_mesh(path, matrix.shape, vertices)
                masks, arrays = np.asarray(matrix.todense()), {}
            elif "masks" in names:
                masks = file["masks"]
                arrays = {name: file[name] for name in ("scores", "labels") if name in names}
            else:
                raise SceneError(
                    f"{path}: holds {', '.join(sorted(names)) or 'nothing'}; expected 'masks' [instances, vertices] "
                    "and optionally 'scores' and 'labels', or a scipy.sparse matrix; write the masks under that name"
                )
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise SceneError(
            f"{path}: cannot be read as a plain .npz file ({error}); expected arrays of numbers and strings without "
            "pickled objects; write it again with np.savez_compressed"
        ) from error
    if masks.ndim != 2 or masks.dtype.kind not in "buif" or not np.isin(masks, (0, 1)).all():
        raise SceneError(
            f"{path}: 'masks' is {masks.dtype} {list(masks.shape)}; expected [instances, vertices] of 0 and 1; "
            "threshold soft masks first"
        )
    if masks.shape[1] != vertices and masks.shape[0] == vertices:
        masks = masks.T
    if masks.shape[1] != vertices:
        raise _other_mesh(path, masks.shape, vertices)
    scores, labels = arrays.get("scores", np.ones(len(masks))), arrays.get("labels", np.full(len(masks), ""))
    for name, values in (("scores", scores), ("labels", labels)):
        if values.shape != (len(masks),):
            raise SceneError(
                f"{path}: '{name}' is {list(values.shape)} for {len(masks)} masks; expected one per mask; "
                "write masks, scores and labels of the same instances"
            )
    return [
        (mask.astype(bool), _score(score, f"{path}: score {number}"), str(label))
        for number, (mask, score, label) in enumerate(zip(masks, scores.tolist(), labels.tolist(), strict=True))
    ]


def _other_mesh(path: Path, shape: tuple[int, ...], vertices: int) -> SceneError:
    return SceneError(
        f"{path}: the masks are {list(shape)}, but the mesh has {vertices} vertices; expected one column per vertex; "
        "are these masks of another scene, or of a cleaned or thinned mesh?"
    )


def _read_index(path: Path, vertices: int) -> list[_Mask]:
    masks = []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        where, parts = f"{path}, line {number}", line.split()
        if len(parts) != 3:
            raise SceneError(
                f"{where}: found {len(parts)} words, expected 'mask file, label, score' separated by blanks; is this "
                "the index file rather than a mask file?"
            )
        masks.append((_read_mask(path.parent / parts[0], vertices), _score(parts[2], f"{where}: score"), parts[1]))
    return masks


def _read_mask(path: Path, vertices: int) -> Bool[np.ndarray, "vertices"]:
    words = _text(path).split()
    if len(words) != vertices:
        raise SceneError(
            f"{path}: {len(words)} values for a mesh of {vertices} vertices; expected one 0 or 1 per vertex; is it a "
            "mask of another scene or mesh?"
        )
    values = np.array(words)
    mask = values == "1"
    if not (mask | (values == "0")).all():
        raise SceneError(f"{path}: holds '{values[~mask & (values != '0')][0]}'; expected one 0 or 1 per vertex")
    return mask


def _read_json(path: Path, scene_id: str) -> list[Proposal]:
    try:
        content = parse_json(_text(path))
    except ValueError as error:
        raise SceneError(f"{path}: no JSON ({error}); expected boxes; write the file again") from error
    where = str(path)
    if isinstance(content, dict):
        short = scene_id.rsplit("/", 1)[-1]
        key = next((key for key in (scene_id, f"scannet/{short}", short) if key in content), None)
        if key is None:
            near = did_you_mean(scene_id, content) if len(content) <= 20 else f" among its {len(content)} scenes"
            raise SceneError(
                f"{path}: no boxes of scene '{scene_id}'{near}; expected a key of that name; is this the file of "
                "another split?"
            )
        content, where = content[key], f"{path}, scene '{key}'"
    if not isinstance(content, list):
        raise SceneError(f"{where}: found {_kind(content)}, expected a list of boxes")
    return [_proposal(item, f"{where}, box {number}") for number, item in enumerate(content)]


def _proposal(item: Any, where: str) -> Proposal:
    record = item if isinstance(item, dict) else {"box": item}
    if not {"box"} <= set(record) <= {"box", "score", "label"}:
        raise SceneError(f"{where}: has the keys {sorted(record)}, expected 'box' and optionally 'score' and 'label'")
    values = record["box"]
    numbers = isinstance(values, list) and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    if not numbers or len(values) != 6:
        found = f"{len(values)} values" if isinstance(values, list) else _kind(values)
        raise SceneError(f"{where}: found {found}, expected six numbers cx cy cz dx dy dz in metres")
    try:
        box = np.array(values, dtype=np.float64)
        check_boxes(box, where)
    except (ValueError, OverflowError) as error:
        raise SceneError(f"{error}; expected finite cx cy cz dx dy dz in metres; correct the file") from error
    return Proposal(
        box=box, score=_score(record.get("score", 1.0), f"{where}: score"), label=str(record.get("label", ""))
    )


def _score(value: Any, where: str) -> float:
    try:
        score = float(value)
    except (TypeError, ValueError, OverflowError):
        score = math.nan
    if not math.isfinite(score) or isinstance(value, bool):
        raise SceneError(f"{where}: found {value!r}, expected a finite number; correct the detector's output")
    return score


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}"


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except FileNotFoundError as error:
        raise SceneError(f"{path}: no such file; the index names it; restore it or correct the index") from error
    except (OSError, ValueError) as error:
        raise SceneError(f"{path}: cannot be read as text ({error}); restore the file") from error
