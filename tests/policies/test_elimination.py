"""Which open problems get the next samples of a shared budget."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.policies.base import PolicyError
from samplewise.policies.elimination import Elimination, Spread
from samplewise.policies.evidence import Evidence
from samplewise.policies.replay.budget import spend_budget
from samplewise.policies.replay.judging import Judge
from samplewise.policies.replay.records import Problem, RecordedSample, RecordedVerdict
from samplewise.verifiers.base import Status
from tests.replay.made import voted

SPREADS = get_args(Spread)
NAMES = ("sure", "torn", "ahead", "three")
# What each problem's samples answer, in order.
TEXTS = ("aaaaaaaa", "abababab", "aaabaaaa", "abcabcab")


def spent(allocator: Elimination, total: int, texts: tuple[str, ...] = TEXTS) -> dict[str, int]:
    """Return how many samples each problem got."""
    problems = [voted(text, id_=name) for name, text in zip(NAMES, texts, strict=False)]
    order = {problem.id: range(len(problem.samples)) for problem in problems}
    found = spend_budget(allocator, problems, order, total, Judge())
    return {name: evidence.drawn for name, evidence in found.items()}


@given(
    st.lists(st.text("ab.", min_size=6, max_size=6), min_size=1, max_size=4),
    st.integers(0, 30),
    st.integers(1, 3),
    st.sampled_from(SPREADS),
    st.none() | st.integers(1, 4),
)
def test_no_more_is_spent_than_there_is_and_all_of_it_where_a_problem_is_open(
    texts: list[str], total: int, each: int, spread: Spread, lead: int | None
) -> None:
    drawn = spent(Elimination(each, spread=spread, lead=lead), total, tuple(texts))
    assert sum(drawn.values()) <= total
    if lead is None:
        assert sum(drawn.values()) == min(total, 6 * len(texts))


@pytest.mark.parametrize("spread", ["margin", "gap", "entropy"])
def test_the_least_sure_get_more_and_every_problem_gets_one(spread: Spread) -> None:
    drawn = spent(Elimination(spread=spread), 16)
    assert drawn["torn"] > drawn["ahead"] >= drawn["sure"] >= 1
    assert drawn["three"] > drawn["sure"]


def test_three_answers_are_less_sure_than_two_by_entropy_alone() -> None:
    # After six draws each: 3 to 3, and 2 to 2 to 2.
    texts = ("abababab", "abcabcab")
    assert spent(Elimination(6, spread="entropy"), 13, texts) == {"sure": 6, "torn": 7}
    assert spent(Elimination(6, spread="margin"), 13, texts) == {"sure": 7, "torn": 6}


def test_a_lead_lets_a_problem_leave() -> None:
    assert spent(Elimination(lead=3), 99) == {"sure": 3, "torn": 8, "ahead": 3, "three": 8}


def test_a_problem_that_never_gets_its_sample_holds_up_no_other() -> None:
    problem = voted("aaaa", id_="1")
    found = spend_budget(Elimination(), [problem], {"1": range(4)}, 1, Judge())
    failing = Evidence(found["1"].task, left_samples=4)
    grants = Elimination(spread="margin").allocate({"0": failing, "1": found["1"]}, 10)
    assert grants == {"0": 1, "1": 1}


def scored(id_: str, *scores: float) -> Problem:
    samples = tuple(
        RecordedSample(
            text=f"{score}", tokens=1, verdicts={"judge": RecordedVerdict(Status.NONE, score)}
        )
        for score in scores
    )
    return Problem(id=id_, samples=samples, prompt_tokens=40)


def scores_spent(allocator: Elimination, total: int, *problems: Problem) -> dict[str, int]:
    order = {problem.id: range(len(problem.samples)) for problem in problems}
    found = spend_budget(allocator, problems, order, total, Judge())
    return {name: evidence.drawn for name, evidence in found.items()}


def test_a_score_lets_a_problem_leave() -> None:
    problems = scored("good", 0.2, 0.9, 0.1, 0.1), scored("bad", 0.2, 0.3, 0.1, 0.1)
    assert scores_spent(Elimination(score=0.9), 99, *problems) == {"good": 2, "bad": 4}


def test_upper_bounds_prefer_promise_but_leave_nobody_out() -> None:
    problems = [scored("high", *[0.9] * 40), scored("low", *[0.1] * 40)]
    drawn = scores_spent(Elimination(spread="ucb"), 40, *problems)
    assert drawn["high"] > 2 * drawn["low"]
    assert drawn["low"] > 1


@pytest.mark.parametrize(
    "wrong", [{"spread": "least"}, {"lead": 0}, {"score": math.nan}, {"score": math.inf}]
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(PolicyError):
        Elimination(**wrong)
