"""A sandbox for tests, or a skip that says why there is none."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest

from samplewise.verifiers.sandbox import Kind, Limits, Program, RunStatus, SandboxUnavailable
from samplewise.verifiers.sandbox.cgroups import Groups
from samplewise.verifiers.sandbox.flags import Launch
from samplewise.verifiers.sandbox.pool import SandboxPool
from samplewise.verifiers.sandbox.users import OWN_USERS, OwnUsers

MEMORY_MB = 256
KINDS: tuple[Kind, ...] = get_args(Kind)


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
    """Return the command lines of sandboxes that still run: our children, and other users' own."""
    found = []
    for thread in Path(f"/proc/{os.getpid()}/task").iterdir():
        for child in (thread / "children").read_text().split():
            command = _command(Path("/proc", child))
            if any(part in command[0] for part in (b"bwrap", b"setpriv")) or b"-I" in command:
                found.append(command[0].decode())
    return found + [str(user) for user in sorted(_users()) if _leaked(user)]


def _users() -> set[int]:
    """Return those of the users that sandboxes can have who have processes."""
    owners = {_owner(path) for path in Path("/proc").iterdir() if path.name.isdecimal()}
    return owners & set(OWN_USERS)


def _leaked(user: int) -> bool:
    """Say whether a user has processes whom no sandbox has; other tests may run beside this one."""
    users = OwnUsers([user])
    try:
        users.take()
    except SandboxUnavailable:
        return False
    left = user in _users()
    users.give_back(user)
    return left


def _command(process: Path) -> list[bytes]:
    try:
        return (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return [b""]


def _owner(process: Path) -> int:
    try:
        return process.stat().st_uid
    except OSError:
        return -1


def groups_left() -> list[Path]:
    """Return the control groups of sandboxes of this process that are still there."""
    groups = Groups.find(None, Limits(memory_mb=MEMORY_MB))
    return [] if groups is None else list(groups.parent.glob(f"samplewise-{os.getpid()}-*"))
