from __future__ import annotations

import pytest

from samplewise.verifiers.base import Assurance, Status, VerifierError, VerifierSetupError
from samplewise.verifiers.number import Number
from tests.verifiers.making import sample, task


@pytest.mark.parametrize("text", ["1,000", "1000.0", "1e3", r"\boxed{1\,000}", "It is 1000 km."])
async def test_one_value_is_one_vote_however_it_is_written(text: str) -> None:
    verdict = await Number(name="n").verify(task(), sample(text))
    assert (verdict.status, verdict.answer) == (Status.NONE, "1000")


async def test_the_task_has_the_last_word_about_the_reference() -> None:
    check = Number(name="n", reference="8")
    assert (await check.verify(task(), sample("8"))).status is Status.PASS
    assert (await check.verify(task("7"), sample("8"))).status is Status.FAIL
    assert (await check.verify(task("7"), sample("8"))).assurance is Assurance.SYMBOLIC


async def test_a_worked_reference_counts_by_its_final_answer() -> None:
    assert (
        await Number(name="n").verify(task("3 + 4 = 7\n#### 7"), sample("so 7"))
    ).status is Status.PASS


@pytest.mark.parametrize(
    "text", [r"\boxed{7, 8}", "The answer is $8$ $7$", r"\boxed{7 \text{ or } 8}"]
)
async def test_a_list_of_guesses_fails(text: str) -> None:
    verdict = await Number(name="n").verify(task("7"), sample(text))
    assert (verdict.status, verdict.reason, verdict.answer) == (Status.FAIL, "no_answer", None)


async def test_the_last_number_counts_where_nothing_is_marked() -> None:
    assert (
        await Number(name="n").verify(task("7"), sample("First 5, then 7."))
    ).status is Status.PASS


async def test_tolerances_are_exact_and_inclusive() -> None:
    absolute = Number(name="n", tolerance_abs=0.5)
    assert (await absolute.verify(task("7"), sample("7.5"))).status is Status.PASS
    assert (await absolute.verify(task("7"), sample("7.5000001"))).status is Status.FAIL
    relative = Number(name="n", tolerance_rel=0.25)
    assert (await relative.verify(task("-100"), sample("-75"))).status is Status.PASS
    assert (await relative.verify(task("-100"), sample("-74"))).status is Status.FAIL


async def test_a_reference_that_is_no_number_is_an_error() -> None:
    with pytest.raises(VerifierError) as caught:
        await Number(name="n").verify(task("Paris"), sample("7"))
    assert caught.value.reason == "protocol"


@pytest.mark.parametrize("settings", [{"reference": "x"}, {"tolerance_abs": -1.0}])
def test_settings_that_cannot_work_are_a_setup_error(settings: dict[str, object]) -> None:
    with pytest.raises(VerifierSetupError):
        Number(name="n", **settings)  # type: ignore[arg-type]


async def test_answers_within_the_tolerance_are_one_vote() -> None:
    exact, loose = Number(name="n"), Number(name="n", tolerance_abs=0.1)
    assert await exact.equivalent("7", "7")
    assert not await exact.equivalent("7", "7.05")
    assert await loose.equivalent("7", "7.05")
    assert not await loose.equivalent("7", "words")


async def test_feedback_does_not_hold_the_reference() -> None:
    verdict = await Number(name="n").verify(task("4711"), sample("5"))
    assert "4711" not in verdict.feedback + verdict.reason
