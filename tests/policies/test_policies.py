from __future__ import annotations

import random
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.policies.adaptive_vote import AdaptiveVote
from samplewise.policies.agreement import Agreement
from samplewise.policies.base import Cancel, Draw, Policy, PolicyError, StopReason, Wait
from samplewise.policies.best_of_n import BestOfN
from samplewise.policies.cascade import Beside, Cascade, Tier
from samplewise.policies.first_pass import FirstPass
from samplewise.policies.fixed import Quorum
from samplewise.policies.majority_vote import MajorityVote
from samplewise.policies.model_choice import Model, ModelChoice
from samplewise.policies.rules.beta import beta_confidence, beta_table
from samplewise.policies.single import Single
from samplewise.policies.tools_first import ToolsFirst
from samplewise.policies.weighted_vote import WeightedVote
from samplewise.verifiers.base import Ended, Status
from tests.policies.runs import Game, Script, verdicts, votes


def _chosen(game: Game) -> str:
    stop = game.play()
    return game.evidence.samples[stop.ranking[0]].text


def test_single_draws_one_sample() -> None:
    game = Game(Single(), votes("ab"))
    assert game.play().reason is StopReason.EXHAUSTED
    assert game.evidence.drawn == 1


def test_majority_vote_returns_the_plurality() -> None:
    game = Game(MajorityVote(samples=7), votes("abbab.b"))
    assert _chosen(game) == "answer b"
    assert game.evidence.votes.total == 6


def test_a_tie_goes_to_the_answer_drawn_first_whatever_order_samples_arrive_in() -> None:
    for seed in range(20):
        rng = random.Random(seed)
        game = Game(MajorityVote(samples=4), votes("baba"), pick=rng.choice)
        assert _chosen(game) == "answer b"


def test_unparsed_and_cut_samples_do_not_vote() -> None:
    scripts = [Script("x", ended=Ended.LENGTH)] * 3 + [Script(None)] * 2 + votes("a")
    assert _chosen(Game(MajorityVote(samples=6), scripts)) == "answer a"


def test_a_failed_sample_neither_votes_nor_wins() -> None:
    scripts = [Script("bad", Status.FAIL)] * 5 + [Script("good")]
    assert _chosen(Game(MajorityVote(samples=6), scripts)) == "answer good"


def test_weighted_vote_adds_scores_per_answer() -> None:
    scripts = [Script("a", score=0.9), Script("b", score=0.5), Script("b", score=0.6)]
    assert _chosen(Game(WeightedVote(score="v", samples=3), scripts)) == "answer b"


def test_best_of_n_takes_the_highest_score() -> None:
    scripts = [Script("a", score=0.4), Script("b", score=0.6), Script("b", score=0.5)]
    game = Game(BestOfN(samples=3, score="v"), scripts)
    assert game.play().ranking[0] == "s1"


@pytest.mark.parametrize(
    ("steps", "scored", "best"),
    [(None, True, 0), (None, False, 1), ("last", True, 1), ("min", True, 2), ("prod", True, 2)],
)
def test_best_of_n_takes_the_verifiers_own_score_unless_it_is_told_how_steps_count(
    steps: Literal["last", "min", "prod"] | None, scored: bool, best: int
) -> None:
    given = ((0.9, (0.1, 0.1)), (0.2, (0.3, 0.9)), (0.1, (0.8, 0.7)))
    scripts = [Script("a", score=own if scored else None, steps=each) for own, each in given]
    game = Game(BestOfN(samples=3, score="v", steps=steps), scripts)
    assert game.play().ranking[0] == f"s{best}"


def test_best_of_n_weighted_takes_the_best_sample_of_the_heaviest_answer() -> None:
    scripts = [Script("a", score=0.9), Script("b", score=0.5), Script("b", score=0.6)]
    game = Game(BestOfN(samples=3, score="v", rule="weighted"), scripts)
    assert game.play().ranking == ("s2", "s1", "s0")


@pytest.mark.parametrize(("confidence", "stops_at"), [(0.90, 3), (0.95, 4), (0.99, 6)])
def test_beta_stops_a_unanimous_run(confidence: float, stops_at: int) -> None:
    policy = AdaptiveVote(rule="beta", confidence=confidence, max_samples=40, window=1)
    game = Game(policy, votes("a"))
    stop = game.play()
    assert (stop.reason, game.evidence.drawn) == (StopReason.AGREED, stops_at)


