"""Take the README's picture: one scene of a demo's report, in headless Chromium.

python scripts/picture_of_report.py demo/report.html --scene room-20000000 --output docs/images/report.png
"""

import argparse
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image, ImageChops

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
MARGIN = 12
"""Pixels left around what is shown."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("--output", type=Path, default=Path("docs/images/report.png"))
    parser.add_argument("--scene", help="whose questions and answers to show; left out, the top of the page")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=1500)
    args = parser.parse_args()
    page = args.page.read_text()
    if args.scene is not None:
        page = alone(page, args.scene)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        shown, picture = Path(folder, "page.html"), Path(folder, "page.png")
        shown.write_text(page)
        photograph(shown, picture, args.width, args.height, Path(folder, "profile"))
        trimmed(Image.open(picture).convert("RGB")).quantize(256).save(args.output, optimize=True)
    print(f"wrote {args.output}")


def alone(page: str, scene: str) -> str:
    """The page with nothing in it but a scene's card."""
    cards = re.findall(r'<div class="card scene">.*?(?=<div class="card scene">|</section>)', page, re.S)
    card = next((card for card in cards if f"<h3>{scene}</h3>" in card), None)
    if card is None:
        raise SystemExit(f"the report shows no questions about {scene}")
    head, _, _ = page.partition("</head>")
    return f"{head}</head><body><main>{card}</main></body></html>"


def photograph(page: Path, picture: Path, width: int, height: int, profile: Path) -> None:
    """Let Chromium draw a page."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise SystemExit("no Chromium here; install one (Debian: apt-get install chromium)")
    options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--force-device-scale-factor=1"]
    options += ["--virtual-time-budget=15000", f"--user-data-dir={profile}", f"--window-size={width},{height}"]
    subprocess.run([browser, *options, f"--screenshot={picture}", page.as_uri()], check=True, capture_output=True)


def trimmed(picture: Image.Image) -> Image.Image:
    """Without the empty page around what is shown."""
    empty = Image.new("RGB", picture.size, picture.getpixel((0, picture.height - 1)))
    box = ImageChops.difference(picture, empty).getbbox() or (0, 0, *picture.size)
    left, top, right, bottom = box
    return picture.crop(
        (max(0, left - MARGIN), max(0, top - MARGIN), min(picture.width, right + MARGIN), bottom + MARGIN)
    )


if __name__ == "__main__":
    main()
