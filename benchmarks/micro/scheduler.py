# ruff: noqa: INP001
"""Prints what the scheduler core costs a no-op task: submit + dispatch + finish, in microseconds of CPU.

Run it with `python benchmarks/micro/scheduler.py`. The making of the events is included (the controller makes them too); the garbage
collector is on, as in the controller. Each row is the best of several rounds: the machine's noise only ever adds.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from clusterd.core.model.task import Status
from clusterd.core.scheduler import Scheduler, Settings
from clusterd.core.scheduler.actions import Dispatch
from clusterd.core.scheduler.events import ClientAttached, EngineAttached, TaskFinished, TaskSubmitted, Tick

if TYPE_CHECKING:
    from clusterd.core.scheduler.actions import AnyAction

FUNCTION = b"f" * 16


def make(engines: int, clients: int, records: int) -> Scheduler:
    scheduler = Scheduler(Settings(max_records=records))
    for client in range(clients):
        scheduler.handle(ClientAttached(client, max_tasks=10**7, max_bytes=10**12), 0.0)
    for engine in range(engines):
        scheduler.handle(EngineAttached(engine, b"", "engines", engine), 0.0)
    return scheduler


def stream(
    engines: int = 4,
    clients: int = 1,
    batch: int = 100,
    total: int = 100_000,
    duration: float = 20e-6,
    backlog: int = 0,
    target: str = "",
) -> float:
    """Submit `total` tasks in batches beside finishing what was dispatched; return microseconds a task."""
    scheduler = make(engines, clients, 10_000)
    now = 1.0
    number = 0
    finished = 0
    out: list[AnyAction] = []
    handle_into = scheduler.handle_into
    ids = [number.to_bytes(16, "big") for number in range(total)]
    targets: list[int | tuple[int, ...] | None] = [None] * engines
    if target == "direct":
        targets = list(range(engines))
    elif target == "pool":
        targets = [tuple(range(max(1, engines // 2)))] * engines
    running: list[Dispatch] = []
    began = time.process_time()
    while finished < total:
        now += 0.001
        out = []
        for dispatch in running:
            handle_into(
                TaskFinished(dispatch.task, dispatch.engine, dispatch.attempt, Status.OK, duration, 100), now, out
            )
        finished += len(running)
        upto = min(number + batch + (0 if number else backlog), total)
        while number < upto:
            where = targets[number % engines]
            handle_into(TaskSubmitted(ids[number], number % clients, FUNCTION, 100, where), now, out)
            number += 1
        scheduler.settle(now, out)
        running = [action for action in out if type(action) is Dispatch]
        deadline = scheduler.next_deadline()
        if deadline is not None and deadline <= now:
            handle_into(Tick(), now, out)
    return (time.process_time() - began) / total * 1e6


def single(engines: int = 4, total: int = 30_000) -> float:
    """One task at a time through `handle`, as a lone client does; microseconds a task."""
    scheduler = make(engines, 1, 10_000)
    now = 1.0
    began = time.process_time()
    for number in range(total):
        now += 0.0005
        for action in scheduler.handle(TaskSubmitted(number.to_bytes(16, "big"), 0, FUNCTION, 100), now):
            if type(action) is Dispatch:
                scheduler.handle(
                    TaskFinished(action.task, action.engine, action.attempt, Status.OK, 20e-6, 100), now + 0.0002
                )
    return (time.process_time() - began) / total * 1e6


ROWS = {
    "4 engines, 1 client, batches of 100": stream,
    "4 engines, 1 client, batches of 10": lambda: stream(batch=10),
    "4 engines, 50 clients, batches of 100": lambda: stream(clients=50),
    "4 engines, 50,000 queued": lambda: stream(backlog=50_000),
    "4 engines, 50 clients, 50,000 queued": lambda: stream(clients=50, backlog=50_000),
    "128 engines, 50 clients, batches of 2,000": lambda: stream(engines=128, clients=50, batch=2000),
    "4,096 engines, 50 clients, batches of 2,000": lambda: stream(engines=4096, clients=50, batch=2000),
    "4,096 engines, 10 ms tasks (no prefetch)": lambda: stream(engines=4096, batch=2000, duration=0.010),
    "4 engines, direct": lambda: stream(target="direct"),
    "128 engines, direct, batches of 2,000": lambda: stream(engines=128, batch=2000, target="direct"),
    "4 engines, restricted to half of them": lambda: stream(target="pool"),
    "128 engines, restricted to half of them": lambda: stream(engines=128, batch=2000, target="pool"),
    "4 engines, one task at a time": single,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    for name, run in ROWS.items():
        print(f"{min(run() for _ in range(rounds)):6.2f} us  {name}", flush=True)


if __name__ == "__main__":
    main()
