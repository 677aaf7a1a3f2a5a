from __future__ import annotations

import pytest

from samplewise.verifiers.base import Status, VerifierError
from samplewise.verifiers.string_check import Operation, StringCheck
from samplewise.verifiers.templates import Template
from tests.verifiers.making import sample, task


def _check(operation: Operation, reference: str = "{{reference}}") -> StringCheck:
    return StringCheck(
        name="s",
        operation=operation,
        input=Template.parse("{{sample.output_text}}"),
        reference=Template.parse(reference),
    )


@pytest.mark.parametrize(
    ("operation", "given", "reference", "passes"),
    [
        ("eq", "cat", "cat", True),
        ("eq", " cat\n", "cat", True),
        ("eq", "Cat", "cat", False),
        ("eq", "<think>dog</think>cat", "cat", True),
        ("ne", "cat", "cat", False),
        ("ne", "dog", "cat", True),
        ("like", "a cat sat", "cat", True),
        ("like", "a CAT sat", "cat", False),
        ("ilike", "a CAT sat", "cat", True),
        ("ilike", "a dog sat", "cat", False),
        ("like", "cat", "a cat sat", False),
    ],
)
async def test_operations_mean_what_openai_says(
    operation: Operation, given: str, reference: str, passes: bool
) -> None:
    verdict = await _check(operation).verify(task(reference), sample(given))
    assert verdict.status is (Status.PASS if passes else Status.FAIL)
    assert verdict.score == float(passes)


async def test_the_normalised_input_votes() -> None:
    assert (await _check("eq").verify(task("x"), sample(" Cat. "))).answer == "cat"
    assert (await _check("eq").verify(task("x"), sample("c" * 500))).answer is None
    assert (await _check("eq").verify(task("x"), sample(""))).answer is None


async def test_without_a_reference_there_is_no_judgement() -> None:
    verdict = await _check("eq").verify(task(), sample("cat"))
    assert (verdict.status, verdict.answer, verdict.reason) == (Status.NONE, "cat", "no_reference")


async def test_every_text_contains_nothing_so_that_proves_nothing() -> None:
    assert (await _check("like").verify(task(" "), sample("cat"))).status is Status.NONE
    check = _check("ilike", "{{item.x}}")
    assert (await check.verify(task(item={"x": ""}), sample("cat"))).status is Status.NONE


async def test_an_item_that_did_not_come_is_an_error() -> None:
    with pytest.raises(VerifierError, match=r"item\.x"):
        await _check("eq", "{{item.x}}").verify(task("r"), sample("cat"))


async def test_feedback_does_not_hold_the_reference() -> None:
    verdict = await _check("eq").verify(task("hidden"), sample("cat"))
    assert "hidden" not in verdict.feedback + verdict.reason
