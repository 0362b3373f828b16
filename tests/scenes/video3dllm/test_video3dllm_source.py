"""Video-3D-LLM's data folder as a source of training scenes."""

from pathlib import Path

import pydantic
import pytest
from video3dllm_folder import A, B

from stereopsis.errors import SceneError
from stereopsis.training.sections import SourceSection
from stereopsis.training.sources import scenes_of


def test_a_source_is_the_scenes_that_its_files_speak_of(root, tmp_path):
    both = scenes_of(SourceSection(path=root, annotations=("scanrefer_train", "scanqa_val")), tmp_path)
    assert [scene.id for scene in both] == [A, B]
    assert [[a.task for a in scene.annotations] for scene in both] == [["scanrefer"], ["scanqa"]]
    assert both[0].objects
    assert len(both[1].proposals) == 2
    assert all(scene.birdseye is not None for scene in both)
    (one,) = scenes_of(SourceSection(path=root.parent, annotations=("sqa3d_train",)), tmp_path)
    assert (one.id, len(one.annotations)) == (A, 3)


def test_a_file_that_is_absent_is_named(root, tmp_path):
    with pytest.raises(SceneError, match="scanqa_train"):
        scenes_of(SourceSection(path=root, annotations=("scanqa_train",)), tmp_path)


def test_annotations_need_the_folder():
    with pytest.raises(pydantic.ValidationError, match="give its 'path'"):
        SourceSection(rooms=3, annotations=("scanqa_val",))
    assert SourceSection(path=Path("data")).annotations == ()
