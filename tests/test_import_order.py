"""The package is layered: a part imports only what stands below it, and data preparation stays light."""

import ast
import dataclasses
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "stereopsis"

ORDER = (
    "errors",
    "extras",
    "files",
    "model_files",
    "reading",
    "objective_sections",
    "progress",
    "precision",
    "side_by_side",
    "assets",
    "weights",
    "annotations",
    "geometry",
    "scenes",
    "benchmarks",
    "data",
    "teachers",
    "providers",
    "packs",
    "objectives",
    "models",
    "training",
    "evaluation",
    "reconstruction",
    "probing",
    "report",
    "integrations",
    "experiment",
    "client",
    "serve",
    "cli",
)
"""Bottom to top; what stands first knows nothing of what comes later."""

LIGHT = ("errors", "extras", "files", "model_files", "reading", "progress", "annotations", "geometry", "scenes")
HEAVY = ("torch", "transformers", "diffusers", "accelerate", "tokenizers", "safetensors")
FORBIDDEN_NAMES = ("utils", "util", "common", "helpers", "helper", "misc")
MOST_LINES = 400
FILES = sorted(PACKAGE.rglob("*.py"))


@dataclasses.dataclass(frozen=True)
class Import:
    """One imported module, and where."""

    path: Path
    line: int
    module: str
    inside_function: bool

    def __str__(self) -> str:
        return f"{self.path.relative_to(PACKAGE.parent)}:{self.line} imports {self.module}"


def source_of(path: Path, node: ast.ImportFrom) -> str:
    """The module that names are taken from; relative ones resolved."""
    package = ("stereopsis", *path.relative_to(PACKAGE).parts[:-1])
    base = package[: len(package) - node.level + 1] if node.level else ()
    return ".".join((*base, *((node.module,) if node.module else ())))


def imports_of(path: Path, source: str | None = None) -> Iterator[Import]:
    """Every import of a file, also those inside functions; relative ones resolved."""

    def walk(node: ast.AST, inside: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            deeper = inside or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            names: list[str] = []
            if isinstance(child, ast.Import):
                names = [alias.name for alias in child.names]
            elif isinstance(child, ast.ImportFrom):
                module = source_of(path, child)
                # "from stereopsis import report" names a part only in its alias
                names = [f"{module}.{alias.name}" for alias in child.names] if module == "stereopsis" else [module]
            for name in names:
                yield Import(path, child.lineno, name, inside)
            yield from walk(child, deeper)

    yield from walk(ast.parse(path.read_text() if source is None else source), False)


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def violation(found: Import) -> str | None:
    """What is wrong with an import of ours, or None."""
    own, parts = part_of(found.path), found.module.split(".")
    if parts[0] != "stereopsis" or own == "__init__" or len(parts) == 1 or parts[1] == "__version__":
        return None
    if parts[1] in ORDER and ORDER.index(parts[1]) <= ORDER.index(own):
        return None
    return f"{found}, but {own} stands below {parts[1]}"


def test_every_part_has_its_place():
    parts = {part_of(path) for path in FILES} - {"__init__", "__main__"}
    assert parts <= set(ORDER), f"add to ORDER, where they belong: {sorted(parts - set(ORDER))}"


@pytest.mark.parametrize("part", ORDER)
def test_imports_point_downwards(part):
    wrong = [
        text
        for path in FILES
        if part_of(path) == part
        for found in imports_of(path)
        if (text := violation(found)) is not None
    ]
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from stereopsis.models.spatial import SpatialModel", "1 imports stereopsis.models.spatial"),
        ("import stereopsis.training.train_run", "1 imports stereopsis.training.train_run"),
        ("def f():\n    from stereopsis.evaluation import in_memory", "2 imports stereopsis.evaluation"),
        ("from stereopsis import report", "1 imports stereopsis.report"),
        ("from ..models import spatial", "1 imports stereopsis.models"),
        ("if True:\n    import stereopsis.cli as c", "2 imports stereopsis.cli"),
        ("from stereopsis.geometry import iou", None),
        ("from stereopsis.data.batch import Batch", None),
        ("from .batch import Batch", None),
        ("from stereopsis import __version__", None),
        ("import torch", None),
    ],
)
def test_the_check_sees_every_way_to_import(source, expected):
    """As if it stood in stereopsis/data/pack.py."""
    found = [violation(each) for each in imports_of(PACKAGE / "data" / "pack.py", source)]
    assert len(found) == 1
    if expected is None:
        assert found[0] is None
    else:
        assert found[0] is not None
        assert f"data/pack.py:{expected}, but data stands below" in found[0]


