"""Compare several processes on one SQLite ledger with and without turns: rates and tails.

    python -m bench.writers [--folder FOLDER] [--seconds 3] [--rounds 3]

Both modes are measured in every round, so that only ratios of one run are compared. A pair is one
sample reserved and settled, as in `bench.ledger`; times are those of single operations.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from bench.ledger import pairs
from samplewise.proxy.ledger import schema
from samplewise.proxy.ledger.accounts import utc_ms
from samplewise.proxy.ledger.sqlite import SqliteLedger
from samplewise.proxy.ledger.writer import Writer

# Processes, waves in flight in each, samples of a wave.
SHAPES = ((2, 32, 1), (4, 16, 1), (4, 4, 8), (4, 64, 1))


@dataclass(frozen=True, slots=True)
class Measured:
    """What all processes of one run did: samples a second, and milliseconds of operations."""

    rate: float
    cpu_us: float
    p50: float
    p99: float
    longest: float


async def work(path: Path, turns: bool, in_flight: int, size: int, pipe: Connection) -> None:
    """Reserve and settle as told; send what each operation took, and the processor time."""
    turn = None if turns else nullcontext
    ledger = SqliteLedger(Writer(path, utc_ms, schema.connect, turn))
    await ledger.open_rows()
    pipe.send("ready")
    end = time.perf_counter() + await asyncio.to_thread(pipe.recv)
    numbers, cpu = itertools.count(os.getpid() * 10**9), time.process_time()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(pairs(ledger, numbers, size, end)) for _ in range(in_flight)]
    pipe.send(([ms for task in tasks for ms in task.result()], time.process_time() - cpu))
    await ledger.close()


def start(path: Path, turns: bool, in_flight: int, size: int, pipe: Connection) -> None:
    """Be one process."""
    asyncio.run(work(path, turns, in_flight, size, pipe))


def measure(folder: Path, turns: bool, shape: tuple[int, int, int], seconds: float) -> Measured:
    """Let processes work on one new file together."""
    count, in_flight, size = shape
    context = get_context("spawn")
    with tempfile.TemporaryDirectory(dir=folder) as own:
        path, pipes, processes = Path(own) / "ledger.db", [], []
        for _ in range(count):
            pipe, its_end = context.Pipe()
            arguments = (path, turns, in_flight, size, its_end)
            process = context.Process(target=start, args=arguments)
            process.start()
            processes.append(process)
            pipes.append(pipe)
        for pipe in pipes:
            assert pipe.recv() == "ready"
        began = time.perf_counter()
        for pipe in pipes:
            pipe.send(seconds)
        found = [pipe.recv() for pipe in pipes]
        wall = time.perf_counter() - began
        for process in processes:
            process.join()
    took = [ms for each, _ in found for ms in each]
    samples = len(took) // 2 * size
    cuts = statistics.quantiles(took, n=100)
    cpu = sum(cpu for _, cpu in found)
    return Measured(samples / wall, cpu / samples * 1e6, cuts[49], cuts[98], max(took))


def line(name: str, runs: Sequence[Measured]) -> str:
    """Return one line: medians over rounds, and the longest of all."""
    rate, cpu, p50, p99 = (
        statistics.median(getattr(run, field) for run in runs)
        for field in ("rate", "cpu_us", "p50", "p99")
    )
    longest = max(run.longest for run in runs)
    return f"{name:>15} {rate:9,.0f} {cpu:11.1f} {p50:8.1f} {p99:8.1f} {longest:11.1f}"


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
                    found.append(measure(Path(folder), turns, shape, args.seconds))
            print("{} processes, {} in flight each, waves of {}".format(*shape))
            print(line("in turns", runs[True]))
            print(line("without", runs[False]))


if __name__ == "__main__":
    main()
