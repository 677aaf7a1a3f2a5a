"""Worker pools for tests: always closed, and nothing of them may be left."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from samplewise.verifiers.pool import WorkerPool
from samplewise.verifiers.schema_check import SCHEMA_TARGET, SchemaChecker


def descendants(root: int) -> set[int]:
    """Return the pids below a process, zombies not counted."""
    children: dict[int, set[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                state, parent, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if state not in "ZX":
                children.setdefault(int(parent), set()).add(int(entry.name))
    found: set[int] = set()
    open_ = [root]
    while open_:
        new = children.get(open_.pop(), set()) - found
        found |= new
        open_.extend(new)
    return found


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


async def gone(*pids: int) -> bool:
    """Wait until none of the processes is left; False after ten seconds."""
    for _ in range(1000):
        if not any(alive(pid) for pid in pids):
            return True
        await asyncio.sleep(0.01)
    return False


@asynccontextmanager
async def pool_of(target: str, **settings: Any) -> AsyncIterator[WorkerPool]:
    before = descendants(os.getpid())
    pool = WorkerPool(target, **settings)
    try:
        yield pool
    finally:
        await pool.close()
    assert await gone(*(descendants(os.getpid()) - before))


@asynccontextmanager
async def schema_checker(**settings: Any) -> AsyncIterator[SchemaChecker]:
    async with pool_of(SCHEMA_TARGET, **{"size": 1, "timeout_s": 2.0, **settings}) as pool:
        yield SchemaChecker(pool=pool)
