"""What a student sees of each scene, on disk: views, places, boxes, words and the frozen vision tower's output.

    CACHE/packs/KEY/
      cache.json             how scenes became packs, and the vision tower's fingerprint
      SCENE.safetensors      one file per scene, written whole or not at all

KEY is a digest of everything in cache.json. A file that does not belong to the scene as it is now (its poses, boxes or
words have changed, or the size or time of its pictures' files) is made again.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from stereopsis.benchmarks import benchmark_names
from stereopsis.data.batch import SceneProposals
from stereopsis.data.pack import Conversation, ScenePack
from stereopsis.data.tensor_files import open_tensors, write_tensors
from stereopsis.errors import CacheError
from stereopsis.files import write_atomic
from stereopsis.packs.build import PackConfig, VisionTower, build_pack, cache_vision, chosen_frames
from stereopsis.packs.targets import with_answers
from stereopsis.scenes.identity import plain, scene_key
from stereopsis.scenes.scene import Scene
from stereopsis.teachers.cache import DESCRIPTION, StoredAnswers, file_stem

SCHEMA = 1
_TENSORS = ("images", "coordinates", "coordinates_valid", "cameras", "intrinsics")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredPack:
    """One scene's pack on disk, with the answers of its teachers.

    Attributes:
        path: its file.
        tasks: which of its conversations count.
        answers: where its teachers' answers lie.
    """

    path: Path
    tasks: tuple[str, ...]
    answers: tuple[StoredAnswers, ...] = ()

    def read(self) -> ScenePack:
        """The pack; its tensors are mapped into memory and go when the pack goes.

        Raises:
            CacheError: a file is gone or damaged.
        """
        file = open_tensors(self.path)
        tensors, facts = file.tensors(), file.facts
        seen: dict[str, Any] = {name: tensors[name] for name in _TENSORS}
        targets = {name.removeprefix("target."): t for name, t in tensors.items() if name.startswith("target.")}
        conversations = (_conversation(c) for c in facts["conversations"] if c["task"] in self.tasks)
        pack = ScenePack(
            scene_id=facts["scene"],
            frame_names=tuple(facts["names"]),
            **seen,
            proposals=SceneProposals(
                boxes=tensors["boxes"], cells=tensors["cells"], token_cells=tensors.get("token_cells")
            ),
            encoder_tokens=tensors.get("encoder_tokens"),
            view_targets=targets,
            conversations=tuple(conversations),
        )
        return with_answers(pack, *(stored.read() for stored in self.answers))


class StoredPacks(Sequence[ScenePack]):
    """Packs that stay on disk: an item is read when it is asked for, so memory does not grow with their number."""

    def __init__(self, entries: Sequence[StoredPack]) -> None:
        self.entries = tuple(entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[ScenePack]:
        return (entry.read() for entry in self.entries)

    @overload
    def __getitem__(self, index: int) -> ScenePack: ...
    @overload
    def __getitem__(self, index: slice) -> list[ScenePack]: ...
    def __getitem__(self, index: int | slice) -> ScenePack | list[ScenePack]:
        if isinstance(index, slice):
            return [entry.read() for entry in self.entries[index]]
        return self.entries[index].read()


class PackFolder:
    """The packs of one student under one configuration.

    Args:
        root: the cache folder, shared by all students.
        config: how scenes become packs.
        tower: the vision tower whose output is kept (only right while it is frozen); None: none is kept.
    """

    def __init__(self, root: Path, config: PackConfig, tower: VisionTower | None) -> None:
        self.config, self.tasks = dataclasses.replace(config, tasks=benchmark_names()), config.tasks
        self.tower = tower
        settings = {key: value for key, value in plain(self.config).items() if key not in ("view_cache", "tasks")}
        self.record = {
            "schema": SCHEMA,
            "packs": settings,
            "vision_tower": None if tower is None else tower.vision_fingerprint(),
        }
        digest = hashlib.sha256(json.dumps(self.record, sort_keys=True).encode()).hexdigest()
        self.folder = root / "packs" / digest[:16]

    def stored(self, scene: Scene, *, overwrite: bool = False) -> StoredPack:
        """A scene's pack, made if it is not there yet or belongs to the scene as it was before.

        Raises:
            SceneError: the scene cannot be used.
            CacheError: the file is damaged or cannot be written.
        """
        path = self.folder / f"{file_stem(scene.id)}.safetensors"
        indices = chosen_frames(scene, self.config)
        key = scene_key(scene, [scene.frames[i] for i in indices])
        if overwrite or not self._fits(path, scene, key):
            self._write(path, build_pack(scene, self.config), key)
        return StoredPack(path=path, tasks=tuple(self.tasks))

    def _fits(self, path: Path, scene: Scene, key: str) -> bool:
        if not path.is_file():
            return False
        file = open_tensors(path)
        if file.facts.get("scene") != scene.id:
            raise CacheError(
                f"'{path}' is of scene '{file.facts.get('scene')}', not of '{scene.id}'; two scenes whose names differ "
                "only in signs need caches of their own"
            )
        if file.facts.get("key") != key:
            return False
        file.verify()
        return True

    def _write(self, path: Path, pack: ScenePack, key: str) -> None:
        if self.tower is not None:
            pack = cache_vision([pack], self.tower)[0]
        tensors = {name: getattr(pack, name) for name in _TENSORS}
        tensors |= {"boxes": pack.proposals.boxes, "cells": pack.proposals.cells}
        tensors |= {f"target.{name}": tensor for name, tensor in pack.view_targets.items()}
        optional = {"encoder_tokens": pack.encoder_tokens, "token_cells": pack.proposals.token_cells}
        tensors |= {name: tensor for name, tensor in optional.items() if tensor is not None}
        facts = {
            "scene": pack.scene_id,
            "names": list(pack.frame_names),
            "key": key,
            "conversations": [dataclasses.asdict(c) for c in pack.conversations],
        }
        if not (self.folder / DESCRIPTION).is_file():
            write_atomic(self.folder / DESCRIPTION, json.dumps(self.record, indent=1) + "\n", error=CacheError)
        write_tensors(path, tensors, facts)


def _conversation(plain: Mapping[str, Any]) -> Conversation:
    point = plain["point"]
    values = {**plain, "point": None if point is None else tuple(point), "positives": tuple(plain["positives"])}
    return Conversation(**values)
