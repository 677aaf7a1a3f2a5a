"""`samplewise serve` as a process of its own, as an operator starts it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from tests.wire.bodies import CHAT
from tests.wire.books import soon, store_url
from tests.wire.proxy import PRICE, Reply

__all__ = ["SOURCES", "Finished", "Served", "command", "config", "run", "serving"]

SOURCES = Path(__file__).parents[2] / "src"
_READY = re.compile(r"samplewise: serving .* at (http://\S+)/v1")


def config(
    folder: Path,
    upstream_url: str,
    routes: str,
    server: str = "",
    *,
    backend: str = "",
    extra: str = "",
    store: Path | str | None = None,
) -> str:
    """Write a configuration file with one backend; return its name."""
    file = folder / "config.yaml"
    file.write_text(
        f'store: "{store_url(store or folder / "ledger.db")}"\n'
        f"server: {{port: 0{server}}}\n"
        f"backends:\n  local: {{type: openai, base_url: {upstream_url}, model: m{backend}, "
        f"price: {PRICE}}}\n{extra}routes:\n{routes}"
    )
    return str(file)


def command(*arguments: str) -> list[str]:
    """Return the command line."""
    return [sys.executable, "-m", "samplewise", *arguments]


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    code: int
    out: str
    err: str


async def run(folder: Path, *arguments: str) -> Finished:
    """Run a command that ends by itself."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command(*arguments), cwd=folder, env=_environment(), stdout=pipe, stderr=pipe
    )
    try:
        async with asyncio.timeout(60):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    return Finished(await process.wait(), out.decode(), err.decode())


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SOURCES)}


@dataclass
class Served:
    """A server that runs, or did. `file` is its configuration, `err` what it wrote."""

    process: asyncio.subprocess.Process
    err: Path
    url: str = ""

    @property
    def said(self) -> list[str]:
        """The lines of standard error, without one that is just being written."""
        text = self.err.read_text()
        return text[: text.rfind("\n") + 1].splitlines()

    @property
    def logs(self) -> list[dict[str, Any]]:
        """The events among them; every other line must be a message to the operator."""
        events = []
        for line in self.said:
            if line.startswith("samplewise: "):
                continue
            event = json.loads(line)
            assert {"event", "level", "timestamp"} <= event.keys(), line
            events.append(event)
        return events

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process that was started, not to its workers."""
        self.process.send_signal(number)

    async def ended(self, timeout_s: float = 30.0) -> int:
        """Wait for the end; return the exit code."""
        async with asyncio.timeout(timeout_s):
            return await self.process.wait()

    async def ready(self) -> None:
        """Wait until it says that it serves, and where."""

        def says_so() -> bool:
            found = _READY.search(self.err.read_text())
            assert found or self.process.returncode is None, self.err.read_text()
            self.url = found[1] if found else ""
            return bool(found)

        await soon(says_so, "the server is ready", 60)

    async def get(self, path: str) -> Reply:
        """Read a page over a connection of its own."""
        async with aiohttp.ClientSession() as http, http.get(self.url + path) as reply:
            return Reply(reply.status, reply.headers.copy(), await reply.read())

    async def chat(self, model: str, text: str = "hi", **fields: Any) -> Reply:
        """Send a chat request over a connection of its own."""
        body = {"model": model, "messages": [{"role": "user", "content": text}], **fields}
        return await self.post(msgspec.json.encode(body))

    async def post(self, body: bytes, path: str = CHAT, **headers: str) -> Reply:
        """Send a request as bytes, if nothing else is said for chat, over its own connection."""
        async with (
            aiohttp.ClientSession() as http,
            http.post(self.url + path, data=body, headers=headers) as reply,
        ):
            return Reply(reply.status, reply.headers.copy(), await reply.read())

    def workers(self) -> list[int]:
        """Return the processes of its workers, oldest first."""
        return [c for c in self.children() if b"spawn_main" in _read(f"/proc/{c}/cmdline")]

    def children(self) -> list[int]:
        """Return all processes that it has started, oldest first."""
        own = self.process.pid
        return [int(child) for child in _read(f"/proc/{own}/task/{own}/children").split()]

    def costs(self) -> str:
        """Return processor seconds and memory of every process so far."""
        return "; ".join(_costs(pid) for pid in (self.process.pid, *self.workers()))


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        # It ended meanwhile.
        return b""


def _costs(pid: int) -> str:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return f"{seconds:.2f} CPU s, {pages * os.sysconf('SC_PAGE_SIZE') / 2**20:.0f} MiB"


@asynccontextmanager
async def serving(
    folder: Path,
    *arguments: str,
    env: dict[str, str] | None = None,
    piped: bool = False,
    wait: bool = True,
) -> AsyncIterator[Served]:
    """Run `samplewise serve` with these arguments; killed at the end if it still runs.

    Its standard error is a file, or if `piped` a pipe that nobody reads after the ready line.
    """
    err = folder / "stderr.txt"
    source, sink = os.pipe()
    with err.open("wb") as file, os.fdopen(source, "rb") as reader:
        process = await asyncio.create_subprocess_exec(
            *command("serve", *arguments),
            cwd=folder,
            env={**_environment(), **(env or {})},
            stderr=sink if piped else file,
            stdin=asyncio.subprocess.DEVNULL,
        )
        os.close(sink)
        file.write(await asyncio.to_thread(reader.readline) if piped else b"")
    served = Served(process, err)
    began = time.monotonic()
    try:
        if wait:
            await served.ready()
        print(f"ready after {time.monotonic() - began:.2f} s: {served.costs()}")
        yield served
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        print(err.read_text())
