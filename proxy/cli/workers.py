"""Several workers on one socket: started, watched, replaced when one dies, stopped together."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

import click
import structlog
from prometheus_client.multiprocess import mark_process_dead

from samplewise.proxy.backends.abilities import Abilities
from samplewise.proxy.build import preflight
from samplewise.proxy.cli.hangup import HangUp
from samplewise.proxy.cli.reloader import Reloader, load_next, refuse
from samplewise.proxy.cli.server import ProxyServer, quiet_signals
from samplewise.proxy.config import Config
from samplewise.proxy.errors import ConfigError, SamplewiseError, StoreError
from samplewise.proxy.logs import catch_standard_logs, set_up_logs
from samplewise.proxy.peers import peer
from samplewise.proxy.reload import unchanged

__all__ = ["run_workers"]

_log = structlog.get_logger("samplewise.workers")
_READY = b"ready"
_RELOADED = b"reloaded"


def run_workers(
    config: Config,
    listener: socket.socket,
    count: int,
    ready: Callable[[], None],
    folder: Path,
    load: Callable[[], Config] | None = None,
) -> None:
    """Run `count` workers until SIGTERM or SIGINT, which they are told of. Returns when all ended.

    They reach each other at sockets in `folder`.

    On SIGHUP the configuration is read again with `load`, once, and given to all of them.

    Raises:
        ConfigError: something cannot be built from its settings.
        StoreError: the ledger cannot be opened.
        SystemExit: a worker could not start; it has said why.
    """
    # Once here, so that what is wrong is told once, and not by every worker.
    known = asyncio.run(preflight(config))
    hang_up = HangUp()  # before signals are taken
    with _shared_metrics(), _signals() as signals:
        _Workers(config, known, listener, ready, folder, signals, load, hang_up).run(count)


@dataclass(slots=True)
class _Worker:
    """A worker and the pipe to it: it says that it is ready, and stops when its parent is gone.

    `config` is what it was given last; while `busy` with that it is given nothing else, so that the
    pipe never fills.
    """

    process: SpawnProcess
    pipe: Connection
    config: Config
    ready: bool = False
    busy: bool = False
    ended: bool = False


@dataclass(slots=True)
class _Workers:
    config: Config
    known: Mapping[str, Abilities]
    listener: socket.socket
    told: Callable[[], None]
    folder: Path
    signals: socket.socket
    load: Callable[[], Config] | None
    hang_up: HangUp
    alive: list[_Worker] = field(default_factory=list)
    stopping: bool = False
    failed: bool = False

    def run(self, count: int) -> None:
        """Start the workers and watch them until the last one has ended."""
        for _ in range(count):
            self._start()
        waiting = True
        while self.alive:
            pipes = [worker.pipe for worker in self.alive if not worker.ended]
            wait([self.signals, *(worker.process.sentinel for worker in self.alive), *pipes])
            self._take_signals()
            for worker in list(self.alive):
                self._look_at(worker)
            if waiting and not self.stopping and all(worker.ready for worker in self.alive):
                waiting = False
                self.told()
        if self.failed:
            sys.exit(1)

    def _start(self) -> None:
        context = get_context("spawn")
        pipe, its_end = context.Pipe()
        given = (self.config, self.known, self.listener, self.folder, its_end)
        process = context.Process(target=_work, args=given)
        process.start()
        # Without another copy here, either side sees the end of the other one.
        its_end.close()
        self.alive.append(_Worker(process, pipe, self.config))

    def _take_signals(self) -> None:
        came = b""
        with suppress(BlockingIOError):
            came = self.signals.recv(4096)
        for number in came:
            if number == signal.SIGHUP and not self.hang_up.closed():
                self._reload()
                continue
            # The second SIGTERM ends the drain.
            drain = number == signal.SIGTERM and not self.stopping
            self._tell(signal.SIGTERM if drain else signal.SIGINT)
            self.stopping = True

    def _reload(self) -> None:
        """Read the configuration again and try it; what is wrong is told once, here."""
        config = load_next(self.config, self.load)
        if config is None or self.stopping:
            return
        try:
            same = unchanged(self.known, self.config.backends, config.backends)
            self.known = asyncio.run(preflight(config, same))
        except (ConfigError, StoreError) as error:
            refuse(error)
        else:
            self.config = config

    def _pass_on(self, worker: _Worker) -> None:
        """Give a worker the newest configuration, once it has taken the one before."""
        if worker.ready and not worker.busy and worker.config is not self.config:
            worker.config, worker.busy = self.config, True
            # It may have ended just now.
            with suppress(OSError):
                worker.pipe.send((self.config, self.known))

    def _tell(self, number: signal.Signals) -> None:
        for worker in self.alive:
            if worker.process.pid is not None and worker.process.is_alive():
                # One that has just begun would die of SIGINT with a traceback.
                os.kill(worker.process.pid, number if worker.ready else signal.SIGTERM)

    def _hear(self, worker: _Worker) -> None:
        try:
            if not worker.ended and worker.pipe.poll():
                said = worker.pipe.recv_bytes()
                worker.ready |= said == _READY
                worker.busy &= said != _RELOADED
        except (EOFError, OSError):
            worker.ended = True  # the pipe can end before its process does

    def _look_at(self, worker: _Worker) -> None:
        if worker.process.is_alive():
            self._hear(worker)
            self._pass_on(worker)
            return
        self.alive.remove(worker)
        worker.process.join()
        worker.pipe.close()
        mark_process_dead(worker.process.pid)  # type: ignore[no-untyped-call]
        peer(self.folder, worker.process.pid or 0).close()
        if self.stopping:
            return
        if worker.ready:
            code = worker.process.exitcode
            _log.error("worker died", worker=worker.process.pid, reason=f"exit code {code}")
            self._start()
            return
        # It would fail again and again.
        self.failed = self.stopping = True
        self._tell(signal.SIGTERM)


def _work(
    config: Config,
    known: Mapping[str, Abilities],
    listener: socket.socket,
    folder: Path,
    pipe: Connection,
) -> None:
    """Serve as one worker, in a process of its own."""
    # Ctrl-C at a terminal is for the parent alone, which passes it on.
    os.setsid()
    set_up_logs(config.server.log_format, config.server.log_level)
    catch_standard_logs()

    def ready() -> None:
        pipe.send_bytes(_READY)
        loop = asyncio.get_running_loop()
        loop.add_reader(pipe.fileno(), _hear_parent, loop, pipe, server.reloader)

    def reloaded() -> None:
        # A parent that is gone has no need of it.
        with suppress(OSError):
            pipe.send_bytes(_RELOADED)

    server = ProxyServer(config, ready, folder, worker=True, known=known)
    server.reloader.done = reloaded
    try:
        server.run_quietly(listener)
    except SamplewiseError as error:
        click.echo(f"samplewise: {error}", err=True)
        sys.exit(1)


def _hear_parent(loop: asyncio.AbstractEventLoop, pipe: Connection, reloader: Reloader) -> None:
    """Take a new configuration from the parent, or its end."""
    try:
        reloader.ask(*pipe.recv())
    except (EOFError, OSError):
        loop.remove_reader(pipe.fileno())
        _log.error("parent died", worker=os.getpid())
        signal.raise_signal(signal.SIGINT)


@contextmanager
def _signals() -> Iterator[socket.socket]:
    """Give a socket from which the numbers of signals to stop can be read as they come."""
    reader, writer = socket.socketpair()
    for end in (reader, writer):
        end.setblocking(False)
    before = signal.set_wakeup_fd(writer.fileno())
    try:
        with quiet_signals(more=[signal.SIGHUP]):
            yield reader
    finally:
        signal.set_wakeup_fd(before)
        reader.close()
        writer.close()


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
