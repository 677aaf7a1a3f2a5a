"""Verifiers `compile` and `lint`: what a compiler or a linter says of the program of an answer.

They run in the sandbox: what they read was written by a model. Nothing of it is run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from samplewise.verifiers.base import (
    Assurance,
    Sample,
    Status,
    Task,
    Verdict,
    VerifierError,
    VerifierSetupError,
)
from samplewise.verifiers.code.extract import find_program
from samplewise.verifiers.code.languages import PYTHON, Language
from samplewise.verifiers.sandbox.opening import OpenedSandbox, open_sandbox
from samplewise.verifiers.tools.checks import COMPILERS, LINTERS
from samplewise.verifiers.tools.steps import Ran, Step, run_steps
from samplewise.verifiers.verdicts import failed, passed

__all__ = ["Compile", "Lint"]

_MOST_PROGRAM = 2**20
_MOST_LISTED = 5
_START_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Compile:
    """Passes programs that compile in `language`. Out of time or memory is an error."""

    name: str
    sandbox: OpenedSandbox
    language: Language
    timeout_s: float = 10.0

    async def open(self) -> None:
        """Look for the compiler, and open the sandbox; raises `VerifierSetupError`."""
        who = f"programs in {self.language.name}"
        await open_sandbox(self.sandbox, self.language.tools, who)

    async def close(self) -> None:
        """Close the sandbox."""
        await self.sandbox.close()

    def key(self, sample: Sample) -> str:
        """Return the program: samples that share it share the verdict."""
        return find_program(sample.path_text, self.language, "last_block") or ""

    async def verify(self, task: Task, sample: Sample) -> Verdict:
        """Compile; raises `VerifierError` when the compiler was stopped or crashed."""
        code = _program(self.name, sample, self.language)
        if isinstance(code, Verdict):
            return code
        command, files = COMPILERS[self.language.name], {self.language.file: code}
        ran = await _ran(self.sandbox, Step(command=command, files=files), self.timeout_s)
        if ran.exit < 0 or ran.exit == 127:
            raise VerifierError(f"the compiler failed: {ran.said[-300:]}", reason="crash")
        if ran.exit:
            said = f"The program does not compile: {ran.said[:500]}"
            return failed(self.name, None, "compile", said)
        return passed(self.name, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lint:
    """Passes Python programs with at most `max_findings` findings of a linter.

    `tool` is one of `LINTERS`, `options` are added to its command. The sandbox's interpreter must
    have it installed. The score is the share of lines without a finding. Words in the program that
    tell the linter to look away are a fail, where it cannot be told not to listen to them.
    """

    name: str
    sandbox: OpenedSandbox
    tool: str
    options: tuple[str, ...] = ()
    max_findings: int = 0
    timeout_s: float = 30.0

    async def open(self) -> None:
        """Open the sandbox and try the linter; raises `VerifierSetupError`."""
        await open_sandbox(self.sandbox, {}, "linters")
        try:
            self._findings(await self._run("x: int = 1\n", self.timeout_s + _START_S))
        except VerifierError as error:
            await self.sandbox.close()
            raise VerifierSetupError(
                f"{self.tool} does not run: {error}. Install it for the interpreter that `python`"
                f" names: PYTHON -m pip install {self.tool}"
            ) from error

    async def close(self) -> None:
        """Close the sandbox."""
        await self.sandbox.close()

    def key(self, sample: Sample) -> str:
        """Return the program: samples that share it share the verdict."""
        return find_program(sample.path_text, PYTHON, "last_block") or ""

    async def verify(self, task: Task, sample: Sample) -> Verdict:
        """Lint; raises `VerifierError` when the linter was stopped or crashed."""
        code = _program(self.name, sample, PYTHON)
        if isinstance(code, Verdict):
            return code
        silencing = LINTERS[self.tool].silencing
        if silencing is not None and silencing.search(code):
            text = f"The program tells {self.tool} to look away."
            return failed(self.name, None, "forbidden", text)
        found = self._findings(await self._run(code, self.timeout_s))
        lines = {line for line in (text.partition(":")[0] for text in found)}
        right = len(found) <= self.max_findings
        details: Mapping[str, object] = {"findings": len(found)}
        return Verdict(
            self.name,
            Status.PASS if right else Status.FAIL,
            score=1 - min(len(lines) / max(len(code.splitlines()), 1), 1.0),
            reason="" if right else "findings",
            feedback="\n".join(found[:_MOST_LISTED])[:1000],
            assurance=Assurance.HEURISTIC,
            details=details,
        )

    async def _run(self, code: str, wall_s: float) -> Ran:
        command = ("{python}", "-I", *LINTERS[self.tool].command, *self.options, PYTHON.file)
        return await _ran(self.sandbox, Step(command=command, files={PYTHON.file: code}), wall_s)

    def _findings(self, ran: Ran) -> list[str]:
        return LINTERS[self.tool].findings(ran)


def _program(name: str, sample: Sample, language: Language) -> str | Verdict:
    """Return the program, or the verdict on an answer without a usable one."""
    code = find_program(sample.path_text, language, "last_block")
    if code is None:
        text = f"The answer holds no program in {language.name}."
        return failed(name, None, "no_program", text)
    if len(code) > _MOST_PROGRAM:
        return failed(name, None, "too_large", "The program is too large.")
    return code


async def _ran(sandbox: OpenedSandbox, step: Step, wall_s: float) -> Ran:
    steps = await run_steps(sandbox, [step], wall_s)
    if steps.stopped is not None:
        raise VerifierError(f"{step.command[0]} was stopped: {steps.stopped}", reason="timeout")
    return steps.ran[0]
