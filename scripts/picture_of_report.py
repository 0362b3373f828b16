"""Take the README's picture: the top of a demo's report, in headless Chromium.

python scripts/picture_of_report.py demo/report.html --output docs/images/report.png
"""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("--output", type=Path, default=Path("docs/images/report.png"))
    parser.add_argument("--anchor", default="", help="id of the section to begin with; left out, the top")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=1500)
    args = parser.parse_args()
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise SystemExit("no Chromium here; install one (Debian: apt-get install chromium)")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                browser,
                "--headless",
                "--no-sandbox",
                "--hide-scrollbars",
                "--force-device-scale-factor=1",
                "--enable-unsafe-swiftshader",  # the 3D view, without a graphics card
                "--virtual-time-budget=15000",
                f"--user-data-dir={profile}",
                f"--window-size={args.width},{args.height}",
                f"--screenshot={args.output.resolve()}",
                args.page.resolve().as_uri() + (f"#{args.anchor}" if args.anchor else ""),
            ],
            check=True,
            capture_output=True,
        )
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
