"""Run commands one after another in one sandbox, and read what each of them said."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from samplewise.verifiers.base import VerifierError
from samplewise.verifiers.sandbox import Outcome, Program, RunStatus, Sandbox

__all__ = ["Ran", "Step", "Steps", "run_steps"]

_RUN_STEPS = Path(__file__).with_name("run_steps.py").read_text(encoding="utf-8")
_MOST_SAID = 2**18
_STOPPED = (RunStatus.TIMEOUT, RunStatus.MEMORY, RunStatus.OUTPUT_LIMIT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A command, the files that it finds, and those of its results that later steps find.

    Commands are started without a shell, by their path; `{python}` is the sandbox's interpreter.
    """

    command: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that ended: its exit status (negative for a signal) and what it printed."""

    exit: int
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        """All that it printed."""
        return f"{self.stdout}\n{self.stderr}".strip()


@dataclass(frozen=True, slots=True)
class Steps:
    """Those that ran to their end, in order; the last one alone can have failed.

    `stopped` is set when the sandbox ended the one after them: timeout, memory or output_limit.
    """

    ran: tuple[Ran, ...]
    stopped: RunStatus | None
    outcome: Outcome


async def run_steps(sandbox: Sandbox, steps: Sequence[Step], wall_s: float) -> Steps:
    """Run all steps within `wall_s` seconds in all, up to the first that fails.

    Raises:
        VerifierError: the sandbox failed, so nothing is known.
    """
    job = {
        "steps": [
            {"files": dict(step.files), "command": step.command, "outputs": step.outputs}
            for step in steps
        ],
        "most": _MOST_SAID,
    }
    outcome = await sandbox.run(Program(_RUN_STEPS, json.dumps(job).encode(), wall_s))
    if outcome.status is RunStatus.SANDBOX_ERROR:
        raise VerifierError(outcome.detail, reason="unavailable")
    frames = [json.loads(line) for line in outcome.stdout.splitlines(keepends=True) if _whole(line)]
    ran = tuple(Ran(frame["exit"], frame["stdout"], frame["stderr"]) for frame in frames)
    ended = len(ran) == len(steps) or (ran and ran[-1].exit)
    stopped = outcome.status if outcome.status in _STOPPED and not ended else None
    if not ended and stopped is None:
        said = outcome.stderr.decode(errors="replace").strip()[-300:]
        raise VerifierError(f"the tools could not be run: {outcome.status}: {said}", reason="crash")
    return Steps(ran, stopped, outcome)


def _whole(line: bytes) -> bool:
    return line.endswith(b"\n")
