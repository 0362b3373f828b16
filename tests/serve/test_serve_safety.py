"""Strangers: hosts, pages, tokens, archives."""

import io
import stat
import tarfile
import time
import zipfile

import httpx
import pytest

from stereopsis.errors import StereopsisError
from stereopsis.serve.failures import RequestError, TooLargeError
from stereopsis.serve.start import ServerSettings
from stereopsis.serve.uploads import UploadLimits, unpack

ROOM = "room-00000000"


def test_only_our_own_name_and_page(serving):
    server = serving()
    with httpx.Client(base_url=server.address) as client:
        assert client.get("/v1/status").status_code == 200
        for headers in (
            {"host": "evil.example"},
            {"host": "127.0.0.1.evil.example:80"},
            {"host": ""},
            {"origin": "http://evil.example"},
            {"origin": "null"},
            {"origin": "http://127.0.0.1:1"},
            {"sec-fetch-site": "cross-site"},
        ):
            reply = client.get("/v1/status", headers=headers)
            assert reply.status_code == 403, headers
            assert reply.json()["error"]["type"] == "forbidden"
        own = {"origin": server.address, "sec-fetch-site": "same-origin"}
        assert client.get("/v1/status", headers=own).status_code == 200
        page = client.get("/")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["x-frame-options"] == "DENY"


def test_others_need_the_token(serving):
    with pytest.raises(StereopsisError, match="--token"):
        ServerSettings(host="0.0.0.0").rules()
    server = serving(token="secret-of-the-room")
    with httpx.Client(base_url=server.address) as client:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"cookie": "stereopsis_token=wrong"}):
            reply = client.get("/v1/status", headers=headers)
            assert reply.status_code == 401
            assert "secret" not in reply.text
        assert client.get("/v1/status?token=secret-of-the-room").status_code == 401  # only the page takes it there
        assert client.get("/v1/status", headers={"authorization": "Bearer secret-of-the-room"}).status_code == 200
        entered = client.get("/?token=secret-of-the-room")
        assert entered.status_code == 303
        assert entered.headers["location"] == "/"
        assert "HttpOnly; SameSite=Strict" in entered.headers["set-cookie"]
        assert client.get("/").status_code == 200  # the cookie is kept


def zipped(*members, mode=None):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (mode or (stat.S_IFREG | 0o644)) << 16
            archive.writestr(info, data)
    return buffer.getvalue()


def tarred(*infos):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for info, data in infos:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def linked(kind, target):
    info = tarfile.TarInfo("scene/link")
    info.type, info.linkname = kind, target
    return info, b""


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (zipped(("../out.txt", b"x")), "leads out"),
        (zipped(("/etc/passwd", b"x")), "leads out"),
        (zipped(("a\\..\\..\\out.txt", b"x")), "leads out"),
        (zipped(("C:/out.txt", b"x")), "leads out"),
        (zipped(("scene/link", b"/etc/passwd"), mode=stat.S_IFLNK | 0o777), "link or a device"),
        (tarred(linked(tarfile.SYMTYPE, "/etc/passwd")), "link or a device"),
        (tarred(linked(tarfile.LNKTYPE, "/etc/passwd")), "link or a device"),
        (tarred(linked(tarfile.FIFOTYPE, "")), "link or a device"),
        (tarred((tarfile.TarInfo("../../out.txt"), b"x")), "leads out"),
        (b"no archive", "cannot be unpacked"),
        (b"", "cannot be unpacked"),
    ],
)
def test_archives_with_ways_out_are_refused(tmp_path, data, words):
    archive = tmp_path / "archive"
    archive.write_bytes(data)
    with pytest.raises(RequestError, match=words):
        unpack(archive, tmp_path / "in" / "it")
    assert not (tmp_path / "in" / "it").exists()
    assert not list(tmp_path.rglob("*out*"))


@pytest.mark.parametrize(
    ("data", "limits"),
    [
        (zipped(("big", b"\0" * 5_000_000)), UploadLimits()),  # 1000 times what it is packed
        (zipped(("big", bytes(range(256)) * 40)), UploadLimits(unpacked=10_000)),
        (zipped(*((f"f{i}", b"x") for i in range(50))), UploadLimits(files=49)),
        (zipped(("/".join("d" * 1 for _ in range(20)) + "/f", b"x")), UploadLimits()),
    ],
)
def test_bombs_are_refused(tmp_path, data, limits):
    archive = tmp_path / "archive"
    archive.write_bytes(data)
    with pytest.raises(TooLargeError):
        unpack(archive, tmp_path / "it", limits)
    assert not (tmp_path / "it").exists()


def test_an_uploaded_room_answers(serving, tiny_rooms):
    folder = sorted(path for path in tiny_rooms.iterdir() if path.is_dir())[3]
    members = [(f"scene/{p.relative_to(folder)}", p.read_bytes()) for p in sorted(folder.rglob("*")) if p.is_file()]
    assert "takes no uploads" in httpx.post(f"{serving().address}/v1/rooms", content=b"x").text
    with httpx.Client(base_url=serving(uploads=True).address, timeout=60) as client:
        bad = client.post("/v1/rooms", params={"name": "../x"}, content=zipped(("../out", b"x")))
        assert bad.status_code == 400
        room = client.post("/v1/rooms", params={"name": "../My room!"}, content=zipped(*members)).json()["id"]
        assert room.startswith("My-room-")
        deadline = time.monotonic() + 60
        while client.get(f"/v1/rooms/{room}").status_code == 503 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert client.post(f"/v1/rooms/{room}/ask", json={"question": "is there a bed?"}).status_code == 200
        empty = client.post("/v1/rooms", content=zipped(("readme.txt", b"no scene"))).json()["id"]
        while client.get(f"/v1/rooms/{empty}").status_code == 503 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "scene layout" in client.get(f"/v1/rooms/{empty}").json()["error"]["message"]


def test_a_whole_upload_counts(serving):
    server = serving(uploads=True, most_upload=1000)
    reply = httpx.post(f"{server.address}/v1/rooms", content=(b"x" * 600 for _ in range(3)))
    assert reply.status_code == 413
