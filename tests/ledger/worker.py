"""A process that uses a ledger, for the tests to kill or to race. Says what was acknowledged.

worker.py STORE hold LIMIT        reserve single rows until the limit is in the way
worker.py STORE spend LIMIT       the same, but settle each for less, or for more
worker.py STORE forever TASKS     keep TASKS waves open until killed

With CHUNKS in the environment it leases room of the counters, in PostgreSQL.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys

from samplewise.policies.price import Usage
from samplewise.proxy.ledger.base import (
    Account,
    Hold,
    Ledger,
    Limit,
    Scope,
    Settlement,
    Wave,
    Window,
)
from samplewise.proxy.ledger.chunks import Chunks
from samplewise.proxy.ledger.postgres import PostgresLedger
from samplewise.proxy.ledger.sqlite import SqliteLedger

NANO = 700
ACCOUNTS = (
    Account(Scope.KEY, "alice", Window.TOTAL),
    Account(Scope.GLOBAL, "all", Window.TOTAL),
)


def say(line: str) -> None:
    """Write a line that survives a kill: what is in the pipe stays there."""
    os.write(1, f"{line}\n".encode())


def make_wave(prefix: str, size: int, limit: int | None = None) -> Wave:
    holds = [
        Hold(f"{prefix}.{i}", prefix, i, "local", "m", "sample", NANO, 10, "v1")
        for i in range(size)
    ]
    accounts = (
        Account(Scope.KEY, "alice", Window.TOTAL, Limit(limit)),
        Account(Scope.GLOBAL, "all", Window.TOTAL),
    )
    return Wave(prefix, "math", "alice", accounts, tuple((hold,) for hold in holds))


async def until_full(ledger: Ledger, name: str, limit: int, settling: bool) -> None:
    """Reserve row by row until there is no room; say every row and what it was settled for."""
    chance = random.Random(name)
    for number in range(10**6):
        wave = make_wave(f"{name}.{number}", 1, limit)
        if not (await ledger.reserve(wave)).bundles:
            return
        nano = chance.choice([NANO, NANO - 50, 300]) if settling else NANO
        if settling:
            await ledger.settle([Settlement(wave.bundles[0][0].id, nano, Usage(3, 0, 4))])
        say(f"{nano}")


async def forever(ledger: Ledger, name: str) -> None:
    """Keep one or two waves open at any time; say what was acknowledged, after it was."""
    before: Wave | None = None
    for number in range(10**6):
        wave = make_wave(f"{name}.{number}", 2)
        await ledger.reserve(wave)
        for (hold,) in wave.bundles:
            say(f"reserved {hold.id}")
        if before is not None:
            ids = [hold.id for (hold,) in before.bundles]
            await ledger.settle([Settlement(id_, number) for id_ in ids])
            for id_ in ids:
                say(f"settled {id_} {number}")
        before = wave


async def main() -> None:
    """Do what the command line says."""
    path, mode, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
    ledger: Ledger
    if path.startswith("postgresql:"):
        chunks = Chunks(10**6, hot=0, most=64) if "CHUNKS" in os.environ else None
        ledger = await PostgresLedger.open(path, chunks=chunks)
    else:
        ledger = await SqliteLedger.open(path)
    say("ready")
    sys.stdin.readline()
    pid = os.getpid()
    tasks = number if mode == "forever" else 16
    async with asyncio.TaskGroup() as group:
        for task in range(tasks):
            name = f"{pid}.{task}"
            group.create_task(
                forever(ledger, name)
                if mode == "forever"
                else until_full(ledger, name, number, mode == "spend")
            )
    await ledger.close()


if __name__ == "__main__":
    asyncio.run(main())
