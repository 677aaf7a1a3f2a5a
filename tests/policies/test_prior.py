from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.policies.base import PolicyError
from samplewise.policies.first_pass import FirstPass
from samplewise.policies.prior import Prior, Tally, wilson

MANY = 10**9
# arXiv:2411.17501, sec. 3: Llama-3.1-8B on HumanEval+, easy and hard problems; completeness 1,
# soundness 0.75.
PAPER = Prior(
    right=Tally(passed=MANY),
    wrong=Tally(passed=MANY // 4, failed=3 * MANY // 4),
    accuracy=((0.87, 0.58), (0.13, 0.42)),
)
COUNTS = st.integers(0, 200)


def attempts(prior: Prior, right: float, wrong: float, most: int = 1000) -> int:
    """Return how many attempts are worth drawing when all fail."""
    for failed in range(most):
        if prior.gain(failed, right, wrong) <= 0:
            return failed
    return most


@pytest.mark.parametrize(("wrong", "best"), [(0, 1000), (1, 2), (2, 1), (4, 1), (8, 0)])
def test_the_best_number_of_attempts_is_that_of_the_paper(wrong: float, best: int) -> None:
    assert attempts(PAPER, 1, wrong) == best


def test_the_expected_reward_is_that_of_the_paper() -> None:
    # -1: 0.4724 after two attempts; -2: 0.3388 and -4: 0.1184 after one.
    for wrong, attempts_, reward in ((1, 2, 0.4724), (2, 1, 0.3388), (4, 1, 0.1184)):
        total, reached = 0.0, 1.0
        for failed in range(attempts_):
            total += reached * PAPER.gain(failed, 1, wrong)
            fails = sum(
                w * (1 - r) * 0.75 ** (failed + 1) * (1 - r) ** failed for r, w in PAPER.accuracy
            )
            reached = fails
        assert total == pytest.approx(reward, abs=5e-5)


@given(COUNTS, COUNTS, COUNTS, COUNTS, st.lists(st.floats(0.001, 0.999), min_size=1, max_size=5))
def test_a_fail_never_makes_the_next_attempt_worth_more(
    a: int, b: int, c: int, d: int, accuracy: list[float]
) -> None:
    right, wrong = (
        Tally(passed=max(a, b), failed=min(a, b)),
        Tally(passed=min(c, d), failed=max(c, d)),
    )
    prior = Prior(right, wrong, tuple((r, 1.0) for r in accuracy))
    gains = [prior.gain(failed, 1.0, 2.0) for failed in (0, 1, 2, 5, 20, 1000)]
    assert all(math.isfinite(gain) for gain in gains)
    assert all(x >= y - 1e-9 for x, y in itertools.pairwise(gains))
    rights = [prior.p_right(failed) for failed in (0, 1, 5, 1000)]
    assert all(0 <= p <= 1 for p in rights)
    assert all(x >= y - 1e-9 for x, y in itertools.pairwise(rights))


def test_with_one_accuracy_for_all_every_attempt_is_worth_the_same() -> None:
    prior = Prior(PAPER.right, PAPER.wrong, ((0.5, 1.0),))
    assert not prior.spread
    assert prior.gain(0, 1, 1) == pytest.approx(prior.gain(50, 1, 1))


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    # Brown, Cai and DasGupta 2001 give the formula; values by hand from it.
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (0, 0, 0.0, 1.0)],
)
def test_intervals_are_wilsons(count: int, total: int, low: float, high: float) -> None:
    assert wilson(count, total) == pytest.approx((low, high), abs=1e-4)


@given(st.integers(0, 500), st.integers(0, 500))
def test_an_interval_holds_its_rate(a: int, b: int) -> None:
    count, total = min(a, b), max(a, b)
    low, high = wilson(count, total)
    assert 0 <= low <= high <= 1
    if total:
        assert low <= count / total <= high


def test_a_verifier_that_is_worth_nothing_is_refused() -> None:
    policy = FirstPass(max_samples=8, right_nano=1, wrong_nano=8)
    with pytest.raises(PolicyError, match=r"right with probability 0\.\d+ only"):
        policy.check(PAPER)
    FirstPass(max_samples=8, right_nano=1, wrong_nano=4).check(PAPER)


@given(
    COUNTS,
    COUNTS,
    st.lists(st.floats(0.01, 0.99), min_size=2, max_size=4, unique=True),
    st.integers(1, 20),
    st.integers(0, 10),
    st.integers(1, 300),
)
def test_the_best_number_of_attempts_is_where_drawing_one_by_one_stops(
    a: int, c: int, accuracy: list[float], wrong: int, none: int, price: int
) -> None:
    # Counts by which right answers pass more often than wrong ones.
    prior = Prior(Tally(passed=200, failed=a), Tally(passed=c, failed=200),
                  tuple((r, 1.0) for r in accuracy))  # fmt: skip
    policy = FirstPass(50, (1,), 1, 1000, 100 * wrong, 100 * none, price)
    found = policy.best_attempts(prior)
    assert found is not None
    gains = [policy._gain(prior, failed) - price for failed in range(50)]
    worth = next((k for k, gain in enumerate(gains) if gain <= 0), 50)
    if all(abs(gain) > 1e-6 for gain in gains):
        # Attempts that are hardly ever reached change the reward by less than a number can hold.
        assert found[0] <= worth
        limited = replace(policy, max_samples=max(worth, 1)).best_attempts(prior)
        assert limited == (found[0], found[1])
        if worth <= 10:
            assert found[0] == worth


def test_the_best_number_is_told_only_where_all_is_known() -> None:
    known = FirstPass(max_samples=8, right_nano=1000, wrong_nano=1000, attempt_nano=1)
    assert known.best_attempts(PAPER) is not None
    assert known.best_attempts(Prior(PAPER.right, PAPER.wrong, ((0.5, 1.0),))) is None
    for less in ({"attempt_nano": None}, {"right_nano": None}):
        assert replace(known, **less).best_attempts(PAPER) is None  # type: ignore[arg-type]


def test_the_rewards_of_the_paper_with_what_no_answer_costs() -> None:
    # -1: 0.4724 after two attempts, an attempt being free and no answer worth nothing.
    free = FirstPass(8, right_nano=10**6, wrong_nano=10**6, attempt_nano=0)
    best = free.best_attempts(PAPER)
    assert best is not None
    assert (best[0], round(best[1], -2)) == (2, 472_400)
    # Where no answer costs as much as a wrong one, every attempt can only help.
    dear = FirstPass(8, right_nano=10**6, wrong_nano=10**6, none_nano=10**6, attempt_nano=0)
    found = dear.best_attempts(PAPER)
    assert found is not None
    assert found[0] == 8
