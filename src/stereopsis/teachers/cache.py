"""Teachers' answers on disk, found again by scene, frame names and fingerprint, and never given to other frames.

    CACHE/teachers/NAME-KEY/
      cache.json             whose answers these are, and to what: teacher, fingerprint, picture size, grid
      SCENE.safetensors      one file per scene, written whole or not at all; half precision

KEY is a digest of everything in cache.json. An answer belongs to the frame of its name; beside it lie a thumbnail, the
camera and the mean depth of what the teacher saw, so that a frame that has changed under the same name is noticed.
"""

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import UInt8
from torch import Tensor

from stereopsis.data.tensor_files import TensorFile, open_tensors, write_tensors
from stereopsis.errors import CacheError
from stereopsis.files import write_atomic
from stereopsis.reading import read_json
from stereopsis.teachers.glimpse import LEVELS, Glimpse, thumbnails

SCHEMA = 1
DESCRIPTION = "cache.json"
_SCENE = "scene."
_ABOVE = "above"
_MAKE = "make what is missing with 'stereopsis cache RECIPE' (your recipe, with the same overrides)"

_REMAKE = "make the answers anew with 'stereopsis cache RECIPE --overwrite'"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheIdentity:
    """What is asked of one teacher; two students that ask the same can share the answers.

    Attributes:
        kind: "features" or "latents".
        teacher: its name, for people.
        fingerprint: of its weights and preprocessing.
        per_view: each view is answered by itself, so that some of a scene's views may be picked out.
        settings: picture size, fit, grid: plain values.
    """

    kind: Literal["features", "latents"]
    teacher: str
    fingerprint: str
    per_view: bool
    settings: Mapping[str, Any]

    @property
    def geometry(self) -> bool:
        """Whether the answer depends on more than the pictures."""
        return self.kind == "features"

    def record(self) -> dict[str, Any]:
        """For cache.json."""
        return {"schema": SCHEMA, **dataclasses.asdict(self), "settings": dict(self.settings)}

    @functools.cached_property
    def folder(self) -> str:
        """Name of the folder: the teacher's name and the beginning of a digest of everything."""
        digest = hashlib.sha256(json.dumps(self.record(), sort_keys=True).encode()).hexdigest()
        return f"{file_stem(self.teacher)}-{digest[:12]}"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """What a teacher says about one scene.

    Attributes:
        views: per frame; the first axis follows the frame names.
        scene: about the scene as a whole.
    """

    views: Mapping[str, Tensor]
    scene: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class StoredAnswers:
    """Answers on disk that were found to fit the student's frames.

    Attributes:
        file: where they lie.
        order: which of the cached frames each of the student's frames is; None = all, in their order.
    """

    file: TensorFile
    order: tuple[int, ...] | None

    def read(self) -> Answers:
        """The answers, in the student's order, mapped into memory where no reordering is needed."""
        views, scene = {}, {}
        chosen = None if self.order is None else torch.tensor(self.order, dtype=torch.int64)
        for name, tensor in self.file.tensors().items():
            if name.startswith("glimpse."):
                continue
            if name.startswith(_SCENE):
                scene[name.removeprefix(_SCENE)] = tensor
            else:
                views[name] = tensor if chosen is None else tensor[chosen]
        return Answers(views=views, scene=scene)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherCache:
    """One teacher's answers in a cache folder.

    Attributes:
        root: the cache folder, shared by all teachers.
        identity: what is asked.
    """

    root: Path
    identity: CacheIdentity

    @property
    def folder(self) -> Path:
        """Where this teacher's answers to this question lie."""
        return self.root / "teachers" / self.identity.folder

    def path(self, scene_id: str) -> Path:
        """A scene's file."""
        return self.folder / f"{file_stem(scene_id)}.safetensors"

    def find(
        self, scene_id: str, glimpse: Glimpse, above: UInt8[Tensor, "3 height width"] | None = None
    ) -> StoredAnswers | None:
        """Answers for a student's frames; None where the scene (or, per view, a frame) is not there yet.

        Args:
            scene_id: which scene.
            glimpse: what the student sees; its order of frames is kept.
            above: the view from above that the student gets targets of (latents only).

        Raises:
            CacheError: what is there is damaged, or is of other frames or pictures.
        """
        path = self.path(scene_id)
        if not path.is_file():
            return None
        file = open_tensors(path)
        names = self._names(file, scene_id)
        known = {name: number for number, name in enumerate(names)}
        if not self.identity.per_view and set(names) != set(glimpse.names):
            raise self._other_frames(scene_id, names, glimpse.names)
        if not set(glimpse.names) <= known.keys():
            self._compare(file, scene_id, names, glimpse, [name for name in glimpse.names if name in known])
            return None
        file.verify()
        self._compare(file, scene_id, names, glimpse, glimpse.names)
        self._compare_above(file, scene_id, above)
        order = tuple(known[name] for name in glimpse.names)
        return StoredAnswers(file=file, order=None if order == tuple(range(len(names))) else order)

    def require(
        self, scene_id: str, glimpse: Glimpse, above: UInt8[Tensor, "3 height width"] | None = None
    ) -> StoredAnswers:
        """Like `find`, but what is missing is refused.

        Raises:
            CacheError: says what the cache has, what the student wants, and which command makes it.
        """
        found = self.find(scene_id, glimpse, above)
        if found is not None:
            return found
        path = self.path(scene_id)
        if path.is_file():
            names = self._names(open_tensors(path), scene_id)
            missing = [name for name in glimpse.names if name not in names]
            has = f"'{path}' has {len(names)} frames ({_few(names)}), but not {_few(missing)}"
        else:
            has = f"there is no '{path}'; {self._neighbours()}"
        wanted = f"the student wants {len(glimpse.names)} frames from {self._told(self.identity.record())}"
        raise CacheError(f"scene '{scene_id}': {has}; {wanted}; {_MAKE}")

    def write(
        self,
        scene_id: str,
        glimpse: Glimpse,
        answers: Answers,
        *,
        above: UInt8[Tensor, "3 height width"] | None = None,
        facts: Mapping[str, Any] | None = None,
        keep: bool = True,
    ) -> StoredAnswers:
        """Store a scene's answers in half precision.

        Args:
            scene_id: which scene.
            glimpse: the frames that were answered, in the order of the answers.
            answers: floating-point ones are rounded to half precision.
            above: the view from above that was answered.
            facts: plain values worth keeping.
            keep: of a teacher that answers view by view, keep what the file says about other frames.

        Raises:
            CacheError: no space or no permission; what was there before is still there.
        """
        path, views = self.path(scene_id), {name: _half(tensor) for name, tensor in answers.views.items()}
        asked = len(glimpse.names)
        if keep and self.identity.per_view and path.is_file():
            file = open_tensors(path)
            names, stored = self._names(file, scene_id), file.tensors()
            others = [number for number, name in enumerate(names) if name not in glimpse.names]
            if others and views.keys() <= stored.keys():
                glimpse = glimpse.joined(Glimpse.from_tensors(names, stored).select(others))
                views = {name: torch.cat([tensor, stored[name][others]]) for name, tensor in views.items()}
        tensors = {**views, **glimpse.tensors(), **{f"{_SCENE}{k}": _half(v) for k, v in answers.scene.items()}}
        if above is not None:
            tensors[f"glimpse.{_ABOVE}"] = thumbnails(above[None])
        self._describe()
        plain = {"scene": scene_id, "names": list(glimpse.names), **(facts or {})}
        write_tensors(path, tensors, plain)
        order = None if asked == len(glimpse.names) else tuple(range(asked))
        return StoredAnswers(file=open_tensors(path), order=order)

    def _describe(self) -> None:
        path = self.folder / DESCRIPTION
        if not path.is_file():
            write_atomic(path, json.dumps(self.identity.record(), indent=1) + "\n", error=CacheError)

    def _names(self, file: TensorFile, scene_id: str) -> tuple[str, ...]:
        if file.facts.get("scene") != scene_id:
            raise CacheError(
                f"'{file.path}' is of scene '{file.facts.get('scene')}', not of '{scene_id}'; two scenes whose names "
                "differ only in signs need caches of their own"
            )
        return tuple(file.facts["names"])

    def _compare(
        self, file: TensorFile, scene_id: str, names: Sequence[str], glimpse: Glimpse, wanted: Sequence[str]
    ) -> None:
        stored = Glimpse.from_tensors(names, file.tensors()).select([names.index(name) for name in wanted])
        seen = glimpse.select([glimpse.names.index(name) for name in wanted])
        difference = stored.difference(seen, geometry=self.identity.geometry)
        if difference is not None:
            raise CacheError(
                f"scene '{scene_id}': {difference}: the answers of '{self.identity.teacher}' in '{file.path}' were "
                "made for other pictures than the student sees; was the scene prepared again, or are frames "
                f"shuffled? If the scene is right as it is now, {_REMAKE}"
            )

    def _compare_above(self, file: TensorFile, scene_id: str, above: Tensor | None) -> None:
        if self.identity.kind != "latents":
            return
        stored = file.tensors().get(f"glimpse.{_ABOVE}")
        same = (stored is None) == (above is None)
        if same and stored is not None and above is not None:
            same = bool(((stored.int() - thumbnails(above[None]).int()).abs() <= LEVELS).all())
        if not same:
            had = "none" if stored is None else "another one"
            raise CacheError(
                f"scene '{scene_id}': '{file.path}' was made with {had} of the views from above that the student "
                f"sees; was the scene prepared again? If it is right as it is now, {_REMAKE}"
            )

    def _other_frames(self, scene_id: str, names: Sequence[str], wanted: Sequence[str]) -> CacheError:
        return CacheError(
            f"scene '{scene_id}': '{self.path(scene_id)}' has answers to {len(names)} frames ({_few(names)}), the "
            f"student sees {len(wanted)} ({_few(wanted)}). '{self.identity.teacher}' looks at all views together, so "
            "its answers to one set of frames are not its answers to another: choose the same views (data.views, "
            f"data.selection), use another cache folder, or {_REMAKE}"
        )

    def _neighbours(self) -> str:
        """What else the cache holds of this kind, in a few words."""
        told = []
        for path in sorted(self.root.glob(f"teachers/*/{DESCRIPTION}")):
            try:
                record = read_json(path)
                if record["kind"] == self.identity.kind:
                    scenes = len(list(path.parent.glob("*.safetensors")))
                    told.append(f"{self._told(record)} for {scenes} scene{'s'[: scenes != 1]}")
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return f"the cache has {'; '.join(told)}" if told else f"the cache has no {self.identity.kind} at all"

    @staticmethod
    def _told(record: Mapping[str, Any]) -> str:
        settings = ", ".join(f"{key} {value}" for key, value in record["settings"].items())
        return f"'{record['teacher']}' ({str(record['fingerprint'])[:12]}) with {settings}"


def file_stem(name: str) -> str:
    """A name as a file name: other signs than letters, digits and ``. _ -`` become dashes."""
    return re.sub(r"[^\w.-]+", "-", name).strip(".-") or "scene"


def _half(tensor: Tensor) -> Tensor:
    return tensor.half().cpu() if tensor.is_floating_point() else tensor.cpu()


def _few(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:3]) + (", ..." if len(names) > 3 else "")
