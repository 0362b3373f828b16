"""The page: plain HTML, CSS and scripts beside this file, and an installed package's three.js, all served from here."""

import dataclasses
import functools
import html
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stereopsis.extras import require_extras

ASSETS = Path(__file__).parent / "assets"
THREE = "three.js"
"""A module with ``THREE`` and ``OrbitControls``, as NiceGUI builds it for its own scenes; the rest is not used."""
_THREE_OF_NICEGUI = Path("elements", "scene", "dist", "index.js")
_KINDS = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asset:
    """One file of the page."""

    content: bytes
    kind: str


@functools.cache
def assets() -> Mapping[str, Asset]:
    """All files of the page by name; a request names one of these, never a path.

    Raises:
        MissingExtraError: the package that brings three.js is not installed.
    """
    files = {path.name: path for path in sorted(ASSETS.iterdir())} | {THREE: _three()}
    return {
        name: Asset(content=path.read_bytes(), kind=_KINDS[path.suffix])
        for name, path in files.items()
        if path.suffix in _KINDS
    }


def _three() -> Path:
    """Where three.js lies; the package is found, not imported."""
    require_extras("The page", "serve")
    found = importlib.util.find_spec("nicegui")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / _THREE_OF_NICEGUI


def asset(name: str) -> Asset | None:
    """A file of the page; None where there is no such file."""
    return assets().get(name)


def index(title: str, *, model: bool) -> str:
    """The page itself.

    Args:
        title: in the head.
        model: whether there is one to ask.
    """
    settings = html.escape(json.dumps({"model": model, "offline": False}), quote=True)
    return _filled(title, settings)


def _filled(title: str, settings: str) -> str:
    page = assets()["index.html"].content.decode()
    return page.replace("{{title}}", html.escape(title)).replace("{{settings}}", settings)


def docs_page(schema: Mapping[str, Any]) -> str:
    """The API on one page, without anything from the network; the machine-readable form is /openapi.json."""
    sections = []
    for path, methods in schema["paths"].items():
        for method, about in methods.items():
            body = about.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            name = body.get("$ref", "").rpartition("/")[2]
            fields = schema.get("components", {}).get("schemas", {}).get(name, {}).get("properties", {})
            rows = "".join(
                f"<li><code>{html.escape(key)}</code> {html.escape(_kind(value))}</li>" for key, value in fields.items()
            )
            words = html.escape(about.get("description", about.get("summary", "")))
            sections.append(
                f"<section><h2><b>{method.upper()}</b> <code>{html.escape(path)}</code></h2><p>{words}</p>"
                f"<ul>{rows}</ul></section>"
            )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        "<title>API</title><link rel=stylesheet href=/assets/style.css><body class=docs><main>"
        f"<h1>{html.escape(schema['info']['title'])} API</h1>"
        "<p>Machine-readable: <a href=/openapi.json>openapi.json</a>. Errors are JSON: "
        "<code>{&quot;error&quot;: {&quot;message&quot;, &quot;type&quot;, &quot;code&quot;}}</code>.</p>"
        f"{''.join(sections)}</main></body></html>"
    )


def _kind(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(each) for each in schema["anyOf"]))
    if schema.get("type") == "array":
        most = schema.get("maxItems")
        return f"list of {most} {_kind(schema.get('items', {}))}s" if most else "list"
    return str(schema.get("type", "object"))
