"""Runs inside a sandbox and tries to get out; prints what it found as one JSON object.

Reads its targets from standard input: a canary file, a TCP port, a socket's path, an abstract name.
"""

import ctypes
import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial

_ROOT_ONLY = ("/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches", "/proc/sysrq-trigger")


def _works(call: Callable[[], object]) -> bool:
    try:
        call()
    except OSError:
        return False
    return True


def _connects(address: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return _works(lambda: client.connect(address))


def _tcp(port: int) -> bool:
    def connect() -> None:
        with socket.socket() as client:
            client.connect(("127.0.0.1", port))

    return _works(connect)


def _status() -> dict[str, str]:
    with open("/proc/self/status") as file:
        return {key: value.strip() for key, _, value in (line.partition(":") for line in file)}


def _environment() -> list[str]:
    with open("/proc/1/environ", "rb") as file:
        pairs = file.read().decode(errors="replace").split("\0")
    return sorted({pair.partition("=")[0] for pair in pairs} | set(os.environ))


def _forks() -> int:
    """Fork until it is refused; the children wait until their pipe ends."""
    count, (read, write) = 0, os.pipe()
    while count < 300:
        try:
            child = os.fork()
        except OSError:
            break
        if not child:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
        count += 1
    os.close(write)
    for _ in range(count):
        os.wait()
    return count


def _threads(count: int) -> bool:
    threads = [threading.Thread(target=str) for _ in range(count)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except RuntimeError:
        return False
    return True


def _main() -> None:
    targets = json.loads(sys.stdin.read())
    status, libc = _status(), ctypes.CDLL(None, use_errno=True)
    new_user = 0x10000000
    descriptors = sorted(fd for fd in range(64) if _works(partial(os.fstat, fd)))
    found = {
        "canary": _works(partial(os.open, targets["canary"], os.O_RDONLY)),
        "writes": [
            place
            for place in ("/", "/usr", "/dev", "/etc", "/proc", os.path.dirname(targets["canary"]))
            if _works(partial(os.open, place + "/x", os.O_CREAT | os.O_WRONLY))
        ],
        "kernel": [path for path in _ROOT_ONLY if _works(partial(os.open, path, os.O_WRONLY))],
        "tcp": _tcp(targets["port"]),
        "path_socket": _connects(targets["socket"]),
        "abstract_socket": _connects("\0" + targets["abstract"]),
        "namespace": libc.unshare(new_user) == 0,
        "environment": _environment(),
        "descriptors": descriptors,
        "uid": os.getuid(),
        "capabilities": int(status["CapEff"], 16) | int(status["CapBnd"], 16),
        "no_new_privileges": status.get("NoNewPrivs"),
        "seccomp": status.get("Seccomp"),
        "processes": len([name for name in os.listdir("/proc") if name.isdecimal()]),
        "threads": _threads(30),
        "forks": _forks(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    _main()
