"""Take the documentation's pictures of the page: a server with the procedural rooms, driven in headless Chromium.

python scripts/pictures_of_serve.py --output docs/images
"""

import argparse
import shutil
from pathlib import Path

from PIL import Image

from stereopsis.serve.rooms import RoomBook
from stereopsis.serve.start import SHOWN_SEEDS, Server, ServerSettings, add_rooms
from stereopsis.serve.tiny import open_tiny

GRAPHICS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("docs/images"))
    args = parser.parse_args()
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise SystemExit("no Chromium here; install one (Debian: apt-get install chromium)")
    book = RoomBook()
    add_rooms(book, SHOWN_SEEDS[:2])
    for entry in book.listed():
        book.wait(entry.id)
    with Server(book, open_tiny, ServerSettings(port=0)) as server, sync_playwright() as play:
        opened = play.chromium.launch(executable_path=browser, args=GRAPHICS)
        for name, size, theme in (("serve", (1440, 900), "light"), ("serve-phone", (390, 844), "dark")):
            page = opened.new_page(
                viewport={"width": size[0], "height": size[1]}, color_scheme=theme, reduced_motion="reduce"
            )
            page.goto(server.link)
            page.wait_for_selector("#viewname:not(:empty)", timeout=120_000)
            use(page)
            page.screenshot(path=args.output / f"{name}.png")
            smaller(args.output / f"{name}.png")
            if name == "serve":
                measure(page)
                page.screenshot(path=args.output / "serve-measure.png")
                smaller(args.output / "serve-measure.png")
        opened.close()


def use(page) -> None:
    """Ask, and find."""
    page.fill("#words", "how many doors are there?")
    page.keyboard.press("Enter")
    page.wait_for_selector(".it .thumbs img", timeout=120_000)
    page.click("[data-kind=find]")
    page.fill("#words", "the bed")
    page.keyboard.press("Enter")
    page.wait_for_selector("ol.rank", timeout=120_000)
    page.locator("#words").blur()
    page.wait_for_timeout(2500)


def measure(page) -> None:
    """Two places in the 3D view."""
    page.click("#home")
    page.click("#cameras")
    page.wait_for_timeout(1000)
    page.click("#measure")
    box = page.locator("canvas.three").bounding_box()
    for across, down in ((0.2, 0.52), (0.62, 0.52)):
        page.mouse.click(box["x"] + box["width"] * across, box["y"] + box["height"] * down)
        page.wait_for_timeout(800)
    page.wait_for_selector("text=along the floor", timeout=60_000)
    page.wait_for_timeout(1000)


def smaller(path: Path) -> None:
    """The same picture with 256 colours."""
    Image.open(path).convert("RGB").quantize(256).save(path, optimize=True)


if __name__ == "__main__":
    main()
