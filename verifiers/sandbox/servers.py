"""How fork servers are started: inside bubblewrap with namespaces, or as root with Landlock."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any

from samplewise.verifiers.sandbox.base import Kind, SandboxUnavailable
from samplewise.verifiers.sandbox.flags import AGENT, ENVIRONMENT, NOBODY, Launch
from samplewise.verifiers.sandbox.forks import Forks
from samplewise.verifiers.sandbox.pipes import Ended
from samplewise.verifiers.sandbox.seccomp import seccomp_filter
from samplewise.verifiers.sandbox.started import Bubble, End, Streams, pipe, reap
from samplewise.verifiers.sandbox.users import OneUser, OwnUsers

__all__ = ["check_landlock", "find_forks", "landlock_version"]

_LANDLOCK_NEEDED = 3  # before it, truncating files is not bounded; Linux 6.2
_MB = 2**20
_HERE = Path(__file__).parent
_FORKER = (_HERE / "forker.py").read_text(encoding="utf-8")
_HIDDEN = ("/tmp", "/box", "/dev/shm")
_CREATE_RULESET, _ASK_VERSION = 444, 1


def landlock_version() -> int:
    """Return the version of Landlock's interface that this kernel has; 0 without Landlock."""
    libc = ctypes.CDLL(None, use_errno=True)
    return max(0, int(libc.syscall(_CREATE_RULESET, None, 0, _ASK_VERSION)))


def check_landlock(version: int, *, root: bool) -> None:
    """Raise `SandboxUnavailable` where Landlock cannot hold programs."""
    if version < _LANDLOCK_NEEDED:
        raise SandboxUnavailable(
            f"sandbox: landlock needs version {_LANDLOCK_NEEDED} of its interface (Linux 6.2), and"
            f" this kernel has {version or 'none'}; use single_use or an `executor`"
        )
    if not root:
        raise SandboxUnavailable(
            "sandbox: landlock runs every program as a user of its own, which a server that is not"
            " root cannot do; use single_use or an `executor`"
        )


def find_forks(launch: Launch, kind: Kind) -> Forks:
    """Return the server of a kind that has one; raises `SandboxUnavailable`."""
    return _landlock_forks(launch) if kind == "landlock" else _nested_forks(launch)


def _nested_forks(launch: Launch) -> Forks:
    """Return forks from a server inside bubblewrap, each in namespaces of its own."""
    hidden = [path for path in launch.folders if any(map(Path(path).is_relative_to, _HIDDEN))]
    if hidden:
        raise SandboxUnavailable(
            f"sandbox: fork_server cannot show {hidden[0]}: programs have their own"
            f" {', '.join(_HIDDEN)}; move it elsewhere"
        )
    nested = _Nested(**{field.name: getattr(launch, field.name) for field in fields(launch)})
    return Forks(lambda control: Bubble(nested, control), OneUser(NOBODY))


def _landlock_forks(launch: Launch) -> Forks:
    """Return forks from a server that is root, each a user of its own under Landlock."""
    command = [
        *launch.interpreter(),
        *("-c", _FORKER),
        _settings(
            launch,
            "confine_landlock.py",
            filter=seccomp_filter(alone=True).hex(),
            landlock=landlock_version(),
            readable=["/usr", "/etc/ld.so.cache", "/etc/alternatives", *launch.folders],
        ),
    ]
    return Forks(lambda control: _Plain(command, control), OwnUsers())


def _settings(launch: Launch, confine: str, **more: Any) -> str:
    limits, modules = launch.agent_arguments()
    settings = {
        "agent": AGENT,
        "confine": (_HERE / confine).read_text(encoding="utf-8"),
        "nice": launch.limits.nice,
        "limits": limits,
        "modules": modules,
        "file_bytes": launch.limits.file_mb * _MB,
    }
    return json.dumps(settings | more)


class _Nested(Launch):
    """A launch of the fork server; it may make namespaces, and what it forks may not."""

    __slots__ = ()

    def inside(self) -> list[str]:
        """Return the arguments of the server."""
        settings = _settings(self, "confine_namespaces.py", filter=self.seccomp.hex())
        return [*self.interpreter(), "-c", _FORKER, settings]

    def outer_filter(self) -> bytes:
        """Return the filter of the server itself."""
        return seccomp_filter(allowed=frozenset({"unshare", "mount"}))

    def _nesting(self) -> tuple[str, ...]:
        return ()


class _Plain:
    """A server that is an ordinary process."""

    def __init__(self, command: list[str], control: int) -> None:
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            stdout, stderr = (pipe(theirs, ours, read=False) for _ in range(2))
            self._process = subprocess.Popen(
                command,
                stdin=control,
                stdout=stdout[0],
                stderr=stderr[0],
                env={**ENVIRONMENT, "HOME": "/"},
                cwd="/",
                start_new_session=True,
            )
            self._ended = Ended(self._process.pid)
            ours.pop_all()
        self.streams = Streams(-1, stdout[1], stderr[1])
        self.over: asyncio.Future[None] = self._ended.future
        self._cpu_ms = 0.0

    def pids(self) -> tuple[int, int]:
        """Return the process."""
        return self._process.pid, self._process.pid

    async def kill(self) -> End:
        """End the process; those that it forked end when nobody listens to them."""
        self._ended.kill()
        await self._ended.future
        self._cpu_ms += reap(self._process)
        return End.of(self._process.returncode, self._cpu_ms)

    def close(self) -> None:
        """Give everything back but the streams."""
        self._ended.close()
