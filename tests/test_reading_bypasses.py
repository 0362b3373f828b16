"""Files of strangers are opened by `stereopsis.reading` only, whose limits then hold everywhere."""

import ast
from pathlib import Path

import pytest

import stereopsis

ROOT = Path(stereopsis.__file__).parent
READERS = {
    "json": {"load", "loads"},
    "yaml": {"load", "safe_load", "full_load", "unsafe_load"},
    "np": {"load", "loadtxt", "genfromtxt", "fromfile", "memmap"},
    "sparse": {"load_npz"},
    "Image": {"open"},
    "pickle": {"load", "loads"},
    "torch": {"load"},
    "zipfile": {"ZipFile"},
    "gzip": {"open"},
    "tarfile": {"open"},
    "cv2": {"imread"},
    "parquet": {"read_table"},
    "trimesh": {"load", "load_mesh", "load_scene"},
    "av": {"open"},
}
ALONE = {"safe_open", "load_file"}
METHODS = {"read_text", "read_bytes"}

ALLOWED = {
    ("files.py", "open"): "a few bytes, after a look at what the file is",
    ("scenes/detections.py", "np.load"): "of bytes that were read within limits",
    ("scenes/detections.py", "sparse.load_npz"): "of bytes that were read within limits",
    ("scenes/images.py", "Image.open"): "of bytes that were read within limits",
    ("scenes/pickles/safe_pickle.py", "zipfile.ZipFile"): "of bytes that were read within limits",
    ("scenes/surfaces/meshes.py", "trimesh.load_mesh"): "of bytes that were read within limits",
    ("training/shards.py", "torch.load"): "of bytes that were read within limits, weights only",
    ("training/recipe_packs.py", "torch.load"): "a file of our own, in a folder that only this user can write to",
    ("scenes/readers/front3d/models.py", "trimesh.load_scene"): "after a look at what the file is",
    ("scenes/readers/video.py", "av.open"): "after a look at what the file is",
    ("providers/pictures.py", "av.open"): "after a look at what the file is",
    ("scenes/readers/video_frames.py", "av.open"): "after a look at what the file is",
    ("benchmarks/files/rows.py", "parquet.read_table"): "after a look at what the file is",
    ("scenes/rooms/language/balance.py", ".read_bytes"): "of the package's own",
    ("scenes/rooms/language/balance.py", "json.loads"): "of the package's own",
    ("serve/chat.py", "Image.open"): "of bytes of an upload, which the server bounds",
    ("serve/uploads.py", "tarfile.open"): "of an upload, bounded there",
    ("serve/uploads.py", "zipfile.ZipFile"): "of an upload, bounded there",
    ("serve/page/__init__.py", ".read_bytes"): "of the package's own",
    ("report/page.py", ".read_text"): "of the package's own",
    ("data/template_limits.py", ".read_text"): "of /proc",
    ("benchmarks/files/predictions.py", "json.loads"): "of a text that was read within limits",
    ("benchmarks/files/strict_json.py", "json.loads"): "of a text that was read within limits",
    ("benchmarks/files/result_files.py", "json.loads"): "of a text that was read within limits",
}
"""Where a file is opened elsewhere all the same: (file, call) -> why that is safe."""


def calls(source: str) -> set[str]:
    """What a module calls that reads a file, as it is written."""
    return {name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and (name := _reads(node))}


def _reads(call: ast.Call) -> str:
    function = call.func
    if isinstance(function, ast.Name):
        return function.id if function.id in ALONE or (function.id == "open" and not _writes(call, 1)) else ""
    if not isinstance(function, ast.Attribute):
        return ""
    owner = function.value.id if isinstance(function.value, ast.Name) else ""
    if function.attr in READERS.get(owner, ()):
        copies = call.args and isinstance(call.args[0], ast.Call) and ast.unparse(call.args[0].func) == "json.dumps"
        return "" if copies else f"{owner}.{function.attr}"
    if function.attr in METHODS:
        return f".{function.attr}" if owner != "reading" else ""
    if function.attr == "open" and owner not in ("os", "webbrowser") and not _writes(call, 0):
        mode = call.args[0] if call.args else None
        plain = mode is None or (isinstance(mode, ast.Constant) and str(mode.value).strip("rbt") == "")
        return ".open" if plain else ""
    return ""


def _writes(call: ast.Call, place: int) -> bool:
    modes = [*call.args[place : place + 1], *(word.value for word in call.keywords if word.arg == "mode")]
    return any(isinstance(mode, ast.Constant) and set(str(mode.value)) & set("wax+") for mode in modes)


def test_every_file_is_opened_by_the_guarded_readers():
    found = {
        (path.relative_to(ROOT).as_posix(), call)
        for path in ROOT.rglob("*.py")
        if path != ROOT / "reading.py"
        for call in calls(path.read_text())
    }
    assert found - ALLOWED.keys() == set(), "use stereopsis.reading, or say above why that is safe"
    assert ALLOWED.keys() - found == set(), "these are gone: take them out of the list"


@pytest.mark.parametrize(
    "source",
    [
        "json.load(f)",
        "json.loads(path.read_text())",
        "yaml.safe_load(f)",
        "np.load('x')",
        "Image.open(path)",
        "open(path)",
        "open(path, 'rb')",
        "path.open()",
        "path.open('rb')",
        "torch.load(path)",
        "safe_open(path, framework='pt')",
        "(folder / 'x').read_bytes()",
    ],
)
def test_the_search_sees(source):
    assert calls(source)


@pytest.mark.parametrize("source", ["json.loads(json.dumps(x))", "path.open('w')", "open(p, 'ab')", "read_text(path)"])
def test_the_search_leaves_alone(source):
    assert not calls(source)
