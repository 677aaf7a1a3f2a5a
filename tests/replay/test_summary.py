"""The baseline and the figures of a replay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samplewise.policies.best_of_n import BestOfN
from samplewise.policies.first_pass import FirstPass
from samplewise.policies.majority_vote import MajorityVote
from samplewise.policies.replay.chance import Noise, orders
from samplewise.policies.replay.fixed import best_of, votes_of
from samplewise.policies.replay.judging import Judge
from samplewise.policies.replay.player import Player
from samplewise.policies.replay.records import Problem, RecordedSample
from samplewise.policies.replay.replaying import Replay
from samplewise.policies.replay.summary import estimate, frontier
from samplewise.policies.replay.table import Table
from tests.replay.made import PRICES, judged, problems, voted


@settings(max_examples=60)
@given(st.lists(problems(8), min_size=1, max_size=3), st.integers(1, 8), st.integers(0, 3))
def test_a_fixed_vote_is_majority_vote(given_: list[Problem], n: int, seed: int) -> None:
    fixed = votes_of(Table.build(given_, 8, 4, prices=PRICES, seed=seed))
    runs = [
        Player(PRICES).play(MajorityVote(n), problem, order)
        for problem in given_
        for order in orders(problem.id, 8, 4, seed)
    ]
    assert fixed.right[:, n - 1].tolist() == [run.right for run in runs]
    assert fixed.nano[:, n - 1].tolist() == [run.nano_by_wave for run in runs]
    assert fixed.seconds[:, n - 1].tolist() == [run.seconds for run in runs]


@settings(max_examples=60)
@given(st.text("rw", min_size=6, max_size=6), st.integers(1, 6), st.floats(0, 1))
def test_a_fixed_choice_is_best_of_n(text: str, n: int, rate: float) -> None:
    judge = Judge(exact=True, noise=Noise(rate, rate))
    given_ = [judged(text)]
    fixed = best_of(Table.build(given_, 6, 5, prices=PRICES), given_, judge)
    player = Player(PRICES, judge=judge)
    runs = [player.play(BestOfN(n), given_[0], order) for order in orders("p", 6, 5)]
    assert fixed.right[:, n - 1].tolist() == [run.right for run in runs]


def test_a_summary_counts_over_problems_and_passes() -> None:
    replay = Replay([voted("aab", id_="p"), voted("bbb", id_="q")], PRICES, passes=7)
    found = replay.run("vote", MajorityVote(3))
    assert (found.accuracy.value, found.coverage, found.gap) == (0.5, 0.5, 0.0)
    assert found.difference.value == 0.0
    # One call with n = 3 is the baseline itself.
    assert found.share == 1.0
    assert found.usd_by_call > found.usd_by_wave == found.usd
    assert found.match is not None
    assert found.usd_per_solved == pytest.approx(found.usd / 0.5)


def test_the_cheapest_fixed_call_of_equal_accuracy_is_found() -> None:
    replay = Replay([judged("wwrr", id_=str(i)) for i in range(4)], PRICES, passes=50)
    found = replay.run("pass", FirstPass(4, waves=(1,)))
    assert found.accuracy.value == 1.0
    assert found.match is not None
    # Two wrong ones at most come first.
    assert found.match.n == 3
    assert found.baseline_n == 4


def test_a_policy_that_names_no_backend_draws_from_the_first_alone() -> None:
    def sample(answer: str, backend: str) -> RecordedSample:
        return RecordedSample(answer=answer, tokens=10, backend=backend)

    samples = (sample("a", "own"), sample("a", "own"), *(sample("b", "api") for _ in range(6)))
    problem = Problem(id="p", samples=samples, prompt_tokens=40, reference="a")
    prices = dict.fromkeys(("own", "api"), PRICES[""])
    found = Replay([problem], prices, passes=20).run("vote", MajorityVote(2))
    assert (found.accuracy.value, found.difference.value, found.share) == (1.0, 0.0, 1.0)


def test_a_false_pass_lowers_accuracy_and_not_coverage() -> None:
    given_ = [judged("wwwr" * 3, id_=str(i)) for i in range(40)]
    noisy = Replay(given_, PRICES, passes=5, noise=Noise(false_pass=0.3))
    found = noisy.run("pass", FirstPass(12, waves=(12,)))
    assert found.accuracy.value < 0.9
    assert Replay(given_, PRICES, passes=5).run("pass", FirstPass(12)).accuracy.value == 1.0


def test_the_interval_holds_the_mean_and_narrows_with_problems() -> None:
    rng = np.random.default_rng(3)
    few, many = estimate(rng.random(20)), estimate(rng.random(2000))
    assert few.low < few.value < few.high
    assert many.high - many.low < few.high - few.low


def test_the_frontier_holds_what_none_beats_in_both() -> None:
    points = [(3.0, 0.9), (1.0, 0.5), (2.0, 0.4), (2.0, 0.7), (4.0, 0.9)]
    assert frontier(points) == [1, 3, 0]
