"""The command that starts a sandbox: bubblewrap with every flag that was found to be needed.

Source: the measurements behind docs/security.md. Leaving one out opens a hole that a test shows.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from samplewise.verifiers.sandbox.base import Limits

__all__ = ["AGENT", "ENVIRONMENT", "NOBODY", "Launch"]

_MB = 2**20
NOBODY = 65534
AGENT = Path(__file__).with_name("agent.py").read_text(encoding="utf-8")
ENVIRONMENT = {
    "PATH": "/usr/bin",
    "HOME": "/box",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "OPENBLAS_NUM_THREADS": "1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Everything that is the same for all sandboxes of a pool.

    `bwrap`, `python` and `setpriv` are paths; `setpriv` is None where the server is not root.
    `folders` are shown inside, read-only, at the same place; `/usr` always is. `packages` says
    whether programs see what is installed for `python`, beside the standard library. `preload`
    names modules that are imported before the program is there.
    """

    bwrap: str
    python: str
    setpriv: str | None
    limits: Limits
    seccomp: bytes
    folders: tuple[str, ...] = ()
    packages: bool = False
    preload: tuple[str, ...] = ()

    def command(self, seccomp_fd: int, info_fd: int) -> list[str]:
        """Return the arguments; the two descriptors must be passed on."""
        return [
            *self._as_nobody(),
            self.bwrap,
            *("--unshare-all", "--unshare-user", *self._nesting()),
            *("--uid", str(NOBODY), "--gid", str(NOBODY), "--hostname", "box"),
            # What we start is process 1: its end ends all others, and nothing inside can end it.
            *("--as-pid-1", "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
            "--clearenv",
            *(part for pair in ENVIRONMENT.items() for part in ("--setenv", *pair)),
            *self._files(),
            *("--seccomp", str(seccomp_fd), "--info-fd", str(info_fd), "--"),
            *self.inside(),
        ]

    def inside(self) -> list[str]:
        """Return the arguments of the first process inside."""
        return [*self.interpreter(), "-c", AGENT, str(self.limits.nice), *self.agent_arguments()]

    def interpreter(self) -> list[str]:
        """Return how Python is started inside."""
        return [self.python, "-I", "-B", *(() if self.packages else ("-S",))]

    def outer_filter(self) -> bytes:
        """Return the filter of what bubblewrap starts."""
        return self.seccomp

    def _nesting(self) -> tuple[str, ...]:
        return ("--disable-userns",)

    def _as_nobody(self) -> list[str]:
        # Root outside stays powerful inside, whatever it drops.
        if self.setpriv is None:
            return []
        ids = (f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
        return [self.setpriv, *ids, "--"]

    def _files(self) -> list[str]:
        size = ("--size", str(self.limits.file_mb * _MB))
        shown = [part for folder in self.folders for part in ("--ro-bind", folder, folder)]
        return [
            *("--ro-bind", "/usr", "/usr"),
            *("--symlink", "usr/lib", "/lib", "--symlink", "usr/bin", "/bin"),
            *(("--symlink", "usr/lib64", "/lib64") if os.path.exists("/usr/lib64") else ()),
            *("--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"),
            *("--ro-bind-try", "/etc/alternatives", "/etc/alternatives"),
            *("--proc", "/proc", "--dev", "/dev", *size, "--tmpfs", "/dev/shm"),
            *("--remount-ro", "/dev"),
            *(*size, "--perms", "1777", "--tmpfs", "/tmp"),
            *(*size, "--perms", "0777", "--tmpfs", "/box"),
            *shown,  # they may lie below /tmp
            # What bubblewrap itself mounts has no size of its own.
            *("--chdir", "/box", "--remount-ro", "/"),
        ]

    def agent_arguments(self) -> list[str]:
        """Return the limits that the first process sets, and the modules that it imports."""
        limits = self.limits
        values = {
            # Inside, where it counts this sandbox's processes alone.
            "RLIMIT_NPROC": limits.processes,
            "RLIMIT_FSIZE": limits.file_mb * _MB,
            "RLIMIT_CORE": 0,
            "RLIMIT_NOFILE": limits.open_files,
            "RLIMIT_AS": limits.address_space_mb * _MB,
        }
        pairs = ",".join(f"{name}={value}" for name, value in values.items())
        return [pairs, ",".join(self.preload)]
