"""One sandbox: started, made ready, given one program, and thrown away."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter

from samplewise.verifiers.sandbox.base import (
    Limits,
    Outcome,
    Program,
    RunStatus,
    SandboxUnavailable,
)
from samplewise.verifiers.sandbox.cgroups import Group, Groups
from samplewise.verifiers.sandbox.pipes import Feed, Output
from samplewise.verifiers.sandbox.started import End, Started
from samplewise.verifiers.sandbox.tree import cpu_ms, memory_bytes

__all__ = ["Box"]

_READY = b"ready\n"
_WATCH_S = 0.05
_LOOK_S = 0.005
_END_S = 5.0
_MB = 2**20


class Box:
    """A sandbox that waits for its one program.

    Whoever got one from `Box(...)` owes it `end()`, also when `ready()` was cut short.
    """

    def __init__(self, begin: Callable[[], Started], limits: Limits, groups: Groups | None) -> None:
        self._limits = limits
        self._group: Group | None = None
        with contextlib.ExitStack() as ours:
            if groups is not None:
                self._group = groups.make(limits)
                ours.callback(self._group.remove)
            self._started = begin()
            ours.pop_all()
        self._stdin = self._started.streams.stdin
        self._out = Output(self._started.streams.stdout, limits.output_bytes + len(_READY))
        self._err = Output(self._started.streams.stderr, limits.output_bytes)
        self._feed: Feed | None = None
        self._used = self._ended = False

    @property
    def alive(self) -> bool:
        """Whether it still waits for its program."""
        return not self._used and not self._started.over.done()

    async def ready(self, start_s: float) -> None:
        """Wait until it can take a program, at most `start_s` seconds.

        Raises:
            SandboxUnavailable: it did not start; the message says why.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(start_s):
                await asyncio.wait(
                    [self._out.has(len(_READY)), self._started.over],
                    return_when=asyncio.FIRST_COMPLETED,
                )
        if bytes(self._out.data) != _READY or not self._started.pids()[1]:
            end = await self._started.kill()
            await self._err.settled()
            said = bytes(self._err.data).decode(errors="replace").strip()[-300:] or end.failed
            raise SandboxUnavailable(f"the sandbox does not start: {said or 'no reason was given'}")
        if self._group is not None:
            # Before the program is there: all that it starts is in the group, too.
            self._group.add(self._started.pids()[1])

    async def run(self, program: Program) -> Outcome:
        """Run the program and say how it ended; what it left running is killed.

        Cancelled, it leaves the killing to `end()`.
        """
        self._used = True
        began = perf_counter()
        source = program.source.encode("utf-8", "surrogatepass")
        head = b"%08x%08x" % (math.ceil(program.wall_s) + 1, len(source))
        self._feed = Feed(self._stdin, head + source + program.stdin)
        stop, peak = await self._wait(program.wall_s)
        wall_ms = (perf_counter() - began) * 1000
        # What is killed is not counted afterwards.
        used_ms = 0.0 if stop is None else cpu_ms(self._started.pids()[0])
        end = await self._started.kill()
        await asyncio.gather(self._out.settled(), self._err.settled())
        end = replace(end, cpu_ms=max(end.cpu_ms, used_ms))
        return self._outcome(stop, end, wall_ms, peak)

    async def _wait(self, wall_s: float) -> tuple[RunStatus | None, int]:
        """Wait for the end; return what we stopped it for, if we did, and the memory seen."""
        ends = [self._started.over, self._out.full, self._err.full]
        deadline, peak = perf_counter() + wall_s, 0
        while True:
            left = deadline - perf_counter()
            if left <= 0:
                return RunStatus.TIMEOUT, peak
            await asyncio.wait(
                ends, timeout=min(left, _WATCH_S), return_when=asyncio.FIRST_COMPLETED
            )
            if self._out.full.done() or self._err.full.done():
                return RunStatus.OUTPUT_LIMIT, peak
            if self._started.over.done():
                return None, peak
            if self._group is not None:
                if self._group.killed():
                    return RunStatus.MEMORY, peak
            else:
                peak = max(peak, memory_bytes(self._started.pids()[0]))
                if peak > self._limits.memory_mb * _MB:
                    return RunStatus.MEMORY, peak

    def _outcome(self, stop: RunStatus | None, end: End, wall_ms: float, seen: int) -> Outcome:
        peak: int | None = seen or None
        if self._group is not None:
            peak = self._group.peak_bytes()
            if self._group.killed() and stop is not RunStatus.OUTPUT_LIMIT:
                stop = RunStatus.MEMORY
        if stop is None and end.failed:
            stop = RunStatus.SANDBOX_ERROR
        if end.signal is not None:
            status = RunStatus.SIGNAL
        else:
            status = RunStatus.WRONG_EXIT if end.exit_code else RunStatus.OK
        return Outcome(
            status=stop or status,
            exit_code=end.exit_code if stop is None else None,
            signal=end.signal if stop is None else None,
            wall_ms=wall_ms,
            cpu_ms=end.cpu_ms,
            memory_peak_mb=None if peak is None else peak / _MB,
            stdout=bytes(self._out.data[len(_READY) :][: self._limits.output_bytes]),
            stderr=bytes(self._err.data[: self._limits.output_bytes]),
            detail=end.failed if stop is RunStatus.SANDBOX_ERROR else "",
            limits=self._limits,
        )

    async def end(self) -> None:
        """Kill what runs and give everything back; may be called twice."""
        if self._ended:
            return
        self._ended = self._used = True
        await self._started.kill()
        if self._feed is None:
            os.close(self._stdin)
        else:
            self._feed.close()
        self._out.close()
        self._err.close()
        self._started.close()
        for _ in range(round(_END_S / _LOOK_S)):
            # The kernel may still count the last process in.
            if self._group is None or self._group.remove():
                break
            await asyncio.sleep(_LOOK_S)