def module_of(path: Path) -> str:
    return ".".join(("stereopsis", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


def depends(path: Path, modules: Collection[str], source: str | None = None) -> set[str]:
    """The modules of ours that a file names, also inside functions; a package where the package itself is meant."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text() if source is None else source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            named = {f"{source_of(path, node)}.{alias.name}" for alias in node.names}
            found |= (named & set(modules)) | ({source_of(path, node)} if named - set(modules) else set())
    return found & set(modules) - {module_of(path)}


def circles(graph: Mapping[str, set[str]]) -> list[str]:
    """One shortest way back to itself for every module that has one."""
    found = []
    for start in sorted(graph):
        ways: dict[str, tuple[str, ...]] = {start: (start,)}
        queue = [start]
        while queue:
            here = queue.pop(0)
            if start in graph[here]:
                found.append(" -> ".join((*ways[here], start)))
                break
            for there in sorted(graph[here] - ways.keys()):
                ways[there] = (*ways[here], there)
                queue.append(there)
    return found


def test_nothing_imports_itself_in_a_circle():
    """Neither at once nor from inside a function: what needs each other is one thing, or one stands above the other."""
    modules = {module_of(path) for path in FILES}
    found = circles({module_of(path): depends(path, modules) for path in FILES})
    assert not found, "\n" + "\n".join(found)


def test_the_check_sees_circles_inside_functions():
    modules = {"stereopsis.a", "stereopsis.b", "stereopsis.c"}
    lazy = "def f():\n    from . import b\n    from stereopsis.c import g\n    import torch\n"
    assert depends(PACKAGE / "a.py", modules, lazy) == {"stereopsis.b", "stereopsis.c"}
    assert circles({"a": {"b"}, "b": {"a"}, "c": {"a"}}) == ["a -> b -> a", "b -> a -> b"]
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}})[0] == "a -> b -> c -> a"
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_data_preparation_names_no_heavy_package():
    """Geometry and scenes prepare data on machines, and in worker processes, that need no neural network."""
    wrong = [
        str(found)
        for path in FILES
        if part_of(path) in LIGHT
        for found in imports_of(path)
        if found.module.split(".")[0] in HEAVY and not found.inside_function
    ]
    assert not wrong, "\n" + "\n".join(wrong)


def test_data_preparation_loads_no_heavy_package():
    """Neither directly nor through anything it imports."""
    modules = [
        ".".join(("stereopsis", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for path in FILES
        if part_of(path) in LIGHT
    ]
    code = (
        "import importlib, sys\n"
        f"for name in {modules}:\n"
        "    importlib.import_module(name)\n"
        f"    loaded = [m for m in {HEAVY} if m in sys.modules]\n"
        "    assert not loaded, f'{name} loads {loaded}'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_files_stay_readable():
    long = {str(p.relative_to(PACKAGE)): n for p in FILES if (n := len(p.read_text().splitlines())) > MOST_LINES}
    assert not long, f"more than {MOST_LINES} lines; split them: {long}"


def test_modules_are_named_for_what_they_hold():
    parts = {part.removesuffix(".py") for p in FILES for part in p.relative_to(PACKAGE).parts}
    assert not parts & set(FORBIDDEN_NAMES)
