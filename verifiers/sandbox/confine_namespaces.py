"""Confines a process of the fork server by namespaces of its own, inside a sandbox of bubblewrap.

Loaded by `forker.py`. Source: user_namespaces(7), pid_namespaces(7).
"""

import os
from typing import Any, Protocol


class Call(Protocol):
    """Calls the C library; raises OSError."""

    def __call__(self, name: str, *arguments: Any) -> int:
        """Call the function of that name."""
        ...


# CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET
_NEW = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
_NO_SUID, _NO_DEVICES, _NO_EXEC = 2, 4, 8
_PLACES = (b"/box", b"/tmp", b"/dev/shm")
_FILES = 16_384


def prepare(call: Call, settings: dict[str, Any]) -> None:
    """Need nothing."""


def outside(call: Call, uid: int) -> None:
    """Make the namespaces; the next child is the first process in them."""
    call("unshare", _NEW)
    _write("/proc/self/setgroups", b"deny")
    _write("/proc/self/uid_map", b"%d %d 1" % (uid, uid))
    _write("/proc/self/gid_map", b"%d %d 1" % (uid, uid))


def inside(call: Call, settings: dict[str, Any], uid: int) -> None:
    """Hide what the server's sandbox and other programs have: files, processes."""
    options = b"size=%d,nr_inodes=%d,mode=1777" % (settings["file_bytes"], _FILES)
    for place in _PLACES:
        call("mount", b"tmpfs", place, b"tmpfs", _NO_SUID | _NO_DEVICES, options)
    call("mount", b"proc", b"/proc", b"proc", _NO_SUID | _NO_DEVICES | _NO_EXEC, None)
    _write("/proc/sys/user/max_user_namespaces", b"0")
    os.chdir("/box")


def after(uid: int) -> None:
    """Need nothing: the end of the first process ends all in its namespace."""


def _write(path: str, text: bytes) -> None:
    # Not `open()`: what that makes and imports would be copied for every program.
    descriptor = os.open(path, os.O_WRONLY)
    os.write(descriptor, text)
    os.close(descriptor)
