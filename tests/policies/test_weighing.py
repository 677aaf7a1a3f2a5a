"""What all votes with weights have in common, whichever weights."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.policies.base import Policy, StopReason
from samplewise.policies.best_of_n import BestOfN
from samplewise.policies.cisc import Cisc
from samplewise.policies.deepconf import DeepConf
from samplewise.policies.majority_vote import MajorityVote
from samplewise.policies.medoid import Medoid
from samplewise.policies.self_certainty import SelfCertainty
from samplewise.policies.weighted_vote import WeightedVote
from tests.policies.runs import Game, Script, votes

_SCORED: list[Policy] = [
    WeightedVote("v", samples=7),
    BestOfN(7, "v", "weighted"),
    Cisc("v", samples=7),
    Medoid(samples=7),
]
_VOTES: list[Policy] = [
    MajorityVote(samples=4),
    WeightedVote("v", samples=4),
    Cisc(samples=4),
    SelfCertainty(samples=4),
    DeepConf(samples=4),
]


@pytest.mark.parametrize("policy", _SCORED, ids=str)
@given(
    st.permutations(range(7)),
    st.lists(st.sampled_from(["a b c", "a b", "b c", None]), min_size=7, max_size=7),
    # Tenths: sums of them are equal or not by how they are added up.
    st.lists(st.one_of(st.none(), st.integers(0, 10)), min_size=7, max_size=7),
)
def test_no_ranking_depends_on_the_order_of_arrival(
    policy: Policy, order: list[int], answers: list[str | None], tenths: list[int | None]
) -> None:
    scripts = [
        Script(answer, score=None if score is None else score / 10)
        for answer, score in zip(answers, tenths, strict=True)
    ]
    plain = Game(policy, scripts)
    mixed = Game(policy, scripts, pick=lambda ids: min(ids, key=lambda i: order[int(i[1:])]))
    assert plain.play().ranking == mixed.play().ranking


@pytest.mark.parametrize("policy", [WeightedVote("v", 5), BestOfN(5, "v", "weighted")], ids=str)
def test_without_any_score_a_weighted_vote_is_a_plain_one(policy: Policy) -> None:
    game = Game(policy, votes(".abba"))
    ranking = game.play().ranking
    assert [game.evidence.judgements[id_].answer for id_ in ranking] == ["a", "a", "b", "b", None]


@pytest.mark.parametrize("policy", _VOTES, ids=str)
@pytest.mark.parametrize(
    ("answers", "reason"),
    [("abca", StopReason.AGREED), ("abcd", StopReason.EXHAUSTED), ("a...", StopReason.EXHAUSTED)],
)
def test_a_vote_has_agreed_when_two_samples_gave_one_answer(
    policy: Policy, answers: str, reason: StopReason
) -> None:
    assert Game(policy, votes(answers)).play().reason is reason


def test_what_has_no_votes_never_stops_because_they_agree() -> None:
    assert Game(Medoid(samples=3), votes("aaa")).play().reason is StopReason.EXHAUSTED
