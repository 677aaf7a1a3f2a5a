"""Runs as the first process of a Linux in user mode: tries control groups of version 2 there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from samplewise.verifiers.sandbox import Limits
from samplewise.verifiers.sandbox.cgroups import Groups

_ROOT = Path("/sys/fs/cgroup")
_LIMITS = Limits(memory_mb=64, processes=20)


def _tried(folder: str | None) -> str:
    """Let a process take more than its group may, and say what became of it."""
    groups = Groups.find(folder, _LIMITS)
    if groups is None:
        return "none"
    group = groups.make(_LIMITS)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.read(read, 1)
        hog = [bytearray(2**20) for _ in range(200)]
        os._exit(len(hog) > 0)
    group.add(child)
    os.write(write, b"x")
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    held = (group.limit_bytes() == group.peak_bytes() == 64 * 2**20) and group.killed()
    pids = (group.path / "pids.max").read_text().strip()
    return f"{code} {held} {pids} {group.remove()} {group.path.exists()}"


def _join(name: str) -> None:
    (_ROOT / name).mkdir(exist_ok=True)
    for pid in (1, os.getpid()):
        (_ROOT / name / "cgroup.procs").write_text(str(pid))


def _main() -> None:
    print("FOUND root", _tried(None))
    _join("service")
    print("FOUND own", _tried(None))
    _join("leaf")
    print("FOUND folder", _tried(str(_ROOT / "service")))
    sys.stdout.flush()


if __name__ == "__main__":
    _main()
