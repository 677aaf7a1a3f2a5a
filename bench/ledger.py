"""Print how many reserve + settle pairs a second the SQLite ledger makes durable, and their cost.

    python -m bench.ledger [--folder FOLDER] [--seconds 3] [--wave 1] [--busy]

Every wave goes into two accounts that all waves share. A pair is one sample.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import tempfile
import time
from pathlib import Path

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
from samplewise.proxy.ledger.sqlite import SqliteLedger

ACCOUNTS = (
    Account(Scope.KEY, "alice", Window.DAY, Limit(nano=10**15)),
    Account(Scope.GLOBAL, "all", Window.MONTH, Limit(nano=10**16)),
)


async def pairs(
    ledger: SqliteLedger, numbers: itertools.count[int], size: int, end: float
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


async def measure(folder: Path, in_flight: int, size: int, seconds: float, busy: bool) -> None:
    """Print one line."""
    ledger = await SqliteLedger.open(folder / f"{in_flight}-{size}-{busy}.db")
    numbers = itertools.count()
    start, cpu = time.perf_counter(), time.process_time()
    end = start + seconds
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(pairs(ledger, numbers, size, end)) for _ in range(in_flight)]
        if busy:
            group.create_task(spin(end))
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    took = [value for task in tasks for value in task.result()]
    samples = len(took) // 2 * size
    stats = ledger.stats
    cuts = statistics.quantiles(took, n=100)
    print(
        f"{in_flight:9} {size:5} {samples / wall:9,.0f} {cpu / samples * 1e6:11.1f}"
        f" {cuts[49]:8.1f} {cuts[98]:8.1f} {stats.operations / stats.commits:10.1f}"
    )
    totals = await ledger.totals()
    assert totals.wrong_counters == 0
    assert totals.held_nano == 0
    assert totals.settled_nano == samples * 400_000
    await ledger.close()


def main() -> None:
    """Measure at 1, 64 and 256 in flight."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where to put the files; picks the disk")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--wave", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--busy", action="store_true", help="keep the event loop busy")
    args = parser.parse_args()
    print("in flight  wave   pairs/s  CPU us/pair  p50 ms   p99 ms  ops/commit")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for size in args.wave:
            for in_flight in (1, 64, 256):
                asyncio.run(measure(Path(folder), in_flight, size, args.seconds, args.busy))


if __name__ == "__main__":
    main()
