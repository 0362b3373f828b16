"""VGGT as a feature teacher, from the user's own checkout or installation: its licence forbids shipping it.

3DRS's teacher (released script): all views through the aggregator together, the last block's output without the
camera and register tokens, averaged to the student's cells. What is assumed of VGGT's public interface is this:
`vggt.models.vggt.VGGT()` makes the 1B model, `VGGT.from_pretrained` loads a hub id, and `model.aggregator(images)`
with images [batch, views, 3, height, width] in 0..1 returns a list of [batch, views, tokens, channels], one per block,
and the index of the first patch token.
"""

import contextlib
import importlib
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from stereopsis.errors import CheckpointError, RecipeError
from stereopsis.precision import choose_precision
from stereopsis.reading import read_tensors, read_torch
from stereopsis.teachers.features import TeacherViews
from stereopsis.teachers.patch_grid import PatchGridTeacher, patches_as_grid, resized_pictures
from stereopsis.teachers.vggt_archive import VGGT_PATCH, VGGT_SIDE, vggt_rows

DEFAULT_WEIGHTS = "facebook/VGGT-1B"
_MODULE = "vggt.models.vggt"


class VggtTeacher(PatchGridTeacher):
    """Last block of VGGT's aggregator; one pass over all views of a scene.

    Views are resized to 518 px across, with square pixels (squeezed 4:3 frames are stretched back to 518 x 392),
    as VGGT's own preprocessing does; unlike there, nothing of a view taller than wide is cropped, because every
    cell of the student needs a feature: it is 518 px high instead.

    Args:
        module: a VGGT model.
        name: short name for recipes, caches and logs.
        half: run in bfloat16 autocast on CUDA devices that compute it, as the released script; elsewhere in float32.
    """

    def __init__(self, module: nn.Module, *, name: str = "vggt", half: bool = True) -> None:
        super().__init__(module, name=name, channels=0)
        self.half = half
        self.channels = self._probe()

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        """Size and precision."""
        return {"kind": "vggt", "version": 1, "side": VGGT_SIDE, "resample": "bicubic", "half": self.half}

    def patches(self, views: TeacherViews) -> Float[Tensor, "views patch_rows patch_cols channels"]:
        """All views jointly: the features of one depend on the others."""
        aspect = views.field_aspect
        if aspect >= 1:
            height, width = VGGT_PATCH * vggt_rows(aspect), VGGT_SIDE
        else:
            height, width = VGGT_SIDE, VGGT_PATCH * vggt_rows(1 / aspect)
        sized = resized_pictures(views.images, height, width, Image.Resampling.BICUBIC)
        tokens = self._tokens(sized.to(self.device).float().div(255))
        return patches_as_grid(tokens, height // VGGT_PATCH, width // VGGT_PATCH, f"teacher '{self.name}'")

    def _tokens(self, pixels: Float[Tensor, "views 3 height width"]) -> Float[Tensor, "views patches channels"]:
        model: Any = self.module
        half = self.half and self.device.type == "cuda" and choose_precision("auto", self.device).name == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            blocks, first_patch = model.aggregator(pixels[None])
        return blocks[-1][0, :, int(first_patch) :].float()

    def _probe(self) -> int:
        """Channels of a feature, from one grey picture of the smallest size."""
        with torch.inference_mode():
            return self._tokens(torch.full((1, 3, VGGT_PATCH, VGGT_PATCH), 0.5)).shape[-1]


def load_vggt_teacher(source: str) -> VggtTeacher:
    """Load "FOLDER_OR_MODULE[:WEIGHTS]".

    Args:
        source: a checkout of VGGT (the folder that holds `vggt/`), or "vggt" for the installed package; then,
            after a colon, a .pt or .safetensors file or a hub id; without it `DEFAULT_WEIGHTS`.

    Raises:
        RecipeError: no VGGT there.
        CheckpointError: the weights do not exist or do not fit.
    """
    location, _, weights = source.partition(":")
    cls = _vggt_class(location)
    file = Path(weights).expanduser()
    if weights and (file.is_file() or file.suffix in (".pt", ".pth", ".bin", ".safetensors")):
        model = cls()
        _load_weights(model, file)
    elif weights and not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", weights):
        raise CheckpointError(f"no VGGT weights '{weights}'; give a .pt or .safetensors file, or an id 'org/name'")
    else:
        try:
            model = cls.from_pretrained(weights or DEFAULT_WEIGHTS)
        except (OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"cannot load VGGT's weights '{weights or DEFAULT_WEIGHTS}': {error}; "
                f"download model.safetensors and name it: 'vggt:{location}:/path/to/model.safetensors'"
            ) from error
    return VggtTeacher(model)


def _vggt_class(location: str) -> Any:
    folder = Path(location).expanduser()
    checkout = (folder / "vggt" / "models" / "vggt.py").is_file()
    if not checkout and location != "vggt":
        found = f"'{folder}' holds no vggt/models/vggt.py" if folder.is_dir() else f"there is no folder '{location}'"
        raise RecipeError(
            f"cannot import VGGT: {found}; give the folder of a checkout of "
            "https://github.com/facebookresearch/vggt, or 'vggt:vggt' where it is installed"
        )
    with _on_path(folder.resolve()) if checkout else contextlib.nullcontext():
        try:
            module = importlib.import_module(_MODULE)
        except ImportError as error:
            raise RecipeError(
                f"cannot import {_MODULE} from '{location}': {error}; VGGT is not part of this package, because its "
                "licence forbids that: clone https://github.com/facebookresearch/vggt, install what it requires, "
                "and give the folder: 'vggt:/path/to/vggt'"
            ) from error
    origin = Path(str(module.__file__)).resolve()
    if checkout and not origin.is_relative_to(folder.resolve()):
        raise RecipeError(
            f"another VGGT has been imported already, from '{origin.parent}', so '{folder}' cannot be; "
            "use one of them in a process"
        )
    return module.VGGT


@contextlib.contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    """Make a folder importable for a moment; once imported, a package finds its own parts."""
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _load_weights(model: nn.Module, file: Path) -> None:
    """Load a file into the model without executing anything in it.

    Raises:
        CheckpointError: it does not exist, holds more than tensors, or does not fit.
    """
    if not file.is_file():
        raise CheckpointError(f"'{file}' does not exist; give the file with VGGT's weights")
    try:
        state = read_tensors(file) if file.suffix == ".safetensors" else read_torch(file)
        model.load_state_dict(state)
    except Exception as error:  # damaged files raise errors of many kinds
        raise CheckpointError(f"'{file}' does not hold VGGT's weights: {error}") from error
