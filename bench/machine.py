"""Processor time and memory of a process tree from /proc, and a description of the machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["Spent", "describe", "rss_mb", "spent"]

_PROC = Path("/proc")
_LIBRARIES = ("samplewise", "fastapi", "starlette", "uvicorn", "uvloop", "httptools", "aiohttp")
_MORE = ("msgspec", "prometheus-client", "structlog")


@dataclass(frozen=True, slots=True)
class Spent:
    """What the scheduler has counted: seconds on a core, and seconds of waiting for one."""

    cpu_s: float
    wait_s: float

    def __sub__(self, before: Spent) -> Spent:
        """Return what was spent since `before`."""
        return Spent(self.cpu_s - before.cpu_s, self.wait_s - before.wait_s)


def _tree(pid: int) -> Iterator[Path]:
    """Yield every thread of a process and of its descendants."""
    for thread in (_PROC / str(pid) / "task").iterdir():
        yield thread
        for child in (thread / "children").read_text().split():
            yield from _tree(int(child))


def spent(pid: int) -> Spent:
    """Return the time of a whole process tree. Exact while it sleeps; threads that ended are lost.

    The fields of schedstat are nanoseconds on a core, and runnable without one.
    """
    times = [(thread / "schedstat").read_text().split() for thread in _tree(pid)]
    return Spent(sum(int(t[0]) for t in times) / 1e9, sum(int(t[1]) for t in times) / 1e9)


def rss_mb(pid: int) -> float:
    """Return the resident memory of a process tree in MB; shared pages count in each process."""
    pids = {
        (thread / "status").read_text().partition("Tgid:")[2].split()[0] for thread in _tree(pid)
    }
    pages = (int((_PROC / found / "statm").read_text().split()[1]) for found in pids)
    return sum(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6


def describe() -> dict[str, Any]:
    """Say what was measured on: processor, cores, kernel, Python, libraries."""
    lines = (_PROC / "cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")
    return {
        "processor": model or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in (*_LIBRARIES, *_MORE)},
    }
