"""One model server, watched by a process of its own: started, restarted with back-off, stopped.

Run as `python -m samplewise.proxy.managed.supervisor`, with an `Order` as one line of JSON on
standard input, which stays open: its end says that the proxy is gone, however it went, and then the
whole process group of the server is ended. Standard output says one line, `ready` or why not.
"""

from __future__ import annotations

import ctypes
import http.client
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Literal

import msgspec
import structlog

from samplewise.proxy.logs import set_up_logs

__all__ = ["HOST", "READY", "Order", "tail"]

HOST = "127.0.0.1"
READY = "ready"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_TICK_S = 0.1
_ASK_TIMEOUT_S = 5.0
_TAIL_BYTES = 4_000
_TAIL_LINES = 20
_log = structlog.get_logger("samplewise.managed")


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to run and how. `model` is the name that the server must list once it is ready.

    A server that ran for `steady_s` is started again after `first_pause_s`; one that ended sooner
    after twice the last pause, at most `longest_pause_s`.
    """

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    port: int
    model: str
    headers: Mapping[str, str]
    log_file: str
    start_s: float
    stop_s: float
    log_format: Literal["auto", "json", "console"] = "auto"
    log_level: str = "info"
    first_pause_s: float = 1.0
    longest_pause_s: float = 60.0
    steady_s: float = 300.0


class _Failed(Exception):
    """The server did not come up; the message says why."""


@dataclass(slots=True)
class _Supervisor:
    order: Order
    stopping: bool = False
    log_from: int = 0
    told: bool = False

    def run(self) -> int:
        """Keep the server running until told to stop; return the exit status."""
        pause_s = self.order.first_pause_s
        while not self.stopping:
            began = monotonic()
            try:
                why = self._live()
            except _Failed as failed:
                why = str(failed)
            if self.stopping:
                break
            if not self.told:
                # Started again it would fail again: what is wrong is its model or its arguments.
                self._tell(why)
                return 1
            if monotonic() - began >= self.order.steady_s:
                pause_s = self.order.first_pause_s
            # Its log may quote requests, so its end is for those who ask for details.
            reason, _, end = why.partition("\n")
            _log.error("model server ended", backend=self.order.name, reason=reason, detail=end)
            self._wait(pause_s)
            pause_s = min(2 * pause_s, self.order.longest_pause_s)
        return 0

    def _tell(self, text: str) -> None:
        """Say once how the first start went; the proxy may be gone by now."""
        if not self.told:
            with suppress(OSError):
                print(text, flush=True)
        self.told = True

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Take a signal to stop."""
        self.stopping = True

    def _live(self) -> str:
        """Run the server once; return how it ended."""
        order = self.order
        began = monotonic()
        process = self._start()
        try:
            self._until_ready(process)
            if not self.stopping:
                seconds = round(monotonic() - began, 1)
                address = f"{HOST}:{order.port}"
                _log.info(
                    "model server ready", backend=order.name, address=address, seconds=seconds
                )
                self._tell(READY)
            while not self.stopping:
                if process.poll() is not None:
                    return self._ended(process, "ended")
                self._wait(_TICK_S)
            return ""
        finally:
            self._end(process)

    def _start(self) -> subprocess.Popen[bytes]:
        order = self.order
        with socket.socket() as probe:
            # As servers do: a connection that was closed a moment ago does not keep the port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, order.port))
            except OSError as error:
                raise _Failed(f"port {order.port} of {HOST}: {error.strerror}") from None
        try:
            with open(order.log_file, "ab") as log:
                self.log_from = log.seek(0, os.SEEK_END)
                # A group of its own: Ctrl-C at a terminal is for the proxy, and all processes that
                # the server starts are ended together.
                return subprocess.Popen(
                    order.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **order.env},
                    start_new_session=True,
                    preexec_fn=_end_with_parent,
                )
        except OSError as error:
            what = error.filename or order.command[0]
            raise _Failed(f"cannot run {order.command[0]}: {what}: {error.strerror}") from None

    def _until_ready(self, process: subprocess.Popen[bytes]) -> None:
        order = self.order
        until = monotonic() + order.start_s
        while not self.stopping:
            if process.poll() is not None:
                raise _Failed(self._ended(process, "ended before it was ready"))
            listed = _listed(order)
            if listed is not None and order.model not in listed:
                known = ", ".join(listed) or "nothing"
                raise _Failed(f"the server offers {known}, not {order.model}: check `model`")
            if listed is not None:
                return
            if monotonic() > until:
                raise _Failed(self._said(f"was not ready within {order.start_s:g} s"))
            self._wait(_TICK_S)

    def _ended(self, process: subprocess.Popen[bytes], how: str) -> str:
        code = process.returncode
        status = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
        return self._said(f"{how} {status}")

    def _said(self, what: str) -> str:
        file = self.order.log_file
        lines = tail(Path(file), self.log_from)
        return (
            f"{what}; its log {file} ends with:\n{lines}" if lines else f"{what}; {file} is empty"
        )

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """End the whole group: first asked, then made to. The leader may be gone already."""
        _signal_group(process.pid, signal.SIGTERM)
        until = monotonic() + self.order.stop_s
        while _group_lives(process) and monotonic() < until:
            self._wait(_TICK_S)
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()

    def _wait(self, seconds: float) -> None:
        """Let time pass; the end of standard input ends the wait, and everything."""
        watched = [] if self.stopping else [sys.stdin.fileno()]
        came, _, _ = select.select(watched, [], [], seconds)
        if came and not os.read(came[0], 1):
            self.stopping = True


def _end_with_parent() -> None:
    """Have Linux end this process when the supervisor is killed, which can then end nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _listed(order: Order) -> list[str] | None:
    """Return the models that the server offers; None while it does not answer."""
    connection = http.client.HTTPConnection(HOST, order.port, timeout=_ASK_TIMEOUT_S)
    try:
        connection.request("GET", "/v1/models", headers=dict(order.headers))
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            return None
        return [entry["id"] for entry in msgspec.json.decode(body)["data"]]
    except (OSError, http.client.HTTPException, msgspec.DecodeError, KeyError, TypeError):
        return None
    finally:
        connection.close()


def _signal_group(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _group_lives(process: subprocess.Popen[bytes]) -> bool:
    # The leader first: until it is waited for, its group always has a member.
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def tail(file: Path, start: int = 0) -> str:
    """Return the last lines of a log that were written after byte `start`."""
    try:
        with file.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(start, end - _TAIL_BYTES))
            text = log.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(f"  {line}" for line in text.splitlines()[-_TAIL_LINES:])


def _main() -> int:
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    set_up_logs(order.log_format, order.log_level)
    supervisor = _Supervisor(order)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, supervisor.stop)
    return supervisor.run()


if __name__ == "__main__":
    sys.exit(_main())
