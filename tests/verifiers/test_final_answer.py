from __future__ import annotations

from samplewise.verifiers.base import Status
from samplewise.verifiers.final_answer import FinalAnswer
from tests.verifiers.making import sample, task


async def test_the_marked_answer_votes_and_nothing_is_judged() -> None:
    verdict = await FinalAnswer(name="f").verify(task("8"), sample(r"Hm. \boxed{ Seven } "))
    assert (verdict.status, verdict.answer, verdict.score) == (Status.NONE, "seven", None)


async def test_a_short_text_is_its_own_answer_and_a_long_one_does_not_vote() -> None:
    voter = FinalAnswer(name="f", max_chars=10)
    assert (
        await voter.verify(task(), sample("<think>long thoughts</think> Paris."))
    ).answer == "paris"
    long = await voter.verify(task(), sample("this text is too long to vote"))
    assert (long.answer, long.reason) == (None, "no_answer")


async def test_a_marked_answer_may_not_be_too_long_either() -> None:
    voter = FinalAnswer(name="f", max_chars=10)
    assert (await voter.verify(task(), sample(r"\boxed{12345678901}"))).answer is None


async def test_an_empty_text_does_not_vote() -> None:
    assert (await FinalAnswer(name="f").verify(task(), sample(" \n"))).answer is None


async def test_equal_answers_share_a_vote_whatever_surrounds_them() -> None:
    voter = FinalAnswer(name="f")
    texts = ["The answer is **Paris**.", "#### paris", r"\boxed{\text{PARIS}}", "Paris"]
    answers = {(await voter.verify(task(), sample(text))).answer for text in texts}
    assert answers == {"paris"}


async def test_case_counts_when_asked() -> None:
    voter = FinalAnswer(name="f", ignore_case=False)
    assert (await voter.verify(task(), sample("Paris"))).answer == "Paris"


async def test_with_a_reference_to_check_it_judges() -> None:
    judge = FinalAnswer(name="f", check_reference=True)
    right = await judge.verify(task("5 + 2 = 7\n#### 7"), sample(r"\boxed{7}"))
    wrong = await judge.verify(task("7"), sample(r"\boxed{8}"))
    none = await judge.verify(task("7"), sample(""))
    assert [v.status for v in (right, wrong, none)] == [Status.PASS, Status.FAIL, Status.FAIL]
    assert (wrong.reason, none.reason) == ("wrong_answer", "no_answer")
    assert "7" not in wrong.feedback


async def test_hedging_equals_no_reference() -> None:
    judge = FinalAnswer(name="f", check_reference=True)
    for text in ("The answer is $8$ $7$", r"\boxed{7, 8}", "The answer is 7 or 8."):
        assert (await judge.verify(task("7"), sample(text))).status is Status.FAIL


async def test_without_a_reference_there_is_no_judgement() -> None:
    judge = FinalAnswer(name="f", check_reference=True)
    assert (await judge.verify(task(), sample("7"))).status is Status.NONE
