"""Print how many reserve + settle pairs a second each ledger makes durable, and what they cost.

    python -m bench.ledger [--folder FOLDER] [--seconds 3] [--wave 1 8] [--busy] [--store sqlite]

A pair is one sample. Every wave goes into the same counters, which all waves share: the worst case.
Processor time of PostgreSQL is that of this process and of all of the server's, which is started
here and writes to the disk for every commit; it is skipped where it is not installed.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from tests.ledger.pg import Server, account_of_server, programs

from bench.machine import spent
from samplewise.policies.price import Usage
from samplewise.proxy.ledger.base import (
    Account,
    Hold,
    Limit,
    Scope,
    Settlement,
    UsageSource,
    Wave,
    Window,
)
from samplewise.proxy.ledger.postgres import PostgresLedger
from samplewise.proxy.ledger.sqlite import SqliteLedger

AnyLedger: TypeAlias = SqliteLedger | PostgresLedger

ACCOUNTS = (
    Account(Scope.KEY, "alice", Window.DAY, Limit(nano=10**15)),
    Account(Scope.GLOBAL, "all", Window.MONTH, Limit(nano=10**16)),
)


async def pairs(
    ledger: AnyLedger, numbers: itertools.count[int], size: int, end: float
) -> list[float]:
    """Reserve and settle waves until `end`; return the milliseconds of each operation."""
    took = []
    while time.perf_counter() < end:
        request = f"req_{next(numbers):032x}"
        holds = [
            Hold(f"{request}:{i}", f"{request}:c", i, "local", "m", "sample", 900_000, 4_000, "v1")
            for i in range(size)
        ]
        wave = Wave(request, "math", "alice", ACCOUNTS, tuple((hold,) for hold in holds))
        start = time.perf_counter()
        grant = await ledger.reserve(wave)
        reserved = time.perf_counter()
        assert grant.bundles == size
        await ledger.settle(
            [Settlement(h.id, 400_000, Usage(300, 0, 900, 0), UsageSource.PROVIDER) for h in holds]
        )
        took += [(reserved - start) * 1e3, (time.perf_counter() - reserved) * 1e3]
    return took


async def spin(end: float) -> None:
    """Keep the event loop busy, as parsing streams does."""
    while time.perf_counter() < end:
        sum(range(2_000))
        await asyncio.sleep(0)


async def measure(
    ledger: AnyLedger, pids: list[int], in_flight: int, size: int, seconds: float, busy: bool
) -> None:
    """Print one line. `pids` are the processes whose processor time counts."""
    numbers = itertools.count()
    before = sum(spent(pid).cpu_s for pid in pids)
    start = time.perf_counter()
    end = start + seconds
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(pairs(ledger, numbers, size, end)) for _ in range(in_flight)]
        if busy:
            group.create_task(spin(end))
    wall = time.perf_counter() - start
    cpu = sum(spent(pid).cpu_s for pid in pids) - before
    took = [value for task in tasks for value in task.result()]
    samples = len(took) // 2 * size
    stats = ledger.stats
    cuts = statistics.quantiles(took, n=100)
    name = "sqlite" if isinstance(ledger, SqliteLedger) else "postgresql"
    print(
        f"{name:10} {len(ACCOUNTS):8} {in_flight:9} {size:5} {samples / wall:9,.0f}"
        f" {cpu / samples * 1e6:11.1f} {cuts[49]:8.1f} {cuts[98]:8.1f}"
        f" {stats.operations / stats.commits:10.1f}"
    )
    totals = await ledger.totals()
    assert totals.wrong_counters == 0
    assert totals.held_nano == 0
    assert totals.settled_nano == samples * 400_000
    await ledger.close()


@contextmanager
def postgres() -> Iterator[Server | None]:
    """Start a server that makes every commit durable; None where it is not installed."""
    folder, user = programs(), account_of_server()
    if folder is None or user is None:
        print("SKIP postgresql: it is not installed; on Debian: apt-get install postgresql")
        yield None
        return
    server = Server(folder, user, durable=True)
    try:
        yield server
    finally:
        server.remove()


def main() -> None:
    """Measure at 1, 64 and 256 in flight."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where to put SQLite's files; picks the disk")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--wave", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--busy", action="store_true", help="keep the event loop busy")
    stores = ["sqlite", "postgresql"]
    parser.add_argument("--store", choices=stores, nargs="*", default=stores)
    args = parser.parse_args()

    def lines(pids: list[int], open_: Callable[[str], Awaitable[AnyLedger]]) -> None:
        async def line(name: str, in_flight: int, size: int) -> None:
            await measure(await open_(name), pids, in_flight, size, args.seconds, args.busy)

        for size in args.wave:
            for in_flight in (1, 64, 256):
                asyncio.run(line(f"{in_flight}-{size}.db", in_flight, size))

    names = ", ".join(f"{a.scope} {a.name} of the {a.window}" for a in ACCOUNTS)
    print(f"Every wave goes into {len(ACCOUNTS)} counters: {names}.")
    print("store      counters in flight  wave   pairs/s  CPU us/pair  p50 ms   p99 ms  ops/commit")
    if "sqlite" in args.store:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            lines([os.getpid()], lambda name: SqliteLedger.open(Path(folder) / name))
    if "postgresql" in args.store:
        with postgres() as server:
            if server is not None:
                made = server

                async def new(name: str) -> AnyLedger:
                    return await PostgresLedger.open(await asyncio.to_thread(made.new_database))

                lines([os.getpid(), server.pid], new)


if __name__ == "__main__":
    main()
