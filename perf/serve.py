"""Many askers at once: what the engine's shared passes are worth, and whether anything is lost or grows.

32 clients ask about 4 rooms over HTTP, as fast as they are answered; the same questions are asked one by one by one
client, and of Python's `room.ask` itself. The last part goes on until 2 000 requests were answered, and looks at the
memory of the process. Writes results/perf_serve.json.

Run: python perf/serve.py [--clients 32] [--rooms 4] [--questions 256] [--requests 2000]
"""

import argparse
import json
import os
import statistics
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import httpx
import psutil

from stereopsis.files import write_atomic
from stereopsis.models.inference import enter_scene
from stereopsis.scenes.prepare import prepared_room
from stereopsis.serve.rooms import RoomBook
from stereopsis.serve.start import Server, ServerSettings
from stereopsis.serve.tiny import VIEWS, open_tiny
from stereopsis.training.train_run import environment

ROOT = Path(__file__).resolve().parent.parent
Work = Sequence[tuple[str, str]]


def together(address: str, work: Work, clients: int) -> tuple[list[str | None], list[float], float]:
    """All questions by so many clients: answers, seconds of each, seconds in all."""
    answers: list[str | None] = [None] * len(work)
    seconds = [0.0] * len(work)

    def client(number: int) -> None:
        with httpx.Client(base_url=address, timeout=600) as http:
            for index in range(number, len(work), clients):
                room, question = work[index]
                start = time.perf_counter()
                reply = http.post(f"/v1/rooms/{room}/ask", json={"question": question})
                seconds[index] = time.perf_counter() - start
                if reply.status_code == 200:
                    answers[index] = reply.json()["answer"]

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers, seconds, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--rooms", type=int, default=4)
    parser.add_argument("--questions", type=int, default=256)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "perf_serve.json")
    args = parser.parse_args()
    opened = open_tiny(precision="fp32")
    scenes = [prepared_room(20_000_001 + seed) for seed in range(args.rooms)]
    asked = [[a.text for a in scene.annotations if a.task == "scanqa"] for scene in scenes]
    work = [
        (scenes[i % args.rooms].id, asked[i % args.rooms][i // args.rooms % len(asked[i % args.rooms])])
        for i in range(args.questions)
    ]
    book = RoomBook()
    for scene in scenes:
        book.add_open(scene)
    entered = {scene.id: enter_scene(opened.model, scene, views=VIEWS) for scene in scenes}
    python = [entered[room].ask(question) for room, question in work]
    with Server(book, lambda: opened, ServerSettings(port=0)) as server:
        together(server.address, work[: 2 * args.rooms], 1)  # rooms are encoded
        one, one_seconds, one_total = together(server.address, work, 1)
        before = server.engine.passes
        many, many_seconds, many_total = together(server.address, work, args.clients)
        passes = server.engine.passes - before
        process = psutil.Process()
        memory, lost, done = [process.memory_info().rss], 0, 0
        while done < args.requests:
            answers, _, _ = together(server.address, work, args.clients)
            lost += sum(answer is None for answer in answers)
            done += len(work)
            memory.append(process.memory_info().rss)
    content = {
        "clients": args.clients,
        "rooms": args.rooms,
        "questions": len(work),
        "one_by_one": told(one_seconds, one_total),
        "together": told(many_seconds, many_total) | {"passes": passes},
        "speedup": round(one_total / many_total, 2),
        "equal_to_python": {"one_by_one": same(one, python), "together": same(many, python)},
        "lost": lost + sum(answer is None for answer in (*one, *many)),
        "requests": done,
        "memory_mib": [round(value / 2**20, 1) for value in memory],
        "environment": environment(),
    }
    write_atomic(args.output, json.dumps(content, indent=1, default=str) + "\n")
    print(json.dumps({key: value for key, value in content.items() if key != "environment"}, indent=1))


def told(seconds: Sequence[float], total: float) -> dict[str, Any]:
    """Throughput and latency."""
    ordered = sorted(seconds)
    return {
        "per_second": round(len(seconds) / total, 1),
        "p50_ms": round(1000 * statistics.median(ordered), 1),
        "p95_ms": round(1000 * ordered[int(0.95 * len(ordered))], 1),
    }


def same(answers: Sequence[str | None], expected: Sequence[str]) -> float:
    """Share of the answers that are the expected ones."""
    return sum(a == b for a, b in zip(answers, expected, strict=True)) / len(expected)


if __name__ == "__main__":
    main()
