"""VGGT features that 3DRS's own script has extracted, as a teacher: `posed_images_3d_feature_vggt/SCENE/vggt.npz`."""

import dataclasses
import functools
import zipfile
from pathlib import Path

import numpy as np
import torch

from stereopsis.errors import CacheError
from stereopsis.reading import open_archive, read_json, read_text
from stereopsis.scenes.readers.posed_images import frame_names
from stereopsis.scenes.readers.view_features import VGGT_PATCH, VGGT_SIDE, open_features
from stereopsis.scenes.readers.view_features import FeatureArchive as Archive
from stereopsis.teachers.features import FeatureTeacher, TeacherViews, ViewFeatures
from stereopsis.teachers.patch_grid import pooled
from stereopsis.weights.fingerprint import fingerprint

_FILE = "vggt.npz"
_NAMES = "names.json"
_COLUMNS = VGGT_SIDE // VGGT_PATCH


def vggt_rows(aspect: float) -> int:
    """Rows of patches of a picture that is 37 patches (518 px) wide; `aspect` is its width over its height."""
    return max(1, min(round(VGGT_SIDE / aspect / VGGT_PATCH), _COLUMNS))


class VggtArchiveTeacher(FeatureTeacher):
    """Features on disk, matched by frame NAME; read one view at a time, so host memory stays flat.

    The archive does not say which frames it is of. Either SCENE/names.json lists them (one name per view, in order),
    or they are those that 3DRS's script takes: `linspace(0, n - 1, views)`, cut to whole numbers, over ALL colour
    images in ../posed_images/SCENE. A frame that the archive lacks is refused, and so are views that show another
    part of the frames than the archive's whole width and height: use `fit: squash`, as 3DRS does.

    Args:
        folder: holds one folder per scene, each with vggt.npz.
        images: the frames' folders, SCENE by SCENE; None is `posed_images` beside `folder`.
    """

    name = "vggt_npz"
    per_view = True  # VGGT saw the archive's views together, but what was stored about a frame does not change

    def __init__(self, folder: str | Path, images: str | Path | None = None) -> None:
        self.folder = Path(folder).expanduser()
        self.images = Path(images) if images is not None else self.folder.parent / "posed_images"
        self._files = sorted(self.folder.glob(f"*/{_FILE}"))
        if not self._files:
            raise CacheError(
                f"'{self.folder}' holds no SCENE/{_FILE}; give 3DRS's folder posed_images_3d_feature_vggt "
                "(its script extract_vggt_feature.py writes it)"
            )
        self.channels = self._archive(self._files[0].parent.name).channels

    @functools.cached_property
    def fingerprint(self) -> str:
        """Sha256 over the checksums that the archives carry: features added or extracted anew change it."""
        return fingerprint({"kind": self.name, "version": 1, "files": [_checksums(path) for path in self._files]})

    @torch.no_grad()
    def encode(self, views: TeacherViews) -> ViewFeatures:
        """Mean feature of the patches under every cell; every cell is valid.

        Raises:
            CacheError: the scene or a frame has no features, or they are of another part of the frames.
            SceneError: the archive is damaged.
        """
        archive = self._archive(views.scene_id)
        wanted = [_stem(name) for name in views.names]
        if missing := sorted(set(wanted) - set(archive.names)):
            raise CacheError(
                f"scene '{views.scene_id}': '{archive.path}' has no features of frame '{missing[0]}' "
                f"({len(missing)} of {len(set(wanted))} frames are missing; it is of {', '.join(archive.names[:3])}, "
                "...); choose the same frames for the student (views: uniform, as many), or extract these"
            )
        rows = self._rows(archive, views)
        cells: dict[str, torch.Tensor] = {}
        for name, tokens in archive.views():
            if name in wanted and name not in cells:
                grid = torch.from_numpy(tokens.astype(np.float32)).reshape(1, rows, _COLUMNS, archive.channels)
                cells[name] = pooled(grid, views.rows, views.cols)[0]
        features = torch.stack([cells[name] for name in wanted]).to(views.images.device)
        return ViewFeatures(
            features=features, valid=torch.ones(features.shape[:3], dtype=torch.bool).to(features.device)
        )

    def _archive(self, scene_id: str) -> Archive:
        """A scene's archive under its frames' names."""
        path = self.folder / scene_id / _FILE
        if not path.is_file() or path.parent.parent != self.folder:
            raise CacheError(f"scene '{scene_id}': '{path}' does not exist; extract this scene's features first")
        sidecar = path.with_name(_NAMES)
        if sidecar.is_file():
            names = _listed(sidecar)
            archive = open_features(path, ["?"], (VGGT_SIDE, VGGT_SIDE))
            if len(names) != len(archive.names):
                raise CacheError(
                    f"'{sidecar}' lists {len(names)} frames but '{path}' holds {len(archive.names)} views; "
                    "list the frame of each view, in order"
                )
            return dataclasses.replace(archive, names=names)
        if not (self.images / scene_id).is_dir():
            raise CacheError(
                f"'{path}' does not say which frames it is of, and the images that it was made from are not in "
                f"'{self.images / scene_id}'; put them there, or list the frames in '{sidecar}'"
            )
        return open_features(path, frame_names(self.images / scene_id), (VGGT_SIDE, VGGT_SIDE))

    def _rows(self, archive: Archive, views: TeacherViews) -> int:
        """Rows of the archive's patches, which must be those of the whole field that the student sees."""
        rows, rest = divmod(archive.tokens, _COLUMNS)
        if rest or views.intrinsics is None:
            why = f"{archive.tokens} patches are no rows of {_COLUMNS}" if rest else "the views have no intrinsics"
            raise CacheError(f"scene '{views.scene_id}': {why}, so '{archive.path}' cannot be laid over the views")
        if rows != (seen := vggt_rows(views.field_aspect)):
            raise CacheError(
                f"scene '{views.scene_id}': '{archive.path}' is of {rows} x {_COLUMNS} patches, but the student's "
                f"views show a field of aspect {views.field_aspect:.2f}, that is {seen} x {_COLUMNS}: they are cropped "
                "(or the features are of padded pictures); keep whole frames with 'fit: squash', or extract again"
            )
        return rows


def _stem(name: str) -> str:
    return name.removesuffix(".jpg")


def _listed(path: Path) -> tuple[str, ...]:
    try:
        names = read_json(path)
    except (OSError, ValueError) as error:
        raise CacheError(f"'{path}' cannot be read: {error}; expected a JSON list of frame names") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CacheError(f"'{path}' should be a JSON list of frame names, one per view")
    return tuple(_stem(name) for name in names)


def _checksums(path: Path) -> list[str | int]:
    try:
        with open_archive(path) as archive:
            parts = [(entry.filename, entry.CRC, entry.file_size) for entry in archive.infolist()]
    except (OSError, zipfile.BadZipFile) as error:
        raise CacheError(f"'{path}' cannot be read as .npz ({error}); extract this scene's features again") from error
    sidecar = path.with_name(_NAMES)
    names = read_text(sidecar) if sidecar.is_file() else ""
    return [path.parent.name, names, *(value for part in sorted(parts) for value in part)]
