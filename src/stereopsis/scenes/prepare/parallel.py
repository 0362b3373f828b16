"""Many sources at once: over processes of this machine or over Ray, with one bad scene never stopping the others."""

import collections
import dataclasses
import functools
import json
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from pathlib import Path

from rich.console import Console
from rich.table import Table

from stereopsis.errors import SceneError
from stereopsis.files import write_atomic
from stereopsis.progress import phase
from stereopsis.scenes.agreement import KEY, in_words
from stereopsis.scenes.prepare.main_guard import unguarded_script
from stereopsis.scenes.prepare.settings import PrepareSettings
from stereopsis.scenes.prepare.sources import Room, Source
from stereopsis.scenes.prepare.work import Outcome, prepare_source

SUMMARY_FILE = "prepare.json"
AHEAD = 4
"""Sources in flight per worker: enough to keep all busy, few enough that a dying worker loses little."""

FEW = 4
"""So many scenes are not worth a word about other processes."""

Work = Callable[..., Outcome]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What became of all sources, in their order."""

    outcomes: tuple[Outcome, ...]

    def count(self, status: str) -> int:
        """How many sources ended so."""
        return sum(outcome.status == status for outcome in self.outcomes)

    @property
    def failed_share(self) -> float:
        """Failed sources among all, 0..1."""
        return self.count("failed") / max(1, len(self.outcomes))

    @property
    def folders(self) -> list[Path]:
        """The prepared scenes."""
        return [outcome.folder for outcome in self.outcomes if outcome.folder is not None]

    def table(self, most: int = 20) -> Table:
        """Totals, and why scenes failed or lost frames (the first ``most`` of them)."""
        told = [outcome for outcome in self.outcomes if outcome.noteworthy]
        table = Table("scene", "state", "frames", "why", title=self.totals(), title_justify="left")
        for outcome in told[:most]:
            left_out = f"{len(outcome.skipped)} frames left out, the first: " if outcome.skipped else ""
            words = [*outcome.warnings, left_out + next(iter(outcome.skipped.values()), "")]
            why = outcome.reason or "\n".join(filter(None, words))
            table.add_row(outcome.source, outcome.status, str(outcome.frames or ""), why)
        if len(told) > most:
            table.add_row(f"and {len(told) - most} more", "", "", f"see {SUMMARY_FILE}")
        return table

    def agreement(self) -> list[str]:
        """One line on how well the captures' views agree; none where nothing was compared."""
        told = [(o.notes[KEY], o) for o in self.outcomes if o.notes.get(KEY)]
        if len(told) == 1:
            return [f"depth agreement: {in_words(told[0][0])}"]
        shares = sorted(record["agreement"] for record, _ in told if record.get("agreement") is not None)
        if not told:
            return []
        unknown = len(told) - len(shares)
        middle = f"{shares[0]:.0%} to {shares[-1]:.0%} in {len(shares)} scenes" if shares else "none"
        return [f"depth agreement: {middle}" + (f"; cannot tell in {unknown}" if unknown else "")]

    def verdict(self) -> str:
        """One line: whether the scenes can be used as they are; empty where none was prepared."""
        there = [outcome for outcome in self.outcomes if outcome.folder is not None]
        if len(there) == 1:
            return there[0].verdict
        if not there:
            return ""
        lacking = [outcome for outcome in there if not outcome.usable]
        words = f"Usable: {len(there) - len(lacking)} of {len(there)} scenes."
        return words + (f" {lacking[0].source}: {lacking[0].verdict}" if lacking else "")

    def totals(self) -> str:
        """One line: how many were done, kept and failed."""
        return f"{self.count('done')} done, {self.count('kept')} there already, {self.count('failed')} failed"


