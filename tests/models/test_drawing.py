from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from samplewise.models.drawing import draw, log_probabilities, uniforms

PROBABILITIES = np.array([0.4, 0.1, 0.3, 0.2])


def shares(temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> NDArray[np.float64]:
    """Return how often each token comes when chance runs evenly over [0, 1)."""
    rows = 1000
    tokens = draw(
        np.tile(np.log(PROBABILITIES).astype(np.float32), (rows, 1)),
        (np.arange(rows) + 0.5) / rows,
        np.full(rows, temperature),
        np.full(rows, top_k, np.int64),
        np.full(rows, top_p),
    )
    return np.bincount(tokens, minlength=4) / rows


def test_tokens_come_as_often_as_their_probability_says() -> None:
    np.testing.assert_allclose(shares(), PROBABILITIES, atol=0.002)


def test_temperature_sharpens_and_zero_takes_the_likeliest() -> None:
    squares = PROBABILITIES**2 / (PROBABILITIES**2).sum()
    np.testing.assert_allclose(shares(temperature=0.5), squares, atol=0.002)
    np.testing.assert_array_equal(shares(temperature=0.0), [1, 0, 0, 0])


@pytest.mark.parametrize(
    ("top_k", "top_p", "kept"),
    [
        (1, 1.0, [0]),
        (2, 1.0, [0, 2]),
        (9, 1.0, [0, 1, 2, 3]),
        (0, 0.3, [0]),
        (0, 0.5, [0, 2]),
        (0, 0.95, [0, 1, 2, 3]),
        (0, 0.85, [0, 2, 3]),
        (2, 0.5, [0]),
    ],
)
def test_top_k_then_top_p_leave_the_likeliest(top_k: int, top_p: float, kept: list[int]) -> None:
    expected = np.zeros(4)
    expected[kept] = PROBABILITIES[kept] / PROBABILITIES[kept].sum()
    np.testing.assert_allclose(shares(top_k=top_k, top_p=top_p), expected, atol=0.002)


def test_rows_have_their_own_parameters() -> None:
    logits = np.log(np.tile(PROBABILITIES, (3, 1))).astype(np.float32)
    tokens = draw(
        logits,
        np.full(3, 0.99),
        np.array([1.0, 0.0, 1.0]),
        np.array([0, 0, 1]),
        np.ones(3),
    )
    assert tokens.tolist() == [3, 0, 0]


@given(st.integers(0, 2**64 - 1), st.integers(0, 1000))
def test_chance_depends_on_seed_and_count_alone(seed: int, count: int) -> None:
    one = uniforms(np.array([seed], np.uint64), np.array([count], np.uint64))
    many = uniforms(
        np.array([7, seed, 9], np.uint64),
        np.array([count + 1, count, 3], np.uint64),
    )
    assert 0 <= one[0] < 1
    assert many[1] == one[0]


def test_chance_of_neighbouring_seeds_is_even_and_unrelated() -> None:
    seeds = np.arange(20_000, dtype=np.uint64)
    first = uniforms(seeds, np.zeros_like(seeds))
    second = uniforms(seeds, np.ones_like(seeds))
    counts = np.histogram(first, bins=10, range=(0, 1))[0]
    assert np.abs(counts - 2000).max() < 200
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.03


def test_log_probabilities_sum_to_one_and_do_not_overflow() -> None:
    logits = np.array([[1000.0, 999.0], [0.0, -1000.0]], np.float32)
    np.testing.assert_allclose(np.exp(log_probabilities(logits)).sum(-1), 1)
