"""Compare several processes on one SQLite ledger with and without turns: rates and tails.

    python -m bench.writers [--folder FOLDER] [--seconds 3] [--rounds 3]

Both modes are measured in every round, so that only ratios of one run are compared. A pair is one
sample reserved and settled, as in `bench.ledger`; times are those of single operations.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from bench.processes import Measured, Work, line, measure
from samplewise.proxy.ledger import schema
from samplewise.proxy.ledger.accounts import utc_ms
from samplewise.proxy.ledger.sqlite import SqliteLedger
from samplewise.proxy.ledger.writer import Writer

# Processes, waves in flight in each, samples of a wave.
SHAPES = ((2, 32, 1), (4, 16, 1), (4, 4, 8), (4, 64, 1))


async def opened(path: Path, turns: bool) -> SqliteLedger:
    """Open the ledger of one process."""
    ledger = SqliteLedger(Writer(path, utc_ms, schema.connect, None if turns else nullcontext))
    await ledger.open_rows()
    return ledger


def measured(folder: Path, turns: bool, shape: tuple[int, int, int], seconds: float) -> Measured:
    """Let processes work on one new file together."""
    count, in_flight, size = shape
    with tempfile.TemporaryDirectory(dir=folder) as own:
        work = Work(partial(opened, Path(own) / "ledger.db", turns), in_flight, size)
        return measure(work, count, seconds)


def main() -> None:
    """Measure every shape in both modes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where to put the files; picks the disk")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print("                  pairs/s  CPU us/pair  p50 ms   p99 ms  longest ms")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for shape in SHAPES:
            runs: dict[bool, list[Measured]] = {True: [], False: []}
            for _ in range(args.rounds):
                for turns, found in runs.items():
                    found.append(measured(Path(folder), turns, shape, args.seconds))
            print("{} processes, {} in flight each, waves of {}".format(*shape))
            print(line("in turns", runs[True]))
            print(line("without", runs[False]))


if __name__ == "__main__":
    main()
