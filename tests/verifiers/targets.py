"""Targets for worker processes: honest ones, broken ones and hostile ones."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

Json = dict[str, Any]


def echo(payload: Json) -> Json:
    return {"got": payload, "pid": os.getpid(), "zygote": os.getppid()}


def environment(_: Json) -> Json:
    return {"env": dict(os.environ), "stdin": sys.stdin.read()}


def raises(_: Json) -> Json:
    raise LookupError("no such thing")


def exits(payload: Json) -> Json:
    sys.exit(payload.get("status", 0))


def exits_hard(_: Json) -> Json:
    os._exit(0)


def spins(payload: Json) -> Json:
    _tell(payload)
    while True:
        pass


def by_name(payload: Json) -> Json:
    """Do what the payload names, so that one pool can be asked for good and bad in turn."""
    result: Json = globals()[payload["do"]](payload)
    return result


def ignores_signals(payload: Json) -> Json:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    return spins(payload)


def stops_itself(_: Json) -> Json:
    os.kill(os.getpid(), signal.SIGSTOP)
    return {}


def stops_zygote(_: Json) -> Json:
    os.kill(os.getppid(), signal.SIGSTOP)
    return spins({})


def kills_zygote(_: Json) -> Json:
    os.kill(os.getppid(), signal.SIGKILL)
    return spins({})


def eats_memory(_: Json) -> Json:
    return {"size": len(bytearray(8 * 1024**3))}


def forks_and_returns(_: Json) -> Json:
    """Two processes return from this call; only one may answer."""
    return {"child": os.fork()}


def leaves_daemon(payload: Json) -> Json:
    """Leave a process behind that is nobody's child and holds all file descriptors."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            _tell(payload)
            while True:
                time.sleep(1)
        os._exit(0)
    os.wait()
    return {}


def prints_forged_frames(_: Json) -> Json:
    forged = '\n{"id": 1, "ok": {"forged": true}}\n{"hello": 1, "epoch": "x"}\n'
    print(forged, flush=True)
    sys.__stdout__.write(forged)  # type: ignore[union-attr]
    os.write(1, forged.encode())
    os.system('echo \'{"hello": 1, "epoch": "x"}\'')
    return {"forged": False}


def sprays_frames(_: Json) -> Json:
    """Write noise and false greetings to every descriptor it can find."""
    noise = b'\n{"id": "x", "ok": {"forged": true}}\n{"hello": 1, "epoch": "00"}\nnoise\n[1]\n'
    noise += b'{"id": "\xff"}\n' + b"[" * 10_000 + b"\n"
    for number in range(3, 64):
        try:
            os.write(number, noise)
        except OSError:
            continue
    return {"forged": False}


def half_a_frame(_: Json) -> Json:
    """Die in the middle of a line."""
    for number in range(3, 64):
        try:
            os.write(number, b'{"id": "x", "ok": {"half": ')
        except OSError:
            continue
    os._exit(1)


def returns_nan(_: Json) -> Json:
    return {"x": float("nan")}


def returns_object(_: Json) -> Json:
    return {"x": object()}


def returns_list(_: Json) -> Any:
    return [1]


def returns_much(_: Json) -> Json:
    return {"x": "x" * 8_000_000}


def _tell(payload: Json) -> None:
    """Write the pid where the test looks for it."""
    if "tell" in payload:
        path = Path(payload["tell"])
        path.with_suffix(".part").write_text(str(os.getpid()))
        path.with_suffix(".part").rename(path)
