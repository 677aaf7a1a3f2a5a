"""Votes of recorded models: the rows of allocation.md, and the price of the same accuracy."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache

import numpy as np
import pytest

from samplewise.policies.adaptive_vote import AdaptiveVote
from samplewise.policies.base import Policy
from samplewise.policies.majority_vote import MajorityVote
from samplewise.policies.replay.fast import Played, play_table
from samplewise.policies.replay.records import right
from samplewise.policies.replay.table import Table
from tests.replay import shared

pytestmark = pytest.mark.slow

PASSES = {"aime2024": 200, "aime2025": 200, "gpqa_diamond": 100, "math500": 100}
GPT_OSS = "gpt-oss-20b"


def table(dataset: str, model: str) -> Table:
    """Return one run in random orders of 40."""
    problems = shared.votes(dataset, model)
    return Table.build(problems, 40, PASSES[dataset], prices=shared.PRICES, seed=11)


@cache
def gpt_oss(dataset: str) -> Table:
    """Return the run that the rows are about."""
    return table(dataset, GPT_OSS)


def beta(confidence: float) -> Policy:
    """Return Beta stopping one by one, as the rows have it."""
    return AdaptiveVote("beta", confidence=confidence, max_samples=40, window=1)


# Long-run accuracy in percent, samples and thousand tokens, each with the sd of one pass
# (allocation.md 1.1); None where the page gives none.
ROWS: list[tuple[str, Policy, tuple[float, float], tuple[float, float], tuple[float, float]]] = [
    ("aime2025", MajorityVote(5), (85.01, 3.8), (5, 0), (0, 0)),
    ("aime2025", MajorityVote(10), (88.25, 3.1), (10, 0), (0, 0)),
    ("aime2025", MajorityVote(40), (89.85, 2.0), (40, 0), (482.6, 8.3)),
    ("aime2025", beta(0.90), (89.60, 2.2), (9.02, 0.90), (182.2, 24)),
    ("aime2025", beta(0.95), (89.79, 2.0), (11.24, 0.86), (218, 19)),
    ("aime2025", beta(0.99), (89.85, 2.0), (15.36, 0.83), (274, 15)),
    ("aime2025", AdaptiveVote("esc", max_samples=40), (89.82, 2.0), (17.08, 1.3), (308, 19)),
    ("gpqa_diamond", MajorityVote(5), (69.22, 1.8), (5, 0), (0, 0)),
    ("gpqa_diamond", MajorityVote(10), (70.59, 1.5), (10, 0), (0, 0)),
    ("gpqa_diamond", MajorityVote(40), (72.07, 0.90), (40, 0), (179.1, 1.1)),
    ("gpqa_diamond", beta(0.90), (71.82, 1.1), (9.06, 0.54), (63.8, 5.4)),
    ("gpqa_diamond", beta(0.95), (72.01, 0.97), (12.37, 0.52), (85.9, 4.8)),
    ("gpqa_diamond", beta(0.99), (72.06, 0.91), (17.73, 0.43), (116.4, 3.5)),
    ("gpqa_diamond", AdaptiveVote("esc", max_samples=40), (72.04, 0.93), (18.15, 0.56),
     (119.2, 4.3)),
    ("math500", MajorityVote(5), (95.04, 0.44), (5, 0), (0, 0)),
    ("math500", MajorityVote(10), (95.42, 0.35), (10, 0), (0, 0)),
    ("math500", MajorityVote(40), (95.79, 0.21), (40, 0), (73.3, 0.4)),
    ("math500", beta(0.90), (95.69, 0.29), (4.05, 0.13), (12.5, 1.2)),
    ("math500", beta(0.95), (95.76, 0.23), (5.42, 0.12), (16.4, 1.0)),
    ("math500", beta(0.99), (95.79, 0.21), (8.08, 0.12), (22.7, 0.7)),
    ("math500", AdaptiveVote("esc", max_samples=40), (95.78, 0.21), (7.45, 0.16), (23.4, 1.0)),
]  # fmt: skip


@pytest.mark.parametrize(("dataset", "policy", "accuracy", "samples", "tokens"), ROWS)
def test_a_row_of_votes(
    dataset: str,
    policy: Policy,
    accuracy: tuple[float, float],
    samples: tuple[float, float],
    tokens: tuple[float, float],
) -> None:
    found = play_table(policy, gpt_oss(dataset))
    root = math.sqrt(PASSES[dataset])
    # 4 sd of the mean of these passes and .05 for the rounding of the page, as it says.
    assert 100 * found.right.mean() == pytest.approx(accuracy[0], abs=4 * accuracy[1] / root + 0.05)
    assert found.samples.mean() == pytest.approx(samples[0], abs=4 * samples[1] / root + 0.05)
    if tokens[0]:
        off = 4 * tokens[1] / root + 0.05
        assert found.tokens.mean() / 1000 == pytest.approx(tokens[0], abs=off)


@pytest.mark.parametrize(
    ("dataset", "value"), [("aime2025", 74.43), ("gpqa_diamond", 63.29), ("math500", 92.79)]
)
def test_one_sample_is_the_mean_of_the_pool(dataset: str, value: float) -> None:
    shares = [
        np.mean([bool(right(p, s)) for s in p.samples]) for p in shared.votes(dataset, GPT_OSS)
    ]
    assert 100 * np.mean(shares) == pytest.approx(value, abs=0.005)


def test_where_votes_end_with_ever_more_samples() -> None:
    value, off = shared.target("best_of_infinity_paper.json.gz", "vote limit AIME25")

    def limit(model: str) -> float:
        problems = shared.votes("aime2025", model)
        modes = [
            Counter(s.answer for s in p.samples if s.answer).most_common(1)[0][0] for p in problems
        ]
        solved = [mode == p.reference for mode, p in zip(modes, problems, strict=True)]
        return 100 * float(np.mean(solved))

    found = [limit(GPT_OSS), limit("NVIDIA-Nemotron-Nano-9B-v2")]
    assert found == pytest.approx(value, abs=off)


# Samples of allocation.md 1.1 as written, which takes such rows at 10 % only; cap 40 here.
@pytest.mark.parametrize(("factor", "samples"), [(10.0, 2.4), (30.0, 4.2), (100.0, 6.6)])
def test_samples_of_the_bayes_factor_on_math500(factor: float, samples: float) -> None:
    policy = AdaptiveVote("bayes_factor", factor=factor, max_samples=40, window=1)
    found = play_table(policy, gpt_oss("math500"))
    assert found.samples.mean() == pytest.approx(samples, rel=0.1)


# One rule for all sets, chosen with these runs at hand (out of about 80 settings): other models
# have to confirm it.
RULE = AdaptiveVote("margin", margin=3, max_samples=40, waves=(3, 2))


def dollars(found: Played) -> float:
    """Return the mean price, each sample with its own prompt."""
    return float(found.nano_by_call.mean())


@pytest.mark.parametrize(
    ("dataset", "bar"),
    [
        ("aime2024", 0.26),
        ("aime2025", 0.30),
        pytest.param(
            "gpqa_diamond",
            0.20,
            marks=pytest.mark.xfail(
                reason="0.50 points are lost at a share of .19; docs/replay.md has what was tried"
            ),
        ),
        ("math500", 0.12),
    ],
)
def test_nearly_the_accuracy_of_forty_for_a_part_of_its_price(dataset: str, bar: float) -> None:
    lost, shares = [], []
    for model in shared.models(dataset):
        rows = table(dataset, model)
        forty, found = play_table(MajorityVote(40), rows), play_table(RULE, rows)
        lost.append(100 * float(forty.right.mean() - found.right.mean()))
        shares.append(dollars(found) / float(forty.nano_by_wave.mean()))
    assert np.mean(shares) <= bar
    assert np.mean(lost) <= 0.35
