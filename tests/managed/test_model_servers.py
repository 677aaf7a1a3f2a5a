"""`serve:` of a vLLM backend: a real server process that starts, crashes, hangs and is stopped."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from tests.cli.served import Served, run, serving
from tests.wire.books import soon
from tests.wire.proxy import PRICE

SERVER = Path(__file__).with_name("server.py")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def config(folder: Path, port: int, *args: str, more: str = "", model: str = "tiny") -> str:
    file = folder / "config.yaml"
    command = msgspec.json.encode([sys.executable, str(SERVER)]).decode()
    serve = (
        f"{{model: {model}, port: {port}, command: {command}, "
        f"args: {msgspec.json.encode(args).decode()}, stop_s: 2{more}}}"
    )
    file.write_text(
        f'store: "sqlite:///{folder}/ledger.db"\n'
        "server: {port: 0, drain_s: 0, log_format: json}\n"
        f"backends: {{local: {{type: vllm, probe: none, price: {PRICE}, serve: {serve}}}}}\n"
        "routes: {one: {backends: [local]}}\n"
    )
    return str(file)


def changed(file: str, old: str, new: str) -> str:
    """Replace something in a configuration file that must be there."""
    text = Path(file).read_text()
    assert old in text
    Path(file).write_text(text.replace(old, new))
    return file


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def alive(pid: int) -> bool:
    try:
        # One that has ended and was not waited for by whoever adopted it counts as gone.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def processes(port: int) -> Any:
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"http://127.0.0.1:{port}/processes") as reply,
    ):
        return await reply.json()


async def crash(port: int) -> None:
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.ClientError):
            await http.post(f"http://127.0.0.1:{port}/crash")


@asynccontextmanager
async def ready(folder: Path, *args: str, **more: Any) -> AsyncIterator[tuple[Served, int]]:
    port = free_port()
    workers = more.pop("workers", 1)
    file = config(folder, port, *args, **more)
    async with serving(folder, "--config", file, "--workers", str(workers)) as served:
        yield served, port


@pytest.mark.parametrize("workers", [1, 2])
async def test_one_server_serves_all_workers_and_ends_with_the_proxy(
    tmp_path: Path, workers: int
) -> None:
    async with ready(tmp_path, workers=workers, more=", env: {GIVEN: here}") as (served, port):
        found = await processes(port)
        assert found["given"] == "here"
        texts = {(await served.chat("one")).text for _ in range(4)}
        assert texts == {f"from {found['pids'][0]}"}
        served.signal(signal.SIGTERM)
        assert await served.ended() == 0
        assert not any(map(alive, found["pids"]))
    assert (tmp_path / "samplewise-local.log").read_text().startswith("loading tiny")


async def test_requests_are_taken_only_once_the_server_is_ready(tmp_path: Path) -> None:
    port, gate = free_port(), tmp_path / "gate"
    file = config(tmp_path, port, "--slow", str(gate))
    async with serving(tmp_path, "--config", file, wait=False) as served:
        log = tmp_path / "samplewise-local.log"
        await soon(lambda: log.exists() and "loading" in log.read_text(), "it loads", 30)
        assert not any("serving one" in line for line in served.said)
        gate.touch()
        await served.ready()
        assert (await served.chat("one")).status == 200


async def test_a_server_that_cannot_start_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    file = config(tmp_path, free_port(), "--broken", "no such model: tiny")
    done = await run(tmp_path, "serve", "--config", file)
    assert done.code == 1
    assert "backends.local.serve: ended before it was ready with status 1" in done.err
    assert "samplewise-local.log ends with:" in done.err
    assert "ValueError: no such model: tiny" in done.err
    assert "Traceback" not in done.err


async def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = await run(tmp_path, "serve", "--config", config(tmp_path, port))
    assert done.code == 1
    assert f"backends.local.serve: port {port} of 127.0.0.1: Address already in use" in done.err


async def test_a_command_that_does_not_exist_is_told(tmp_path: Path) -> None:
    file = changed(config(tmp_path, free_port()), sys.executable, "/no/such/python")
    done = await run(tmp_path, "serve", "--config", file)
    assert done.code == 1
    assert "backends.local.serve: cannot run /no/such/python" in done.err


async def test_a_server_that_crashes_is_started_again_and_its_processes_are_ended(
    tmp_path: Path,
) -> None:
    async with ready(tmp_path) as (served, port):
        first, child = (await processes(port))["pids"]
        await crash(port)

        async def answers() -> bool:
            return (await served.chat("one")).status == 200

        await soon(answers, "the server is back", 30)
        again = (await processes(port))["pids"]
        assert first not in again
        await soon(lambda: not alive(child), "the first one's child is gone")
        [event] = [e for e in served.logs if e["event"] == "model server ended"]
        assert event["reason"].startswith("ended with status 3; its log")
        # What a server writes may quote requests: its end is for debugging only.
        assert "memory" not in event["reason"]
        served.signal(signal.SIGTERM)
        assert await served.ended() == 0
        assert not any(map(alive, again))


async def test_a_request_while_the_server_is_down_costs_nothing(tmp_path: Path) -> None:
    async with ready(tmp_path) as (served, port):
        await crash(port)
        # At least a second passes before the next start.
        reply = await served.chat("one")
        assert (reply.status, reply.error["type"]) == (502, "upstream_error")
        page = (await served.get("/metrics")).body.decode()
        lines = [x for x in page.splitlines() if x.startswith("samplewise_cost_usd_total")]
        # The server was probed when it was ready, and that cost something.
        cost = [line for line in lines if 'route="one"' in line]
        assert all(float(line.split()[-1]) == 0 for line in cost)


async def test_a_server_that_does_not_listen_to_sigterm_is_killed(tmp_path: Path) -> None:
    async with ready(tmp_path, "--deaf", more=", start_s: 60") as (served, port):
        pids = (await processes(port))["pids"]
        served.signal(signal.SIGTERM)
        assert await served.ended() == 0
        assert not any(map(alive, pids))


@pytest.mark.parametrize("workers", [1, 2])
async def test_nothing_is_left_when_the_proxy_is_killed(tmp_path: Path, workers: int) -> None:
    async with ready(tmp_path, workers=workers) as (served, port):
        pids = (await processes(port))["pids"]
        served.signal(signal.SIGKILL)
        await served.ended()
        await soon(lambda: not any(map(alive, pids)), "the model server is gone")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a parent's death")
async def test_no_server_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    async with ready(tmp_path) as (_, port):
        server = (await processes(port))["pids"][0]
        os.kill(parent_of(server), signal.SIGKILL)
        await soon(lambda: not alive(server), "the model server is gone")


async def test_a_server_that_offers_another_model_is_told(tmp_path: Path) -> None:
    file = config(tmp_path, free_port(), "--served-model-name", "small", more=", start_s: 60")
    changed(file, "type: vllm,", "type: vllm, model: large,")
    done = await run(tmp_path, "serve", "--config", file)
    assert done.code == 1
    assert "backends.local.serve: the server offers small, not large: check `model`" in done.err
