"""`samplewise serve` with a real vLLM of its own on the embedded weights, for the whole session."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from samplewise.proxy.backends.glance import Work, work
from tests.vllm.server import ROOT, command, environment, free_port
from tests.wire.bodies import CHAT
from tests.wire.books import Series, series, soon
from tests.wire.proxy import PRICE, Reply

__all__ = ["MODEL", "Stack", "processes_on", "stack", "write_config"]

MODEL = "samplewise-tiny"
_READY = re.compile(r"samplewise: serving .* at (http://\S+)/v1")
_START_S = 600.0


@dataclass(frozen=True)
class Stack:
    """A running proxy with its vLLM. `file` is the ledger, `err` what the proxy wrote."""

    process: subprocess.Popen[bytes]
    url: str
    port: int
    file: Path
    err: Path

    @property
    def vllm(self) -> str:
        """The address of vLLM itself."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def logs(self) -> list[dict[str, Any]]:
        """The events that the proxy has logged."""
        lines = self.err.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    async def chat(self, route: str, text: str, **fields: Any) -> Reply:
        """Send a chat request through the proxy."""
        messages = [{"role": "user", "content": text}]
        return await self.post(self.url, {"model": route, "messages": messages, **fields})

    async def direct(self, text: str, **fields: Any) -> Reply:
        """Send a chat request to vLLM itself."""
        messages = [{"role": "user", "content": text}]
        return await self.post(self.vllm, {"model": MODEL, "messages": messages, **fields})

    async def post(self, url: str, body: Mapping[str, Any], path: str = CHAT) -> Reply:
        """Send a request anywhere, for chat if nothing else is said."""
        async with (
            aiohttp.ClientSession() as http,
            http.post(
                f"{url}{path}",
                data=msgspec.json.encode(body),
                headers={"content-type": "application/json"},
            ) as reply,
        ):
            return Reply(reply.status, reply.headers.copy(), await reply.read())

    async def page(self) -> Series:
        """Read the proxy's metrics."""
        async with aiohttp.ClientSession() as http, http.get(f"{self.url}/metrics") as reply:
            return series(await reply.text())

    async def work(self) -> Work:
        """Read what vLLM says that it is working on."""
        async with aiohttp.ClientSession() as http:
            found = await work(http, f"{self.vllm}/v1", {})
        assert found is not None
        return found

    async def idle(self) -> Work:
        """Wait until vLLM has nothing to do; return its counters, which have settled."""
        last: list[Work] = []

        async def rests() -> bool:
            last.append(await self.work())
            await asyncio.sleep(0.05)
            return len(last) > 1 and last[-1] == last[-2] and not last[-1].running

        await soon(rests, "vLLM has nothing to do", 30)
        return last[-1]


def write_config(folder: Path, port: int) -> Path:
    """Write the proxy's configuration, which starts vLLM on a port."""
    start, args = command()
    serve = {
        "model": str(ROOT / "models" / "tiny"),
        "port": port,
        "command": start,
        "args": args,
        "env": environment(),
        "log_file": str(folder / "vllm.log"),
    }
    there = f"type: vllm, base_url: 'http://127.0.0.1:{port}/v1', model: {MODEL}, price: {PRICE}"
    file = folder / "config.yaml"
    file.write_text(f"""
store: "sqlite:///{folder}/ledger.db"
server: {{port: 0, drain_s: 0, log_format: json}}
backends:
  vllm: {{type: vllm, model: {MODEL}, price: {PRICE}, serve: {json.dumps(serve)}}}
  calls: {{{there}, dispatch: calls, probe: none}}
  harvest: {{{there}, dispatch: n, probe: none}}
  numpy: {{type: tiny, price: {PRICE}}}
verifiers:
  right: {{type: countdown}}
  step: {{type: countdown, scope: step}}
routes:
  one: {{backends: [vllm], max_tokens: 56}}
  sixteen: {{backends: [vllm], policy: "majority_vote:16", answers: right, max_tokens: 56}}
  sixteen-calls: {{backends: [calls], policy: "majority_vote:16", answers: right, max_tokens: 56}}
  cover: {{backends: [vllm], policy: "majority_vote:64", answers: right, max_tokens: 56}}
  cover-numpy: {{backends: [numpy], policy: "majority_vote:64", answers: right, max_tokens: 56}}
  first: {{backends: [calls], policy: {{type: first_pass, max_samples: 64, waves: [64]}},
           verifiers: [right], max_tokens: 56}}
  first-harvest: {{backends: [harvest], policy: {{type: first_pass, max_samples: 64, waves: [64]}},
                   verifiers: [right], max_tokens: 56}}
  steps: {{backends: [calls], verifiers: [step], max_tokens: 24,
           policy: {{type: python, factory: "tests.contract.policies:ParticleFilter"}}}}
""")
    return file


@contextmanager
def stack(folder: Path) -> Iterator[Stack]:
    """Start the proxy, which starts vLLM; stop both and see that nothing is left."""
    port = free_port()
    err = folder / "stderr.txt"
    serve = [sys.executable, "-m", "samplewise", "serve", "--config"]
    with err.open("wb") as sink:
        process = subprocess.Popen(
            [*serve, str(write_config(folder, port))],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            stderr=sink,
            stdin=subprocess.DEVNULL,
        )
    try:
        began = time.monotonic()
        while not (ready := _READY.search(err.read_text())):
            assert process.poll() is None, err.read_text()
            assert time.monotonic() < began + _START_S, err.read_text()
            time.sleep(0.2)
        print(f"ready after {time.monotonic() - began:.1f} s")
        yield Stack(process, ready[1], port, folder / "ledger.db", err)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert not processes_on(port), "a process of vLLM is left"


def processes_on(port: int) -> list[int]:
    """Return the processes whose command line names a port."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = process.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if f"--port {port} " in line:
            found.append(int(process.parent.name))
    return found
