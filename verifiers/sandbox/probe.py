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
_SECCOMP, _READ_BOUND, _NO_NEW_PRIVILEGES = 21, 23, 39  # to be asked of prctl
_CAPABILITIES_3 = 0x20080522


def _works(call: Callable[[], object]) -> bool:
    try:
        call()
    except OSError:
        return False
    return True


def _connects(address: str) -> bool:
    def connect() -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(address)

    return _works(connect)


def _tcp(port: int) -> bool:
    def connect() -> None:
        with socket.socket() as client:
            client.connect(("127.0.0.1", port))

    return _works(connect)


def _capabilities(libc: ctypes.CDLL) -> int:
    """Return those in effect, as bits, and with them those that could be had again."""
    header, sets = (ctypes.c_uint32 * 2)(_CAPABILITIES_3, 0), (ctypes.c_uint32 * 6)()
    libc.capget(ctypes.byref(header), ctypes.byref(sets))
    bound = sum(1 << n for n in range(64) if libc.prctl(_READ_BOUND, n, 0, 0, 0) == 1)
    return sets[0] | sets[3] << 32 | bound


def _environment() -> list[str]:
    try:
        with open("/proc/1/environ", "rb") as file:
            pairs = file.read().decode(errors="replace").split("\0")
    except PermissionError:
        pairs = []
    return sorted({pair.partition("=")[0] for pair in pairs} | set(os.environ))


def _processes() -> int:
    """Return how many can be seen; this one is always there."""
    try:
        return len([name for name in os.listdir("/proc") if name.isdecimal()])
    except PermissionError:
        return 1


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
    libc = ctypes.CDLL(None, use_errno=True)
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
        "capabilities": _capabilities(libc),
        "no_new_privileges": libc.prctl(_NO_NEW_PRIVILEGES, 0, 0, 0, 0),
        "seccomp": libc.prctl(_SECCOMP, 0, 0, 0, 0),
        "processes": _processes(),
        "threads": _threads(30),
        "forks": _forks(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    _main()
