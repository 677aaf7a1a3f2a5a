"""Agreement on tests, and the allocation of one budget among problems."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.policies.agreement import Agreement, agreement_order, agreement_score
from samplewise.policies.base import PolicyError, StopReason
from samplewise.policies.elimination import Elimination
from samplewise.policies.evidence import Evidence
from samplewise.policies.replay.budget import spend_budget
from samplewise.policies.replay.chance import orders
from samplewise.policies.replay.judging import Judge
from samplewise.policies.replay.player import Player, ReplayError
from samplewise.policies.replay.records import Problem, RecordedSample, RecordedVerdict
from samplewise.verifiers.base import Task
from tests.replay.made import PRICES, judged


def test_two_that_pass_three_tests_stand_before_four_that_pass_two() -> None:
    results = {"a": (1, 1, 0), "b": (1, 1, 1), "c": (1, 1, 0), "d": (1, 1, 1), "e": (0, 0, 0)}
    results |= {"f": (1, 1, 0), "g": (1, 1, 0)}
    # sqrt(2) * 3 = 4.24 before sqrt(4) * 2 = 4.
    assert agreement_order(results) == ["b", "a", "d", "c", "f", "g", "e"]
    assert agreement_score(2, (1, 1, 1)) == pytest.approx(4.2426, abs=1e-4)


def test_those_that_pass_nothing_keep_their_order() -> None:
    assert agreement_order({"x": (0, 0), "y": (0, 0)}) == ["x", "y"]
    assert agreement_order({}) == []


@given(st.lists(st.tuples(*[st.sampled_from([0.0, 1.0])] * 3), min_size=1, max_size=9))
def test_every_sample_stands_in_the_order_once(results: list[tuple[float, ...]]) -> None:
    found = agreement_order({str(i): result for i, result in enumerate(results)})
    assert sorted(found) == sorted(str(i) for i in range(len(results)))


def run_tests(*results: str) -> Problem:
    """Return a problem whose samples pass (`1`) or fail (`0`) the same tests."""
    samples = tuple(
        RecordedSample(
            text=f"{i}",
            correct=tests == "110",
            verdicts={"tests": RecordedVerdict(step_scores=tuple(float(t) for t in tests))},
        )
        for i, tests in enumerate(results)
    )
    return Problem(id="p", samples=samples)


def test_the_policy_answers_with_the_group_that_agrees() -> None:
    problem = run_tests("100", "110", "011", "110")
    run = Player(PRICES).play(Agreement("tests", 4), problem, range(4))
    assert (run.chosen, run.right, run.reason) == (1, True, StopReason.AGREED)


def test_without_agreement_the_best_is_returned_and_nothing_is_claimed() -> None:
    run = Player(PRICES).play(Agreement("tests", 3), run_tests("100", "110", "000"), range(3))
    assert (run.chosen, run.reason) == (1, StopReason.EXHAUSTED)


@pytest.mark.parametrize("fields", [{"score": ""}, {"score": "tests", "samples": 1}])
def test_agreement_needs_tests_and_two_samples(fields: dict[str, object]) -> None:
    with pytest.raises(PolicyError):
        Agreement(**fields)  # type: ignore[arg-type]


@given(st.lists(st.text("rw", min_size=5, max_size=5), min_size=1, max_size=6),
       st.integers(0, 40), st.integers(1, 3))  # fmt: skip
def test_elimination_never_gives_more_than_is_left_and_nothing_to_the_solved(
    texts: list[str], total: int, each: int
) -> None:
    problems = [judged(text, id_=str(i)) for i, text in enumerate(texts)]
    order = {p.id: orders(p.id, 5, 1)[0].tolist() for p in problems}
    found = spend_budget(Elimination(each), problems, order, total, Judge(exact=True))
    assert sum(e.drawn for e in found.values()) <= total
    for problem, evidence in zip(problems, found.values(), strict=True):
        said = [problem.samples[place].correct for place in order[problem.id]]
        first = said.index(True) if True in said else 5
        # Whole rounds: the last may go past the right sample that ended it.
        assert evidence.drawn < first + 1 + each
    wasted = total - sum(e.drawn for e in found.values())
    if wasted:
        assert all(e.best_passed or e.drawn == 5 for e in found.values())


def test_an_allocator_that_gives_too_much_is_refused() -> None:
    class Greedy:
        def allocate(self, problems: dict[str, Evidence], left: int) -> dict[str, int]:
            return dict.fromkeys(problems, left + 1)

    problems = [judged("w", id_="1")]
    with pytest.raises(ReplayError, match="gives 1 samples more"):
        spend_budget(Greedy(), problems, {"1": [0]}, 3, Judge())  # type: ignore[arg-type]


def test_the_last_round_is_by_chance_and_the_same_again() -> None:
    open_ = {str(i): Evidence(Task("r", "route", b"[]")) for i in range(50)}
    first = Elimination(seed=3).allocate(open_, 7)
    assert first == Elimination(seed=3).allocate(open_, 7)
    assert len(first) == 7
    assert set(first) != {str(i) for i in range(7)}
