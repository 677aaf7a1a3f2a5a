"""The verifiers `countdown` and `arithmetic`: whole answers, steps, and set mistakes."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import msgspec
import pytest

from samplewise.models.arithmetic import Expression, parse_expression, random_path
from samplewise.models.countdown import Puzzle, held_out_puzzles, random_attempt
from samplewise.models.noise import Corruption
from samplewise.verifiers.base import Assurance, Ended, Sample, Status, Task, VerifierError
from samplewise.verifiers.puzzle import PuzzleCheck
from tests.embedded.upstream import PUZZLE, SUM, user
from tests.verifiers.making import sample, task

RIGHT = "8 / 8 = 1 , 1 4 7 ; 7 - 1 = 6 , 4 6 ; 4 * 6 = 24"
WRONG = "8 / 8 = 1 , 1 4 7 ; 7 + 1 = 8 , 4 8 ; 4 * 8 = 32"
COUNTDOWN = PuzzleCheck("countdown", Puzzle)
ARITHMETIC = PuzzleCheck("arithmetic", Expression)


def asked(text: str) -> Task:
    return task(messages=msgspec.json.encode(user(text)))


def step(text: str) -> Sample:
    return replace(sample(text), step=True, ended=Ended.STOP_STRING, stop=";")


@pytest.mark.parametrize(("text", "status"), [(RIGHT, Status.PASS), (WRONG, Status.FAIL)])
async def test_a_puzzle_is_replayed(text: str, status: Status) -> None:
    verdict = await COUNTDOWN.verify(asked(PUZZLE), sample(text))
    assert verdict.status is status
    assert verdict.score == (1.0 if status is Status.PASS else 0.0)
    assert verdict.assurance is Assurance.SYMBOLIC
    assert verdict.answer is not None


async def test_the_feedback_says_what_was_wrong() -> None:
    verdict = await COUNTDOWN.verify(asked(PUZZLE), sample(WRONG))
    assert verdict.feedback == "the steps end at 32, not at 24"


@pytest.mark.parametrize(("value", "status"), [("28", Status.PASS), ("29", Status.FAIL)])
async def test_a_value_is_compared(value: str, status: Status) -> None:
    text = f"12 * 3 - 8 ; 36 - 8 ; = {value}"
    verdict = await ARITHMETIC.verify(asked(SUM), sample(text))
    assert (verdict.status, verdict.answer) == (status, value)


async def test_without_judging_answers_are_only_read() -> None:
    reader = PuzzleCheck("arithmetic", Expression, judge=False)
    for value in ("28", "29"):
        verdict = await reader.verify(asked(SUM), sample(f"12 * 3 - 8 ; 36 - 8 ; = {value}"))
        assert (verdict.status, verdict.score) == (Status.NONE, None)
        assert verdict.answer == value


@pytest.mark.parametrize(
    ("text", "score"),
    [("8 / 8 = 1 , 1 4 7", 1.0), ("8 * 8 = 64 , 4 7 64", 0.0), ("8 / 8 = 2 , 2 4 7", 0.0)],
)
async def test_a_step_is_scored_by_what_can_still_be_reached(text: str, score: float) -> None:
    verdict = await COUNTDOWN.verify(asked(PUZZLE), step(text))
    assert (verdict.status, verdict.score) == (Status.NONE, score)


async def test_a_step_of_an_expression_keeps_its_value() -> None:
    for text, score in (("12 * 3 - 8", 1.0), ("11 * 3 - 8", 0.0)):
        assert (await ARITHMETIC.verify(asked(SUM), step(text))).score == score


async def test_mistakes_are_made_at_the_set_rate_and_always_the_same() -> None:
    noisy = PuzzleCheck("countdown", Puzzle, corruption=Corruption(false_pass=0.3, seed=1))
    rng, passed, judged = Random(0), 0, 0
    for puzzle in held_out_puzzles(60):
        for _ in range(5):
            text = random_attempt(puzzle, rng)
            exact = await COUNTDOWN.verify(asked(puzzle.prompt), sample(text))
            found = await noisy.verify(asked(puzzle.prompt), sample(text))
            again = await noisy.verify(asked(puzzle.prompt), sample(text, index=1))
            assert found.status is again.status
            assert found.assurance is Assurance.HEURISTIC
            if exact.status is Status.FAIL:
                passed, judged = passed + (found.status is Status.PASS), judged + 1
    assert 0.2 < passed / judged < 0.4


async def test_right_answers_can_be_failed() -> None:
    strict = PuzzleCheck("arithmetic", Expression, corruption=Corruption(false_fail=1))
    text = random_path(parse_expression(SUM), Random(0))
    verdict = await strict.verify(asked(SUM), sample(text))
    assert (verdict.status, verdict.score) == (Status.FAIL, 0.0)


@pytest.mark.parametrize("text", ["Hello!", SUM, ""])
async def test_a_problem_of_another_kind_is_an_error_not_a_fail(text: str) -> None:
    with pytest.raises(VerifierError):
        await COUNTDOWN.verify(asked(text), sample(RIGHT))
