"""The command as a process: it says its link at once, and serves again at once after it was killed."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

import stereopsis


def started(room: Path, port: int) -> tuple[subprocess.Popen, str]:
    command = [sys.executable, "-m", "stereopsis", "serve", str(room), "--port", str(port)]
    environment = {**os.environ, "PYTHONPATH": str(Path(stereopsis.__file__).parents[1]), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            return process, found.group()
    raise AssertionError("the server said no link")


def first_answer(address: str, room: str) -> str:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        reply = httpx.post(f"{address}/v1/rooms/{room}/ask", json={"question": "is there a bed?"}, timeout=120)
        if reply.status_code == 200:
            return str(reply.json()["answer"])
        assert reply.status_code == 503, reply.text
        time.sleep(0.2)
    raise AssertionError("no answer within two minutes")


@pytest.mark.slow
def test_a_killed_server_serves_again_at_the_same_address(tiny_rooms):
    room = sorted(path for path in tiny_rooms.iterdir() if path.is_dir())[0]
    process, address = started(room, 0)
    port = int(address.rpartition(":")[2])
    try:
        before = first_answer(address, room.name)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=10)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{address}/v1/status", timeout=5)
        process, again = started(room, port)
        assert again == address
        assert first_answer(again, room.name) == before
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=15)
        assert process.returncode == 130
    finally:
        if process.returncode is None:
            process.kill()
            process.communicate(timeout=10)
