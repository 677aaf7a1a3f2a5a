"""Estimators and fits against what is known exactly."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samplewise.policies.replay.curve import Counts, curves, log_spaced, pass_all, pass_at
from samplewise.policies.replay.fits import BetaFit, fit_beta, fit_power_law
from tests.replay.made import judged, voted


@given(st.lists(st.booleans(), min_size=1, max_size=9), st.data())
def test_the_estimators_are_the_mean_over_all_choices_of_k(
    right: list[bool], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(right)))
    chosen = list(combinations(right, k))
    counts = Counts.of([(sum(right), len(right))])
    assert pass_at(counts, k)[0] == pytest.approx(np.mean([any(c) for c in chosen]))
    assert pass_all(counts, k)[0] == pytest.approx(np.mean([all(c) for c in chosen]))


def test_problems_may_have_different_numbers_of_samples() -> None:
    counts = Counts.of([(1, 2), (1, 4)])
    assert counts.least == 2
    assert pass_at(counts, 2).tolist() == pytest.approx([1.0, 0.5])


@pytest.mark.parametrize(("alpha", "beta"), [(0.4, 1.5), (2.0, 3.0), (0.1, 4.0)])
def test_the_fit_finds_the_distribution_of_difficulty(alpha: float, beta: float) -> None:
    rng = np.random.default_rng(4)
    chances = rng.beta(alpha, beta, 4000)
    fit = fit_beta(Counts.of([(int(n), 50) for n in rng.binomial(50, chances)]))
    assert fit is not None
    assert (fit.alpha, fit.beta) == pytest.approx((alpha, beta), rel=0.12)
    # The forecast from 50 samples holds at 1,000.
    assert fit.coverage(1000) == pytest.approx((1 - (1 - chances) ** 1000).mean(), abs=0.02)


def test_coverage_of_one_sample_is_the_mean_of_the_distribution() -> None:
    assert BetaFit(2.0, 3.0).coverage(1) == pytest.approx(0.4)


@pytest.mark.parametrize("pairs", [[(0, 5), (0, 5)], [(5, 5)]])
def test_no_distribution_is_fitted_where_all_or_none_are_right(
    pairs: list[tuple[int, int]],
) -> None:
    assert fit_beta(Counts.of(pairs)) is None


@settings(max_examples=40)
@given(st.floats(-5.0, -0.7), st.floats(-0.8, -0.05))
def test_a_power_law_is_found_again(a: float, b: float) -> None:
    points = [(k, float(np.exp(a * k**b))) for k in log_spaced(200)]
    law = fit_power_law(points)
    if sum(0 < value < 0.9 for _, value in points) < 5:
        return
    assert law is not None
    assert (law.a, law.b) == pytest.approx((a, b), abs=1e-3)


def test_a_full_curve_has_no_power_law() -> None:
    assert fit_power_law([(k, 0.95) for k in log_spaced(100)]) is None


def test_the_points_are_forty_evenly_spaced_in_the_logarithm_without_duplicates() -> None:
    points = log_spaced(100)
    assert (points[0], points[-1]) == (1, 100)
    assert points == sorted(set(points))
    assert len(log_spaced(10**9)) in (39, 40)


def test_a_curve_for_each_backend_and_prompt_that_all_problems_have() -> None:
    problems = [voted("aab", id_="1"), voted("abb", id_="2")]
    (curve,) = curves(problems, passes=400)
    assert curve.ks == (1, 2, 3)
    assert curve.majority is not None
    assert [round(at.value, 6) for at in curve.majority][2] == 0.5
    assert curves([*problems, judged("", id_="3")]) == []
