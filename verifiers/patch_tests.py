"""Verifier `patch_tests`: the patch of an answer against the tests of the repository it is for.

The rules against cheating and what they leave open: docs/security.md. Tests run in one process
with what they test, so a pass is `tests-in-process`, whatever is done here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import msgspec

from samplewise.verifiers.base import (
    Assurance,
    Sample,
    Status,
    Task,
    TestsError,
    Verdict,
    VerifierError,
    VerifierSetupError,
)
from samplewise.verifiers.patch.diff import find_patch, is_binary
from samplewise.verifiers.patch.grade import Refused, Run, patched, poison_of, run_tests
from samplewise.verifiers.patch.repository import Instance, Prepared, prepare
from samplewise.verifiers.patch.tree import Tree, added
from samplewise.verifiers.sandbox import RunStatus
from samplewise.verifiers.sandbox.opening import OpenedSandbox, open_sandbox
from samplewise.verifiers.verdicts import failed, undecided

__all__ = ["PatchTests"]

_MOST_PATCH = 2**20
_MOST_ANSWER = 4 * 2**20
_KIND = Assurance.TESTS_IN_PROCESS
_ENDED: Mapping[RunStatus, str] = {
    RunStatus.TIMEOUT: "timeout",
    RunStatus.MEMORY: "memory",
    RunStatus.OUTPUT_LIMIT: "output_limit",
}


class _Named(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ref: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchTests:
    """Grades patches by the tests of an instance: the one that the request names, or `default`.

    `timeout_s` is for one run of the tests. A patch that passes is run once more with tests that
    must fail (`canary`): where one of them passes, something makes tests pass. `check_base` tries
    at the start that without a patch the right tests fail and pass.
    """

    name: str
    sandbox: OpenedSandbox
    instances: Mapping[str, Instance]
    default: str | None = None
    extract: Literal["last_block", "all_blocks", "whole"] = "last_block"
    timeout_s: float = 300.0
    canary: bool = True
    check_base: bool = True
    _prepared: dict[str, Prepared] = field(default_factory=dict)

    async def open(self) -> None:
        """Open the sandbox, read the repositories, and try their tests without a patch.

        Raises:
            VerifierSetupError: something is missing, or the tests do not say what they should.
        """
        await open_sandbox(self.sandbox, {"/usr/bin/git": "git"}, "patches")
        try:
            for name, instance in self.instances.items():
                try:
                    self._prepared[name] = await asyncio.to_thread(prepare, instance)
                    if self.check_base:
                        await self._check_base(self._prepared[name])
                except (VerifierSetupError, VerifierError) as error:
                    raise VerifierSetupError(f"instances.{name}: {error}") from error
        except VerifierSetupError:
            await self.sandbox.close()
            raise

    async def close(self) -> None:
        """Close the sandbox."""
        await self.sandbox.close()

    def check_tests(self, tests: bytes) -> bool:
        """Check which instance a request names, before it costs anything; raises `TestsError`."""
        self._named(tests)
        return True

    def judges(self, task: Task) -> bool:
        """Say whether there is an instance."""
        return self.default is not None or task.tests is not None

    def key(self, sample: Sample) -> str:
        """Return the patch: samples that share it share the verdict."""
        if len(sample.path_text) > _MOST_ANSWER:
            return sample.path_text  # to look for a patch in it would hold the event loop
        return find_patch(sample.path_text, self.extract) or ""

    async def verify(self, task: Task, sample: Sample) -> Verdict:
        """Apply the patch, run the tests, and count.

        Raises:
            VerifierError: the sandbox failed, the request names what is not there, or the second
                run cannot be read.
        """
        try:
            name = self.default if task.tests is None else self._named(task.tests)
        except TestsError as error:
            raise VerifierError(f"samplewise.tests: {error}", reason="protocol") from error
        if name is None:
            return undecided(self.name, None, "no_tests", _KIND)
        prepared = self._prepared[name]
        try:
            patch = self._patch(sample)
            tree = await patched(self.sandbox, prepared, patch)
        except Refused as refused:
            return failed(self.name, None, refused.reason, str(refused), _KIND)
        run = await run_tests(self.sandbox, prepared, tree, self.timeout_s)
        verdict = self._verdict(name, prepared.instance, run)
        if verdict.status is Status.PASS and self.canary:
            saved = await self._saved(prepared, tree)
            if saved:
                text = "The patch makes tests pass that must fail."
                return replace(
                    verdict, status=Status.FAIL, score=0.0, reason="tampered", feedback=text
                )
        return verdict

    def _patch(self, sample: Sample) -> str:
        if len(sample.path_text) > _MOST_ANSWER:
            raise Refused("too_large", "The answer is too large.")
        patch = find_patch(sample.path_text, self.extract)
        if patch is None:
            raise Refused("no_patch", "The answer holds no patch.")
        if len(patch) > _MOST_PATCH:
            raise Refused("too_large", "The patch is too large.")
        if is_binary(patch):
            raise Refused("forbidden", "The patch is not accepted: it holds what is no text.")
        return patch

    def _named(self, tests: bytes) -> str:
        try:
            name = msgspec.json.decode(tests, type=_Named).ref
        except (msgspec.DecodeError, RecursionError) as error:
            raise TestsError("", f'must be {{"ref": INSTANCE}}: {error}') from None
        if name not in self.instances:
            raise TestsError("ref", f"there is no instance {name[:100]!r} here")
        return name

    async def _saved(self, prepared: Prepared, tree: Tree) -> list[str]:
        """Return the tests that do not fail although they are made to."""
        poison = poison_of(prepared, tree)
        run = await run_tests(self.sandbox, prepared, tree, self.timeout_s, poison)
        if run.report.wrong:
            reason = "timeout" if run.outcome.status is RunStatus.TIMEOUT else "crash"
            text = f"the run with tests that must fail cannot be read: {run.report.wrong}"
            raise VerifierError(text, reason=reason)
        # A test that is not there was not made to fail.
        return [name for name in prepared.instance.names if run.report.passed.get(name, True)]

    async def _check_base(self, prepared: Prepared) -> None:
        instance, tree = prepared.instance, added(prepared.base, prepared.hidden)
        run = await run_tests(self.sandbox, prepared, tree, self.timeout_s)
        if run.report.wrong:
            raise VerifierSetupError(f"without a patch: {run.report.wrong}; it ends: {run.end}")
        early = [name for name in instance.fail_to_pass if run.report.passed.get(name)]
        if early:
            raise VerifierSetupError(f"fail_to_pass: passes without a patch: {_some(early)}")
        late = [name for name in instance.pass_to_pass if not run.report.passed.get(name)]
        if late:
            raise VerifierSetupError(f"pass_to_pass: does not pass without a patch: {_some(late)}")
        saved = await self._saved(prepared, tree) if self.canary else []
        if saved:
            raise VerifierSetupError(
                f"canary: these tests cannot be made to fail: {_some(saved)}; leave them out, or"
                " set canary: false and trust the patches more"
            )

    def _verdict(self, name: str, instance: Instance, run: Run) -> Verdict:
        passed = run.report.passed
        counts = {
            kind: f"{sum(bool(passed.get(test)) for test in tests)}/{len(tests)}"
            for kind, tests in (
                ("fail_to_pass", instance.fail_to_pass),
                ("pass_to_pass", instance.pass_to_pass),
            )
        }
        good = sum(bool(passed.get(test)) for test in instance.names)
        total, outcome = len(instance.names), run.outcome
        reason = "" if good == total else "wrong_answer"
        text = "" if not reason else f"{total - good} of {total} tests that must pass do not."
        if run.report.wrong:
            reason = _ENDED.get(outcome.status, "crash")
            text = f"The tests cannot be counted: {run.report.wrong}."
        return Verdict(
            self.name,
            Status.FAIL if reason else Status.PASS,
            score=good / total,
            reason=reason,
            feedback=text,
            assurance=_KIND,
            details={
                "instance": name,
                **counts,
                "run": outcome.status.value,
                "cpu_ms": round(outcome.cpu_ms, 1),
                "memory_peak_mb": outcome.memory_peak_mb,
                "memory_by": outcome.limits.memory_by,
            },
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
