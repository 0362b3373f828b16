"""Frames of a video and photos: the right way up, sharp, evenly in time, and failures in words."""

import struct

import numpy as np
import pytest
from PIL import Image
from textured_room import cast, walk

from stereopsis.errors import SceneError
from stereopsis.providers.pictures import Choice, photo_paths, read_footage

av = pytest.importorskip("av")


def film(path, pictures, *, times=None, turned=False):
    """An mp4 of pictures at milliseconds ``times``; ``turned``: stored on its side, with the flag that says so."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=1000, options={"qscale": "1"})
        stored = [np.ascontiguousarray(np.rot90(p)) if turned else p for p in pictures]
        stream.height, stream.width = stored[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for n, pixels in enumerate(stored):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = (times or range(0, 40 * len(stored), 40))[n]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    if turned:
        data = bytearray(path.read_bytes())
        start = data.find(b"tkhd") + 4 + 4 + 20 + 16  # version 0: the matrix, 16.16 but for the last column
        one = 0x10000
        data[start : start + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 0, 0, 0x40000000)
        path.write_bytes(data)
    return path


def shots(count):
    return [cast(T)[0] for T in walk(count)]


def test_the_rotation_flag_is_honoured(tmp_path):
    pictures = shots(3)
    found = read_footage(film(tmp_path / "a.mp4", pictures, turned=True), Choice()).pictures
    assert [p.size for p in found] == [(320, 240)] * 3
    error = np.abs(found[1].colour().astype(int) - pictures[1]).mean()
    assert error < 6  # upside down it is above 40
    assert np.abs(found[1].colour()[::-1, ::-1].astype(int) - pictures[1]).mean() > 20


def test_the_sharp_one_of_each_stretch_of_time_is_kept(tmp_path):
    pictures = shots(8)
    for n in (0, 1, 2, 5, 6, 7):  # 3 and 4 stay sharp
        small = Image.fromarray(pictures[n]).resize((40, 30))
        pictures[n] = np.array(small.resize((320, 240)))
    times = [0, 10, 20, 30, 1000, 1010, 1020, 1030]  # a changing rate: two bursts
    found = read_footage(film(tmp_path / "a.mp4", pictures, times=times), Choice(frames=2))
    assert [p.name for p in found.pictures] == ["frame-000003", "frame-000004"]
    spaced = read_footage(tmp_path / "a.mp4", Choice(every=0.5))
    assert [p.name for p in spaced.pictures] == ["frame-000003", "frame-000004"]


def test_large_frames_are_scaled_down(tmp_path):
    found = read_footage(film(tmp_path / "a.mp4", shots(2)), Choice(long_side=160)).pictures
    assert {p.size for p in found} == {(160, 120)}


@pytest.mark.parametrize(
    ("pictures", "reason"),
    [
        ([np.full((240, 320, 3), 90, np.uint8)] * 4, "shows one even colour"),
        ([shots(1)[0]] * 4, "shows what the frame before it shows"),
    ],
)
def test_nothing_to_see_is_said(tmp_path, pictures, reason):
    with pytest.raises(SceneError, match=reason):
        read_footage(film(tmp_path / "a.mp4", pictures), Choice())


def test_a_cut_video_is_said_and_may_be_used(tmp_path):
    path = tmp_path / "a.webm"
    whole = film(tmp_path / "a.mp4", shots(12))
    whole.write_bytes(whole.read_bytes()[:-4000])  # its index stands at the end
    with pytest.raises(SceneError, match="cut off or no video: copy it"):
        read_footage(whole, Choice())
    path.write_bytes(b"")
    with pytest.raises(SceneError, match="cut off or no video"):
        read_footage(path, Choice())


def test_damaged_frames_are_counted(tmp_path):
    path = film(tmp_path / "a.mp4", shots(12))
    data = bytearray(path.read_bytes())
    start, end = data.find(b"mdat") + 4, data.rfind(b"moov") - 4
    broken = start + (end - start) * 4 // 5
    data[broken:end] = bytes(end - broken)
    path.write_bytes(data)
    with pytest.raises(SceneError, match=r"only \d+ of its 12 frames can be decoded"):
        read_footage(path, Choice())
    assert len(read_footage(path, Choice(keep_cut=True)).pictures) >= 2


def test_photos_are_turned_sorted_and_know_their_lens(tmp_path):
    first, second = shots(2)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its left side: turn clockwise to see it
    exif.get_ifd(0x8769)[0xA405] = 27
    Image.fromarray(np.ascontiguousarray(np.rot90(first))).save(tmp_path / "img10.png", exif=exif)
    Image.fromarray(second[:200]).save(tmp_path / "img9.png")
    found = read_footage(tmp_path, Choice())
    assert [p.name for p in found.pictures] == ["img9.png", "img10.png"]
    assert [p.size for p in found.pictures] == [(320, 200), (320, 240)]
    assert np.array_equal(found.pictures[1].colour(), first)
    assert found.pictures[1].focal == pytest.approx(27 / 36 * 320)
    assert not found.in_order


def test_heic_photos(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    for n, pixels in enumerate(shots(2)):
        Image.fromarray(pixels).save(tmp_path / f"{n}.heic", quality=90)
    assert len(photo_paths(tmp_path)) == 2
    assert [p.size for p in read_footage(tmp_path, Choice()).pictures] == [(320, 240)] * 2


def test_neither_video_nor_photos(tmp_path):
    with pytest.raises(SceneError, match="holds neither a video nor photos"):
        read_footage(tmp_path, Choice())
    with pytest.raises(SceneError, match="no such file"):
        read_footage(tmp_path / "x.mp4", Choice())
