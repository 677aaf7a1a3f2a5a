"""A sandbox for tests, or a skip that says why there is none."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from samplewise.verifiers.sandbox import Limits, Program, RunStatus, SandboxUnavailable
from samplewise.verifiers.sandbox.cgroups import Groups
from samplewise.verifiers.sandbox.flags import Launch
from samplewise.verifiers.sandbox.pool import SandboxPool

MEMORY_MB = 256


@asynccontextmanager
async def opened(**settings: Any) -> AsyncIterator[SandboxPool]:
    """Yield an open pool."""
    pool = SandboxPool(**{"spare": 1, "memory_mb": MEMORY_MB, **settings})
    try:
        await pool.open()
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    try:
        tried = await pool.run(Program("print(1)", wall_s=60))
        if tried.status is RunStatus.SANDBOX_ERROR:
            pytest.skip(tried.detail)
        yield pool
    finally:
        await pool.close()


class _Weakened(Launch):
    """A launch with other flags than it should have."""

    __slots__ = ("flags", "instead")
    flags: list[str]
    instead: list[str]

    def command(self, seccomp_fd: int, info_fd: int) -> list[str]:
        """Return the arguments, changed."""
        right = super().command(seccomp_fd, info_fd)
        size = len(self.flags)
        places = [i for i in range(len(right)) if right[i : i + size] == self.flags]
        return [*right[: places[-1]], *self.instead, *right[places[-1] + size :]]


def weakened(launch: Launch, flags: list[str], instead: list[str]) -> Launch:
    """Return a launch that has `instead` where these flags stood."""
    weak = _Weakened(**{field.name: getattr(launch, field.name) for field in fields(launch)})
    object.__setattr__(weak, "flags", flags)
    object.__setattr__(weak, "instead", instead)
    return weak


def processes_left() -> list[str]:
    """Return the command lines of sandboxes that this process started and that still run."""
    found = []
    for thread in Path(f"/proc/{os.getpid()}/task").iterdir():
        for child in (thread / "children").read_text().split():
            command = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            if b"bwrap" in command[0] or b"setpriv" in command[0]:
                found.append(command[0].decode())
    return found


def groups_left() -> list[Path]:
    """Return the control groups of sandboxes of this process that are still there."""
    groups = Groups.find(None, Limits(memory_mb=MEMORY_MB))
    return [] if groups is None else list(groups.parent.glob(f"samplewise-{os.getpid()}-*"))
