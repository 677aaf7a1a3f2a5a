"""Apply a patch, run the tests of its repository in a sandbox, and say which of them passed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from samplewise.verifiers.base import VerifierError
from samplewise.verifiers.patch.repository import Prepared
from samplewise.verifiers.patch.results import Report, read_report
from samplewise.verifiers.patch.rules import Forbidden
from samplewise.verifiers.patch.tree import File, Tree, added, packed, unpacked
from samplewise.verifiers.sandbox import Outcome, Program, RunStatus, Sandbox

__all__ = ["Refused", "Run", "patched", "poison_of", "run_tests"]

_HERE = Path(__file__).parent
_RUN_APPLY = (_HERE / "run_apply.py").read_text(encoding="utf-8")
_RUN_TESTS = (_HERE / "run_tests.py").read_text(encoding="utf-8")
_MOST_OUTPUT = 2 * 2**20
_APPLY_S = 60.0


class Refused(Exception):
    """A patch that is not tested; `reason` is a word, the message says more to the model."""

    def __init__(self, reason: str, text: str) -> None:
        """Keep both."""
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the tests: what they say, how it went, and the end of what it wrote."""

    report: Report
    outcome: Outcome
    end: str = ""


async def patched(sandbox: Sandbox, prepared: Prepared, patch: str) -> Tree:
    """Return the tree with the patch applied, all rules kept, and the tests as they must be.

    Raises:
        Refused: it does not apply, or changes what it may not.
        VerifierError: the sandbox failed.
    """
    archive = await asyncio.to_thread(packed, prepared.base)
    parts = _part(patch.encode("utf-8", "surrogatepass")) + _part(archive)
    outcome = await sandbox.run(Program(_RUN_APPLY, parts, _APPLY_S))
    if outcome.status is RunStatus.OUTPUT_LIMIT:
        raise Refused("too_large", "The patch changes too much.")
    if outcome.status is not RunStatus.OK:
        said = outcome.detail or outcome.stderr.decode(errors="replace").strip()[-300:]
        raise VerifierError(f"the patch cannot be applied: {outcome.status}: {said}")
    line, _, changes = outcome.stdout.partition(b"\n")
    head = json.loads(line)
    if head["refused"] is not None:
        raise Refused("does_not_apply", f"The patch does not apply: {head['refused'][:500]}")
    over: dict[str, File | None] = dict.fromkeys(head["gone"])
    tree = added(prepared.base, over | dict(await asyncio.to_thread(unpacked, changes)))
    try:
        tested = prepared.rules.apply(prepared.base, tree)
    except Forbidden as error:
        raise Refused("forbidden", f"The patch is not accepted: {error}.") from None
    return added(tested, prepared.hidden)


def poison_of(prepared: Prepared, tree: Tree) -> list[str]:
    """Return the Python files of the tests, which the run with poison makes fail."""
    rules = prepared.rules
    return sorted(
        path
        for path, file in tree.items()
        if path.endswith(".py") and not file.link and rules.is_test(path)
    )


async def run_tests(
    sandbox: Sandbox, prepared: Prepared, tree: Tree, wall_s: float, poison: Collection[str] = ()
) -> Run:
    """Run the command of the tests in a tree; in files of `poison` every test is made to fail.

    Raises:
        VerifierError: the sandbox failed, or the command is not there.
    """
    instance = prepared.instance
    job = {
        "command": [*instance.command],
        "environment": {**instance.environment},
        "most": _MOST_OUTPUT,
        "poison": [*poison],
    }
    archive = await asyncio.to_thread(packed, tree)
    parts = _part(json.dumps(job).encode()) + _part(archive)
    outcome = await sandbox.run(Program(_RUN_TESTS, parts, wall_s))
    if outcome.status is RunStatus.SANDBOX_ERROR:
        raise VerifierError(outcome.detail, reason="unavailable")
    if outcome.status is RunStatus.WRONG_EXIT:
        said = outcome.stderr.decode(errors="replace").strip()[-300:]
        raise VerifierError(f"the tests cannot be run: {said}")
    if outcome.status is not RunStatus.OK:
        return Run(Report(wrong=f"the run ended with {outcome.status}"), outcome)
    said = json.loads(outcome.stdout)
    end = (said["out"][-1000:] + said["err"][-1000:]).strip()
    if said["over"]:
        return Run(Report(wrong="the tests write too much"), outcome, end)
    text = said["err"] if instance.results == "unittest" else said["out"]
    report = await asyncio.to_thread(read_report, instance.results, text, said["exit"])
    return Run(report, outcome, end)


def _part(data: bytes) -> bytes:
    return b"%08x" % len(data) + data
