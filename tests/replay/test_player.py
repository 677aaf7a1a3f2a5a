"""The simulated run: what it pays, how long it takes, what it refuses."""

from __future__ import annotations

from collections import Counter

import pytest

from samplewise.policies.adaptive_vote import AdaptiveVote
from samplewise.policies.base import Policy
from samplewise.policies.best_of_n import BestOfN
from samplewise.policies.cascade import Cascade, Tier
from samplewise.policies.deepconf import DeepConf
from samplewise.policies.first_pass import FirstPass
from samplewise.policies.fixed import Quorum
from samplewise.policies.majority_vote import MajorityVote
from samplewise.policies.price import Price
from samplewise.policies.replay.chance import Noise, orders
from samplewise.policies.replay.fitness import check_fit
from samplewise.policies.replay.judging import Judge
from samplewise.policies.replay.player import Player, ReplayError
from samplewise.policies.replay.records import Problem, RecordedSample, RecordedVerdict
from samplewise.policies.self_certainty import SelfCertainty
from samplewise.verifiers.base import Confidence, LogprobSummary, Status
from tests.contract.policies import Knockout, OnlineCut, ParticleFilter, Reviser
from tests.replay.made import PRICES, judged, voted

PLAYER = Player(PRICES)
EXACT = Player(PRICES, judge=Judge(exact=True))


def test_a_fixed_call_pays_its_prompt_once_by_wave_and_for_each_sample_by_call() -> None:
    run = PLAYER.play(MajorityVote(3), voted("aab"), [0, 1, 2])
    assert (run.samples, run.waves, run.tokens) == (3, 1, 33)
    # $0.25 and $1 per million: a prompt of 40 tokens is 10,000 nano-dollars, a token 1,000.
    assert (run.nano_by_call, run.nano_by_wave) == (33_000 + 30_000, 33_000 + 10_000)


def test_samples_cut_by_the_stop_cost_the_tokens_that_had_come() -> None:
    problem = voted("aaaa", seconds=(1.0, 1.0, 1.0, 2.0))
    run = PLAYER.play(AdaptiveVote(margin=3, window=4, max_samples=4), problem, range(4))
    # Tokens 10 + 11 + 12, and half of 13 when the third vote decides at 1 s.
    assert (run.seconds, run.samples, run.tokens) == (1.0, 4, 33 + 6)


def test_a_window_waits_for_the_clock_and_not_for_the_order_of_dispatch() -> None:
    problem = voted("baaa", seconds=(9.0, 1.0, 1.0, 1.0))
    arrival = PLAYER.play(AdaptiveVote(margin=2, window=3, max_samples=4), problem, [0, 1, 2, 3])
    assert (arrival.seconds, arrival.right) == (1.0, True)
    launch = Player(PRICES, order="launch")
    held = launch.play(AdaptiveVote(margin=2, window=3, max_samples=4), problem, [0, 1, 2, 3])
    # One vote against two at 9 s, so the fourth is drawn then.
    assert held.seconds == 10.0


def test_waves_follow_each_other_on_the_clock() -> None:
    problem = voted("abab", seconds=(1.0, 3.0, 2.0, 2.0))
    run = PLAYER.play(AdaptiveVote(margin=3, waves=(2, 2), max_samples=4), problem, [0, 1, 2, 3])
    assert (run.seconds, run.waves) == (5.0, 2)


def test_a_quorum_waits_no_longer_than_its_grace() -> None:
    problem = voted("aab", seconds=(1.0, 2.0, 9.0))
    run = PLAYER.play(MajorityVote(3, quorum=Quorum(2, grace_s=3.0)), problem, range(3))
    # The second comes at 2 s; the third is cut 3 s later, with 5/9 of its 12 tokens.
    assert (run.seconds, run.tokens, run.reason) == (5.0, 10 + 11 + 6, "quorum")


def test_first_pass_stops_at_the_first_right_sample_and_counts_what_it_drew() -> None:
    run = EXACT.play(FirstPass(8, waves=(1,)), judged("wwrw" + "w" * 4), range(8))
    assert (run.right, run.samples, run.reason) == (True, 3, "passed")


def test_coverage_counts_samples_that_were_not_chosen() -> None:
    run = PLAYER.play(MajorityVote(3), voted("bba"), [0, 1, 2])
    assert (run.right, run.covered) == (False, True)


def test_a_score_that_was_recorded_chooses() -> None:
    scores = (0.2, 0.9, 0.4)
    samples = tuple(
        RecordedSample(text=str(s), correct=s == 0.9, verdicts={"rm": RecordedVerdict(score=s)})
        for s in scores
    )
    run = PLAYER.play(BestOfN(3, "rm"), Problem(id="p", samples=samples), [2, 1, 0])
    assert (run.chosen, run.right) == (1, True)


