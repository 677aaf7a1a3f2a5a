"""Settlements at real prices add up to the nano-dollar, however many."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest

from samplewise.policies.price import Price, Usage
from samplewise.proxy.ledger.base import (
    Account,
    Hold,
    Limit,
    Scope,
    Settlement,
    UsageSource,
    Wave,
    Window,
)
from tests.ledger.conftest import Store

# Dollars per million tokens, input, output and cached: whole nano-dollars per token, parts of one,
# and float artefacts of published tables.
PRICES = [
    ("0.05", "0.4", "0.005"),
    ("1.25", "10", "0.125"),
    ("0.00013", "0.00029", None),
    ("0.075", "0.3", "0.01875"),
    ("15.000020000000002", "75.0001", "1.5"),
    ("3", "15", "0.3"),
]
ACCOUNTS = (
    Account(Scope.KEY, "alice", Window.TOTAL),
    Account(Scope.GLOBAL, "all", Window.TOTAL),
)


def exact_nano(price: Price, usage: Usage) -> int:
    """Return the cost as a rational sum, rounded up once."""
    pico = (
        Fraction(usage.prompt - usage.cached) * price.prompt_pico
        + Fraction(usage.cached) * price.cached_pico
        + Fraction(usage.completion) * price.completion_pico
    )
    return math.ceil(pico / 1_000)


def worst(id_: str, price: Price) -> Hold:
    """Hold for 2,000 tokens of input and 4,000 of output."""
    nano = price.worst_nano(2_000, 4_000)
    return Hold(id_, "c", 0, "local", "m", "sample", nano, 6_000, price.version)


@pytest.mark.parametrize(
    "samples", [2_000, pytest.param(1_000_000, marks=pytest.mark.slow)], ids=["few", "a million"]
)
async def test_settlements_are_exact(store: Store, samples: int) -> None:
    chance = random.Random(samples)
    prices = [Price.per_mtok(*price) for price in PRICES]
    ledger = await store.open()
    nano = tokens = overrun = 0
    size = 1_000
    for start in range(0, samples, size):
        chosen = chance.choices(prices, k=size)
        holds = [worst(f"{start + i}", price) for i, price in enumerate(chosen)]
        bundles = tuple((hold,) for hold in holds)
        grant = await ledger.reserve(Wave(f"{start}", "math", "alice", ACCOUNTS, bundles))
        assert grant.bundles == size
        ends = []
        for hold, price in zip(holds, chosen, strict=True):
            prompt = chance.randrange(2_000)
            usage = Usage(prompt, chance.randrange(prompt + 1), chance.randrange(4_100))
            cost = exact_nano(price, usage)
            ends.append(Settlement(hold.id, price.cost_nano(usage), usage, UsageSource.PROVIDER))
            nano += cost
            tokens += usage.prompt + usage.completion
            overrun += max(0, cost - hold.nano)
        await ledger.settle(ends)
    for balance in await ledger.balances(ACCOUNTS):
        assert balance.spent == Limit(nano, tokens, samples)
        assert balance.reserved == Limit(0, 0, 0)
        assert balance.overrun_nano == overrun
    totals = await ledger.totals()
    assert (totals.settled_nano, totals.wrong_counters, totals.open_rows) == (nano, 0, 0)
    await ledger.close()
