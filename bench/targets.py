"""The processes that are measured: started on free ports, waited for, stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from bench.load import Target, get
from bench.machine import rss_mb, spent

__all__ = ["Fleet", "Start", "free_port"]

_START_S = 60.0
_POLL_S = 0.05
_STOP_S = 30.0

_CONFIG = """\
store: "sqlite:///{folder}/{name}.db"
server: {{log_format: json, drain_s: 0{server}}}
budget: {{usd_per_month: 100000}}
backends:
  calls: {{type: openai, base_url: "http://127.0.0.1:{port}/v1", model: fake, max_n: 1,
           price: {{input_usd_per_mtok: 0.1, output_usd_per_mtok: 0.3}}}}
  whole: {{type: openai, base_url: "http://127.0.0.1:{port}/v1", model: fake,
           price: {{input_usd_per_mtok: 0.1, output_usd_per_mtok: 0.3}}}}
  long: {{type: openai, base_url: "http://127.0.0.1:{port}/v1", model: fake-long, max_n: 1,
          price: {{input_usd_per_mtok: 0.1, output_usd_per_mtok: 0.3}}}}
verifiers:
  answer: {{type: final_answer}}
routes:
  one: {{backends: [calls], policy: single, {limits}}}
  long: {{backends: [long], policy: single, {limits}}}
  calls-8: {{backends: [calls], policy: "majority_vote:8", answers: answer, {limits}}}
  calls-64: {{backends: [calls], policy: "majority_vote:64", answers: answer, {limits}}}
  n-8: {{backends: [whole], policy: "majority_vote:8", answers: answer, {limits}}}
  n-64: {{backends: [whole], policy: "majority_vote:64", answers: answer, {limits}}}
"""
_LIMITS = "max_tokens: 256, budget: {usd_per_request: 1, usd_per_day: 10000, deadline_s: 60}"


@dataclass(frozen=True, slots=True)
class Start:
    """What it took until a process tree was ready: processor and wall seconds, memory then."""

    cpu_s: float
    wall_s: float
    rss_mb: float


@dataclass(slots=True)
class Fleet:
    """All targets of a run by name; `folder` holds configurations, ledgers and logs."""

    folder: Path
    upstream: Target
    targets: dict[str, Target] = field(default_factory=dict)
    starts: dict[str, list[Start]] = field(default_factory=dict)
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path, delay_s: float = 0.0) -> AsyncIterator[Fleet]:
        """Start the fake upstream, whose answers take a while; stop everything at the end."""
        fleet = cls(folder, Target(0, 0))
        try:
            port = free_port()
            command = [sys.executable, "-m", "bench.upstream", str(port), str(delay_s)]
            await fleet._start("direct", command, port)
            fleet.upstream = fleet.targets["direct"]
            yield fleet
        finally:
            for name in list(fleet._processes):
                fleet.stop(name)

    async def start(self, name: str, server: str = "") -> None:
        """Start a target by its name: reference, samplewise, bare, or with ` x2` two workers.

        `server` is more of the `server` section of its configuration.
        """
        kind, _, workers = name.partition(" x")
        port = free_port()
        if kind == "reference":
            command = [sys.executable, "-m", "bench.reference"]
            command += [str(self.upstream.port), str(port), workers or "1"]
        elif kind == "samplewise":
            command = [sys.executable, "-m", "samplewise", "serve"]
            command += ["--config", self._config(name, server), "--port", str(port)]
            command += ["--workers", workers or "1"]
        else:
            command = [sys.executable, "-m", "bench.bare", self._config(name), str(port)]
        await self._start(name, command, port)

    def stop(self, name: str) -> None:
        """Stop a target as an operator does, and wait for its end."""
        process = self._processes.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _config(self, name: str, server: str = "") -> str:
        file = self.folder / f"{name}.yaml"
        limits = _LIMITS if name.startswith("samplewise") else "max_tokens: 256"
        text = _CONFIG.format(
            folder=self.folder, name=name, port=self.upstream.port, limits=limits, server=server
        )
        file.write_text(text)
        return str(file)

    def _open(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        # Settings of the shell that runs this, such as PYTHONASYNCIODEBUG, are not measured; where
        # it finds the code that is measured, stays.
        environment = {
            name: value
            for name, value in os.environ.items()
            if name == "PYTHONPATH" or not name.startswith("PYTHON")
        }
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )

    async def _start(self, name: str, command: Sequence[str], port: int) -> None:
        began = perf_counter()
        process = self._processes[name] = self._open(name, command)
        path = "/counts" if name == "direct" else "/readyz"
        while await get(port, path) is None:
            if process.poll() is not None or perf_counter() - began > _START_S:
                log_text = (self.folder / f"{name}.log").read_text()[-2000:]
                raise RuntimeError(f"{name} did not start:\n{log_text}")
            await asyncio.sleep(_POLL_S)
        took = perf_counter() - began
        start = Start(spent(process.pid).cpu_s, took, rss_mb(process.pid))
        self.starts.setdefault(name, []).append(start)
        self.targets[name] = Target(port, process.pid)


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
