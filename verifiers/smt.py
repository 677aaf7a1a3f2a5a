"""Verifier `smt`: puts the answer into a script of the operator, and asks z3 for sat or unsat.

The answer is one term of SMT-LIB 2, a single s-expression, so it cannot end the command in which it
stands. What z3 calls unknown is an error: it could not tell.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from samplewise.verifiers.base import (
    Assurance,
    Sample,
    Task,
    Verdict,
    VerifierError,
    VerifierSetupError,
)
from samplewise.verifiers.code.extract import find_program
from samplewise.verifiers.code.languages import Language
from samplewise.verifiers.sandbox.opening import OpenedSandbox, open_sandbox
from samplewise.verifiers.templates import Template
from samplewise.verifiers.tools.steps import Step, run_steps
from samplewise.verifiers.verdicts import failed, passed

__all__ = ["ANSWER", "Script", "Smt", "one_term"]

ANSWER = "{{answer}}"
_SMT = Language(
    name="smt",
    fences=frozenset({"smt", "smt2", "smtlib", "smt-lib", "lisp"}),
    file="check.smt2",
    tools={"/usr/bin/z3": "z3"},
)
_OTHER: Mapping[str, str] = {"sat": "unsat", "unsat": "sat"}
_MOST_CHARS = 100_000
_MOST_DEPTH = 1_000
# Comments, strings ("" is a quotation mark), quoted symbols, brackets, and all else.
_TOKEN = re.compile(r';[^\n]*|"(?:[^"]|"")*"|\|[^|]*\||[()]|[^\s()";|]+|["|]')
_ERROR = re.compile(r'^\(error "line (\d+) column \d+: (.*)"\)$', re.MULTILINE)


def one_term(text: str) -> str | None:
    """Return the one s-expression that a text is, on one line and without comments, or None."""
    tokens: list[str] = []
    depth = 0
    for number, mark in enumerate(_TOKEN.finditer(text)):
        token = mark[0]
        if token.startswith(";"):
            continue
        if token in ('"', "|") or (depth == 0 and tokens) or (token == ")" and not depth):
            return None
        depth += {"(": 1, ")": -1}.get(token, 0)
        if depth > _MOST_DEPTH or number > _MOST_CHARS:
            return None
        tokens.append(" ".join(token.split("\n")))
    return " ".join(tokens) if tokens and depth == 0 else None


@dataclass(frozen=True, slots=True)
class Script:
    """A script with `{{answer}}`, and other fields of a template, in it.

    The parts stand between the answers. `(check-sat)` is added at the end.

    Raises:
        VerifierSetupError: there is no `{{answer}}`, a field is not known, or the script asks z3
            itself.
    """

    parts: tuple[Template, ...]

    @classmethod
    def parse(cls, text: str) -> Script:
        """Read a script."""
        if ANSWER not in text:
            raise VerifierSetupError(f"script: must hold {ANSWER}, where the answer goes")
        if re.search(r"\(\s*check-sat", text):
            raise VerifierSetupError("script: must hold no check-sat: it is added at the end")
        return cls(tuple(Template.parse(part) for part in text.split(ANSWER)))

    def fill(self, task: Task, sample: Sample, answer: str) -> str:
        """Return the whole script; raises `VerifierError` without an item that it names."""
        filled = answer.join(part.fill(task, sample) for part in self.parts)
        return f"{filled}\n(check-sat)\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Smt:
    """Passes when z3 says `expect` of the script with the answer in it, and fails when it says
    the other.

    An answer that z3 does not accept where it stands fails; a mistake elsewhere in the script, and
    a run out of time or memory, is an error.
    """

    name: str
    sandbox: OpenedSandbox
    script: Script
    expect: Literal["sat", "unsat"] = "unsat"
    timeout_s: float = 10.0

    async def open(self) -> None:
        """Look for z3, and open the sandbox; raises `VerifierSetupError`."""
        await open_sandbox(self.sandbox, _SMT.tools, "verifiers of type smt")

    async def close(self) -> None:
        """Close the sandbox."""
        await self.sandbox.close()

    async def verify(self, task: Task, sample: Sample) -> Verdict:
        """Ask z3.

        Raises:
            VerifierError: z3 could not tell, the script is wrong, or an item is missing.
        """
        text = await asyncio.to_thread(find_program, sample.path_text, _SMT, "last_block")
        if text is None:
            return self._failed("no_term", "The answer holds no SMT-LIB term.")
        if len(text) > _MOST_CHARS:
            return self._failed("too_large", "The term is too long.")
        term = await asyncio.to_thread(one_term, text)
        if term is None:
            return self._failed("parse", "The answer is not a single SMT-LIB term.")
        script = self.script.fill(task, sample, term)
        limit = f"-T:{max(1, math.floor(self.timeout_s))}"
        command = ("/usr/bin/z3", "-smt2", limit, _SMT.file)
        step = Step(command=command, files={_SMT.file: script})
        steps = await run_steps(self.sandbox, [step], self.timeout_s)
        if steps.stopped is not None:
            raise VerifierError(f"z3 was stopped: {steps.stopped}", reason="timeout")
        return self._read(steps.ran[0].stdout, script, term)

    def _read(self, said: str, script: str, term: str) -> Verdict:
        # After an error z3 goes on without the command that was wrong.
        error = _ERROR.search(said)
        if error is not None:
            line = script.split("\n")[int(error[1]) - 1] if int(error[1]) else ""
            if term in line:
                return self._failed("parse", f"z3 does not accept the term: {error[2][:200]}")
            raise VerifierError(f"script, line {error[1]}: {error[2][:200]}", reason="protocol")
        words: Mapping[str, bool] = {self.expect: True, _OTHER[self.expect]: False}
        right = words.get(said.strip())
        if right is None:
            reason = "timeout" if said.strip() in ("timeout", "unknown") else "crash"
            raise VerifierError(f"z3 could not tell: {said.strip()[:200]!r}", reason=reason)
        if right:
            return passed(self.name, term, Assurance.SYMBOLIC)
        text = f"With this term the solver finds {said.strip()}, which must not be."
        return failed(self.name, term, "wrong_answer", text, Assurance.SYMBOLIC)

    def _failed(self, reason: str, feedback: str) -> Verdict:
        return failed(self.name, None, reason, feedback, Assurance.SYMBOLIC)
