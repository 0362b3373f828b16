import pytest

from stereopsis.errors import FrameError, SceneError
from stereopsis.scenes import open_scene, write_scene
from stereopsis.scenes.formats import FORMATS, detect_format


def test_detects_and_opens_each_layout(tmp_path, make_scene, make_capture):
    stored = write_scene(make_scene(), tmp_path / "stored")
    capture = make_capture(frames=2)
    assert [detect_format(stored), detect_format(str(capture))] == ["stored", "seven_scenes"]
    assert open_scene(stored).id == open_scene(str(stored)).id == "little"
    assert len(open_scene(capture, format="seven_scenes").frames) == 2


def test_names_are_unique_and_described():
    assert len({known.name for known in FORMATS}) == len(FORMATS)
    assert all(known.files for known in FORMATS)


def test_unknown_layout_lists_the_known_ones(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(SceneError) as error:
        open_scene(tmp_path)
    message = str(error.value)
    for known in FORMATS:
        assert f"{known.name}: {known.files}" in message
    assert str(tmp_path) in message
    assert "check the path" in message


def test_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SceneError, match="nowhere: does not exist; expected a scene folder"):
        open_scene(tmp_path / "nowhere")
    with pytest.raises(SceneError, match="file: is a file; expected a scene folder"):
        open_scene(tmp_path / "file")


def test_unknown_format_suggests_the_nearest(tmp_path):
    with pytest.raises(SceneError, match=r"'sevenscenes' is unknown \(did you mean 'seven_scenes'\?\)"):
        open_scene(tmp_path, format="sevenscenes")


@pytest.mark.parametrize("kind", ["stored", "seven_scenes"])
def test_the_policy_reaches_the_reader(tmp_path, make_scene, make_capture, kind):
    if kind == "stored":
        folder = write_scene(make_scene(frames=10), tmp_path / "stored")
        (folder / "frames" / "view_003.png").unlink()
    else:
        folder = make_capture()
        (folder / "frame-000003.pose.txt").unlink()
    with pytest.raises(FrameError):
        open_scene(folder)
    scene = open_scene(folder, on_bad_frame="skip")
    assert len(scene.frames) == 9
    assert len(scene.provenance["skipped"]) == 1
