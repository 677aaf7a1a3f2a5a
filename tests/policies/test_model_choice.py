"""The choice of a model together with a number of samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.policies.base import Draw, PolicyError, StopReason
from samplewise.policies.evidence import Offer
from samplewise.policies.model_choice import Model, ModelChoice
from samplewise.policies.price import Price
from tests.policies.runs import Game, verdicts

_CHEAP = Offer("cheap", Price.per_mtok(1, 1, None))
_DEAR = Offer("dear", Price.per_mtok(20, 20, None))


def _game(policy: ModelChoice, script: str) -> Game:
    game = Game(policy, verdicts(script))
    game.evidence.offers = {"cheap": _CHEAP, "dear": _DEAR}
    return game


def _drawn(game: Game) -> list[tuple[str, int]]:
    return [(a.backend, a.n) for a in game.actions if isinstance(a, Draw)]


@given(st.floats(0.2, 5), st.floats(0.2, 5), st.integers(1, 20), st.integers(0, 20))
def test_the_chance_of_a_pass_is_that_of_the_fitted_law(
    alpha: float, beta: float, n: int, failed: int
) -> None:
    found = Model("m", 99, alpha, beta).passes(n, failed)
    # Chance by chance: after so many fails the law is Beta(alpha, beta + failed).
    none = np.prod([(beta + failed + i) / (alpha + beta + failed + i) for i in range(n)])
    assert found == pytest.approx(1 - none, abs=1e-9)


def test_many_samples_of_the_cheap_model_are_chosen_where_they_are_likely_enough() -> None:
    # 1 - B(2, 1 + n) / B(2, 1) reaches 0.9 with n = 3: 1 - (1*2*3)/(3*4*5).
    policy = ModelChoice((Model("cheap", 8, 2.0, 1.0), Model("dear", 2, 50.0, 1.0)))
    game = _game(policy, "ffp")
    assert game.play().reason is StopReason.PASSED
    assert _drawn(game) == [("cheap", 3)]


def test_the_dear_model_is_chosen_where_it_is_the_cheapest_that_is_likely_enough() -> None:
    hard = Model("cheap", 8, 0.2, 2.0)
    policy = ModelChoice((hard, Model("dear", 2, 50.0, 1.0)))
    game = _game(policy, "p")
    game.play()
    assert _drawn(game) == [("dear", 1)]


def test_every_fail_makes_the_request_harder_for_that_model() -> None:
    policy = ModelChoice((Model("cheap", 8, 2.0, 1.0), Model("dear", 2, 50.0, 1.0)))
    game = _game(policy, "fffp")
    game.play()
    # After three fails five more of the cheap one are not likely enough any more.
    assert _drawn(game) == [("cheap", 3), ("dear", 1)]


def test_when_nothing_is_likely_enough_the_likeliest_is_chosen_until_none_is_left() -> None:
    weak = Model("cheap", 2, 0.1, 5.0)
    policy = ModelChoice((weak, replace(weak, backend="dear", alpha=0.2)))
    game = _game(policy, "f")
    assert game.play().reason is StopReason.EXHAUSTED
    assert _drawn(game) == [("dear", 2), ("cheap", 2)]


@pytest.mark.parametrize(
    ("build", "field"),
    [
        (lambda: ModelChoice((Model("a", 1, 1.0, 1.0),)), "models"),
        (lambda: ModelChoice((Model("a", 1, 1.0, 1.0), Model("a", 1, 1.0, 1.0))), "models"),
        (lambda: ModelChoice((Model("a", 0, 1.0, 1.0), Model("b", 1, 1.0, 1.0))), "models.0"),
        (lambda: ModelChoice((Model("a", 1, 1.0, 1.0), Model("b", 1, 1.0, 0.0))), "models.1.beta"),
        (lambda: ModelChoice((Model("a", 1, 1.0, 1.0), Model("b", 1, 1.0, 1.0)), 1.0), "chance"),
    ],
)
def test_impossible_settings_are_refused_by_name(build: object, field: str) -> None:
    with pytest.raises(PolicyError, match=field):
        build()  # type: ignore[operator]
