"""The proxy as processes: sockets, workers, signals, and a stop that loses nothing."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from types import FrameType
from typing import Any

import click
import uvicorn
from fastapi import FastAPI
from uvicorn.supervisors import Multiprocess

from samplewise.proxy.app import create_app
from samplewise.proxy.build import preflight
from samplewise.proxy.config import Config

__all__ = ["listen", "make_app", "quiet_signals", "run_server"]


def run_server(config: Config, workers: int) -> None:
    """Serve until SIGTERM or SIGINT. Returns when every request has ended and is settled.

    Raises:
        ConfigError: something cannot be built from its settings.
        StoreError: the ledger cannot be opened.
        OSError: the address cannot be listened on.
    """
    asyncio.run(preflight(config))
    listener = listen(config.server.host, config.server.port)
    host, port = listener.getsockname()[:2]
    names = ", ".join(sorted(config.routes))
    shown = f"[{host}]" if ":" in host else host
    click.echo(f"samplewise: serving {names} at http://{shown}:{port}/v1", err=True)
    settings = uvicorn.Config(
        partial(make_app, config),
        factory=True,
        workers=workers,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        # Behind the idle times of common load balancers, so that it is they who close first.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(config.server.grace_s),
    )
    with quiet_signals():
        if workers == 1:
            uvicorn.Server(settings).run(sockets=[listener])
            return
        with _shared_metrics():
            Multiprocess(settings, sockets=[listener]).run()


def make_app(config: Config) -> FastAPI:
    """Return the application of one worker; SIGTERM drains it before it stops."""
    app = create_app(config)
    opened = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
        async with opened(app) as state:
            _drain_on_sigterm(app, config.server.drain_s)
            yield state

    app.router.lifespan_context = lifespan
    return app


def _drain_on_sigterm(app: FastAPI, drain_s: float) -> None:
    """Put a pause before the server's own reaction: /readyz says no, requests are still taken."""
    stop = signal.getsignal(signal.SIGTERM)
    loop = asyncio.get_running_loop()

    def drain(number: int, frame: FrameType | None) -> None:
        if not callable(stop):
            return
        if app.state.service.draining:
            stop(number, frame)
            return
        app.state.service.draining = True
        loop.call_soon_threadsafe(loop.call_later, drain_s, stop, number, frame)

    if callable(stop):
        signal.signal(signal.SIGTERM, drain)


def listen(host: str, port: int) -> socket.socket:
    """Open the listening socket; raises OSError when the address is taken or is not ours."""
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    listener = socket.create_server((host, port), family=family, backlog=2048)
    listener.set_inheritable(True)
    return listener


@contextmanager
def quiet_signals() -> Iterator[None]:
    """Let a server that was told to stop by a signal return instead of dying by it."""
    # Uvicorn raises the signal again once it has stopped; a clean stop is no death by signal.
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _shared_metrics() -> Iterator[None]:
    """Give the workers a folder in which their counters meet; removed at the end."""
    folder = tempfile.mkdtemp(prefix="samplewise-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
    try:
        yield
    finally:
        del os.environ["PROMETHEUS_MULTIPROC_DIR"]
        shutil.rmtree(folder, ignore_errors=True)