def test_beta_confidence_is_the_incomplete_beta_function() -> None:
    # Known answers: 1 - I_0.5(a, b) for small whole counts, by hand.
    assert beta_confidence(0, 0) == 0.5
    assert beta_confidence(3, 0) == 1 - 0.5**4
    assert beta_confidence(2, 1) == 0.6875
    assert beta_confidence(5, 5) == pytest.approx(0.5)


@given(st.sampled_from([0.7, 0.9, 0.95, 0.99]), st.integers(1, 60))
def test_the_beta_table_says_what_the_formula_says(confidence: float, cap: int) -> None:
    table = beta_table(confidence, cap)
    for second in range(cap):
        for lead in range(second, cap - second + 1):
            stops = second < len(table) and lead >= table[second]
            assert stops == (beta_confidence(lead, second) >= confidence)


def test_margin_stops_when_the_leader_is_far_enough_ahead() -> None:
    policy = AdaptiveVote(rule="margin", margin=3, max_samples=24, window=1)
    game = Game(policy, votes("abababaaa"))
    assert game.play().reason is StopReason.AGREED
    assert game.evidence.votes.margin == 3
    assert game.evidence.drawn == 9


def test_a_window_is_refilled_on_every_finish() -> None:
    game = Game(AdaptiveVote(margin=9, max_samples=12, window=3), votes("abc"))
    game.play()
    assert (game.most_running, game.evidence.drawn) == (3, 12)
    sizes = [a.n for a in game.actions if isinstance(a, Draw)]
    assert sizes == [3] + [1] * 9


def test_adaptive_vote_can_draw_in_waves() -> None:
    game = Game(AdaptiveVote(margin=3, max_samples=10, waves=(3, 2, 5)), votes("abaaa"))
    assert game.play().reason is StopReason.AGREED
    assert game.evidence.drawn == 5


def test_first_pass_stops_at_the_first_verified_sample() -> None:
    game = Game(FirstPass(max_samples=32, waves=(4, 8, 20)), verdicts("ffffffp" + "f" * 25))
    stop = game.play()
    assert (stop.reason, stop.ranking[0]) == (StopReason.PASSED, "s6")
    assert game.evidence.drawn == 12


def test_first_pass_waves_double_by_default_and_end_at_the_cap() -> None:
    game = Game(FirstPass(max_samples=20), verdicts("f"))
    assert game.play().reason is StopReason.EXHAUSTED
    assert [a.n for a in game.actions if isinstance(a, Draw)] == [4, 4, 8, 4]


def test_an_error_verdict_neither_accepts_nor_rejects() -> None:
    game = Game(FirstPass(max_samples=3, waves=(3,)), verdicts("fef"))
    assert game.play().ranking[0] == "s1"


def test_cascade_asks_the_dearer_backend_only_when_agreement_is_low() -> None:
    tiers = (Tier("cheap", 3, 0.6), Tier("dear", 1))
    agreed = Game(Cascade(tiers), votes("aab"))
    assert _chosen(agreed) == "answer a"
    assert set(agreed.backends.values()) == {"cheap"}
    torn = Game(Cascade(tiers), votes("abcz"))
    assert _chosen(torn) == "answer z"
    assert torn.backends["s3"] == "dear"


def test_cascade_goes_on_until_something_is_verified() -> None:
    game = Game(Cascade((Tier("cheap", 2), Tier("dear", 2))), verdicts("fffp"))
    stop = game.play()
    assert (stop.reason, stop.ranking[0]) == (StopReason.PASSED, "s3")


def test_a_quorum_keeps_as_many_as_it_asks_for_and_cuts_the_rest() -> None:
    game = Game(MajorityVote(samples=5, quorum=Quorum(4)), votes("abbba"))
    assert game.play().reason is StopReason.QUORUM
    assert (game.evidence.good, game.evidence.drawn) == (4, 5)
    assert _chosen(Game(MajorityVote(samples=5, quorum=Quorum(4)), votes("abbba"))) == "answer b"


def test_a_quorum_that_all_samples_reach_changes_nothing() -> None:
    for quorum in (None, Quorum(5)):
        game = Game(MajorityVote(samples=5, quorum=quorum), votes("abbba"))
        assert game.play().reason is StopReason.AGREED


def test_stragglers_have_their_grace_from_the_moment_of_the_quorum() -> None:
    policy = MajorityVote(samples=3, quorum=Quorum(2, grace_s=0.5))
    game = Game(policy, votes("aaa"))
    game._grant(Draw("all", 3))
    evidence = game.evidence
    evidence.elapsed_s = 1.0
    game._end("s0")
    assert policy.decide(evidence) == (Wait(),)
    evidence.elapsed_s = 2.0
    game._end("s1")
    assert list(policy.decide(evidence)) == [Wait(2.5)]
    evidence.elapsed_s = 2.5
    assert list(policy.decide(evidence)) == [Cancel(("s2",))]


