"""Sandboxes made ready before they are needed, each used once and thrown away."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from dataclasses import replace
from functools import partial
from typing import Any

from samplewise.verifiers.sandbox.base import (
    Kind,
    Limits,
    Outcome,
    Program,
    RunStatus,
    SandboxUnavailable,
)
from samplewise.verifiers.sandbox.box import Box
from samplewise.verifiers.sandbox.cgroups import Groups
from samplewise.verifiers.sandbox.flags import Launch
from samplewise.verifiers.sandbox.forks import Forks
from samplewise.verifiers.sandbox.servers import find_forks
from samplewise.verifiers.sandbox.slots import Slots
from samplewise.verifiers.sandbox.started import Bubble
from samplewise.verifiers.sandbox.tools import find_launch

__all__ = ["FORK_PRELOAD", "SandboxPool"]

# What programs and their tests import most; a fork server does it once for all of them.
FORK_PRELOAD = (
    *("json", "math", "re", "collections", "itertools", "functools", "heapq", "bisect"),
    *("random", "string", "typing", "unittest"),
)


class SandboxPool:
    """Runs at most `workers` programs at once; `spare` sandboxes wait, started, for the next ones.

    A spare one spares a run its start, some 20 ms of processor time and more of waiting; an idle
    one holds about 10 MB. `memory_mb` bounds one run, all its processes together. `cgroup` names a
    folder of control groups that the operator has handed over; by default the server's own group
    is tried, and with `none` no group at all. `python` is the interpreter inside;
    it imports the modules `preload` while it waits. `file_mb` bounds one file and each place to
    write; `folders` are shown inside, read-only, at the same place. `kind` says how sandboxes are
    made; all but `single_use` are weaker. One that is not ready after `start_s` is given up.

    For one event loop, in a thread that stays: the kernel ends sandboxes with their thread.
    """

    def __init__(
        self,
        *,
        workers: int = 2,
        spare: int = 2,
        memory_mb: int = 512,
        output_bytes: int = 2**20,
        python: str | None = None,
        cgroup: str | None = None,
        preload: tuple[str, ...] = (),
        file_mb: int = 64,
        folders: tuple[str, ...] = (),
        kind: Kind = "single_use",
        start_s: float = 30.0,
    ) -> None:
        self._spare = spare
        self._limits = Limits(memory_mb=memory_mb, output_bytes=output_bytes, file_mb=file_mb)
        self._folders = folders
        self._python = python
        self._cgroup = cgroup
        self._preload = preload
        self._kind = kind
        self._start_s = start_s
        self._forks: Forks | None = None
        self._slots = Slots(workers)
        self._launch: Launch | None = None
        self._groups: Groups | None = None
        self._waiting: deque[Box] = deque()
        self._starting = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Look for what is needed, and start the spare sandboxes.

        Raises:
            SandboxUnavailable: no sandbox can be started here; the message says what to install.
        """
        if self._launch is None:
            launch, self._groups = await asyncio.to_thread(
                find_launch, self._limits, self._python, self._cgroup, self._kind
            )
            folders = (*launch.folders, *self._folders)
            self._launch = replace(launch, preload=self._preload, folders=folders)
            if self._kind != "single_use":
                self._forks = find_forks(self._launch, self._kind)
        self._refill()

    async def close(self) -> None:
        """End all sandboxes; a later run starts its own, so open again or run no more."""
        self._spare = 0
        while self._waiting:
            self._discard(self._waiting.popleft())
        await self.settled()
        if self._forks is not None:
            await self._forks.close()

    async def settled(self) -> None:
        """Wait until what was cut is gone and the spare sandboxes are ready."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    @property
    def launch(self) -> Launch:
        """What all sandboxes are started with; there after `open()`."""
        if self._launch is None:
            raise SandboxUnavailable("the sandbox is not open")
        return self._launch

    async def run(self, program: Program) -> Outcome:
        """Run one program in a sandbox of its own; waits for a free place first."""
        async with self._slots:
            try:
                box = await self._take()
            except SandboxUnavailable as error:
                limits = self._limits if self._launch is None else self._launch.limits
                return Outcome(status=RunStatus.SANDBOX_ERROR, detail=str(error), limits=limits)
            try:
                return await box.run(program)
            finally:
                self._discard(box)

    async def _take(self) -> Box:
        while self._waiting:
            box = self._waiting.popleft()
            self._refill()
            if box.alive:
                return box
            self._discard(box)
        return await self._start()

    async def _start(self) -> Box:
        try:
            return await self._begin()
        except SandboxUnavailable:
            if self._forks is None:
                raise
        # The server may be stuck, or worse.
        self._forks.renew()
        return await self._begin()

    async def _begin(self) -> Box:
        launch = self.launch
        begin = partial(Bubble, launch) if self._forks is None else self._forks.fork
        try:
            box = Box(begin, launch.limits, self._groups)
        except OSError as error:
            raise SandboxUnavailable(f"the sandbox does not start: {error}") from error
        try:
            await box.ready(self._start_s)
        except (SandboxUnavailable, asyncio.CancelledError):
            self._discard(box)
            raise
        return box

    def _refill(self) -> None:
        for _ in range(self._spare - len(self._waiting) - self._starting):
            self._starting += 1
            self._spawn(self._add())

    async def _add(self) -> None:
        try:
            box = await self._start()
        except SandboxUnavailable:
            return  # the next run starts its own, and says what is wrong
        finally:
            self._starting -= 1
        if self._spare:
            self._waiting.append(box)
        else:
            self._discard(box)

    def _discard(self, box: Box) -> None:
        # Not in the run's own time, and not cut short with it.
        self._spawn(box.end())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
