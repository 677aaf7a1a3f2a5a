"""The processes of one sandbox, from their start to their end: `Started`, and bubblewrap's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
from dataclasses import dataclass
from typing import Protocol

from samplewise.verifiers.sandbox.flags import Launch
from samplewise.verifiers.sandbox.pipes import Ended

__all__ = ["Bubble", "End", "Started", "Streams", "pipe", "reap"]

_LOOK_S = 0.005
_END_S = 5.0


@dataclass(frozen=True, slots=True)
class End:
    """How the program ended: `exit_code` or `signal`, or `failed`, which says why neither is known.

    `cpu_ms` is the processor time of all processes that were waited for.
    """

    exit_code: int | None
    signal: int | None
    cpu_ms: float
    failed: str = ""

    @classmethod
    def of(cls, code: int, cpu_ms: float) -> End:
        """Return the end for a code as `os.waitstatus_to_exitcode` has it."""
        return cls(None, -code, cpu_ms) if code < 0 else cls(code, None, cpu_ms)


@dataclass(frozen=True, slots=True)
class Streams:
    """Our ends of a program's standard streams; whoever has them closes them."""

    stdin: int
    stdout: int
    stderr: int


class Started(Protocol):
    """The processes of one sandbox that waits for its program, or runs it."""

    streams: Streams
    over: asyncio.Future[None]

    def pids(self) -> tuple[int, int]:
        """Return the process above all others, and the program's own; 0 while not known."""
        ...

    async def kill(self) -> End:
        """End every process, wait until they are gone, and say how the program's own ended."""
        ...

    def close(self) -> None:
        """Give everything back but the streams; after `kill()`."""
        ...


class Bubble:
    """A sandbox that bubblewrap makes.

    `stdin` is what its first process reads from; without it, a pipe is made. Start it from the
    thread of the event loop: the kernel kills it when the thread ends that started it.
    """

    def __init__(self, launch: Launch, stdin: int | None = None) -> None:
        self._root: Ended | None = None  # process 1 of the sandbox
        self._root_pid = 0
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            inner, outer = (stdin, -1) if stdin is not None else pipe(theirs, ours, read=True)
            stdout, stderr, info = (pipe(theirs, ours, read=False) for _ in range(3))
            # Each start reads its own copy to the end.
            filter_fd = os.memfd_create("seccomp")
            theirs.callback(os.close, filter_fd)
            os.write(filter_fd, launch.outer_filter())
            os.lseek(filter_fd, 0, os.SEEK_SET)
            self._process = subprocess.Popen(
                launch.command(filter_fd, info[0]),
                stdin=inner,
                stdout=stdout[0],
                stderr=stderr[0],
                # Inside, process 1 shows what it was started with.
                env={},
                cwd="/",
                pass_fds=(filter_fd, info[0]),
                start_new_session=True,
            )
            # If this fails, the sandbox sees the end of its input, and ends.
            self._outer = Ended(self._process.pid)
            ours.pop_all()
        self.streams = Streams(outer, stdout[1], stderr[1])
        self.over = self._outer.future
        self._info = info[1]
        self._cpu_ms = 0.0

    def pids(self) -> tuple[int, int]:
        """Return process 1 of the sandbox, as soon as bubblewrap has said which it is."""
        if self._root is None:
            with contextlib.suppress(BlockingIOError, ProcessLookupError, ValueError, KeyError):
                self._root_pid = json.loads(os.read(self._info, 4096))["child-pid"]
                self._root = Ended(self._root_pid)
        return (0, 0) if self._root is None else (self._root_pid, self._root_pid)

    async def kill(self) -> End:
        """End every process of the sandbox and wait until they are gone."""
        self.pids()
        while self._root is None and not self._outer.done:
            # Killed before it has said which its process is, bubblewrap could leave that behind.
            await asyncio.wait([self._outer.future], timeout=_LOOK_S)
            self.pids()
        if self._root is not None:
            self._root.kill()
            await self._root.future
            # bubblewrap ends by itself then; it must, or nobody would reap what it started.
            await asyncio.wait([self._outer.future], timeout=_END_S)
        self._outer.kill()
        await self._outer.future
        return self._collect()

    def _collect(self) -> End:
        self._cpu_ms += reap(self._process)
        code = self._process.returncode
        # bubblewrap reports the signals of process 1 as 128 + number.
        return End.of(128 - code if 128 < code <= 192 else code, self._cpu_ms)

    def close(self) -> None:
        """Give the descriptors back; may be called twice."""
        if self._info >= 0:
            os.close(self._info)
            self._info = -1
        self._outer.close()
        if self._root is not None:
            self._root.close()


def reap(process: subprocess.Popen[bytes]) -> float:
    """Reap a process that has ended; return its processor time in ms, 0 where it was reaped before.

    Not `Popen.wait`, which drops what `wait4` says of the time that it and its children took.
    """
    if process.returncode is not None:
        return 0.0
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return (usage.ru_utime + usage.ru_stime) * 1000


def pipe(
    theirs: contextlib.ExitStack, ours: contextlib.ExitStack, *, read: bool
) -> tuple[int, int]:
    """Return a pipe: the end that a sandbox gets to read from, or to write to, and our end.

    Each is closed with its stack; whoever keeps it takes it out.
    """
    ends = os.pipe()
    inner, outer = ends if read else ends[::-1]
    theirs.callback(os.close, inner)
    ours.callback(os.close, outer)
    os.set_blocking(outer, False)
    return inner, outer
