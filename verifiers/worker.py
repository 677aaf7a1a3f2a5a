"""`python -m samplewise.verifiers.worker PARENT MEMORY_MB MODULE:FUNCTION ...`.

A zygote: it imports the target (and further functions that it needs) once, then keeps one forked
child that answers calls. Whoever wants to be rid of a call kills the child; the next is there in
milliseconds.

Lines of JSON on standard input and output:

    child:  {"hello": PID, "epoch": E}              a child is ready
            {"fatal": TEXT}                         the import failed; the zygote exits
    parent: E {"id": ID, "payload": {...}}          a call; without the child's epoch it is ignored
    child:  {"id": ID, "ok": {...}} or {"id": ID, "error": TEXT, "reason": WORD}

Prints of the target go to standard error. Nothing outlives the parent: the kernel signals its death
to the zygote and the zygote's to the child, and the zygote adopts and kills what a child left.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn, TypeVar

__all__ = ["main"]

T = TypeVar("T")
Target = Callable[[dict[str, Any]], object]

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_SHORT_LIFE_S = 0.05


def main(arguments: list[str]) -> int:
    """Run the zygote until the parent goes away; returns the exit status."""
    parent, memory_mb, target_name, *preload = arguments
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        return 0
    requests, replies = _take_streams()
    zygote = _Zygote(requests, replies, int(memory_mb))
    signal.signal(signal.SIGTERM, zygote.end)
    loaded, error = _guarded(lambda: [_load(name) for name in (target_name, *preload)])
    if loaded is None:
        _send(replies, {"fatal": error})
        return 3
    signal.signal(signal.SIGTERM, zygote.end)  # again: the modules may have taken it
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    gc.collect()
    gc.freeze()
    zygote.keep_serving(loaded[0])
    return 0


class _Zygote:
    """Keeps one serving child, and kills what children leave behind."""

    def __init__(self, requests: int, replies: int, memory_mb: int) -> None:
        self._requests = requests
        self._replies = replies
        self._memory_mb = memory_mb
        self._child = 0

    def keep_serving(self, target: Target) -> None:
        """Fork child after child until the parent hangs up."""
        while not _hung_up(self._requests):
            started, zygote = time.monotonic(), os.getpid()
            self._child = os.fork()
            if self._child == 0:
                _child(target, self._requests, self._replies, self._memory_mb, zygote)
            while os.wait()[0] != self._child:
                pass
            self._child = 0
            self._kill_rest()
            if time.monotonic() - started < _SHORT_LIFE_S:
                time.sleep(_SHORT_LIFE_S)  # a child that cannot live must not be a fork storm

    def end(self, _signal: int, _frame: FrameType | None) -> NoReturn:
        """Handle SIGTERM: leave nothing behind."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self._kill_rest()
        os._exit(0)

    def _kill_rest(self) -> None:
        """Kill and reap all children; theirs become ours, so repeat until there are none."""
        with contextlib.suppress(ChildProcessError):
            while True:
                if os.waitpid(-1, os.WNOHANG)[0]:
                    continue
                for pid in {*_children(), self._child} - {0}:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                os.wait()


def _guarded(call: Callable[[], T]) -> tuple[T | None, str]:
    """Return the value of a call, or what it raised as text.

    The boundary to the operator's code, which can raise anything: hence the broad except.
    """
    try:
        return call(), ""
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"[:500]


def _take_streams() -> tuple[int, int]:
    """Move the frames away from 0 and 1, so that user code reads nothing and prints to stderr."""
    requests, replies = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return requests, replies


def _load(name: str) -> Target:
    module, _, function = name.partition(":")
    target: Target = getattr(importlib.import_module(module), function)
    return target


def _hung_up(requests: int) -> bool:
    poll = select.poll()
    poll.register(requests, 0)
    return any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))


def _children() -> list[int]:
    """Return the pids of all own children, adopted ones too (Linux only)."""
    pids = []
    for entry in os.listdir("/proc") if sys.platform == "linux" else ():
        with contextlib.suppress(OSError, ValueError):
            with open(f"/proc/{int(entry)}/stat", "rb") as file:
                after_name = file.read().rpartition(b")")[2].split()
            if int(after_name[1]) == os.getpid():
                pids.append(int(entry))
    return pids


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _child(target: Target, requests: int, replies: int, memory_mb: int, zygote: int) -> NoReturn:
    """Serve calls until the parent hangs up; never returns into the zygote's code."""
    status = 1
    try:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if memory_mb and sys.platform == "linux":
            limit = memory_mb * 1024 * 1024
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        if os.getppid() == zygote:
            _serve(target, requests, replies)
        status = 0
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _serve(target: Target, requests: int, replies: int) -> None:
    pid = os.getpid()
    epoch = os.urandom(8).hex()
    # The empty line ends what a killed predecessor may have left half written.
    os.write(replies, b"\n")
    _send(replies, {"hello": pid, "epoch": epoch})
    with os.fdopen(requests, "rb", closefd=False) as lines:
        for line in lines:
            named, _, frame = line.partition(b" ")
            if named == epoch.encode():
                _answer(target, json.loads(frame), replies, pid)


def _answer(target: Target, call: dict[str, Any], replies: int, pid: int) -> None:
    value, error = _guarded(lambda: target(call["payload"]))
    if error:
        frame = {"id": call["id"], "error": error, "reason": "crash"}
    else:
        frame = {"id": call["id"], "ok": value}
    if os.getpid() != pid:
        os._exit(0)  # a fork of the target came back here; only the original answers
    try:
        _send(replies, frame)
    except (TypeError, ValueError, RecursionError) as error:
        text = f"the result is not JSON: {error}"[:500]
        _send(replies, {"id": call["id"], "error": text, "reason": "protocol"})


def _send(replies: int, frame: dict[str, Any]) -> None:
    data = json.dumps(frame, allow_nan=False).encode() + b"\n"
    while data:
        data = data[os.write(replies, data) :]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
