"""The rules that stop a vote, each against its definition."""

from __future__ import annotations

import random
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.policies.adaptive_vote import AdaptiveVote
from samplewise.policies.base import PolicyError, StopReason
from samplewise.policies.rules.bayes_factor import BayesFactor
from samplewise.policies.rules.beta import beta_confidence
from samplewise.policies.rules.certificate import Certificate, evidence_value
from samplewise.policies.rules.dirichlet import Dirichlet
from samplewise.policies.rules.dominance import Dominance
from samplewise.policies.votes import Votes
from samplewise.verifiers.base import Ended
from tests.policies.runs import Game, Script, votes


def tally(text: str) -> Votes:
    """Return the votes of a run that is written as letters; `.` is no answer."""
    found = Votes()
    for index, letter in enumerate(text):
        if letter == ".":
            found.skip()
        else:
            found.add(letter, index)
    return found


@pytest.mark.parametrize(
    ("run", "factor", "off"),
    [("a", 4.3, 0.05), ("aa", 14.2, 0.05), ("aaa", 37.0, 0.05), ("aaaa", 88.8, 0.05),
     ("aaaaa", 204, 0.5)],
)  # fmt: skip
def test_the_bayes_factor_of_a_unanimous_run(run: str, factor: float, off: float) -> None:
    # By the definition of arXiv:2509.21091, each equal to the digits that the target is given in.
    assert BayesFactor(30, 40).value(tally(run)) == pytest.approx(factor, abs=off)


@given(st.lists(st.integers(1, 40), min_size=2, max_size=6))
def test_one_of_the_shares_is_the_largest(shapes: list[int]) -> None:
    dominance = Dominance(40)
    chances = [dominance.leads([s, *shapes[:i], *shapes[i + 1 :]]) for i, s in enumerate(shapes)]
    assert sum(chances) == pytest.approx(1, abs=1e-9)


@given(st.integers(0, 30), st.integers(0, 30))
def test_between_two_answers_dirichlet_is_beta(lead: int, second: int) -> None:
    found = Dominance(31).leads([lead + 1, second + 1])
    assert found == pytest.approx(beta_confidence(lead, second), abs=1e-9)


def test_a_third_answer_makes_dirichlet_less_sure_than_beta() -> None:
    run = tally("aaaaabbcc")
    posterior = Dirichlet(0.9, 40).details(run)["posterior"]
    assert isinstance(posterior, float)
    assert 0.5 < posterior < beta_confidence(5, 2)


@pytest.mark.parametrize(
    ("run", "drawn"),
    [("aaaaa", 5), ("aaaab" + "bbbbb", 10), ("baaaa" + "aabbb", 15), ("aa.aa", 15)],
)
def test_esc_stops_at_a_whole_window_of_one_answer(run: str, drawn: int) -> None:
    game = Game(AdaptiveVote("esc", max_samples=15, window=5), votes((run * 3)[:15]))
    game.play()
    assert game.evidence.drawn == drawn


@given(st.integers(0, 40))
def test_the_e_value_has_mean_one_between_equal_answers(n: int) -> None:
    mean = sum(comb(n, k) * 0.5**n * evidence_value(k, n - k) for k in range(n + 1))
    assert mean == pytest.approx(1, abs=1e-9)


def test_a_certificate_is_rarely_wrong_however_often_one_looks() -> None:
    # No answer is the mode here, so every certificate is wrong; at most 10 % may be given.
    rng, wrong = random.Random(1), 0
    rule = Certificate(0.9)
    for _ in range(400):
        run = Votes()
        for index in range(60):
            run.add(rng.choice("abc"), index)
            if rule.met(run):
                wrong += 1
                break
    assert wrong <= 40


def test_a_certificate_comes_when_the_mode_is_clear() -> None:
    policy = AdaptiveVote("certificate", max_samples=60, window=1, order="launch")
    game = Game(policy, votes("aaaaaaaab"))
    assert game.play().reason is StopReason.AGREED
    assert game.evidence.drawn < 20


def test_the_answer_that_came_later_needs_more_votes_for_its_certificate() -> None:
    def needed(first: str) -> int:
        run, rule = tally(first), Certificate(0.95)
        while not rule.met(run):
            run.add("a", run.total)
        return run.classes["a"].count

    assert needed("a") < needed("ba") < needed("bcda")


def test_in_launch_order_a_vote_waits_for_the_samples_before() -> None:
    late_first = Game(
        AdaptiveVote(margin=2, max_samples=9, window=3, order="launch"),
        votes("baaaaaaaa"),
        pick=lambda running: running[-1],
    )
    stop = late_first.play()
    # The first sample comes back last, and its vote is counted first.
    assert late_first.evidence.launched.votes.order[0] == "b"
    assert late_first.evidence.samples[stop.ranking[0]].text == "answer a"


def test_lost_cut_and_silent_samples_hold_no_vote_up() -> None:
    scripts = [Script(lost=True), Script("x", ended=Ended.LENGTH), *votes(".aaa")]
    game = Game(AdaptiveVote(margin=3, max_samples=6, window=2, order="launch"), scripts)
    assert game.play().reason is StopReason.AGREED
    assert game.evidence.launched.votes.order == ["", "", "", "a", "a", "a"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"rule": "certificate"}, "order"),
        ({"rule": "esc", "waves": (5,)}, "waves"),
        ({"rule": "esc", "window": 1}, "window"),
        ({"rule": "bayes_factor", "factor": 1.0}, "factor"),
        ({"rule": "dirichlet", "max_samples": 301}, "max_samples"),
        ({"rule": "plurality"}, "rule"),
        ({"order": "random"}, "order"),
    ],
)
def test_a_rule_that_cannot_be_kept_is_refused(fields: dict[str, object], field: str) -> None:
    with pytest.raises(PolicyError, match=f"^{field}: "):
        AdaptiveVote(**fields)  # type: ignore[arg-type]
