"""litellm in a process of its own, as its parent sees it: calls go in, answers come out.

One process for all calls. It starts with the first of them, and again with the next one after it
died; it never shares the interpreter with the proxy's loop.
"""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import msgspec

from samplewise.proxy.backends.litellm_worker import read_frame, write_frame

__all__ = ["LiteLLMProcess", "ProcessLost"]

_WORKER = "samplewise.proxy.backends.litellm_worker"
_END_S = 5.0


class ProcessLost(Exception):
    """The process ended before it answered. `sent` says whether it may have sent the call."""

    def __init__(self, text: str, sent: bool = True) -> None:
        super().__init__(text)
        self.sent = sent


@dataclass(slots=True, eq=False)
class _Running:
    process: Process
    calls: dict[int, asyncio.Future[Any]] = field(default_factory=dict)
    reading: asyncio.Task[None] | None = None

    async def read(self) -> None:
        """Hand out answers until the process ends; then whoever waits hears of that."""
        assert self.process.stdout is not None
        try:
            while True:
                said = msgspec.json.decode(await read_frame(self.process.stdout))
                waiting = self.calls.get(said["id"])
                if waiting is not None and not waiting.done():
                    waiting.set_result(said)
        except asyncio.IncompleteReadError:
            # It has ended, most likely. A kill now would find that out first and take its exit
            # status from asyncio, which then knows none.
            with suppress(TimeoutError):
                async with asyncio.timeout(_END_S):
                    await self.process.wait()
        except msgspec.DecodeError:
            pass
        if self.process.returncode is None:
            self.process.kill()
        code = await self.process.wait()
        for waiting in self.calls.values():
            if not waiting.done():
                waiting.set_exception(ProcessLost(f"litellm's process ended (exit status {code})"))


class LiteLLMProcess:
    """The process of all litellm calls of this one."""

    def __init__(self) -> None:
        self._ids = count()
        self._running: _Running | None = None
        self._starting = asyncio.Lock()
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The process's number; None while there is none."""
        return None if self._running is None else self._running.process.pid

    async def ask(
        self, frame: dict[str, Any], sending: Callable[[], None] | None = None
    ) -> dict[str, Any]:
        """Send a frame and return the answer to it. Cancelling it cuts the call there.

        `sending` is called before the frame leaves.

        Raises:
            ProcessLost: the process cannot be started, or ended before it answered.
        """
        running = await self._ready()
        stdin = running.process.stdin
        assert stdin is not None
        id_ = next(self._ids)
        waiting = running.calls[id_] = asyncio.get_running_loop().create_future()
        if sending is not None:
            sending()
        stdin.write(write_frame({**frame, "id": id_}))
        try:
            answer: dict[str, Any] = await waiting
            return answer
        finally:
            del running.calls[id_]
            if waiting.cancelled() and not stdin.is_closing():
                stdin.write(write_frame({"id": id_, "cancel": True}))

    async def _ready(self) -> _Running:
        """Return the process, started where there is none that lives."""
        async with self._starting:
            running = self._running
            if running is not None and running.reading is not None and not running.reading.done():
                return running
            if self._closed:
                raise ProcessLost("the server is closing", sent=False)
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    _WORKER,
                    stdin=PIPE,
                    stdout=PIPE,
                    limit=2**20,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                )
            except OSError as error:
                raise ProcessLost(f"cannot start: {error.strerror}", sent=False) from error
            self._running = running = _Running(process)
            running.reading = asyncio.create_task(running.read())
            return running

    async def close(self) -> None:
        """Cut what runs and end the process."""
        self._closed = True
        async with self._starting:
            running, self._running = self._running, None
        if running is None or running.reading is None:
            return
        if running.process.stdin is not None:
            running.process.stdin.close()
        try:
            async with asyncio.timeout(_END_S):
                await asyncio.shield(running.reading)
        except TimeoutError:
            running.process.kill()
            await running.reading
