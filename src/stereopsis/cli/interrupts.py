"""Ctrl-C at any moment: a word on how to go on, exit code 130, within two seconds, whatever a library is doing."""

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

MESSAGE = "interrupted; run the same command again to go on"
CODE = 130
"""What shells give to a program that SIGINT ended."""

GRACE = 1.6
"""Seconds that the program has to end by itself; a library deep in its own code may not look at signals for longer."""


class Interruption:
    """Whether the user wants to stop, and what else to say about going on."""

    def __init__(self) -> None:
        self.asked, self.told = threading.Event(), threading.Lock()
        self.advice: Callable[[], str] = str

    def tell(self) -> None:
        """Say it once, on stderr, below whatever stands there."""
        if self.told.acquire(blocking=False):
            text = f"{MESSAGE}{self.advice()}"
            with contextlib.suppress(OSError, ValueError):
                if sys.stdout.isatty():
                    sys.stdout.write("\x1b[?25h")  # a bar may have hidden the cursor
                    sys.stdout.flush()
                sys.stderr.write(f"\r\x1b[K{text}\n" if sys.stderr.isatty() else f"{text}\n")
                sys.stderr.flush()


CURRENT = Interruption()


def advise(say: Callable[[], str]) -> None:
    """What this command adds to the message when it comes to that, e.g. that it wants ``--resume``."""
    CURRENT.advice = say


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within this block Ctrl-C ends the program; does nothing outside of the main thread.

    Python runs handlers between two of its own instructions, which a backward pass or an import may put off for long.
    So a thread listens, too (the interpreter writes to its socket as soon as the signal comes), and ends the process
    if that has not ended itself. Files are written whole or not at all everywhere, so that nothing is lost.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    CURRENT.__init__()  # type: ignore[misc]
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    before = signal.getsignal(signal.SIGINT)
    woken = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, _stop)
    threading.Thread(target=_listen, args=(ours,), name="interrupts", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(woken)
        if not CURRENT.asked.is_set():
            signal.signal(signal.SIGINT, before)
        theirs.close()
        if CURRENT.asked.is_set():
            CURRENT.tell()


def _stop(number: int, frame: FrameType | None) -> None:
    if CURRENT.asked.is_set():  # again
        CURRENT.tell()
        os._exit(CODE)
    CURRENT.asked.set()
    raise SystemExit(CODE)


def _listen(ours: socket.socket) -> None:
    while received := ours.recv(1):
        if received[0] == signal.SIGINT:
            time.sleep(GRACE / 2)
            CURRENT.tell()
            time.sleep(GRACE / 2)
            with contextlib.suppress(Exception):
                for child in multiprocessing.active_children():
                    child.terminate()
            os._exit(CODE)
    ours.close()
