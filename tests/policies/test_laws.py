"""Laws that hold for every policy, whatever its samples turn out to be."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samplewise.policies.adaptive_vote import AdaptiveVote
from samplewise.policies.agreement import Agreement
from samplewise.policies.base import Combine, Continue, Fresh, Policy, Revise, Source
from samplewise.policies.best_of_n import BestOfN
from samplewise.policies.cascade import Beside, Cascade, Tier
from samplewise.policies.cisc import Cisc
from samplewise.policies.deepconf import DeepConf
from samplewise.policies.first_pass import FirstPass
from samplewise.policies.fixed import Quorum
from samplewise.policies.fuse import Fuse
from samplewise.policies.majority_vote import MajorityVote
from samplewise.policies.medoid import Medoid
from samplewise.policies.model_choice import Model, ModelChoice
from samplewise.policies.optimal_stopping import OptimalStopping
from samplewise.policies.prefix_consistency import PrefixConsistency
from samplewise.policies.replay.oversample import Oversample
from samplewise.policies.revision import Revision
from samplewise.policies.search.beam import Beam
from samplewise.policies.search.best_first import BestFirst, Mcts
from samplewise.policies.search.dvts import Dvts
from samplewise.policies.search.particle_filter import ParticleFilter
from samplewise.policies.search.rebase import Rebase
from samplewise.policies.search.refine import RefineSearch
from samplewise.policies.search.tree import Steps
from samplewise.policies.self_certainty import SelfCertainty
from samplewise.policies.single import Single
from samplewise.policies.tools_first import ToolsFirst
from samplewise.policies.tournament import Tournament
from samplewise.policies.weighted_vote import WeightedVote
from samplewise.verifiers.base import Ended, Status
from tests.policies.runs import Game, Script

_SCRIPTS = st.builds(
    Script,
    answer=st.sampled_from(["a", "b", "c", None]),
    status=st.sampled_from(Status),
    score=st.one_of(st.none(), st.floats(0, 1)),
    ended=st.sampled_from([Ended.EOS, Ended.EOS, Ended.LENGTH, Ended.TOOL_CALL]),
    lost=st.sampled_from([False, False, False, True]),
    sure=st.one_of(st.none(), st.floats(0, 20)),
)
_STEPS = Steps(stop=(";",), max_steps=3)
_POLICIES: list[Policy] = [
    Single(),
    MajorityVote(samples=5),
    MajorityVote(samples=6, min_ok=2, quorum=Quorum(4)),
    WeightedVote(score="v", samples=5),
    WeightedVote(score="v", samples=5, quorum=Quorum(1)),
    BestOfN(samples=5, score="v"),
    BestOfN(samples=5, score="v", rule="weighted"),
    AdaptiveVote(margin=2, max_samples=9, window=3),
    AdaptiveVote(rule="beta", max_samples=9, waves=(3, 3)),
    AdaptiveVote(rule="dirichlet", confidence=0.8, max_samples=9, order="launch"),
    AdaptiveVote(rule="esc", max_samples=9, window=2),
    AdaptiveVote(rule="bayes_factor", factor=10, max_samples=9, window=1),
    AdaptiveVote(rule="certificate", confidence=0.6, max_samples=9, order="launch"),
    Agreement(score="v", samples=5),
    Oversample(2, ("a", "b")),
    FirstPass(max_samples=9, waves=(2, 3)),
    Cascade((Tier("a", 3, 0.7), Tier("b", 2, 0.5), Tier("c", 1))),
    Cascade((Tier("a", 2, 0.5, beside=Beside("b", 2)), Tier("b", 1))),
    Cascade((Tier("a", prompt="x", beside=Beside(prompt="y")), Tier("b", 3))),
    Cascade((Tier("", 2, 0.7, {"reasoning_effort": "low"}), Tier("", params={"k": "v" * 50}))),
    Cascade((Tier("a", 2, score="v", min_score=0.5), Tier("a", escalate=0.3), Tier("b", 2))),
    ModelChoice((Model("a", 4, 1.0, 3.0), Model("b", 3, 3.0, 1.0))),
    ToolsFirst(FirstPass(max_samples=6)),
    DeepConf(samples=5, keep=0.4, measure="tail"),
    DeepConf(samples=9, keep=0.5, warmup=3, window=2),
    SelfCertainty(samples=5),
    Cisc("v", samples=5),
    Cisc(samples=5, temperature=0.01),
    OptimalStopping(cost=0.05, min_samples=4, max_samples=9),
    Tournament(samples=5),
    Tournament(samples=5, rule="league", opponents=2),
    Tournament(samples=4, rule="borda", times=2),
    Revision(chains=2, turns=3),
    Fuse(samples=3),
    Fuse(samples=4, subset=2, merged=3, rounds=2),
    Medoid(samples=5),
    PrefixConsistency(samples=3, ends=2, prefix_tokens=4),
    RefineSearch(roots=2, rollouts=3),
    RefineSearch(roots=1, rollouts=4, width=2, critique=False),
    Beam(4, 2, 0, _STEPS),
    Beam(4, 2, 1, _STEPS),
    Dvts(4, 2, _STEPS),
    Rebase(4, 0.2, _STEPS),
    ParticleFilter(4, 1.0, _STEPS),
    BestFirst(2, 4, 1, _STEPS),
    Mcts(2, 4, 1.0, _STEPS),
]
_EACH = pytest.mark.parametrize("policy", _POLICIES, ids=str)
_FEW = settings(max_examples=25)


@_EACH
@_FEW
@given(
    scripts=st.lists(_SCRIPTS, min_size=1, max_size=12),
    grant=st.integers(0, 12),
    seed=st.integers(),
)
def test_every_policy_stops_within_its_limits_and_is_pure(
    policy: Policy, scripts: list[Script], grant: int, seed: int
) -> None:
    game = Game(policy, scripts, grant=grant, pick=random.Random(seed).choice)
    stop = game.play()
    evidence = game.evidence
    assert evidence.drawn <= min(policy.needs.max_samples, grant)
    assert list(policy.decide(evidence)) == list(policy.decide(evidence))
    statuses = [
        evidence.judgements[id_].status if id_ in evidence.judgements else Status.NONE
        for id_ in stop.ranking
        if evidence.samples[id_].complete
    ]
    if Status.PASS in statuses:
        assert statuses[0] is Status.PASS
    if statuses and statuses[0] is Status.FAIL:
        assert set(statuses) == {Status.FAIL}
    assert len(set(stop.ranking)) == len(stop.ranking)


@_EACH
@_FEW
@given(scripts=st.lists(_SCRIPTS, min_size=1, max_size=12), seed=st.integers())
def test_no_policy_shows_compares_or_sets_more_than_it_needs(
    policy: Policy, scripts: list[Script], seed: int
) -> None:
    game = Game(policy, scripts, pick=random.Random(seed).choice)
    game.play()
    needs = policy.needs
    for draw in game.draws.values():
        assert _shown(game, draw.source) <= needs.shown
        if not needs.shown:
            # A prompt that shows samples has room for a few fields.
            assert len(json.dumps(dict(draw.params))) <= needs.params_bytes + len("{}")
    assert sum(map(len, game.evidence.comparisons.values())) <= needs.comparisons


def _shown(game: Game, source: Source) -> int:
    """Return how many samples the prompt of a draw holds."""
    match source:
        case Fresh():
            return 0
        case Continue():
            return 1 + _shown(game, game.draws[game.evidence.samples[source.sample].key].source)
        case Revise():
            # A critique in the feedback is a sample, too.
            return len(source.samples) + source.feedback.count("answer ")
        case Combine():
            return len(source.samples)


@_EACH
@_FEW
@given(scripts=st.lists(_SCRIPTS, min_size=1, max_size=12), seed=st.integers())
def test_no_policy_stops_by_itself_before_it_has_drawn_its_least(
    policy: Policy, scripts: list[Script], seed: int
) -> None:
    game = Game(policy, scripts, pick=random.Random(seed).choice)
    game.play()
    assert policy.needs.min_samples <= game.evidence.drawn
