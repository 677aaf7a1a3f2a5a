"""One sandbox: started, made ready, given one program, and thrown away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import subprocess
from time import perf_counter

from samplewise.verifiers.sandbox.base import (
    Limits,
    Outcome,
    Program,
    RunStatus,
    SandboxUnavailable,
)
from samplewise.verifiers.sandbox.cgroups import Group, Groups
from samplewise.verifiers.sandbox.flags import Launch
from samplewise.verifiers.sandbox.pipes import Ended, Feed, Output
from samplewise.verifiers.sandbox.tree import cpu_ms, memory_bytes

__all__ = ["Box"]

_READY = b"ready\n"
_START_S = 30.0  # under load
_WATCH_S = 0.05
_LOOK_S = 0.005
_END_S = 5.0
_MB = 2**20


class Box:
    """A sandbox that waits for its one program.

    Start it from the thread of the event loop: the kernel kills it when the thread ends that
    started it. Whoever got one from `Box(...)` owes it `end()`, also when `ready()` was cut short.
    """

    def __init__(self, launch: Launch, groups: Groups | None) -> None:
        self._limits: Limits = launch.limits
        self._group: Group | None = None
        self._root: Ended | None = None  # process 1 of the sandbox
        self._root_pid = 0
        self._begin(launch, groups)

    def _begin(self, launch: Launch, groups: Groups | None) -> None:
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            if groups is not None:
                self._group = groups.make(self._limits)
                ours.callback(self._group.remove)
            stdin = _pipe(theirs, ours, read=True)
            stdout, stderr, info = (_pipe(theirs, ours, read=False) for _ in range(3))
            # Each start reads its own copy to the end.
            filter_fd = os.memfd_create("seccomp")
            theirs.callback(os.close, filter_fd)
            os.write(filter_fd, launch.seccomp)
            os.lseek(filter_fd, 0, os.SEEK_SET)
            self._process = subprocess.Popen(
                launch.command(filter_fd, info[1]),
                stdin=stdin[0],
                stdout=stdout[1],
                stderr=stderr[1],
                # Inside, process 1 shows what it was started with.
                env={},
                cwd="/",
                pass_fds=(filter_fd, info[1]),
                start_new_session=True,
            )
            # If this fails, the sandbox sees the end of its input, and ends.
            self._outer = Ended(self._process.pid)
            ours.pop_all()
        self._code, self._cpu_ms = 0, 0.0
        self._stdin, self._info = stdin[1], info[0]
        self._out = Output(stdout[0], self._limits.output_bytes + len(_READY))
        self._err = Output(stderr[0], self._limits.output_bytes)
        self._feed: Feed | None = None
        self._used = False

    @property
    def alive(self) -> bool:
        """Whether it still waits for its program."""
        return not self._used and not self._outer.done

    async def ready(self) -> None:
        """Wait until it can take a program.

        Raises:
            SandboxUnavailable: it did not start; the message says why.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_S):
                await asyncio.wait(
                    [self._out.has(len(_READY)), self._outer.future],
                    return_when=asyncio.FIRST_COMPLETED,
                )
        self._look_inside()
        if bytes(self._out.data) != _READY or self._root is None:
            await self._kill()
            await self._err.settled()
            said = bytes(self._err.data).decode(errors="replace").strip()[-300:]
            raise SandboxUnavailable(f"the sandbox does not start: {said or 'no reason was given'}")
        if self._group is not None:
            # Before the program is there: all that it starts is in the group, too.
            self._group.add(self._root_pid)

    def _look_inside(self) -> None:
        """Find process 1 of the sandbox, as soon as bubblewrap has said which it is."""
        if self._root is not None:
            return
        with contextlib.suppress(BlockingIOError, ProcessLookupError, ValueError, KeyError):
            self._root_pid = json.loads(os.read(self._info, 4096))["child-pid"]
            self._root = Ended(self._root_pid)

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
        used_ms = 0.0 if stop is None else cpu_ms(self._root_pid)
        await self._kill()
        self._cpu_ms = max(self._cpu_ms, used_ms)
        await asyncio.gather(self._out.settled(), self._err.settled())
        return self._outcome(stop, wall_ms, peak)

    async def _wait(self, wall_s: float) -> tuple[RunStatus | None, int]:
        """Wait for the end; return what we stopped it for, if we did, and the memory seen."""
        ends = [self._outer.future, self._out.full, self._err.full]
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
            if self._outer.done:
                return None, peak
            if self._group is not None:
                if self._group.killed():
                    return RunStatus.MEMORY, peak
            else:
                peak = max(peak, memory_bytes(self._root_pid))
                if peak > self._limits.memory_mb * _MB:
                    return RunStatus.MEMORY, peak

    def _outcome(self, stop: RunStatus | None, wall_ms: float, seen: int) -> Outcome:
        code = self._code
        peak: int | None = seen or None
        if self._group is not None:
            peak = self._group.peak_bytes()
            if self._group.killed() and stop is not RunStatus.OUTPUT_LIMIT:
                stop = RunStatus.MEMORY
        # bubblewrap reports the signals of process 1 as 128 + number.
        number = code - 128 if 128 < code <= 192 else None
        if number is not None:
            status = RunStatus.SIGNAL
        else:
            status = RunStatus.WRONG_EXIT if code else RunStatus.OK
        return Outcome(
            status=stop or status,
            exit_code=code if stop is None and number is None else None,
            signal=number if stop is None else None,
            wall_ms=wall_ms,
            cpu_ms=self._cpu_ms,
            memory_peak_mb=None if peak is None else peak / _MB,
            stdout=bytes(self._out.data[len(_READY) :][: self._limits.output_bytes]),
            stderr=bytes(self._err.data[: self._limits.output_bytes]),
            limits=self._limits,
        )

    async def _kill(self) -> None:
        """End every process of the sandbox and wait until they are gone."""
        while self._root is None and not self._outer.done:
            # Killed before it has said which its process is, bubblewrap could leave that behind.
            self._look_inside()
            await asyncio.wait([self._outer.future], timeout=_LOOK_S)
        self._look_inside()
        if self._root is not None:
            self._root.kill()
            await self._root.future
            # bubblewrap ends by itself then; it must, or nobody would reap what it started.
            await asyncio.wait([self._outer.future], timeout=_END_S)
        self._outer.kill()
        await self._outer.future
        self._collect()

    def _collect(self) -> None:
        if self._process.returncode is None:
            _, status, usage = os.wait4(self._process.pid, 0)
            self._process.returncode = os.waitstatus_to_exitcode(status)
            self._cpu_ms = (usage.ru_utime + usage.ru_stime) * 1000
        self._code = self._process.returncode
        if self._code < 0:
            self._code = 128 - self._code

    async def end(self) -> None:
        """Kill what runs and give everything back; may be called twice."""
        if self._info < 0:
            return
        self._used = True
        await self._kill()
        os.close(self._info)
        self._info = -1
        if self._feed is None:
            os.close(self._stdin)
        else:
            self._feed.close()
        for part in (self._out, self._err, self._outer, self._root):
            if part is not None:
                part.close()
        for _ in range(round(_END_S / _LOOK_S)):
            # The kernel may still count the last process in.
            if self._group is None or self._group.remove():
                break
            await asyncio.sleep(_LOOK_S)


def _pipe(
    theirs: contextlib.ExitStack, ours: contextlib.ExitStack, *, read: bool
) -> tuple[int, int]:
    """Return a pipe; the sandbox gets the end to read from, or to write to."""
    ends = os.pipe()
    inner, outer = ends if read else ends[::-1]
    theirs.callback(os.close, inner)
    ours.callback(os.close, outer)
    os.set_blocking(outer, False)
    return ends
