"""What a hostile program is, and how a run may end."""

from __future__ import annotations

from dataclasses import dataclass

from samplewise.verifiers.sandbox import RunStatus

__all__ = ["EXIT", "MEMORY", "OK", "OUTPUT", "SIGNAL", "TIME", "Hostile"]

OK, EXIT, SIGNAL = RunStatus.OK, RunStatus.WRONG_EXIT, RunStatus.SIGNAL
TIME, MEMORY, OUTPUT = RunStatus.TIMEOUT, RunStatus.MEMORY, RunStatus.OUTPUT_LIMIT


@dataclass(frozen=True)
class Hostile:
    """A program, and how its run may end.

    It prints ESCAPED when it got what it must not get, and held when it has tried everything.
    """

    name: str
    source: str
    ends: tuple[RunStatus, ...] = (OK,)
