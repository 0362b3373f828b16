"""A room in one HTML file: its points, views and boxes, to be looked at and measured anywhere, offline."""

import base64
import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stereopsis.files import write_atomic
from stereopsis.serve.agents import data_address
from stereopsis.serve.page import THREE, assets
from stereopsis.serve.room_facts import room_facts
from stereopsis.serve.rooms import RoomEntry

MOST_VIEWS = 64
_SCRIPTS = (THREE, "viewer.js", "source.js", "app.js")


def export_page(path: Path, entries: Sequence[RoomEntry], *, title: str = "Stereopsis") -> Path:
    """Write the page as one file that needs neither a server nor the network.

    Args:
        path: the file.
        entries: rooms that are open; at most `MOST_VIEWS` views of each are kept, evenly spread.
        title: of the page.
    """
    rooms = [_packed(entry) for entry in entries]
    page = assets()["index.html"].content.decode()
    settings = html.escape(json.dumps({"model": False, "offline": True}), quote=True)
    page = page.replace("{{title}}", html.escape(title)).replace("{{settings}}", settings)
    style = assets()["style.css"].content.decode()
    icon = data_address(assets()["icon.svg"].content, "image/svg+xml")
    page = page.replace('<link rel="stylesheet" href="/assets/style.css">', f"<style>{style}</style>")
    page = page.replace("/assets/icon.svg", icon)
    data = json.dumps(rooms, allow_nan=False).replace("<", "\\u003c")
    scripts = f'<script type="application/json" id="rooms">{data}</script>{_scripts()}'
    page = page.replace('<script type="module" src="/assets/app.js"></script>', scripts)
    return write_atomic(path, page)


def _scripts() -> str:
    """The page's modules, each as a data address that an import map names."""
    addresses = {}
    for name in _SCRIPTS:
        source = re.sub(r'from "\./([a-z]+\.js)"', r'from "\1"', assets()[name].content.decode())
        addresses[name] = data_address(source.encode(), "text/javascript")
    imports = json.dumps({"imports": addresses})
    return f'<script type="importmap">{imports}</script><script type="module">import "app.js";</script>'


def _packed(entry: RoomEntry) -> dict[str, Any]:
    room, facts = entry.opened(), room_facts(entry)
    count = len(facts["views"])
    kept = sorted({round(i * (count - 1) / max(1, min(count, MOST_VIEWS) - 1)) for i in range(min(count, MOST_VIEWS))})
    facts["views"] = [facts["views"][number] for number in kept]
    views = []
    for number, view in zip(kept, facts["views"], strict=True):
        kinds = ("colour", "depth") if view["depth"] else ("colour",)
        views.append({kind: data_address(room.picture(number, kind=kind), "image/jpeg") for kind in kinds})
    above = room.above()
    return {
        "facts": facts,
        "cloud": base64.b64encode(room.cloud.packed()).decode(),
        "views": views,
        "above": None if above is None else data_address(above, "image/png"),
    }
