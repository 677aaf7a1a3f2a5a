from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from samplewise.verifiers.base import Assurance, Status, Verdict, VerifierError
from samplewise.verifiers.math import MATH_TARGET, Math, canonical_math
from tests.verifiers.making import sample, task
from tests.verifiers.making_pools import pool_of

# The import of math-verify takes a second: all tests share the workers, so also the loop.
pytestmark = pytest.mark.asyncio(loop_scope="module")

_HANGS = r"9^{9^{9^9}}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def math() -> AsyncIterator[Math]:
    async with pool_of(MATH_TARGET, size=2, timeout_s=1.5, memory_mb=1024) as pool:
        verifier = Math(name="m", pool=pool)
        await verifier.open()
        yield verifier


async def _verify(math: Math, reference: str | None, text: str) -> Verdict:
    return await math.verify(task(reference), sample(text))


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("7", "7"),
        ("7", "7.0"),
        ("1000", "1,000"),
        ("0.5", r"\frac{1}{2}"),
        ("1/3", "0.3333333"),
        ("50%", "0.5"),
        ("1.5", "1 1/2"),
        (r"\{1, 2, 3\}", r"\{3, 1, 2\}"),
        ("(x+1)^2", "x^2+2x+1"),
        ("5", "x=5"),
        ("(B)", "B"),
        (r"10\text{cm}", "10 cm"),
        (r"\text{even}", "Even"),
        ("x=2 or x=3", "2, 3"),
        (r"\frac{x^2-1}{x-1}", "x+1"),
        (r"\sqrt{8}", r"2\sqrt{2}"),
        ("sin(x)", r"\sin x"),
        ("2pi", r"2\pi"),
        ("7", "2+5=7"),
        ("1<x<2", "(1,2)"),
    ],
)
async def test_equal_mathematics_passes(math: Math, reference: str, answer: str) -> None:
    verdict = await _verify(math, reference, rf"So \boxed{{{answer}}}.")
    assert (verdict.status, verdict.assurance) == (Status.PASS, Assurance.SYMBOLIC)


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        (r"\pi", "3.14159"),
        ("7", r"\{7, 8\}"),
        ("7", "7, 8"),
        ("7", r"7 \text{ or } 8"),
        ("15", "8 7"),
        ("7", r"8 \quad 7"),
        ("7", "8=7"),
        ("7", "1=2=7"),
        ("7", "5x"),
        ("1", "1 1/2"),
        ("1/3", "0.33"),
        (r"\text{listen}", r"\text{silent}"),
        ("even", "odd"),
        ("even", "7"),
        ("5", "5 thousand"),
        ("7", "I do not know"),
        ("(1,2)", "(2,1)"),
        ("x", "y"),
    ],
)
async def test_other_mathematics_fails(math: Math, reference: str, answer: str) -> None:
    verdict = await _verify(math, reference, rf"So \boxed{{{answer}}}.")
    assert verdict.status is Status.FAIL


@pytest.mark.parametrize(
    "text",
    ["The answer is $8$ $7$.", "Final answer: $7$ or $8$", "$8$ $7$", "The answer is 7}8"],
)
async def test_hedging_fails(math: Math, text: str) -> None:
    assert (await _verify(math, "7", text)).status is Status.FAIL


@pytest.mark.parametrize("text", [r"\boxed{}", "", "<think>7</think>"])
async def test_nothing_equals_nothing(math: Math, text: str) -> None:
    verdict = await _verify(math, "7", text)
    assert (verdict.status, verdict.reason) == (Status.FAIL, "no_answer")
    assert not await math.equivalent("", "")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Thus we get\n$x+1$", "x+1"),
        ("Adding up gives 7.\nSo it is 7 in all, as anybody can see who has read this far.", "7"),
        (r"$\frac{1}{2}$", "0.5"),
        ("x^2 + 1", "x^2+1"),
        (r"\boxed{10 \text{ cm}}", r"10\text{cm}"),
    ],
)
async def test_one_answer_is_taken_out_also_where_none_is_marked(
    math: Math, text: str, answer: str
) -> None:
    verdict = await _verify(math, None, text)
    assert (verdict.status, verdict.answer) == (Status.NONE, answer)


async def test_a_hang_is_an_error_not_a_fail_and_the_next_check_works(math: Math) -> None:
    for answer in (_HANGS, "10000000!"):
        with pytest.raises(VerifierError) as caught:
            await _verify(math, "7", rf"\boxed{{{answer}}}")
        assert caught.value.reason == "timeout"
        assert (await _verify(math, "0.5x", r"\boxed{\frac{x}{2}}")).status is Status.PASS


async def test_equivalence_is_symmetric(math: Math) -> None:
    for a, b, same in [
        ("1<x<2", "(1,2)", True),
        ("x=5", "5", True),
        ("7", "8", False),
        (r"\frac{1}{3}", "0.3333333", True),
        ("7", "8=7", False),
        (r"\text{none}", "none", True),
    ]:
        one, other = await math.equivalent(a, b), await math.equivalent(b, a)
        assert (a, b, one, other) == (a, b, same, same)


async def test_equal_texts_and_different_integers_need_no_worker(math: Math) -> None:
    idle = Math(name="m", pool=None)  # type: ignore[arg-type]
    assert await idle.equivalent(_HANGS, _HANGS)
    assert not await idle.equivalent("7", "8")
    assert (await _verify(idle, _HANGS, rf"\boxed{{{_HANGS}}}")).status is Status.PASS


async def test_the_task_has_the_last_word_about_the_reference(math: Math) -> None:
    fixed = Math(name="m", pool=math.pool, reference="8")
    assert (await _verify(fixed, None, r"\boxed{8}")).status is Status.PASS
    assert (await _verify(fixed, "7", r"\boxed{8}")).status is Status.FAIL
    assert (await _verify(fixed, "so 3+4\n#### 7", r"\boxed{7}")).status is Status.PASS


async def test_a_reference_that_is_no_mathematics_is_an_error(math: Math) -> None:
    with pytest.raises(VerifierError, match="reference") as caught:
        await _verify(math, "7 8 9", r"\boxed{7}")
    assert caught.value.reason == "protocol"


async def test_long_answers_are_an_error(math: Math) -> None:
    with pytest.raises(VerifierError) as caught:
        await _verify(math, "7", rf"\boxed{{{'x+' * 6_000}1}}")
    assert caught.value.reason == "protocol"


async def test_feedback_does_not_hold_the_reference(math: Math) -> None:
    verdict = await _verify(math, "4711", r"\boxed{5}")
    assert "4711" not in verdict.feedback + verdict.reason


async def test_samples_with_one_final_answer_share_the_verdict(math: Math) -> None:
    assert math.key(sample(r"one way: \boxed{7}")) == math.key(sample("the answer is 7."))
    assert math.key(sample(r"\boxed{7}")) != math.key(sample(r"\boxed{8}"))


async def test_many_checks_at_once(math: Math) -> None:
    async with asyncio.TaskGroup() as group:
        checks = [
            group.create_task(_verify(math, f"{n}x", rf"\boxed{{x*{n}}}")) for n in range(2, 42)
        ]
    assert {check.result().status for check in checks} == {Status.PASS}


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("$1{,}000$", "1000"),
        (r"\dfrac{a}{b}", r"\frac{a}{b}"),
        (r"\left( 1, 2 \right)", "(1,2)"),
        ("x  +  1", "x+1"),
        ("a b", "a b"),
        (r"\leftarrow x", r"\leftarrow x"),
    ],
)
async def test_canonical_text_is_tidied(text: str, canonical: str) -> None:
    assert canonical_math(text) == canonical
