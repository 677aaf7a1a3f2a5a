"""Verifier `coq`: checks a proof with Coq, in a sandbox, against a statement of its own.

The candidate's file is compiled apart; a file of ours then asks the kernel whether its theorem has
the type of the statement, and what it rests on; `coqchk` looks at the compiled files once more.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

from samplewise.verifiers.base import (
    Assurance,
    Sample,
    Status,
    Task,
    Verdict,
    VerifierError,
)
from samplewise.verifiers.code.extract import find_program
from samplewise.verifiers.code.languages import Language
from samplewise.verifiers.proofs.coq_text import (
    RULES,
    check_file,
    goal_file,
    proof_file,
    unconfirmed,
    unproved,
)
from samplewise.verifiers.proofs.text import COQ, broken_rule, without_comments
from samplewise.verifiers.sandbox.opening import OpenedSandbox, open_sandbox
from samplewise.verifiers.templates import Template
from samplewise.verifiers.tools.steps import Ran, Step, Steps, run_steps
from samplewise.verifiers.verdicts import failed

__all__ = ["COQ_LANGUAGE", "Coq"]

COQ_LANGUAGE = Language(
    name="coq",
    fences=frozenset({"coq", "rocq", "gallina", "v"}),
    file="Proof.v",
    tools={"/usr/bin/coqc": "coq", "/usr/bin/coqchk": "coq"},
)
_MOST_CHARS = 200_000
_FOLDERS = ("-Q", "own", "Own", "-Q", "candidate", "Candidate", "-Q", "final", "Final")
# What is in /etc is not shown in the sandbox.
_ENVIRONMENT = ("/usr/bin/env", "OCAMLFIND_CONF=/dev/null")
_COMPILE = (*_ENVIRONMENT, "/usr/bin/coqc", "-q", "-noglob", *_FOLDERS)
# Installed libraries are taken as they are: to check them, too, takes minutes.
_CHECKED = ("-norec", "Own.Goal", "-norec", "Candidate.Proof", "-norec", "Final.Check")
_CONFIRM = (*_ENVIRONMENT, "/usr/bin/coqchk", "-o", "-silent", *_FOLDERS, *_CHECKED)
_NAME = re.compile(r"[^\W\d][\w']*")
_PLACE = re.compile(r'File "\./candidate/Proof\.v", line (\d+)')
_EXHAUSTED = re.compile(r"Out of memory|Stack overflow|Anomaly|System error", re.IGNORECASE)
_GOAL, _PROOF, _CHECK = range(3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coq:
    """Passes what proves `statement`, a term of type Prop, under the name `name`.

    `preamble` stands before the statement and before the proof (imports, scopes), `definitions`
    before the statement alone; the proof imports them. `axioms` are full names that a proof may
    rest on. What matches `rules` is not given to Coq at all. `timeout_s` is for all four runs of
    Coq. What the candidate itself spends too much on fails; what stops a later step is an error.
    """

    name: str
    sandbox: OpenedSandbox
    statement: Template
    theorem: Template
    preamble: str = ""
    definitions: str = ""
    axioms: frozenset[str] = frozenset()
    rules: re.Pattern[str] = RULES
    timeout_s: float = 30.0

    async def open(self) -> None:
        """Look for Coq, and open the sandbox; raises `VerifierSetupError`."""
        await open_sandbox(self.sandbox, COQ_LANGUAGE.tools, "proofs in coq")

    async def close(self) -> None:
        """Close the sandbox."""
        await self.sandbox.close()

    async def verify(self, task: Task, sample: Sample) -> Verdict:
        """Check the proof.

        Raises:
            VerifierError: the request has no usable statement, Coq or the sandbox failed, or there
                was no time or memory for the checks after the candidate's own part.
        """
        statement, theorem = self.statement.fill(task, sample), self.theorem.fill(task, sample)
        if not _NAME.fullmatch(theorem):
            raise VerifierError(f"name: {theorem[:100]!r} is no name in Coq", reason="protocol")
        proof = await asyncio.to_thread(self._proof, sample, theorem)  # long texts take long
        if isinstance(proof, Verdict):
            return proof
        source, before = proof_file(self.preamble, theorem, statement, proof)
        goal = goal_file(self.preamble, self.definitions, statement)
        steps = [
            _compile("own/Goal.v", goal),
            _compile("candidate/Proof.v", source),
            _compile("final/Check.v", check_file(theorem)),
            Step(command=_CONFIRM),
        ]
        return self._read(await run_steps(self.sandbox, steps, self.timeout_s), before)

    def _proof(self, sample: Sample, theorem: str) -> str | Verdict:
        """Return the proof without comments, or the verdict on an answer without a usable one."""
        text = find_program(sample.path_text, COQ_LANGUAGE, "last_block", theorem)
        if text is None:
            return self._failed("no_proof", "The answer holds no proof in Coq.")
        if len(text) > _MOST_CHARS:
            return self._failed("too_large", "The proof is too long.")
        proof = without_comments(text, COQ)
        if proof is None:
            return self._failed("parse", "A comment of the proof does not end.")
        forbidden = broken_rule(proof, self.rules)
        if forbidden is not None:
            return self._failed("forbidden", f"A proof must not hold {forbidden!r}.")
        return proof

    def _read(self, steps: Steps, before: int) -> Verdict:
        last, number = steps.ran[-1] if steps.ran else None, len(steps.ran)
        if steps.stopped is not None:
            if number == _PROOF:
                return self._failed(steps.stopped.value, "The proof takes too much to check.")
            raise VerifierError(f"Coq was stopped: {steps.stopped}", reason="timeout")
        if last is not None and last.exit:
            return self._refused(last, number - 1, before)
        wrong = unproved(steps.ran[_CHECK].stdout, self.axioms)
        wrong = wrong or unconfirmed(steps.ran[-1].said, self.axioms)
        if wrong is not None:
            return self._failed("assumptions", f"The proof rests on what is not proved: {wrong}")
        return Verdict(
            self.name,
            Status.PASS,
            score=1.0,
            assurance=Assurance.KERNEL,
            details={"cpu_ms": round(steps.outcome.cpu_ms, 1)},
        )

    def _refused(self, ran: Ran, step: int, before: int) -> Verdict:
        if step == _PROOF:
            said = _PLACE.sub(lambda m: f"line {max(int(m[1]) - before, 1)}", ran.stderr)
            return self._failed("proof", f"Coq does not accept the proof: {said.strip()[:500]}")
        if step == _GOAL:
            raise VerifierError(f"the statement is refused: {ran.said[:300]}", reason="protocol")
        if ran.exit < 0 or _EXHAUSTED.search(ran.said):
            raise VerifierError(f"Coq failed: {ran.said[-300:]}", reason="crash")
        if step == _CHECK:
            return self._failed("statement", "The proof does not prove the statement.")
        return self._failed("refused", "The checker of compiled proofs does not accept the proof.")

    def _failed(self, reason: str, feedback: str) -> Verdict:
        return failed(self.name, None, reason, feedback, Assurance.KERNEL)


def _compile(name: str, text: str) -> Step:
    return Step(command=(*_COMPILE, name), files={name: text}, outputs=(f"{name}o",))