def test_a_tool_call_as_the_first_sample_ends_the_run() -> None:
    game = Game(ToolsFirst(MajorityVote(samples=8)), [Script(None, ended=Ended.TOOL_CALL)])
    game.play()
    assert game.evidence.drawn == 1


@pytest.mark.parametrize(
    "policy",
    [
        MajorityVote(samples=8),
        FirstPass(max_samples=8, waves=(4, 4)),
        AdaptiveVote(margin=20, max_samples=8),
        Cascade((Tier("a", 4, 0.9), Tier("b", 4))),
        Cascade((Tier("a", 1), Tier("b", 7))),
        Cascade((Tier("a", 1, beside=Beside("b", 3)), Tier("b", 4))),
        Cascade((Tier("a", 2, beside=Beside("b", 2)), Tier("b", 4))),
        ModelChoice((Model("a", 4, 1.0, 3.0), Model("b", 4, 3.0, 1.0))),
        BestOfN(samples=8, score="v"),
    ],
)
def test_a_first_look_for_tools_counts_towards_the_policys_samples(policy: Policy) -> None:
    game = Game(ToolsFirst(policy), votes("abcd"))
    game.play()
    assert game.evidence.drawn == 8


@pytest.mark.parametrize(
    ("build", "field"),
    [
        (lambda: MajorityVote(samples=0), "samples"),
        (lambda: MajorityVote(samples=4, quorum=Quorum(5)), "quorum.min"),
        (lambda: BestOfN(samples=4, min_ok=3, quorum=Quorum(2)), "quorum.min"),
        (lambda: WeightedVote("v", samples=4, quorum=Quorum(2, -1.0)), "quorum.grace_s"),
        (lambda: AdaptiveVote(confidence=1.0), "confidence"),
        (lambda: AdaptiveVote(waves=(20, 20), max_samples=24), "waves"),
        (lambda: AdaptiveVote(window=2, waves=(2,)), "waves"),
        (lambda: FirstPass(max_samples=4, waves=(4, 8)), "waves"),
        (lambda: Cascade((Tier("a"),)), "tiers"),
        (lambda: Cascade((Tier("a", agreement=0.5), Tier("b"))), "agreement needs"),
        (lambda: Cascade((Tier("a", 2, agreement=2.0), Tier("b"))), "agreement"),
    ],
)
def test_impossible_settings_are_refused_by_name(build: object, field: str) -> None:
    with pytest.raises(PolicyError, match=field):
        build()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("policy", "least"),
    [
        (Single(), 1),
        (BestOfN(samples=5, score="v"), 5),
        (AdaptiveVote(margin=3, waves=(2,)), 4),
        (AdaptiveVote(margin=3, window=1), 3),
        (AdaptiveVote(margin=3, window=5), 7),
        (AdaptiveVote(margin=9, max_samples=4), 4),
        (AdaptiveVote(rule="beta", confidence=0.95, window=1), 4),
        (AdaptiveVote(rule="beta", confidence=0.99, max_samples=3), 3),
        (AdaptiveVote(rule="esc", max_samples=9, window=4), 4),
        (AdaptiveVote(rule="bayes_factor", factor=30, window=1), 3),
        (AdaptiveVote(rule="certificate", confidence=0.95, window=1, order="launch"), 9),
        (Agreement(score="v", samples=4), 4),
        (FirstPass(), 4),
        (FirstPass(max_samples=3), 3),
        (FirstPass(waves=(1, 3)), 1),
        (Cascade((Tier("a", 2, 1.0), Tier("b", 3))), 2),
        (ToolsFirst(MajorityVote(samples=5)), 5),
    ],
)
def test_agreement_or_a_pass_at_once_draws_the_least(policy: Policy, least: int) -> None:
    game = Game(policy, [Script("a", Status.PASS, 1.0)])
    game.play()
    assert game.evidence.drawn == least
    assert 1 <= policy.needs.min_samples <= least


@given(st.permutations(range(9)), st.text("abc", min_size=9, max_size=9))
def test_a_fixed_vote_does_not_depend_on_the_order_of_arrival(order: list[int], text: str) -> None:
    def first(running: list[str]) -> str:
        return min(running, key=lambda id_: order[int(id_[1:])])

    plain = Game(MajorityVote(samples=9), votes(text))
    mixed = Game(MajorityVote(samples=9), votes(text), pick=first)
    assert plain.play().ranking == mixed.play().ranking
