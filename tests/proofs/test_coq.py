"""What the verifier `coq` says of honest proofs, of mistakes, and of bad input."""

from __future__ import annotations

import pytest

from samplewise.verifiers.base import Assurance, Status, VerifierError, VerifierSetupError
from samplewise.verifiers.coq import COQ_LANGUAGE
from samplewise.verifiers.sandbox.opening import open_sandbox
from samplewise.verifiers.templates import Template
from tests.proofs.coq import STATEMENT, coq
from tests.sandbox.fixtures import opened
from tests.verifiers.making import sample, task

pytestmark = pytest.mark.slow
WHOLE = f"Theorem answer : {STATEMENT}.\nProof. intros. lia. Qed."


async def test_honest_proofs_pass_in_every_form() -> None:
    async with coq() as verifier:
        for text in (
            f"```coq\n{WHOLE}\n```",
            "```coq\nProof.\n  induction n; intros; lia.\nQed.\n```",
            f"<think>```coq\nAxiom x : False.\n```</think>So:\n```Coq\n{WHOLE}\n```\nDone.",
            f"```coq\n(* no Axiom needed (* nor Admitted *) *)\n{WHOLE}\n```",
            "```coq\nFrom Coq Require Import Arith.\nLemma helper : forall n, n + 0 = n.\n"
            "Proof. intro. lia. Qed.\nTheorem answer : forall n m : nat, n + m = m + n.\n"
            "Proof. intros. apply Nat.add_comm. Qed.\n```",
        ):
            verdict = await verifier.verify(task(), sample(text))
            assert (verdict.status, verdict.assurance) == (Status.PASS, Assurance.KERNEL), verdict


async def test_a_wrong_proof_fails_with_the_words_and_the_line_of_coq() -> None:
    async with coq() as verifier:
        text = f"```coq\nTheorem answer : {STATEMENT}.\nProof. intros.\nreflexivity. Qed.\n```"
        verdict = await verifier.verify(task(), sample(text))
    assert (verdict.status, verdict.reason) == (Status.FAIL, "proof")
    assert "line 3" in verdict.feedback
    assert "Unable to unify" in verdict.feedback


async def test_bad_input_gets_a_verdict() -> None:
    async with coq() as verifier:
        for text, reason in {
            "": "no_proof",
            "```python\nprint(1)\n```": "no_proof",
            "I cannot prove this.": "proof",
            "```coq\n" + "x" * 10_000_000 + "\n```": "too_large",
            f"```coq\n{WHOLE} *) (*\n```": "parse",
        }.items():
            verdict = await verifier.verify(task(), sample(text))
            assert (verdict.status, verdict.reason) == (Status.FAIL, reason)


async def test_definitions_of_the_statement_are_there_for_the_proof() -> None:
    settings = {
        "definitions": "Inductive even : nat -> Prop :=\n"
        "z : even 0 | s n : even n -> even (S (S n))."
    }
    async with coq("even 4", **settings) as verifier:
        right = await verifier.verify(
            task(), sample("```coq\nProof. repeat constructor. Qed.\n```")
        )
        own = (
            "Inductive even : nat -> Prop := all n : even n.\n"
            "Theorem answer : even 4. Proof. constructor. Qed."
        )
        wrong = await verifier.verify(task(), sample(f"```coq\n{own}\n```"))
    assert right.status is Status.PASS
    assert (wrong.status, wrong.reason) == (Status.FAIL, "statement")


async def test_axioms_that_are_allowed_may_be_used() -> None:
    proof = (
        "```coq\nRequire Import Classical.\nTheorem answer : forall P : Prop, P \\/ ~ P.\n"
        "Proof. exact classic. Qed.\n```"
    )
    excluded = "forall P : Prop, P \\/ ~ P"
    async with coq(excluded) as verifier:
        refused = await verifier.verify(task(), sample(proof))
    allowed = frozenset({"Coq.Logic.Classical_Prop.classic"})
    async with coq(excluded, axioms=allowed) as verifier:
        passed = await verifier.verify(task(), sample(proof))
    assert (refused.status, refused.reason) == (Status.FAIL, "assumptions")
    assert passed.status is Status.PASS


async def test_a_statement_that_cannot_be_used_is_an_error() -> None:
    async with coq("{{item.statement}}") as verifier:
        for item in ({}, {"statement": "forall n, n = "}, {"statement": "3"}):
            with pytest.raises(VerifierError) as raised:
                await verifier.verify(task(item=item), sample(f"```coq\n{WHOLE}\n```"))
            assert raised.value.reason == "protocol"
        passed = await verifier.verify(task(item={"statement": STATEMENT}), sample(WHOLE))
        assert passed.status is Status.PASS


async def test_too_little_time_for_our_own_files_is_an_error() -> None:
    async with coq(timeout_s=0.001) as verifier:
        with pytest.raises(VerifierError) as raised:
            await verifier.verify(task(), sample(f"```coq\n{WHOLE}\n```"))
    assert raised.value.reason == "timeout"


async def test_a_name_that_is_none_is_an_error() -> None:
    async with coq() as verifier:
        object.__setattr__(verifier, "theorem", Template.parse("a. Axiom b"))
        with pytest.raises(VerifierError, match="is no name"):
            await verifier.verify(task(), sample(WHOLE))


async def test_a_missing_prover_is_named_at_the_start() -> None:
    async with opened(spare=0) as sandbox:
        with pytest.raises(VerifierSetupError, match="apt-get install coq"):
            await open_sandbox(sandbox, {"/nowhere/coqc": "coq", "/nowhere/x": "coq"}, "proofs")
    assert set(COQ_LANGUAGE.tools.values()) == {"coq"}
