"""What runs inside the sandbox prints, line by line, and what became of each test."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from samplewise.verifiers.sandbox import Outcome, RunStatus

__all__ = ["UNFINISHED", "Graded", "Result", "read_frames"]

# What a run that did not end by itself says of the tests that it did not get to.
UNFINISHED: Mapping[RunStatus, str] = {
    RunStatus.TIMEOUT: "timeout",
    RunStatus.MEMORY: "memory",
    RunStatus.OUTPUT_LIMIT: "output_limit",
}


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one test: no `reason` means that it passed.

    `error` names what the program raised; it may be any text, since the program chooses it.
    """

    reason: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """The results, one per test and in their order; `compile_error` is set instead of running."""

    results: tuple[Result, ...]
    outcome: Outcome
    compile_error: str | None = None


def read_frames(stdout: bytes, total: int) -> tuple[Mapping[int, Any], str | None]:
    """Return the frame of each test, and what the compiler said if it refused.

    The program can write frames, too, but not the first, which says whether it compiled: what it
    writes must not be shown as if a compiler had said it. It may guess results, but not twice: two
    frames for one test count as a wrong one.
    """
    frames: dict[int, Any] = {}
    for number, line in enumerate(stdout.splitlines()):
        try:
            frame = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(frame, dict):
            continue
        if number == 0 and isinstance(frame.get("compile"), str):
            return {}, frame["compile"]
        case = frame.get("case")
        if isinstance(case, int) and not isinstance(case, bool) and 0 <= case < total:
            frames[case] = {"error": "protocol"} if case in frames else frame
    return frames, None
