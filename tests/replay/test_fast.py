"""The two executions of one rule are one rule: equal run by run on random trajectories."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samplewise.policies.adaptive_vote import AdaptiveVote
from samplewise.policies.base import Policy
from samplewise.policies.fixed import Quorum
from samplewise.policies.majority_vote import MajorityVote
from samplewise.policies.replay.chance import orders
from samplewise.policies.replay.fast import countable_policy, play_table
from samplewise.policies.replay.player import Player
from samplewise.policies.replay.records import Problem
from samplewise.policies.replay.table import Table
from samplewise.policies.vote_names import RuleName
from tests.replay.made import PRICES, problems

PASSES = 3
CAP = 12

RULES: tuple[RuleName, ...] = ("margin", "beta", "dirichlet", "esc", "bayes_factor")
WAVES: tuple[tuple[int, ...], ...] = ((3, 2), (1, 4, 7), (12,))


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Draw any policy that has a fast form."""
    cap = draw(st.integers(2, CAP))
    if draw(st.booleans()) and draw(st.booleans()):
        return MajorityVote(cap)
    rule = draw(st.sampled_from(RULES))
    waves = draw(st.sampled_from(WAVES)) if rule != "esc" and draw(st.booleans()) else ()
    return AdaptiveVote(
        rule=rule,
        margin=draw(st.integers(1, 4)),
        confidence=draw(st.sampled_from([0.7, 0.9, 0.95])),
        factor=draw(st.sampled_from([3.0, 10.0, 40.0])),
        max_samples=CAP if waves else cap,
        window=None if waves else draw(st.integers(2 if rule == "esc" else 1, 5)),
        waves=waves,
    )


@settings(max_examples=300)
@given(st.lists(problems(CAP), min_size=1, max_size=3), policies(), st.integers(0, 5))
def test_the_fast_form_says_what_the_policy_does(
    given_: list[Problem], policy: Policy, seed: int
) -> None:
    assert countable_policy(policy)
    table = Table.build(given_, CAP, PASSES, prices=PRICES, seed=seed)
    fast = play_table(policy, table)
    player = Player(PRICES, seed=seed)
    runs = [
        player.play(policy, problem, order[:CAP])
        for problem in given_
        for order in orders(problem.id, CAP, PASSES, seed)
    ]
    for name in ("chosen", "right", "covered", "samples", "waves", "tokens", "nano_by_call",
                 "nano_by_wave", "seconds"):  # fmt: skip
        found = np.asarray(getattr(fast, name))
        assert found.tolist() == [getattr(run, name) for run in runs], name


@pytest.mark.parametrize(
    "policy",
    [
        AdaptiveVote(order="launch"),
        MajorityVote(3, quorum=Quorum(2)),
        AdaptiveVote("certificate", order="launch"),
    ],
)
def test_what_depends_on_more_than_counts_has_no_fast_form(policy: Policy) -> None:
    assert not countable_policy(policy)
