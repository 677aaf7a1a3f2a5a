"""The fork server from outside: one process that forks a confined one for every program.

What it does inside: `forker.py`. What is weaker than a sandbox for each program: docs/security.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable

from samplewise.verifiers.sandbox.pipes import Output
from samplewise.verifiers.sandbox.started import End, Started, Streams, pipe
from samplewise.verifiers.sandbox.users import Users

__all__ = ["Forks"]

_PROGRAMS = 1000
_SAID_BYTES = 10_000
_END_S = 5.0
_SENDER = struct.Struct("=iII")  # struct ucred


class Forks:
    """Forks from one server at a time; `start` starts one, which reads from the descriptor given.

    A server is replaced after `programs` programs, when it has died, and by `renew()`; what runs in
    the old one comes to its end there. Every program runs as a user of `users`.
    """

    def __init__(
        self, start: Callable[[int], Started], users: Users, *, programs: int = _PROGRAMS
    ) -> None:
        self._start = start
        self._users = users
        self._programs = programs
        self._server: _Server | None = None
        self._ending: set[asyncio.Task[None]] = set()

    def fork(self) -> Started:
        """Return a sandbox that gets ready; raises OSError when that cannot be."""
        server = self._server
        if server is None or server.dead or server.forked >= self._programs:
            self.renew()
            server = self._server = _Server(self._start)
        return _Forked(server, self._users)

    def renew(self) -> None:
        """Take a new server from now on."""
        if self._server is not None:
            task = asyncio.get_running_loop().create_task(self._server.end())
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
            self._server = None

    async def close(self) -> None:
        """End all servers, as soon as nothing runs in them."""
        self.renew()
        while self._ending:
            await asyncio.wait(self._ending)


class _Server:
    """One server, and how many sandboxes of it are there."""

    def __init__(self, start: Callable[[int], Started]) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        with theirs, contextlib.ExitStack() as ours:
            ours.callback(self._control.close)
            self._process = start(theirs.fileno())
            ours.pop_all()
        self._out = Output(self._process.streams.stdout, _SAID_BYTES)
        self._err = Output(self._process.streams.stderr, _SAID_BYTES)
        self._unused = asyncio.Event()
        self._unused.set()
        self._used = self.forked = 0

    @property
    def dead(self) -> bool:
        """Whether it can fork no more."""
        return self._process.over.done()

    @property
    def said(self) -> str:
        """What it wrote about its end."""
        return bytes(self._err.data).decode(errors="replace").strip()[-300:]

    def ask(self, user: int, descriptors: list[int]) -> None:
        """Ask for a process; raises OSError where the server is gone or does not listen."""
        socket.send_fds(self._control, [b"%d" % user], descriptors)
        self.forked += 1
        self._used += 1
        self._unused.clear()

    def left(self) -> None:
        """Note that a sandbox of it is no more."""
        self._used -= 1
        if not self._used:
            self._unused.set()

    async def kill(self) -> None:
        """Kill the server, and all that runs in its namespaces."""
        await self._process.kill()

    async def end(self) -> None:
        """Wait until nothing runs in it, then end it."""
        await self._unused.wait()
        self._control.close()
        await self.kill()
        self._out.close()
        self._err.close()
        self._process.close()


class _Forked:
    """A process of the server, confined; it waits for its program."""

    def __init__(self, server: _Server, users: Users) -> None:
        self._server, self._users = server, users
        self._pids = [0, 0]
        self._end: End | None = None
        self._loop = asyncio.get_running_loop()
        self.over: asyncio.Future[None] = self._loop.create_future()
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            stdin = pipe(theirs, ours, read=True)
            stdout, stderr = (pipe(theirs, ours, read=False) for _ in range(2))
            self._report, told = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            theirs.callback(told.close)
            ours.callback(self._report.close)
            self._report.setblocking(False)
            # The kernel says who reports, by the number that the process has for us.
            self._report.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            self._user = users.take()
            ours.callback(users.give_back, self._user)
            server.ask(self._user, [stdin[0], stdout[0], stderr[0], told.fileno()])
            ours.pop_all()
        self.streams = Streams(stdin[1], stdout[1], stderr[1])
        self._loop.add_reader(self._report, self._read)

    def _read(self) -> None:
        try:
            data, extra, _, _ = self._report.recvmsg(64, socket.CMSG_SPACE(_SENDER.size))
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if data in (b"outer", b"inner"):
            self._pids[data == b"inner"] = _SENDER.unpack(extra[0][2])[0]
        elif data:
            status, cpu_ms = data.split()
            self._end = End.of(int(status), float(cpu_ms))
        else:
            self._loop.remove_reader(self._report)
            self.over.set_result(None)

    def pids(self) -> tuple[int, int]:
        """Return the process that sees to the program, and the program's own."""
        return self._pids[0], self._pids[1]

    async def kill(self) -> End:
        """Let the process above end all others, and wait for it."""
        if not self.over.done():
            with contextlib.suppress(OSError):
                self._report.shutdown(socket.SHUT_WR)
            await asyncio.wait([self.over], timeout=_END_S)
        if not self.over.done():
            await self._server.kill()
            await self.over
        if self._end is None:
            said = self._server.said
            self._end = End(None, None, 0.0, f"the fork server failed: {said or 'it is gone'}")
        return self._end

    def close(self) -> None:
        """Give everything back but the streams."""
        self._report.close()
        self._users.give_back(self._user)
        self._server.left()
