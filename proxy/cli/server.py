"""The proxy as a process: its socket, its signals, and a stop that loses nothing."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import resource
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import FrameType

import click
import uvicorn

from samplewise.proxy.app import create_app
from samplewise.proxy.backends.abilities import Abilities
from samplewise.proxy.cli.hangup import HangUp
from samplewise.proxy.cli.reloader import Reloader
from samplewise.proxy.config import Config
from samplewise.proxy.http_protocol import HttpProtocol
from samplewise.proxy.logs import catch_standard_logs, set_up_logs
from samplewise.proxy.managed.start import model_servers
from samplewise.proxy.peers import Peers, peer, peers_folder

__all__ = ["ProxyServer", "listen", "quiet_signals", "run_server"]

# What requests that are cut may take to settle before the ledger is closed under them.
_SETTLE_S = 15.0
# Objects made and not yet freed before the garbage collector looks at them.
_YOUNG_OBJECTS = 10_000


def run_server(config: Config, workers: int, load: Callable[[], Config] | None = None) -> None:
    """Serve until SIGTERM or SIGINT. Returns when every request has ended and is settled.

    On SIGHUP the configuration is read again with `load`, where there is one.

    Raises:
        ConfigError: something cannot be built from its settings.
        StoreError: the ledger cannot be opened.
        OSError: the address cannot be listened on.
    """
    set_up_logs(config.server.log_format, config.server.log_level)
    catch_standard_logs()
    _open_more_files()
    listener = listen(config.server.host, config.server.port)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    names = ", ".join(sorted(config.routes))

    def ready() -> None:
        click.echo(f"samplewise: serving {names} at http://{shown}:{port}/v1", err=True)

    # One of each, however many workers there are.
    with model_servers(config), peers_folder() as folder:
        if workers == 1:
            ProxyServer(config, ready, folder, load=load).run_quietly(listener)
            return
        # Only here, because most servers run alone.
        from samplewise.proxy.cli.workers import run_workers

        run_workers(config, listener, workers, ready, folder, load)


def _open_more_files() -> None:
    """Use all the open files that the system allows: every sample of every request is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Where more is told than can be had, what there was must do.
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class ProxyServer(uvicorn.Server):
    """Uvicorn around an open service: opened before it listens, closed when all is settled.

    SIGTERM puts a pause before uvicorn's own stop: /readyz says no, requests are still taken. A
    worker is told to stop by its parent and perhaps by others too, so it hears SIGTERM only once;
    else the second one ends the pause. SIGINT stops without a pause, and so does the end of the
    terminal; a second SIGINT cuts what still runs. Any other SIGHUP is a reload.
    """

    def __init__(
        self,
        config: Config,
        ready: Callable[[], None],
        folder: Path | None = None,
        *,
        worker: bool = False,
        load: Callable[[], Config] | None = None,
        known: Mapping[str, Abilities] | None = None,
    ) -> None:
        """Build the application; nothing is opened before it runs.

        `ready` is called once requests are taken; `folder` has the sockets of this server's
        processes; `load` reads the configuration again; `worker`
        says that a parent passes signals on, which has found out what is `known` of the upstreams.
        """
        self._peers = Peers() if folder is None else peer(folder, os.getpid())
        self._app = create_app(config, known, self._peers)
        self._ready = ready
        self._worker = worker
        self._hang_up = HangUp()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.reloader = Reloader(config, load, lambda: set(self.server_state.tasks), self._apply)
        self._drain_s = config.server.drain_s
        self._draining = False
        settings = uvicorn.Config(
            self._app,
            loop="uvloop",
            http=HttpProtocol,
            ws="none",
            # Opened and closed here: uvicorn would close the ledger under requests that it cut.
            lifespan="off",
            access_log=False,
            log_config=None,
            log_level="warning",
            proxy_headers=False,
            server_header=False,
            # Behind the idle times of common load balancers, so that it is they who close first.
            timeout_keep_alive=75,
            timeout_graceful_shutdown=math.ceil(config.server.grace_s),
        )
        super().__init__(settings)

    def run_quietly(self, listener: socket.socket) -> None:
        """Serve until told to stop by a signal, from now on; return then.

        Raises:
            ConfigError: something cannot be built from its settings.
            StoreError: the ledger cannot be opened.
        """
        with quiet_signals(self.handle_exit, [signal.SIGHUP]):
            self.run(sockets=[listener])

    async def _serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        opened = self._app.router.lifespan_context(self._app)
        async with opened, self._settling(), self._reloading():
            await super()._serve(sockets)

    @asynccontextmanager
    async def _reloading(self) -> AsyncIterator[None]:
        """Reload beside the body whenever a signal asks for it."""
        work = asyncio.create_task(self.reloader.run(self._app.state.service))
        try:
            yield
        finally:
            work.cancel()
            await asyncio.wait([work])

    def _apply(self, config: Config) -> None:
        """Take what a new configuration says of the process itself."""
        self._drain_s = config.server.drain_s
        self.config.timeout_graceful_shutdown = math.ceil(config.server.grace_s)
        set_up_logs(config.server.log_format, config.server.log_level)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take requests."""
        await super().startup(sockets)
        await self._listen_to_peers()
        _spare_the_collector()
        self._ready()

    async def _listen_to_peers(self) -> None:
        listener = self._peers.listen()
        if listener is None:
            return
        config, state, told = self.config, self.server_state, self.lifespan.state

        def protocol() -> asyncio.Protocol:
            return config.http_protocol_class(config=config, server_state=state, app_state=told)  # type: ignore[call-arg]

        loop = asyncio.get_running_loop()
        # Closed with the others when the server stops.
        self.servers.append(await loop.create_unix_server(protocol, sock=listener))

    @asynccontextmanager
    async def _settling(self) -> AsyncIterator[None]:
        """Cut the requests that are left in the end, and wait until they are settled."""
        try:
            yield
        finally:
            left = set(self.server_state.tasks)
            for task in left:
                if not task.cancelling():
                    task.cancel()
            if left:
                await asyncio.wait(left, timeout=_SETTLE_S)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal."""
        if sig == signal.SIGHUP and not self._hang_up.closed():
            # A worker's parent reads the file for all, and says so by their pipe.
            if not self._worker:
                self._soon(self.reloader.ask)
            return
        if sig == signal.SIGTERM and not self.should_exit and self.started:
            if not self._draining:
                self._drain(sig)
                return
            if self._worker:
                return
        if sig == signal.SIGINT and not self.should_exit and self.server_state.tasks:
            self._soon(self._explain, len(self.server_state.tasks))
        super().handle_exit(sig, frame)

    def _drain(self, sig: int) -> None:
        self._draining = True
        self._app.state.service.draining = True
        stop = super().handle_exit
        assert self._loop is not None
        self._soon(self._loop.call_later, self._drain_s, stop, sig, None)

    def _soon(self, act: Callable[..., object], *given: object) -> None:
        """Act in the event loop: a signal comes between any two steps of the program."""
        if self._loop is None:
            act(*given)
        else:
            self._loop.call_soon_threadsafe(act, *given)

    def _explain(self, running: int) -> None:
        click.echo(
            f"samplewise: stopping when {running} running request{'s' if running > 1 else ''} "
            "ended; press Ctrl-C again to cut them",
            err=True,
        )


def _spare_the_collector() -> None:
    """Let the garbage collector look at young objects only, and less often.

    A request makes thousands of objects that go without its help; walking over every loaded module
    again and again took a fifth of the processor time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 20, 20)


def listen(host: str, port: int) -> socket.socket:
    """Open the listening socket; raises OSError when the address is taken or is not ours."""
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    listener = socket.create_server((host, port), family=family, backlog=2048)
    listener.set_inheritable(True)
    return listener


def _nothing(number: int, frame: FrameType | None) -> None:
    """Take a signal and do nothing."""


@contextmanager
def quiet_signals(
    take: Callable[[int, FrameType | None], None] = _nothing,
    more: Sequence[signal.Signals] = (),
) -> Iterator[None]:
    """Let a server that was told to stop by a signal return instead of dying by it.

    `take` gets the signals that come before uvicorn listens to them, and all of them again after;
    and `more` signals, to which uvicorn does not listen.
    """
    # Uvicorn raises the signal again once it has stopped; a clean stop is no death by signal.
    before = {n: signal.signal(n, take) for n in (signal.SIGTERM, signal.SIGINT, *more)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