def prepare(
    sources: Sequence[Source],
    output: str | Path,
    settings: PrepareSettings = PrepareSettings(),  # noqa: B008
    *,
    workers: int = 0,
    ray: str | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> Report:
    """Prepare many sources; what is there already, made from the same source in the same way, is kept.

    Scenes are written whole or not at all, so that an interrupted run is simply started again. ``prepare.json`` in
    the output folder tells what became of every source of the latest run.

    Args:
        sources: what to prepare; each scene goes to ``output/ID``.
        output: the folder of prepared scenes.
        settings: how.
        workers: processes on this machine; 0 = one per CPU, 1 = this process itself.
        ray: "local", or the address of a Ray cluster that sees the same folders; needs ``pip install ray``.
        overwrite: make scenes anew that are there.
        console: where to show progress; None = quiet.

    Returns:
        What became of every source, in order.

    Raises:
        SceneError: two sources would go to the same folder, or the output folder cannot be written.
    """
    output = Path(output)
    _check_distinct(sources)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SceneError(f"{output}: cannot be made: {error}; choose another output folder") from error
    work = functools.partial(prepare_source, output=output.resolve(), settings=settings, overwrite=overwrite)
    outcomes: dict[int, Outcome] = {}
    started = time.monotonic()
    try:
        rooms = all(isinstance(source, Room) for source in sources)
        what, unit = ("Making rooms", "rooms") if rooms else ("Preparing scenes", "scenes")
        with phase(what, len(sources), unit, console=console) as shown:
            for number, outcome in _outcomes(sources, work, workers, ray):
                outcomes[number] = outcome
                shown.advance(0 if outcome.status == "busy" else 1)
            for number in [number for number, outcome in outcomes.items() if outcome.status == "busy"]:
                outcomes[number] = work(sources[number], overwrite=False, wait=True)  # another start is making it now
                shown.advance()
    finally:  # an interruption, too, leaves a summary of what was done until then
        done = [outcomes[number] for number in sorted(outcomes)]
        _write_summary(output, done, len(sources), time.monotonic() - started)
    return Report(outcomes=tuple(done))


def usable_cpus() -> int:
    """CPUs that this process may use (Linux counts what a container or ``taskset`` leaves to it)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _outcomes(sources: Sequence[Source], work: Work, workers: int, ray: str | None) -> Iterator[tuple[int, Outcome]]:
    """Outcomes as they come, each with its source's number."""
    workers = min(workers or usable_cpus(), len(sources))
    if ray is not None:
        yield from _over_ray(sources, work, ray, workers)
    elif workers <= 1 or _only_here(len(sources)):
        yield from ((number, work(source)) for number, source in enumerate(sources))
    else:
        yield from _over_processes(sources, work, workers)


def _only_here(count: int) -> bool:
    """Whether the work must be done in this process, as others could not start; large work says what to do."""
    script = unguarded_script()
    if script is not None and count > FEW:
        warnings.warn(
            f"{script} has no 'if __name__ == \"__main__\":' around what led here, so that no other process can start "
            f"and this one does all the work ({count} scenes): put the script's statements below that line to use "
            f"{usable_cpus()} CPUs",
            stacklevel=2,
        )
    return script is not None


def _over_processes(sources: Sequence[Source], work: Work, workers: int) -> Iterator[tuple[int, Outcome]]:
    """A pool that outlives its workers: what was in flight when one died is tried again, alone."""
    waiting = collections.deque(range(len(sources)))
    suspects: list[int] = []
    while waiting:
        flying: dict[Future[Outcome], int] = {}
        # spawn: a fork of a process whose torch threads have run may hang
        with _pool(workers) as pool:
            try:
                while waiting or flying:
                    while waiting and len(flying) < AHEAD * workers:
                        flying[pool.submit(work, sources[waiting[0]])] = waiting[0]
                        waiting.popleft()
                    finished, _ = wait(flying, return_when=FIRST_COMPLETED)
                    for future in finished:
                        outcome = future.result()
                        yield flying.pop(future), outcome
            except BrokenProcessPool:
                for future, number in flying.items():
                    if future.done() and future.exception() is None:
                        yield number, future.result()
                    else:
                        suspects.append(number)
            except BaseException:  # interrupted: what is half done is done again, nobody waits for it
                for worker in active_children():
                    worker.terminate()
                raise
            finally:
                pool.shutdown(cancel_futures=True)
    for number in suspects:
        yield number, _alone(sources[number], work)


def _pool(workers: int) -> ProcessPoolExecutor:
    """Processes that end when this one does, however it ends."""
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_end_with, initargs=(os.getpid(),))


def _end_with(parent: int) -> None:
    """Leave as soon as the parent is gone: a killed one cannot say so, and its workers would stay for ever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _alone(source: Source, work: Work) -> Outcome:
    """In a process of its own, whose death takes nothing else with it."""
    with _pool(1) as pool:
        try:
            return pool.submit(work, source).result()
        except BrokenProcessPool:
            return _died(source)


def _died(source: Source) -> Outcome:
    return Outcome(
        source=source.name,
        status="failed",
        reason="the process that prepared it died (out of memory, or a crash in a library); "
        "try it alone with --workers 1 and more memory",
    )


def _over_ray(sources: Sequence[Source], work: Work, address: str, workers: int) -> Iterator[tuple[int, Outcome]]:
    try:
        import ray
    except ImportError as error:
        raise SceneError("--ray needs Ray: pip install 'stereopsis[ray]'") from error
    started = not ray.is_initialized()
    if started and address == "local":
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    elif started:
        ray.init(address=address)
    remote = ray.remote(max_retries=1)(work.func if isinstance(work, functools.partial) else work)
    keywords = work.keywords if isinstance(work, functools.partial) else {}
    flying: dict = {}
    waiting = collections.deque(range(len(sources)))
    try:
        while waiting or flying:
            ahead = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
            while waiting and len(flying) < ahead:
                number = waiting.popleft()
                flying[remote.remote(sources[number], **keywords)] = number
            finished, _ = ray.wait(list(flying), num_returns=1)
            for reference in finished:
                number = flying.pop(reference)
                try:
                    yield number, ray.get(reference)
                except ray.exceptions.RayError:
                    yield number, _died(sources[number])
    finally:
        if started:
            ray.shutdown()


def _check_distinct(sources: Sequence[Source]) -> None:
    known: dict[str, str] = {}
    for source in sources:
        if source.scene_id is None:
            continue
        if source.scene_id in known:
            raise SceneError(
                f"{known[source.scene_id]} and {source.name} would both become scene '{source.scene_id}'; "
                "prepare them into different output folders"
            )
        known[source.scene_id] = source.name


def _write_summary(output: Path, outcomes: Sequence[Outcome], total: int, seconds: float) -> None:
    summary = {
        "sources": total,
        **{status: sum(o.status == status for o in outcomes) for status in ("done", "kept", "failed")},
        "seconds": round(seconds, 1),
        "scenes": [outcome.record() for outcome in outcomes],
    }
    write_atomic(output / SUMMARY_FILE, json.dumps(summary, indent=1, default=str) + "\n", error=SceneError)
