"""The verifier `smt` with a real z3, and what counts as one term."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.verifiers.base import Assurance, Status, VerifierError, VerifierSetupError
from samplewise.verifiers.smt import Script, Smt, one_term
from tests.sandbox.fixtures import opened
from tests.verifiers.making import sample, task

DOUBLE = (
    "(declare-const x Int)\n(define-fun answer ((a Int)) Int {{answer}})\n"
    "(assert (not (= (answer x) (* 2 x))))"
)
CUBES = (
    "(declare-const x Int)\n(declare-const y Int)\n(declare-const z Int)\n"
    "(assert (= (+ (* x x x) (* y y y) (* z z z)) {{answer}}))"
)
Made = Callable[..., Smt]


@pytest.fixture
async def smt() -> AsyncIterator[Made]:
    if not os.access("/usr/bin/z3", os.X_OK):
        pytest.skip("needs z3: make test installs the Debian package where it may")
    async with opened(output_bytes=2**20, memory_mb=512) as sandbox:

        def made(script: str, expect: Literal["sat", "unsat"] = "unsat", s: float = 60.0) -> Smt:
            parsed = Script.parse(script)
            return Smt(name="smt", sandbox=sandbox, script=parsed, expect=expect, timeout_s=s)

        yield made


async def test_a_term_passes_when_the_solver_says_what_is_expected(smt: Made) -> None:
    verifier = smt(DOUBLE)
    for text in ("(+ a a)", "So:\n```smt2\n(* a 2) ; twice\n```", "(let ((b a)) (+ a b))"):
        verdict = await verifier.verify(task(), sample(text))
        assert (verdict.status, verdict.assurance) == (Status.PASS, Assurance.SYMBOLIC)
    verdict = await verifier.verify(task(), sample("(* a a)"))
    assert (verdict.status, verdict.reason) == (Status.FAIL, "wrong_answer")
    assert (await smt(CUBES, "sat").verify(task(), sample("3"))).status is Status.PASS


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no_term"),
        ("```python\n1\n```", "no_term"),
        ("(", "parse"),
        ("true", "parse"),
        ("unknown_name", "parse"),
        ("(check-sat)", "parse"),
        ("(exit)", "parse"),
        ("a) (assert false) (define-fun g () Int 1", "parse"),
        ('"unsat', "parse"),
        ("|x", "parse"),
        ("a a", "parse"),
        ("(" * 3000 + ")" * 3000, "parse"),
        ("x" * 10_000_000, "too_large"),
    ],
)
async def test_what_is_no_term_of_the_right_kind_fails(smt: Made, text: str, reason: str) -> None:
    verdict = await smt(DOUBLE).verify(task(), sample(text))
    assert (verdict.status, verdict.reason) == (Status.FAIL, reason)


async def test_what_the_solver_cannot_tell_is_an_error(smt: Made) -> None:
    with pytest.raises(VerifierError) as raised:
        await smt(CUBES, "sat", 1.0).verify(task(), sample("114"))  # open since 1954
    assert raised.value.reason == "timeout"
    unknown = f"(set-option :rlimit 100)\n{CUBES}"
    with pytest.raises(VerifierError) as raised:
        await smt(unknown, "sat").verify(task(), sample("114"))
    assert raised.value.reason == "timeout"


async def test_a_mistake_of_the_script_is_an_error_and_not_an_answer(smt: Made) -> None:
    # z3 goes on after it, and would say unsat of what is left.
    wrong = "(assert (nonsense))\n(assert false)\n(assert (= 1 {{answer}}))"
    with pytest.raises(VerifierError) as raised:
        await smt(wrong).verify(task(), sample("1"))
    assert raised.value.reason == "protocol"
    with pytest.raises(VerifierError, match="item"):
        await smt("(assert (= {{item.n}} {{answer}}))").verify(task(), sample("1"))


@pytest.mark.parametrize("script", ["(assert true)", "{{answer}} (check-sat)", "{{answer}} {{x}}"])
def test_scripts_that_cannot_be_used_are_refused(script: str) -> None:
    with pytest.raises(VerifierSetupError):
        Script.parse(script)


@given(st.text(alphabet='ab ()"|;\n', max_size=30))
def test_a_term_never_ends_what_stands_around_it(text: str) -> None:
    term: Any = one_term(text)
    if term is not None:
        assert "\n" not in term
        assert one_term(f"({term})") == f"( {term} )"
        assert one_term(f"{term} {term}") is None
