"""Embedded pictures, and which of them stand side by side."""

import base64
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from stereopsis.errors import RunFolderError
from stereopsis.report.images import embed, embed_file, embed_pixels
from stereopsis.report.page import render
from stereopsis.report.pictures import picture_groups, picture_scores
from stereopsis.report.read import read_subject


def decoded(image) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(image.uri.partition(",")[2]))))


def test_small_pictures_lose_nothing():
    pixels = np.random.default_rng(0).integers(0, 256, (96, 80, 3), dtype=np.uint8)
    image = embed_pixels(pixels)
    assert image.uri.startswith("data:image/png;base64,")
    assert (image.width, image.height, image.pixelated) == (80, 96, True)
    np.testing.assert_array_equal(decoded(image), pixels)


def test_large_pictures_are_shrunk_and_keep_their_shape():
    pixels = np.zeros((600, 1200, 3), dtype=np.uint8)
    pixels[:, 600:] = (200, 40, 90)
    image = embed_pixels(pixels, largest=400)
    assert (image.width, image.height, image.pixelated) == (400, 200, False)
    shown = decoded(image).astype(int)
    assert np.abs(shown[:, 210:] - (200, 40, 90)).max() <= 6
    assert shown[:, :190].max() <= 6


def test_grey_and_transparent_pictures_become_rgb():
    assert decoded(embed(Image.new("L", (4, 4), 7))).tolist() == [[[7, 7, 7]] * 4] * 4


def test_damaged_picture_is_named(tmp_path):
    file = tmp_path / "broken.png"
    Image.new("RGB", (40, 40)).save(file)
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(RunFolderError, match=r"broken.png is not a readable picture"):
        embed_file(file)


def test_groups_of_one_arm(comparison):
    subject = read_subject(comparison)
    hidden = picture_groups(subject, "masked_view")
    assert [(group.scene_id, group.view) for group in hidden] == [
        (room, view) for room in ("room-00000000", "room-00000001") for view in ("view-002", "view-005")
    ]
    assert all(len(group.context) == 6 for group in hidden)
    assert [made.arm for made in hidden[0].reconstructions] == [2]
    file = comparison / "arms/full/pictures/0-masked_view-view-002-target.png"
    np.testing.assert_array_equal(decoded(hidden[0].target), np.asarray(Image.open(file)))
    assert [group.view for group in picture_groups(subject, "birds_eye")] == ["", ""]


def test_arms_that_hid_the_same_view_stand_side_by_side(tmp_path, run):
    for name in ("first", "second", "other"):
        shutil.copytree(run, tmp_path / "both" / name)
    # The third arm hid the same view but saw fewer others: it cannot stand beside them.
    file = tmp_path / "both" / "other" / "pictures" / "pictures.json"
    entries = json.loads(file.read_text())
    entries[0]["context"] = entries[0]["context"][:2]
    file.write_text(json.dumps(entries))
    arms = [{"name": name, "folder": name} for name in ("first", "second", "other")]
    (tmp_path / "both" / "comparison.json").write_text(json.dumps({"title": "t", "arms": arms}))
    groups = picture_groups(read_subject(tmp_path / "both"), "masked_view")
    assert [[made.arm for made in group.reconstructions] for group in groups] == [[0, 1], [0, 1, 2], [2]]


def test_mean_psnr_counts_all_pictures(comparison):
    (score,) = picture_scores(read_subject(comparison), "masked_view")
    # Two rooms at 20 and 21 dB, two pictures each.
    assert (score.arm, score.count, score.psnr, score.guess, score.guess_psnr) == (2, 4, 20.5, "the nearest view", 14.0)
    assert (score.margin.mean, score.margin.low > 0) == (6.5, True)
    assert score.verdict == "better than every trivial guess"


@pytest.mark.parametrize(
    ("mean_colour", "verdict"),
    [
        (12.0, "better than every trivial guess"),
        (20.5, "not told apart from a trivial guess"),
        (23.0, "worse than a trivial guess: it has not learnt to imagine this"),
    ],
)
def test_a_model_is_compared_with_the_best_guess(comparison, tmp_path, mean_colour, verdict):
    """The nearest view has 14 dB; whoever beats that may still lose to one colour everywhere."""
    comparison = shutil.copytree(comparison, tmp_path / "comparison")
    file = comparison / "arms/full/pictures/pictures.json"
    entries = json.loads(file.read_text())
    for entry in entries:
        entry["mean_colour_psnr"] = mean_colour
    file.write_text(json.dumps(entries))
    (score,) = picture_scores(read_subject(comparison), "masked_view")
    best = max(14.0, mean_colour)
    assert (score.guess_psnr, score.verdict) == (best, verdict)
    assert score.guess == ("the mean colour" if mean_colour > 14 else "the nearest view")
    page = render(read_subject(comparison))
    assert f"{best:.1f} dB of the best trivial guess, {score.guess}" in page
    assert verdict.split(":")[0].capitalize() in page


def test_a_single_scene_gets_no_verdict(run):
    file = run / "pictures" / "pictures.json"
    entries = [entry for entry in json.loads(file.read_text()) if entry["kind"] == "masked_view"]
    first = [entry for entry in entries if entry["scene_id"] == entries[0]["scene_id"]]
    file.write_text(json.dumps(first))
    (score,) = picture_scores(read_subject(run), "masked_view")
    assert score.verdict == "one scene tells nothing yet"
