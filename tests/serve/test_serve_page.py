"""The page in a real browser: asks, finds, clicks, measures, switches rooms; nothing leaves the machine."""

import contextlib
import math
import shutil

import numpy as np
import pytest

from stereopsis.serve.export import export_page
from stereopsis.serve.page import THREE, asset, assets
from stereopsis.serve.rooms import RoomBook, opened_scene
from stereopsis.serve.start import Server, ServerSettings, address_name

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
GRAPHICS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
WIDE, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
browsing = pytest.mark.skipif(BROWSER is None, reason="no Chromium here")


@contextlib.contextmanager
def browsed(size, **options):
    """A page that collects its own complaints, and what it wanted from elsewhere."""
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=GRAPHICS)
        page = browser.new_page(viewport=size, reduced_motion="reduce", **options)
        wrong = []
        page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: wrong.append(str(e)))
        local = ("http://127.0.0.1:", "data:", "blob:", "file:")
        page.on("request", lambda r: None if r.url.startswith(local) else wrong.append(r.url))
        yield page
        assert wrong == []
        browser.close()


def opened(page, address):
    page.goto(address)
    page.wait_for_selector("#viewname:not(:empty)", timeout=60_000)


def middle(page):
    box = page.locator("canvas.three").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.4


@browsing
@pytest.mark.slow
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_somebody_uses_the_page(serving, rooms, size):
    server = serving()
    with browsed(size) as page:
        opened(page, server.link)
        page.fill("#words", "is there a bed?")
        page.keyboard.press("Enter")
        page.wait_for_selector(".it .thumbs img")
        page.click("[data-kind=find]")
        page.fill("#words", "the bed")
        page.keyboard.press("Enter")
        page.wait_for_selector("ol.rank li")
        page.click("#home")
        page.mouse.click(*middle(page))
        page.wait_for_selector('.it .note:has-text("candidate box")')
        page.click("#measure")
        for across in (0.35, 0.65):
            x, y, w, h = page.locator("#view").bounding_box().values()
            page.mouse.click(x + w * across, y + h * 0.7)
            page.wait_for_timeout(300)
        page.wait_for_selector("text=along the floor")
        page.select_option("#room", rooms[1].id)
        page.wait_for_selector(".it", state="detached")
        page.keyboard.press("Escape")
        before = page.get_attribute("html", "data-theme")
        page.click("#theme")
        assert page.get_attribute("html", "data-theme") != before
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]


@browsing
@pytest.mark.slow
def test_an_exported_room_opens_without_a_server(rooms, tmp_path):
    book = RoomBook()
    entry = book.add_open(rooms[0])
    path = export_page(tmp_path / "room.html", [entry])
    text = path.read_text()
    assert 'src="/' not in text
    with browsed(WIDE) as page:
        opened(page, path.as_uri())
        page.click("#measure")
        page.mouse.click(*middle(page))
        page.wait_for_selector("text=And the second place")


def test_exported_rooms_cannot_end_their_script(rooms, tmp_path):
    entry = RoomBook().add_open(rooms[0])
    entry.title = "</script><script>alert(1)</script>"
    text = export_page(tmp_path / "room.html", [entry], title="<b>").read_text()
    assert "<script>alert" not in text
    assert "<title>&lt;b&gt;</title>" in text


def test_the_installed_three_js_has_what_the_page_imports():
    source = asset(THREE).content.decode()
    exported = source[source.rindex("export{") :]
    assert " as THREE" in exported
    assert "OrbitControls" in exported


def test_the_page_asks_for_nothing_from_elsewhere():
    own = {name: found.content.decode() for name, found in assets().items() if name != THREE}
    assert not [name for name, text in own.items() if "https://" in text or "//cdn" in text]
    assert asset("../__init__.py") is None


def test_names_for_addresses():
    taken = set()
    names = [address_name(name, taken) for name in ("kitchen", "kitchen", "../etc/passwd", "Küche 1", "...")]
    assert names == ["kitchen", "kitchen-2", "etc-passwd", "K-che-1", "room"]


@pytest.mark.slow
def test_distances_in_a_real_kitchen(shared_data):
    """Two points, unprojected here by hand from one raw frame, and the server's distance of them."""
    scene = opened_scene(shared_data / "seven_scenes_redkitchen")
    book = RoomBook()
    book.add_open(scene)
    frame = scene.frames[10]
    depth, camera = frame.depth(), frame.depth_intrinsics or frame.intrinsics
    points = []
    for row, column in ((200, 150), (300, 450)):
        z = float(np.median(depth[row - 2 : row + 3, column - 2 : column + 3]))
        points.append([(column + 0.5 - camera.cx) / camera.fx * z, (row + 0.5 - camera.cy) / camera.fy * z, z])
    known = math.dist(*points)
    pose = scene.T_aligned_camera(frame)
    a, b = ([float(v) for v in pose[:3, :3] @ p + pose[:3, 3]] for p in points)
    with Server(book, None, ServerSettings(port=0)) as server:
        from stereopsis.client import Client

        with Client(server.address) as ask:
            found = ask.measure(scene.id, a, b)
            places = [
                ask.call(scene.id, "point", view=10, x=(c + 0.5) / camera.width, y=(r + 0.5) / camera.height)["point"]
                for r, c in ((200, 150), (300, 450))
            ]
    assert abs(found["distance"] - known) < 0.001
    assert abs(math.dist(*places) - known) < 0.02
    assert found["uncertainty"] < 0.1
