"""A tree of answers that are criticised, rewritten and compared in pairs."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.policies.base import Combine, Draw, PolicyError, Revise, StopReason
from samplewise.policies.search.refine import RefineSearch
from samplewise.verifiers.base import Purpose, Status
from tests.policies.runs import Script, verdicts, votes
from tests.policies.test_synthesis import Arena


def _draws(game: Arena) -> list[Draw]:
    return [action for action in game.drawn if isinstance(action, Draw)]


def test_an_answer_is_criticised_and_then_rewritten_with_the_critique() -> None:
    game = Arena(RefineSearch(roots=1, rollouts=1), votes("abc"))
    stop = game.play()
    first, critique, rewritten = _draws(game)
    assert (first.key, first.n) == ("roots", 1)
    assert (critique.source, critique.purpose) == (
        Combine(("s0",), "critique"),
        Purpose.CRITIQUE,
    )
    assert rewritten.source == Revise(("s0",), '"answer b"')
    # A critique is no answer: it meets nobody and is never returned.
    assert game.asked == [("s2", "s0")]
    assert stop.ranking == ("s2", "s0")


def test_every_new_answer_meets_the_one_it_came_from_first_and_then_the_best() -> None:
    policy = RefineSearch(roots=3, rollouts=2, children=1, opponents=2, critique=False)
    game = Arena(policy, votes("abcdef"), better=min)
    game.play()
    assert game.asked[:3] == [("s1", "s0"), ("s2", "s0"), ("s2", "s1")]
    # By wins alone s0 is the best and is rewritten first; its rewriting meets it, then s1.
    assert game.asked[3:5] == [("s3", "s0"), ("s3", "s1")]


@given(size=st.integers(1, 4), rollouts=st.integers(1, 5), seed=st.integers(0, 99))
def test_who_beats_everybody_is_returned(size: int, rollouts: int, seed: int) -> None:
    rng = random.Random(seed)
    strength = [rng.random() for _ in range(40)]

    def better(a: int, b: int) -> int:
        return a if strength[a] > strength[b] else b

    policy = RefineSearch(roots=size, rollouts=rollouts, opponents=99, critique=False)
    game = Arena(policy, [Script(str(n)) for n in range(40)], better=better)
    stop = game.play()
    drawn = game.evidence.drawn
    assert drawn == size + rollouts
    assert stop.ranking[0] == f"s{max(range(drawn), key=strength.__getitem__)}"


def test_an_answer_has_no_more_rewritings_than_it_may() -> None:
    policy = RefineSearch(roots=1, rollouts=9, children=2, critique=False)
    game = Arena(policy, [Script(str(n)) for n in range(40)], better=min)
    game.play()
    sources = [draw.source.samples for draw in _draws(game) if isinstance(draw.source, Revise)]
    assert len(sources) == 9
    assert max(sources.count(source) for source in sources) == 2


def test_a_verified_answer_ends_the_search() -> None:
    game = Arena(RefineSearch(roots=2, rollouts=5, critique=False), verdicts("ffp"))
    assert game.play().reason is StopReason.PASSED
    assert game.evidence.drawn == 3


def test_answers_that_are_the_same_are_not_compared() -> None:
    game = Arena(RefineSearch(roots=3, rollouts=2, critique=False), votes("a"))
    game.play()
    assert game.asked == []
    assert game.evidence.drawn == 5


def test_ties_leave_the_order_of_drawing() -> None:
    policy = RefineSearch(roots=2, rollouts=1, critique=False)
    game = Arena(policy, votes("abc"), better=lambda a, b: None)
    assert game.play().ranking == ("s0", "s1", "s2")


def test_what_a_verifier_says_goes_into_the_rewriting() -> None:
    game = Arena(
        RefineSearch(roots=1, rollouts=1, critique=False), [Script("a", Status.FAIL), *votes("b")]
    )
    game.feedback = "the sign is wrong"
    game.play()
    assert _draws(game)[-1].source == Revise(("s0",), "the sign is wrong")


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"roots": 0}, "roots"),
        ({"rollouts": 0}, "rollouts"),
        ({"children": 0}, "children"),
        ({"exploration": -1.0}, "exploration"),
        ({"blend": 1.5}, "blend"),
    ],
)
def test_impossible_settings_are_refused_by_name(fields: dict[str, float], name: str) -> None:
    with pytest.raises(PolicyError, match=name):
        RefineSearch(**fields)  # type: ignore[arg-type]
