"""Which benchmarks there are: those that have a folder here, and those that other packages bring.

A folder of this package whose ``__init__.py`` holds ``BENCHMARK`` is one. Another package declares its own in its
``pyproject.toml``::

    [project.entry-points."stereopsis.benchmarks"]
    mine = "my_package.mine:BENCHMARK"
"""

import functools
import importlib
import pkgutil
import types
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from stereopsis.benchmarks.benchmark import Benchmark, Kind
from stereopsis.errors import StereopsisError, did_you_mean

ENTRY_POINTS = "stereopsis.benchmarks"
_HERE = Path(__file__).parent
_PACKAGE = __name__.rpartition(".")[0]


@functools.cache
def all_benchmarks() -> Mapping[str, Benchmark]:
    """Every benchmark by name, in the order of tables.

    Raises:
        StereopsisError: a package's benchmark cannot be loaded, or two have one name.
    """
    found: dict[str, Benchmark] = {}
    origin: dict[str, str] = {}
    for where, benchmark in (*_own(), *_brought()):
        if benchmark.name in found:
            raise StereopsisError(
                f"benchmark '{benchmark.name}' is declared twice, by {origin[benchmark.name]} and by {where}; "
                "uninstall one of the two, or give it another name"
            )
        found[benchmark.name], origin[benchmark.name] = benchmark, where
    ordered = sorted(found.values(), key=lambda each: (each.order, each.name))
    return types.MappingProxyType({each.name: each for each in ordered})


def benchmark_names() -> tuple[str, ...]:
    """The names of all benchmarks, in the order of tables."""
    return tuple(all_benchmarks())


def trained_benchmarks() -> tuple[str, ...]:
    """The names of those that have a training split: what a recipe trains and evaluates where it names none."""
    return tuple(name for name, each in all_benchmarks().items() if "train" in each.splits)


def benchmarks_of(*kinds: Kind) -> tuple[Benchmark, ...]:
    """Those of some kinds, in the order of tables."""
    return tuple(each for each in all_benchmarks().values() if each.kind in kinds)


def benchmark_named(name: str) -> Benchmark:
    """One benchmark.

    Raises:
        StereopsisError: there is none of that name; suggests the nearest.
    """
    known = all_benchmarks()
    if name not in known:
        raise StereopsisError(f"there is no benchmark '{name}'{did_you_mean(name, known)}")
    return known[name]


def _own() -> Iterator[tuple[str, Benchmark]]:
    for module in pkgutil.iter_modules([str(_HERE)]):
        if module.ispkg:
            declared = getattr(importlib.import_module(f"{_PACKAGE}.{module.name}"), "BENCHMARK", None)
            if isinstance(declared, Benchmark):
                yield "stereopsis", declared


def _brought() -> Iterator[tuple[str, Benchmark]]:
    for point in entry_points(group=ENTRY_POINTS):
        yield _described(point), _loaded(point)


def _described(point: EntryPoint) -> str:
    return f"'{point.value}'" if point.dist is None else f"'{point.value}' of package {point.dist.name}"


def _loaded(point: EntryPoint) -> Benchmark:
    try:
        declared = point.load()
    except Exception as error:  # whatever a stranger's module raises
        raise StereopsisError(
            f"the benchmark {_described(point)} cannot be loaded ({type(error).__name__}: {error}); repair or "
            "uninstall that package"
        ) from error
    if not isinstance(declared, Benchmark):
        raise StereopsisError(
            f"the entry point {_described(point)} names a {type(declared).__name__}; expected a "
            "stereopsis.benchmarks.Benchmark"
        )
    return declared
