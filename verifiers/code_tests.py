"""Verifier `code_tests`: runs the program of an answer against tests, in a sandbox.

Source of the rules against cheating: docs/security.md. Expected values of calls and of printed
output never enter the sandbox; asserts run in a process that the program cannot look into.
"""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
)
from samplewise.verifiers.code.extract import find_program
from samplewise.verifiers.code.frames import Graded, Result
from samplewise.verifiers.code.grade import grade
from samplewise.verifiers.code.grade_sql import check_databases, grade_sql, load_database
from samplewise.verifiers.code.languages import SQL, Language
from samplewise.verifiers.code.prompt_tests import may_hold_tests, prompt_suite, user_text
from samplewise.verifiers.code.suite import Suite, check_language, read_suite
from samplewise.verifiers.sandbox.opening import OpenedSandbox, open_sandbox
from samplewise.verifiers.verdicts import failed, undecided

__all__ = ["CodeTests"]

Source = Literal["request", "config", "prompt"]
_MOST_PROGRAM = 2**20
_SHORT = 4096  # bytes; to ask a thread takes longer, and many at once hold the loop
_MOST_ANSWER = 4 * 2**20
_MOST_LISTED = 100
_WORDS: Mapping[str, str] = {
    "wrong_answer": "gives a wrong answer",
    "crash": "crashes",
    "timeout": "takes too long",
    "memory": "takes too much memory",
    "output_limit": "writes too much",
    "protocol": "gives something that is no plain value",
    "forbidden": "does what a query may not",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeTests:
    """Grades programs by the first of `sources` that has tests.

    `tests` is the suite of the source `config`; `suites` are those that a request can name by
    `ref`. `timeout_s` is for one program: compiling and all its tests. The score is the share of
    tests that passed; only all of them are a pass. Without tests there is no judgement.
    `databases` are the SQLite files that tests of SQL name, read when the verifier is opened.
    """

    name: str
    sandbox: OpenedSandbox
    language: Language
    sources: Sequence[Source] = ("request", "config", "prompt")
    tests: Suite | None = None
    suites: Mapping[str, Suite] = field(default_factory=dict)
    extract: Literal["last_block", "all_blocks", "whole"] = "last_block"
    timeout_s: float = 5.0
    databases: Mapping[str, str] = field(default_factory=dict)
    _loaded: dict[str, bytes] = field(default_factory=dict)

    async def open(self) -> None:
        """Open the sandbox and try whether it holds; then look for the language's tools.

        Raises:
            VerifierSetupError: it cannot be opened or does not hold, or a tool is missing.
        """
        for name, path in self.databases.items():
            self._loaded[name] = await asyncio.to_thread(load_database, path)
        await open_sandbox(self.sandbox, self.language.tools, f"programs in {self.language.name}")

    async def close(self) -> None:
        """Close the sandbox."""
        await self.sandbox.close()

    def check_tests(self, tests: bytes) -> bool:
        """Check the tests of a request before it costs anything; raises `TestsError`."""
        if "request" not in self.sources:
            return False
        self._resolved(_decoded(tests))
        return True

    def judges(self, task: Task) -> bool:
        """Say whether there are tests, or may be some in the prompt."""
        given = "request" in self.sources and task.tests is not None
        own = "config" in self.sources and self.tests is not None
        return given or own or ("prompt" in self.sources and may_hold_tests(task.messages))

    def key(self, sample: Sample) -> str:
        """Return the program: samples that share it share the verdict."""
        if len(sample.path_text) > _MOST_ANSWER:
            return sample.path_text  # to look for a program in it would hold the event loop
        return self._program(sample, "") or ""

    async def verify(self, task: Task, sample: Sample) -> Verdict:
        """Find the tests, run them, and count.

        Raises:
            VerifierError: the sandbox or the suite's checker failed, or the tests of the request
                cannot be used.
        """
        source, suite = await self.suite(task)
        if suite is None:
            return undecided(self.name, None, "no_tests", Assurance.TESTS_EXTERNAL)
        return (await self.judge(sample, source, suite))[0]

    async def suite(self, task: Task) -> tuple[str, Suite | None]:
        """Return the first source that has tests for this task, and its tests."""
        if len(task.messages) + len(task.tests or b"") <= _SHORT:
            return self._suite(task)
        return await asyncio.to_thread(self._suite, task)  # long prompts take long

    async def judge(
        self, sample: Sample, source: str, suite: Suite
    ) -> tuple[Verdict, Sequence[Result]]:
        """Run one suite; return the verdict and what became of each test, if any was run."""
        kind = Assurance.TESTS_IN_PROCESS if suite.asserts else Assurance.TESTS_EXTERNAL
        if len(sample.path_text) > _MOST_ANSWER:
            return failed(self.name, None, "too_large", "The answer is too large.", kind), ()
        code = self._program(sample, (suite.entry_point or "").partition(".")[0])
        if code is None:
            text = f"The answer holds no program in {self.language.name}."
            return failed(self.name, None, "no_program", text, kind), ()
        if len(code) > _MOST_PROGRAM:
            return failed(self.name, None, "too_large", "The program is too large.", kind), ()
        if self.language is SQL:
            graded = await grade_sql(self.sandbox, code, suite, self._loaded, self.timeout_s)
        else:
            graded = await grade(self.sandbox, code, suite, self.language, self.timeout_s)
        return self._verdict(graded, source, kind), graded.results

    def _program(self, sample: Sample, name: str) -> str | None:
        return find_program(sample.path_text, self.language, self.extract, name)

    def _suite(self, task: Task) -> tuple[str, Suite | None]:
        for source in self.sources:
            if source == "request" and task.tests is not None:
                try:
                    return source, self._resolved(_decoded(task.tests))
                except TestsError as error:
                    raise VerifierError(f"samplewise.tests: {error}", reason="protocol") from error
            if source == "config" and self.tests is not None:
                return source, self.tests
            if source == "prompt":
                text = user_text(task.decoded_messages())
                found = prompt_suite(text, self.language.name)
                if found is not None:
                    return source, found
        return "", None

    def _resolved(self, suite: Suite) -> Suite:
        """Return the suite that is meant, fit for this verifier's language."""
        if suite.ref is not None:
            known = self.suites.get(suite.ref)
            if known is None:
                raise TestsError("ref", f"there is no suite {suite.ref[:100]!r} here")
            return known
        check_language(suite, self.language)
        check_databases(suite, self.databases)
        return suite

    def _verdict(self, graded: Graded, source: str, kind: Assurance) -> Verdict:
        passed = sum(not result.reason for result in graded.results)
        total, outcome = len(graded.results), graded.outcome
        first = next((r for r in graded.results if r.reason), None)
        return Verdict(
            self.name,
            Status.PASS if first is None else Status.FAIL,
            score=passed / total,
            reason="" if first is None else first.reason,
            feedback=_feedback(graded),
            assurance=kind,
            details={
                "tests": source,
                "passed": passed,
                "total": total,
                "cases": [result.reason or "pass" for result in graded.results[:_MOST_LISTED]],
                "run": outcome.status.value,
                "cpu_ms": round(outcome.cpu_ms, 1),
                "memory_peak_mb": outcome.memory_peak_mb,
                "memory_by": outcome.limits.memory_by,
            },
        )


def _decoded(tests: bytes) -> Suite:
    try:
        return read_suite(msgspec.json.decode(tests))
    except (msgspec.DecodeError, RecursionError) as error:
        raise TestsError("", f"cannot be read: {error}") from None


def _feedback(graded: Graded) -> str:
    """Say what went wrong without a word of what was expected, or of what was given."""
    if graded.compile_error is not None:
        said = graded.compile_error[:500].encode("utf-8", "replace").decode()
        return f"The program does not compile: {said}"
    wrong = [(n, r) for n, r in enumerate(graded.results, 1) if r.reason]
    if not wrong:
        return ""
    number, first = wrong[0]
    total = len(graded.results)
    what = _WORDS.get(first.reason, "fails")
    # The program chooses what it raises; a name of its own could carry a hidden input.
    named = f" ({first.error})" if _is_exception(first.error) else ""
    return f"{len(wrong)} of {total} tests fail. In test {number} the program {what}{named}."


def _is_exception(name: str) -> bool:
    kind = getattr(builtins, name, None)
    return isinstance(kind, type) and issubclass(kind, BaseException)
