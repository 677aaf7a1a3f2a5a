"""Confines a process of the fork server by Landlock and a user id of its own; no namespaces.

Loaded by `forker.py`. Needs root. Source: linux/landlock.h, landlock(7).
"""

import ctypes
import os
import signal
import stat
from typing import Any, Protocol


class Call(Protocol):
    """Calls the C library; raises OSError."""

    def __call__(self, name: str, *arguments: Any) -> int:
        """Call the function of that name."""
        ...


_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same on all machines
_BELOW = 1  # LANDLOCK_RULE_PATH_BENEATH
_SUBREAPER, _NO_NEW_PRIVILEGES = 36, 38
_EXECUTE, _WRITE, _READ, _LIST = 1 << 0, 1 << 1, 1 << 2, 1 << 3
# By version of the interface: how many file rights, network rights and scopes it knows.
_FILE_RIGHTS = {3: 15, 4: 15, 5: 16}
_DEVICES = {"/dev/null": _READ | _WRITE, "/dev/zero": _READ, "/dev/urandom": _READ}


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


class _Rules:
    """The ruleset of this server; every program's process takes it on."""

    descriptor = -1


def handled(version: int) -> tuple[int, int, int, int]:
    """Return what is refused unless allowed: file rights, network rights, scopes; and the size."""
    files = (1 << _FILE_RIGHTS.get(version, 16)) - 1
    if version < 4:
        return files, 0, 0, 8
    return (files, 0b11, 0, 16) if version < 6 else (files, 0b11, 0b11, 24)


def prepare(call: Call, settings: dict[str, Any]) -> None:
    """Make the ruleset: reading below some folders, a few devices, and nothing else."""
    files, net, scoped, size = handled(settings["landlock"])
    ruleset = _Ruleset(files, net, scoped)
    _Rules.descriptor = call("syscall", _CREATE, ctypes.byref(ruleset), size, 0)
    for path in settings["readable"]:
        _allow(call, path, _EXECUTE | _READ | _LIST)
    for path, allowed in _DEVICES.items():
        _allow(call, path, allowed)


def _allow(call: Call, path: str, allowed: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
        allowed &= ~_LIST
    rule = _Beneath(allowed, descriptor)
    call("syscall", _ADD, _Rules.descriptor, _BELOW, ctypes.byref(rule), 0)
    os.close(descriptor)


def outside(call: Call, uid: int) -> None:
    """Get all that the program leaves behind."""
    call("prctl", _SUBREAPER, 1, 0, 0, 0)


def inside(call: Call, settings: dict[str, Any], uid: int) -> None:
    """Become a user of its own, who may read a few folders."""
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("500")  # the process above has to outlive the program
    os.chdir("/")
    _become(uid)
    call("prctl", _NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    call("syscall", _RESTRICT, _Rules.descriptor, 0)
    os.close(_Rules.descriptor)


def after(uid: int) -> None:
    """Kill all that the user has, at once, and wait until it is gone."""
    if not os.fork():
        _become(uid)
        try:
            os.kill(-1, signal.SIGKILL)
        finally:
            os._exit(0)
    try:
        while True:
            os.wait()
    except ChildProcessError:
        return


def _become(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
