"""The demo's two servers as processes of their own: started, watched, and surely ended."""

from __future__ import annotations

import asyncio
import re
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from samplewise.proxy.errors import SamplewiseError

__all__ = ["DemoError", "Server", "serving"]

_START_S = 60.0
_STOP_S = 8.0
_URL = re.compile(r"at (http://\S+)/v1")


class DemoError(SamplewiseError):
    """The demo cannot go on; the message is for whoever started it."""


@dataclass(slots=True)
class Server:
    """A running server; `said` is the end of what it has written."""

    name: str
    url: str
    process: asyncio.subprocess.Process
    said: deque[str]

    async def gone(self) -> None:
        """Wait until the process has ended.

        Raises:
            DemoError: it has, with its last words.
        """
        await self.process.wait()
        raise DemoError(_last_words(self.name, self.process, self.said))


@asynccontextmanager
async def serving(name: str, *arguments: str) -> AsyncIterator[Server]:
    """Run a `samplewise` command as a process and stop it at the end.

    Raises:
        DemoError: it did not start; with what it said of it.
    """
    # -P: a file in the current folder must not be taken for a module. A session of its own: Ctrl-C
    # is for the demo alone, which then stops its servers in their order.
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "samplewise.proxy.demo.child", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    said: deque[str] = deque(maxlen=20)
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    reading = asyncio.create_task(_read(process, said, address))
    try:
        url = await _started(name, process, said, address)
        yield Server(name, url, process, said)
    finally:
        await _stop(process)
        reading.cancel()


async def _started(
    name: str, process: asyncio.subprocess.Process, said: deque[str], address: asyncio.Future[str]
) -> str:
    try:
        async with asyncio.timeout(_START_S):
            url = await address
    except TimeoutError:
        raise DemoError(f"{name} did not start within {_START_S:g} s") from None
    if not url:
        await process.wait()
        raise DemoError(_last_words(name, process, said))
    return url


async def _read(
    process: asyncio.subprocess.Process, said: deque[str], address: asyncio.Future[str]
) -> None:
    """Take in what a process says; its address is empty when it ended without one."""
    assert process.stderr is not None
    async for line in process.stderr:
        text = line.decode(errors="replace").rstrip()
        said.append(text)
        found = _URL.search(text)
        if found and not address.done():
            address.set_result(found[1])
    if not address.done():
        address.set_result("")


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Ask the process to end, wait, and at last make it end."""
    if process.returncode is None:
        process.terminate()
    try:
        # Shielded, so that a second Ctrl-C cannot leave a process behind.
        await asyncio.shield(asyncio.wait_for(process.wait(), _STOP_S))
    except (TimeoutError, asyncio.CancelledError):
        if process.returncode is None:
            process.kill()
        await process.wait()
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise


def _last_words(name: str, process: asyncio.subprocess.Process, said: deque[str]) -> str:
    own = [line for line in said if line.startswith("samplewise: ")]
    if own and " serving " not in own[-1]:
        return own[-1].removeprefix("samplewise: ")
    end = f"{name} has ended with status {process.returncode}"
    return f"{end}: {said[-1]}" if said and " serving " not in said[-1] else end
