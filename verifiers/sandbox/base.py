"""What a sandbox takes and gives: `Program`, `Limits`, `Outcome`, and the protocol `Sandbox`.

Values only. How a program is kept apart is the business of the sandbox.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Protocol

__all__ = ["Kind", "Limits", "Outcome", "Program", "RunStatus", "Sandbox", "SandboxUnavailable"]

# A sandbox of bubblewrap for each program; one server that forks a confined process for each, in
# such a sandbox with namespaces of their own, or without namespaces as users of their own.
Kind = Literal["single_use", "fork_server", "landlock"]


class SandboxUnavailable(Exception):
    """No sandbox can be started, or it does not hold; the message says what to do."""


class RunStatus(StrEnum):
    """How a run ended. `sandbox_error` says nothing of the program: it could not be run."""

    OK = "ok"
    WRONG_EXIT = "wrong_exit"
    SIGNAL = "signal"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    OUTPUT_LIMIT = "output_limit"
    SANDBOX_ERROR = "sandbox_error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one run may use; MB are 2**20 bytes.

    `memory_mb` bounds all processes together. `memory_by` says how: `cgroup` is exact; `watcher`
    looks every 50 ms, and until it has looked only `address_space_mb` of each process counts;
    `remote` leaves it, and all other limits but that of output, to an executor elsewhere.
    `file_mb` is the size of one file and of each writable place. `output_bytes` bounds standard
    output and standard error, each. `nice` is how far below the server it runs.
    """

    memory_mb: int = 512
    memory_by: Literal["cgroup", "watcher", "remote"] = "watcher"
    address_space_mb: int = 1024
    processes: int = 64
    file_mb: int = 64
    open_files: int = 256
    output_bytes: int = 2**20
    nice: int = 10


@dataclass(frozen=True, slots=True)
class Program:
    """Python source and what it reads from standard input; `wall_s` is its time, in seconds.

    Programs in other languages are started by such a source, which brings them along.
    """

    source: str
    stdin: bytes = b""
    wall_s: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a run.

    `exit_code` is set when the program ended by itself, `signal` when a signal ended it.
    Times are milliseconds, `cpu_ms` and `memory_peak_mb` of all processes together; the peak is
    None where nothing measured it. `stdout` and `stderr` end where `limits.output_bytes` cut them.
    `detail` is for the operator.
    """

    status: RunStatus
    exit_code: int | None = None
    signal: int | None = None
    wall_ms: float = 0.0
    cpu_ms: float = 0.0
    memory_peak_mb: float | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    detail: str = ""
    limits: Limits = field(default_factory=Limits)


class Sandbox(Protocol):
    """Runs programs that nobody trusts."""

    async def run(self, program: Program) -> Outcome:
        """Run one program, alone and from a clean state; leaves nothing behind.

        Waits for a free place as long as it takes; the program's time begins after that.
        """
        ...