def test_a_cascade_takes_each_tier_from_its_own_backend() -> None:
    prices = {"cheap": Price.per_mtok(0, 1, None), "dear": Price.per_mtok(0, 10, None)}
    samples = tuple(
        RecordedSample(answer=answer, tokens=10, backend=backend)
        for backend, answer in (("cheap", "a"), ("cheap", "b"), ("dear", "c"), ("dear", "d"))
    )
    problem = Problem(id="p", samples=samples, reference="c")
    policy = Cascade((Tier("cheap", 2, 1.0), Tier("dear", 1)))
    run = Player(prices).play(policy, problem, [2, 0, 1, 3])
    assert (run.right, run.samples, run.nano_by_call) == (True, 3, 20_000 + 100_000)


def test_recorded_confidence_weighs() -> None:
    def sample(answer: str, sure: float) -> RecordedSample:
        logprobs = LogprobSummary(9, -0.1, -1.0, None, Confidence(4, sure, sure, sure, sure))
        return RecordedSample(answer=answer, tokens=9, seconds=1.0, logprobs=logprobs)

    samples = (sample("b", 1.0), sample("b", 1.5), sample("a", 9.0))
    problem = Problem(id="p", samples=samples, reference="a")
    policies = (DeepConf(samples=3, group_tokens=4, keep=1.0), SelfCertainty(3, power=3.0))
    for policy in policies:
        check_fit(policy, [problem])
        assert PLAYER.play(policy, problem, [0, 1, 2]).right


def chain() -> Problem:
    """Return three turns of one revision, right at the third."""
    turns = tuple(
        RecordedSample(
            text=f"turn {i}",
            correct=i == 2,
            tokens=1,
            source="revise" if i else "fresh",
            parents=(i - 1,) if i else (),
        )
        for i in range(3)
    )
    return Problem(id="p", samples=turns)


def test_a_revision_is_the_recorded_child_of_what_it_revises() -> None:
    assert EXACT.play(Reviser(turns=5), chain(), [2, 0, 1]).samples == 3
    assert EXACT.play(Reviser(turns=2), chain(), [2, 0, 1]).right is False


def test_a_source_that_was_not_recorded_is_refused() -> None:
    with pytest.raises(ReplayError, match="samples of the kind 'revise': none was recorded"):
        EXACT.play(Reviser(), judged("wwww"), range(4))


def test_more_samples_than_were_recorded_are_refused() -> None:
    with pytest.raises(ReplayError, match=r"asks for 5 more samples: 2 are left .*draw fewer.*'p'"):
        PLAYER.play(MajorityVote(5), voted("ab"), [0, 1])


@pytest.mark.parametrize(
    ("policy", "missing"),
    [
        (ParticleFilter(), "step scores, samples that continue others"),
        (Knockout(), "compares samples"),
        (OnlineCut(), "watches running samples"),
        (MajorityVote(2), "answers, which vote"),
        (BestOfN(2, score="rm"), "scores of the verifier 'rm'"),
        (Cascade((Tier("x"), Tier("y"))), "samples of the backend 'x'"),
        (Cascade((Tier("x", escalate=0.5), Tier("y"))), "what its route has learnt"),
        (DeepConf(samples=2), "log-probabilities, confidence in groups of 2048 tokens"),
        (DeepConf(samples=2, warmup=2), "watches running samples"),
    ],
)
def test_what_no_sample_has_is_refused_before_anything_is_played(
    policy: Policy, missing: str
) -> None:
    with pytest.raises(ReplayError, match=missing):
        check_fit(policy, [judged("rw")])


def test_without_a_truth_nothing_can_be_counted() -> None:
    problem = Problem(id="odd", samples=(RecordedSample(answer="a"),))
    with pytest.raises(ReplayError, match="nothing says which samples of problem 'odd' are right"):
        check_fit(MajorityVote(1), [problem])


def test_noise_is_persistent_and_has_its_rate() -> None:
    noise = Noise(false_pass=0.2, false_fail=0.1)
    problem = Problem(id="p", samples=(), reference="7")
    said = Counter()  # type: Counter[tuple[bool, Status | None]]
    for n in range(4000):
        sample = RecordedSample(answer=str(n), correct=n % 2 == 0)
        status = noise.status(problem, sample)
        assert status is noise.status(problem, sample)
        said[n % 2 == 0, status] += 1
    assert said[False, Status.PASS] / 2000 == pytest.approx(0.2, abs=0.03)
    assert said[True, Status.FAIL] / 2000 == pytest.approx(0.1, abs=0.03)


def test_noise_falls_on_answers_and_not_on_samples() -> None:
    noise, problem = Noise(false_pass=0.5), Problem(id="p", samples=(), reference="7")
    same = {noise.status(problem, RecordedSample(text=str(n), answer="8")) for n in range(50)}
    assert len(same) == 1
    other = {noise.status(problem, RecordedSample(answer=str(n + 8))) for n in range(50)}
    assert len(other) == 2


def test_orders_are_permutations_fixed_by_seed_and_problem() -> None:
    first = orders("p", 20, 50, seed=1)
    assert (first == orders("p", 20, 50, seed=1)).all()
    assert (first[:10] == orders("p", 20, 10, seed=1)).all()
    assert (first != orders("q", 20, 50, seed=1)).any()
    assert {tuple(sorted(row)) for row in first.tolist()} == {tuple(range(20))}
