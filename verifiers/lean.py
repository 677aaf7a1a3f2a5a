"""Verifier `lean`: checks a proof with Lean 4 by a Kimina server, against a statement of its own.

The candidate gives the proof term alone. What a REPL says of it was said by a process in which the
proof itself was elaborated, so a pass is `elaborated`; only a replay makes it `kernel`.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass

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
from samplewise.verifiers.proofs.kimina import Kimina
from samplewise.verifiers.proofs.lean_text import RULES, Statement, read_reply
from samplewise.verifiers.proofs.text import LEAN, broken_rule, without_comments
from samplewise.verifiers.sandbox.opening import OpenedSandbox, open_sandbox
from samplewise.verifiers.templates import Template
from samplewise.verifiers.tools.steps import Step, run_steps
from samplewise.verifiers.verdicts import failed, passed

__all__ = ["AXIOMS", "Lean", "Replay"]

AXIOMS = frozenset({"propext", "Classical.choice", "Quot.sound"})
_LEAN = Language(name="lean", fences=frozenset({"lean", "lean4"}), file="Proof.lean", tools={})
_MOST_CHARS = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """The operator's command that checks once more what Lean has made, in a sandbox.

    It finds `Statement.lean`, where the statement has `sorry` for a proof, and `Proof.lean`, and
    says 0 for accepted, 1 for rejected; anything else is an error.
    """

    sandbox: OpenedSandbox
    command: tuple[str, ...]
    timeout_s: float

    async def accepts(self, statement: str, proof: str) -> bool:
        """Run the command; raises `VerifierError` when it did not say."""
        files = {"Statement.lean": statement, "Proof.lean": proof}
        steps = await run_steps(
            self.sandbox, [Step(command=self.command, files=files)], self.timeout_s
        )
        if steps.stopped is not None:
            raise VerifierError(f"the replay was stopped: {steps.stopped}", reason="timeout")
        [ran] = steps.ran
        if ran.exit not in (0, 1):
            text = f"the replay ended with {ran.exit}: {ran.said[-300:]}"
            raise VerifierError(text, reason="crash")
        return not ran.exit


@dataclass(frozen=True, slots=True, kw_only=True)
class Lean:
    """Passes proofs of `statement` that rest on `axioms` alone.

    `preamble` stands before the theorem (imports, `open`). The theorem's name is drawn anew for
    each check, so that no report on it can be forged beforehand.
    """

    name: str
    server: Kimina
    statement: Template
    preamble: str = ""
    axioms: frozenset[str] = AXIOMS
    replay: Replay | None = None

    async def open(self) -> None:
        """Open the connections, and the replay's sandbox; raises `VerifierSetupError`."""
        await self.server.open()
        if self.replay is not None:
            await open_sandbox(self.replay.sandbox, {}, "replays of Lean proofs")

    async def close(self) -> None:
        """Close both."""
        await self.server.close()
        if self.replay is not None:
            await self.replay.sandbox.close()

    async def verify(self, task: Task, sample: Sample) -> Verdict:
        """Check the proof.

        Raises:
            VerifierError: the request has no usable statement, or the server or the replay failed.
        """
        try:
            statement = Statement.read(self.statement.fill(task, sample))
        except VerifierSetupError as error:
            raise VerifierError(str(error), reason="protocol") from None
        proof = await asyncio.to_thread(self._proof, statement, sample)
        if isinstance(proof, Verdict):
            return proof
        name = f"samplewise_{secrets.token_hex(8)}"
        source = statement.source(self.preamble, name, proof)
        reason, text = read_reply(await self.server.check(name, source), name, self.axioms)
        if reason:
            return self._failed(reason, text)
        if self.replay is None:
            return passed(self.name, None, Assurance.ELABORATED)
        if not await self.replay.accepts(statement.source(self.preamble, name, "by sorry"), source):
            return self._failed("refused", "The replay does not accept the proof.")
        return passed(self.name, None, Assurance.KERNEL)

    def _proof(self, statement: Statement, sample: Sample) -> str | Verdict:
        """Return the candidate's term, or the verdict on an answer without a usable one."""
        text = find_program(sample.path_text, _LEAN, "last_block")
        if text is None:
            return self._failed("no_proof", "The answer holds no proof in Lean.")
        if len(text) > _MOST_CHARS:
            return self._failed("too_large", "The proof is too long.")
        bare = without_comments(text, LEAN)
        if bare is None:
            return self._failed("parse", "A comment of the proof does not end.")
        proof = statement.proof_in(bare)
        if proof is None:
            return self._failed("statement", "The answer does not prove the statement as given.")
        forbidden = broken_rule(proof, RULES)
        if forbidden is not None:
            return self._failed("forbidden", f"A proof must not hold {forbidden[:50]!r}.")
        return proof

    def _failed(self, reason: str, feedback: str) -> Verdict:
        kind = Assurance.ELABORATED if self.replay is None else Assurance.KERNEL
        return failed(self.name, None, reason, feedback, kind)
