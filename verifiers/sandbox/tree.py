"""The processes below one process, and the memory that they hold (Linux's /proc)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

__all__ = ["cpu_ms", "memory_bytes", "processes"]


def processes(pid: int) -> Iterator[int]:
    """Yield a process and all below it; what ends meanwhile is left out."""
    yield pid
    try:
        threads = os.listdir(f"/proc/{pid}/task")
        texts = [_read(f"/proc/{pid}/task/{thread}/children") for thread in threads]
    except OSError:
        return
    for child in "".join(texts).split():
        yield from processes(int(child))


def memory_bytes(pid: int) -> int:
    """Return what a process and all below it hold in memory, without program files.

    Pages that a process shares with its fork count for both, so this is never too little.
    """
    total = 0
    for each in processes(pid):
        try:
            lines = _read(f"/proc/{each}/status").splitlines()
        except OSError:
            continue
        total += sum(
            int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem"))
        )
    return total * 1024


def cpu_ms(pid: int) -> float:
    """Return the processor time of a process, all below it, and those that they waited for."""
    ticks = 0
    for each in processes(pid):
        with contextlib.suppress(OSError):
            after_name = _read(f"/proc/{each}/stat").rpartition(")")[2].split()
            ticks += sum(int(field) for field in after_name[11:15])
    return ticks * 1000 / os.sysconf("SC_CLK_TCK")


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
