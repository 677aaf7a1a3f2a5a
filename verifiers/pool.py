"""A pool of killable worker processes for work that may hang, crash or eat memory.

Each of `size` slots is a zygote (see `worker.py`) with one serving child. A call that takes too
long or is cancelled costs its child the life, and nothing else. Starts at first use.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from samplewise.verifiers.base import VerifierError, VerifierSetupError

__all__ = ["WorkerPool"]

_WORKER = "samplewise.verifiers.worker"
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_REPLY_BYTES = 4 * 1024 * 1024
_START_S = 60.0  # an import under load
_END_S = 2.0


class WorkerPool:
    """Calls `target` ("module:function", `def f(payload: dict) -> dict`) in worker processes.

    `timeout_s` bounds one call, from the moment a worker takes it. `memory_mb` bounds a worker's
    address space (None: no bound; Linux only). The environment holds no secrets: only what Python
    needs, and `env`. `preload` names more functions to import before the first call. A zygote that
    has no child ready after `fork_timeout_s` is replaced. Not for use by several loops.
    """

    def __init__(
        self,
        target: str,
        *,
        size: int = 2,
        timeout_s: float = 5.0,
        memory_mb: int | None = 2048,
        env: Mapping[str, str] | None = None,
        preload: Sequence[str] = (),
        fork_timeout_s: float = 5.0,
    ) -> None:
        arguments = [str(memory_mb or 0), target, *preload]
        full_env = {**_environment(), **(env or {})}
        self._slots = [_Slot(arguments, full_env, fork_timeout_s) for _ in range(size)]
        self._timeout_s = timeout_s
        self._closed = False
        # Last in, first out: slots that are not needed never start.
        self._free: asyncio.LifoQueue[_Slot] = asyncio.LifoQueue()
        for slot in self._slots:
            self._free.put_nowait(slot)

    async def open(self) -> None:
        """Start all workers now instead of at first use.

        Raises:
            VerifierSetupError: the target cannot be imported; the message says why.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for slot in self._slots:
                    group.create_task(slot.ready())
        except* VerifierError as errors:
            raise VerifierSetupError(str(errors.exceptions[0])) from None

    async def close(self) -> None:
        """End all workers and whatever they left behind; a call after this is an error."""
        self._closed = True
        async with asyncio.TaskGroup() as group:
            for slot in self._slots:
                group.create_task(slot.close())

    async def call(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the target returns for `payload` (any JSON; `msgspec.Raw` passes as it is).

        Waits for a free worker as long as it takes. When it is cancelled, the worker is killed.

        Raises:
            VerifierError: `timeout`; `crash` when the target raised or the worker died; `protocol`
                when the result is no JSON object; `unavailable` when no worker can be started.
        """
        slot = await self._free.get()
        try:
            if self._closed:
                raise VerifierError("the worker pool is closed", reason="unavailable")
            await slot.ready()
            reply = await slot.exchange(payload, self._timeout_s)
        finally:
            self._free.put_nowait(slot)
        if "error" in reply:
            raise VerifierError(reply["error"], reason=reply.get("reason", "crash"))
        result = reply.get("ok")
        if not isinstance(result, dict):
            raise VerifierError("the worker's result is no object", reason="protocol")
        return result


class _Slot:
    """One zygote and its child of the moment; used by one call at a time."""

    def __init__(self, arguments: list[str], env: dict[str, str], fork_timeout_s: float) -> None:
        self._fork_timeout_s = fork_timeout_s
        self._arguments = arguments
        self._env = env
        self._zygote: _Zygote | None = None
        self._child = 0  # 0: none is known to be ready
        self._epoch = ""
        self._greeted = False
        self._closed = False

    async def ready(self) -> None:
        """Wait for a child that can take a call, starting what is not there.

        A caller that is cancelled meanwhile disturbs nothing: the start goes on without it.
        """
        if self._child and not self._alive(self._child):
            self._child = 0
        if self._child:
            return
        if self._zygote is None or not self._zygote.usable:
            await self.end()
            await self._start()
        try:
            async with asyncio.timeout(self._fork_timeout_s if self._greeted else _START_S):
                while not self._child:
                    frame = await self._frame()
                    if "fatal" in frame and not self._greeted:
                        await self.end()
                        text = f"cannot load: {frame['fatal']}"
                        raise VerifierError(text, reason="unavailable")
                    self._take_hello(frame)
        except TimeoutError:
            await self.end()
            raise VerifierError("the worker does not start", reason="unavailable") from None

    async def exchange(self, payload: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Send one call and return the reply frame; kills the child unless a reply came."""
        call_id = secrets.token_hex(8)
        try:
            body = msgspec.json.encode({"id": call_id, "payload": payload})
        except (TypeError, ValueError) as error:
            raise VerifierError(f"the payload is not JSON: {error}", reason="protocol") from error
        # Raw JSON may hold line breaks, between values only: in strings they are escaped.
        body = body.replace(b"\n", b" ").replace(b"\r", b" ")
        answered = False
        try:
            async with asyncio.timeout(timeout_s):
                await self._write(self._epoch.encode() + b" " + body + b"\n")
                reply = await self._reply(call_id)
            answered = True
        except TimeoutError:
            raise VerifierError(f"no result within {timeout_s} s", reason="timeout") from None
        finally:
            if not answered:
                self._kill_child()
        return reply

    async def close(self) -> None:
        """End the worker for good."""
        self._closed = True
        await self.end()

    async def end(self) -> None:
        """End the zygote with its child: by request, and by force if that does not help."""
        self._child, self._greeted = 0, False
        if self._zygote is not None:
            await self._zygote.end()
            # Not before: whoever is cancelled meanwhile leaves it to the next to try again.
            self._zygote = None

    async def _start(self) -> None:
        self._zygote = _Zygote(self._arguments, self._env)
        await self._zygote.connect()
        if self._closed:
            await self.end()

    def _streams(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._zygote is None or self._zygote.streams is None:
            raise VerifierError("the worker pool is closed", reason="unavailable")
        return self._zygote.streams

    async def _write(self, line: bytes) -> None:
        _, writer = self._streams()
        try:
            writer.write(line)
            await writer.drain()
        except ConnectionError:
            await self.end()
            raise VerifierError("the worker process died", reason="crash") from None

    async def _reply(self, call_id: str) -> dict[str, Any]:
        while True:
            frame = await self._frame()
            if frame.get("id") == call_id:
                return frame
            if self._take_hello(frame):
                raise VerifierError("the worker died during the call", reason="crash")

    async def _frame(self) -> dict[str, Any]:
        """Read the next line that is a JSON object; anything else is noise and skipped."""
        reader, _ = self._streams()
        while True:
            try:
                line = await reader.readline()
            except ConnectionError:
                line = b""
            except ValueError:
                raise VerifierError("the result is too large", reason="protocol") from None
            if not line:
                await self.end()
                raise VerifierError("the worker process died", reason="crash")
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                frame = msgspec.json.decode(line)
                if isinstance(frame, dict):
                    return frame

    def _take_hello(self, frame: dict[str, Any]) -> bool:
        child, epoch = frame.get("hello"), frame.get("epoch")
        # A forged greeting must not make us kill a stranger.
        if not isinstance(child, int) or not isinstance(epoch, str) or not self._alive(child):
            return False
        self._child, self._epoch, self._greeted = child, epoch, True
        return True

    def _alive(self, child: int) -> bool:
        """Say whether this is a living child of the zygote (without /proc: believe it)."""
        if self._zygote is None:
            return False
        try:
            with open(f"/proc/{child}/stat", "rb") as file:
                state, parent, *_ = file.read().rpartition(b")")[2].split()
        except OSError:
            return sys.platform != "linux"
        return state not in (b"Z", b"X") and int(parent) == self._zygote.process.pid

    def _kill_child(self) -> None:
        child, self._child = self._child, 0
        if child and self._alive(child):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


class _Zygote:
    """A zygote process and the stream to it.

    Not asyncio's own subprocess: its streams stay open as long as a stray process holds the pipe.
    """

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str]) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            # From the loop's own thread: the kernel ends the zygote when the thread ends.
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", _WORKER, str(os.getpid()), *arguments],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                env=env,
                start_new_session=True,  # an interrupt at the terminal is for the server alone
            )
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._ending = False

    @property
    def usable(self) -> bool:
        """Whether it runs, is connected, and nobody began to end it."""
        return self.streams is not None and not self._ending and self.process.poll() is None

    async def connect(self) -> None:
        """Make the streams."""
        self.streams = await asyncio.open_unix_connection(sock=self._socket, limit=_REPLY_BYTES)

    async def end(self) -> None:
        """End by request, and by force if that does not help."""
        self._ending = True
        if self.streams is None:
            self._socket.close()
        else:
            self.streams[1].close()
        for number in (signal.SIGTERM, signal.SIGKILL):
            self.process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self.process.wait, _END_S)
                return


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    threads = dict.fromkeys(_ONE_THREAD, "1")
    # The server's own import path, and the working directory last: it shadows no installed package.
    paths = [path for path in sys.path if path] + [os.getcwd()]
    return {**threads, **kept, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
