"""Let several processes work on one ledger at the same time, and measure them together."""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection

from bench.ledger import AnyLedger, pairs

__all__ = ["Measured", "Work", "line", "measure"]


@dataclass(frozen=True, slots=True)
class Measured:
    """What all processes of one run did: samples a second, and milliseconds of operations."""

    samples: int
    rate: float
    cpu_us: float
    p50: float
    p99: float
    longest: float


@dataclass(frozen=True, slots=True)
class Work:
    """What one process does: waves of `size` samples, `in_flight` of them, on what `opened` opens.

    `opened` goes to another process: a function of a module, or a partial of one.
    """

    opened: Callable[[], Awaitable[AnyLedger]]
    in_flight: int
    size: int


def measure(work: Work, count: int, seconds: float) -> Measured:
    """Let `count` processes work together for so long."""
    context, pipes, processes = get_context("spawn"), [], []
    for _ in range(count):
        pipe, its_end = context.Pipe()
        process = context.Process(target=_be_one, args=(work, its_end))
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
    samples = len(took) // 2 * work.size
    cuts = statistics.quantiles(took, n=100)
    cpu_us = sum(cpu for _, cpu in found) / samples * 1e6
    return Measured(samples, samples / wall, cpu_us, cuts[49], cuts[98], max(took))


def line(name: str, runs: Sequence[Measured]) -> str:
    """Return one line: medians over rounds, and the longest of all."""
    rate, cpu, p50, p99 = (
        statistics.median(getattr(run, field) for run in runs)
        for field in ("rate", "cpu_us", "p50", "p99")
    )
    longest = max(run.longest for run in runs)
    return f"{name:>15} {rate:9,.0f} {cpu:11.1f} {p50:8.1f} {p99:8.1f} {longest:11.1f}"


def _be_one(work: Work, pipe: Connection) -> None:
    asyncio.run(_reserve_and_settle(work, pipe))


async def _reserve_and_settle(work: Work, pipe: Connection) -> None:
    """Work as told; send what each operation took, and the processor time."""
    ledger = await work.opened()
    pipe.send("ready")
    end = time.perf_counter() + await asyncio.to_thread(pipe.recv)
    numbers, cpu = itertools.count(os.getpid() * 10**9), time.process_time()
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(pairs(ledger, numbers, work.size, end)) for _ in range(work.in_flight)
        ]
    pipe.send(([ms for task in tasks for ms in task.result()], time.process_time() - cpu))
    await ledger.close()
