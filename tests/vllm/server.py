"""A real vLLM on a folder of weights, for tests that ask it through a proxy of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from tests.wire.proxy import Reply

__all__ = ["ROOT", "Vllm", "command", "environment", "free_port", "python", "running"]

ROOT = Path(__file__).parents[2]
# What docs/backends.md says of a machine without a GPU; with one, vLLM finds out by itself.
_CPU = {
    "VLLM_TARGET_DEVICE": "cpu",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
_OFFLINE = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
# Single precision on both sides, so that what differs is chance alone.
_ARGS = ("--dtype", "float32", "--max-num-seqs", "64", "--enforce-eager")
_MEMORY = {"cpu": ("--block-size", "32"), "cuda": ("--gpu-memory-utilization", "0.2")}
_START_S = 600.0


def python() -> tuple[str, str]:
    """Return the Python that has vLLM, and the device; the first is empty without one."""
    where, device = (
        os.environ.get("SAMPLEWISE_VLLM", ""),
        os.environ.get("SAMPLEWISE_DEVICE", "cpu"),
    )
    return where, device


def environment() -> dict[str, str]:
    """Return what a server's environment holds beside our own."""
    return {**_OFFLINE, **(_CPU if python()[1] == "cpu" else {})}


def command(context: int = 64) -> tuple[list[str], list[str]]:
    """Return how a server is started, and the arguments that all of them get."""
    where, device = python()
    args = [*_ARGS, *_MEMORY[device], "--max-model-len", str(context)]
    return [where, "-m", "vllm.entrypoints.openai.api_server"], args


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


@dataclass(frozen=True)
class Vllm:
    """A running server. `log` is what it writes."""

    port: int
    log: Path

    @property
    def url(self) -> str:
        """The address of its root."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """The address as OpenAI clients want it."""
        return f"{self.url}/v1"

    async def post(
        self, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Send a request to the server itself."""
        async with (
            aiohttp.ClientSession() as http,
            http.post(self.url + path, json=body, headers=headers) as reply,
        ):
            return Reply(reply.status, reply.headers.copy(), await reply.read())

    async def get(self, path: str) -> Reply:
        """Read a page of the server itself."""
        async with aiohttp.ClientSession() as http, http.get(self.url + path) as reply:
            return Reply(reply.status, reply.headers.copy(), await reply.read())


@contextmanager
def running(folder: Path, model: Path, *args: str, context: int = 64) -> Iterator[Vllm]:
    """Serve the weights in `model` under the name `m`; the log goes into `folder`."""
    if not python()[0]:
        pytest.skip("needs vLLM: run `make test-vllm`, or with a GPU `make test-gpu`")
    start, common = command(context)
    served = Vllm(free_port(), folder / f"{model.name}.log")
    where = ["--host", "127.0.0.1", "--port", str(served.port)]
    names = ["--model", str(model), "--served-model-name", "m"]
    with served.log.open("wb") as sink:
        process = subprocess.Popen(
            [*start, *names, *where, *common, *args],
            env={**os.environ, **environment()},
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            # Its workers are processes too: they end with the group.
            start_new_session=True,
        )
    try:
        began = time.monotonic()
        while not _ready(served):
            assert process.poll() is None, _tail(served)
            assert time.monotonic() < began + _START_S, _tail(served)
            time.sleep(0.2)
        print(f"{model.name}: ready after {time.monotonic() - began:.1f} s")
        yield served
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _ready(served: Vllm) -> bool:
    try:
        with urllib.request.urlopen(f"{served.base_url}/models", timeout=5) as reply:
            listed = msgspec.json.decode(reply.read())
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
    return any(entry["id"] == "m" for entry in listed["data"])


def _tail(served: Vllm) -> str:
    return served.log.read_text(errors="replace")[-4000:]
