"""Compare several processes on one budget in PostgreSQL with and without leased chunks of it.

    python -m bench.chunks [--seconds 4] [--rounds 3] [--processes 4] [--commit-ms 10]

Both modes are measured in every round, so that only ratios of one run are compared. A pair is one
sample reserved and settled, as in `bench.ledger`; every wave of all processes is in two counters.
`--commit-ms` makes every commit wait, as one does for a synchronous standby or a slow disk.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from collections.abc import Sequence
from functools import partial

from bench.ledger import ACCOUNTS, postgres
from bench.processes import Measured, Work, line, measure
from samplewise.policies.price import NANO
from samplewise.proxy.ledger.chunks import Chunks
from samplewise.proxy.ledger.postgres import PostgresLedger

# Waves in flight in each process, samples of a wave.
SHAPES = ((4, 1), (16, 1), (64, 1), (16, 8))


async def opened(url: str, chunked: bool) -> PostgresLedger:
    """Open the ledger of one process."""
    return await PostgresLedger.open(url, chunks=Chunks(NANO) if chunked else None)


async def check(url: str, samples: int) -> None:
    """Nothing may be left over, and nothing lost."""
    ledger = await PostgresLedger.open(url)
    totals = await ledger.totals()
    assert totals.wrong_counters == totals.open_rows == 0
    for balance in await ledger.balances(ACCOUNTS):
        assert (balance.reserved.nano, balance.spent.nano) == (0, samples * 400_000)
    await ledger.close()


def measured(url: str, chunked: bool, count: int, shape: tuple[int, int], s: float) -> Measured:
    """Let processes work on one new database together."""
    found = measure(Work(partial(opened, url, chunked), *shape), count, s)
    asyncio.run(check(url, found.samples))
    return found


def ratio(with_: Sequence[Measured], without: Sequence[Measured]) -> float:
    """Return how many times as many pairs were done with chunks: the median over rounds."""
    return statistics.median(a.rate / b.rate for a, b in zip(with_, without, strict=True))


def main() -> None:
    """Measure every shape in both modes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--commit-ms", type=int, default=0)
    args = parser.parse_args()
    with postgres() as server:
        if server is None:
            return
        server.run(f"ALTER SYSTEM SET commit_delay = {1_000 * args.commit_ms}")
        server.run("ALTER SYSTEM SET commit_siblings = 0")
        server.run("SELECT pg_reload_conf()")
        print("                  pairs/s  CPU us/pair  p50 ms   p99 ms  longest ms")
        for shape in SHAPES:
            runs: dict[bool, list[Measured]] = {False: [], True: []}
            for _ in range(args.rounds):
                for chunked, found in runs.items():
                    url = server.new_database()
                    found.append(measured(url, chunked, args.processes, shape, args.seconds))
            print("{} processes, {} in flight each, waves of {}".format(args.processes, *shape))
            print(line("one counter", runs[False]))
            print(line("chunks", runs[True]))
            print(f"{'':15} {ratio(runs[True], runs[False]):9.2f} times as many")


if __name__ == "__main__":
    main()
