"""Memory limits of the kernel: one control group for each sandbox, where the server may make them.

Version 2 (`memory.max`) and version 1 (`memory.limit_in_bytes`). The group lies below the server's
own, or below a folder that the operator has handed over. In version 2, groups with limits and
processes cannot lie in one group (but the root): there it has to be a folder without processes.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from dataclasses import dataclass, field
from pathlib import Path

from samplewise.verifiers.sandbox.base import Limits

__all__ = ["Group", "Groups"]

_ROOT = Path("/sys/fs/cgroup")
_PREFIX = "samplewise-"
_MB = 2**20


@dataclass(frozen=True, slots=True)
class Group:
    """One control group, in force for the processes that were added and their children."""

    path: Path
    version: int

    def set_limits(self, limits: Limits) -> None:
        """Write the limits; raises OSError where that is not allowed."""
        bound = str(limits.memory_mb * _MB)
        if self.version == 1:
            self._write("memory.limit_in_bytes", bound)
            with contextlib.suppress(OSError):  # not there without accounting of swap
                self._write("memory.memsw.limit_in_bytes", bound)
            return
        self._write("memory.max", bound)
        with contextlib.suppress(OSError):
            self._write("memory.swap.max", "0")
        with contextlib.suppress(OSError):
            self._write("pids.max", str(limits.processes))

    def add(self, pid: int) -> None:
        """Put a process in; its later children are in, too."""
        self._write("cgroup.procs", str(pid))

    def limit_bytes(self) -> int:
        """Return the limit that the kernel says is in force."""
        return int(self._read("memory.limit_in_bytes" if self.version == 1 else "memory.max"))

    def peak_bytes(self) -> int | None:
        """Return the most memory in use so far; None where the kernel does not count it."""
        name = "memory.max_usage_in_bytes" if self.version == 1 else "memory.peak"
        try:
            return int(self._read(name))
        except OSError:
            return None

    def killed(self) -> bool:
        """Say whether the kernel has killed a process for want of memory."""
        name = "memory.oom_control" if self.version == 1 else "memory.events"
        return any(
            line.startswith("oom_kill ") and int(line.split()[1]) > 0
            for line in self._read(name).splitlines()
        )

    def remove(self) -> bool:
        """Remove the group; False while a process of it still ends."""
        try:
            self.path.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def _write(self, name: str, value: str) -> None:
        # No truncation: these are no files.
        descriptor = os.open(self.path / name, os.O_WRONLY)
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)

    def _read(self, name: str) -> str:
        return (self.path / name).read_text()


@dataclass(frozen=True, slots=True)
class Groups:
    """Makes control groups below `parent`."""

    parent: Path
    version: int
    _numbers: itertools.count[int] = field(default_factory=itertools.count, repr=False)

    @classmethod
    def find(cls, folder: str | None, limits: Limits) -> Groups | None:
        """Return where groups can be made, tried out; None where they cannot.

        `folder` is one that the operator has handed over; without it, the server's own group.
        Groups that a server left which is gone are removed.
        """
        for groups in cls._given(folder) if folder else cls._own():
            groups._sweep()
            groups._enable()
            try:
                group = groups.make(limits)
            except OSError:
                continue
            right = group.limit_bytes() == limits.memory_mb * _MB
            group.remove()
            if right:
                return groups
        return None

    @classmethod
    def _given(cls, folder: str) -> list[Groups]:
        parent = Path(folder)
        return [cls(parent, 1 if (parent / "memory.limit_in_bytes").exists() else 2)]

    @classmethod
    def _own(cls) -> list[Groups]:
        found = []
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                found.append(cls(_ROOT / path.lstrip("/"), 2))
            elif "memory" in controllers.split(","):
                found.append(cls(_ROOT / "memory" / path.lstrip("/"), 1))
        return found

    def make(self, limits: Limits) -> Group:
        """Return a new group with these limits; raises OSError where that is not allowed."""
        path = self.parent / f"{_PREFIX}{os.getpid()}-{next(self._numbers)}"
        path.mkdir()
        group = Group(path, self.version)
        try:
            group.set_limits(limits)
        except OSError:
            group.remove()
            raise
        return group

    def _enable(self) -> None:
        """Let groups below have limits; version 2 allows it where no process is in `parent`."""
        for controller in ("memory", "pids") if self.version == 2 else ():
            with contextlib.suppress(OSError):
                Group(self.parent, 2)._write("cgroup.subtree_control", f"+{controller}")

    def _sweep(self) -> None:
        for path in self.parent.glob(f"{_PREFIX}*"):
            pid = path.name.removeprefix(_PREFIX).partition("-")[0]
            if not Path(f"/proc/{pid}").exists():
                Group(path, self.version).remove()
