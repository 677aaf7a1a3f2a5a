from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.policies.price import Price, Usage, nano_from_usd
from samplewise.proxy.backends.base import Broken, Done, Totals, Trace
from samplewise.proxy.billing import CallFacts, settlements, split
from samplewise.proxy.ledger.base import Hold, State, UsageSource
from samplewise.verifiers.base import Ended

PRICE = Price.per_mtok("0.37", "1.93", None)


def _holds(n: int) -> list[Hold]:
    return [Hold(f"h{i}", "h0", i, "b", "m", "answer", 10**9, 10**6, "v") for i in range(n)]


def _done(i: int, tokens: int = 0, size: int = 10) -> Done:
    return Done(i, b"x" * size, "x" * size, Ended.EOS, tokens)


def _facts(**changes: object) -> CallFacts:
    facts = CallFacts(stream=True, max_tokens=100, prompt_bound=50, sent=True)
    for name, value in changes.items():
        setattr(facts, name, value)
    return facts


def test_a_call_that_was_not_sent_costs_nothing() -> None:
    for facts in (_facts(sent=False), _facts(broken=Broken("connect", "", sent=False))):
        rows = settlements(_holds(2), PRICE, facts)
        assert [(row.nano, row.state) for row in rows] == [(0, State.RELEASED)] * 2


def test_an_error_status_costs_nothing_but_is_settled() -> None:
    rows = settlements(_holds(1), PRICE, _facts(broken=Broken("status", "", status=500)))
    assert (rows[0].nano, rows[0].state) == (0, State.SETTLED)


def test_reported_usage_is_billed_exactly_with_the_prompt_on_the_first_row() -> None:
    dones = {0: _done(0, size=10), 1: _done(1, size=30)}
    facts = _facts(stream=False, dones=dones, totals=Totals(Usage(20, 5, 40, 8)))
    rows = settlements(_holds(2), PRICE, facts)
    assert [row.usage for row in rows] == [Usage(20, 5, 10, 2), Usage(0, 0, 30, 6)]
    assert {row.source for row in rows} == {UsageSource.PROVIDER}


def test_a_cut_stream_is_billed_as_counted_with_the_known_prompt() -> None:
    facts = _facts(traces={0: Trace(["a"], tokens=7)}, prompt_known=12)
    [row] = settlements(_holds(1), PRICE, facts)
    assert (row.usage, row.source) == (Usage(12, 0, 7), UsageSource.COUNTED)


def test_a_cut_stream_that_reports_as_it_goes_is_billed_as_reported() -> None:
    facts = _facts(traces={0: Trace(["a"], tokens=7, reported=Usage(12, 0, 9))})
    [row] = settlements(_holds(1), PRICE, facts)
    assert (row.usage, row.source) == (Usage(12, 0, 9), UsageSource.PROVIDER)


def test_a_cut_call_that_was_not_streamed_is_billed_at_its_worst_case() -> None:
    [row] = settlements(_holds(1), PRICE, _facts(stream=False))
    assert (row.nano, row.source) == (10**9, UsageSource.WORST_CASE)
    assert row.usage == Usage(50, 0, 10**6 - 50)


def test_without_usage_a_whole_answer_is_billed_at_the_most_it_can_be() -> None:
    facts = _facts(stream=False, dones={0: _done(0, size=30)}, totals=Totals(None))
    [row] = settlements(_holds(1), PRICE, facts)
    assert (row.usage, row.source) == (Usage(50, 0, 30), UsageSource.WORST_CASE)


def test_choices_that_never_came_cost_nothing_when_usage_is_reported() -> None:
    facts = _facts(stream=False, dones={0: _done(0)}, totals=Totals(Usage(9, 0, 5)))
    rows = settlements(_holds(3), PRICE, facts)
    assert [row.usage.completion for row in rows] == [5, 0, 0]


@given(st.integers(0, 10**6), st.lists(st.integers(0, 10**4), min_size=1, max_size=20))
def test_a_split_adds_up_and_follows_its_weights(total: int, weights: list[int]) -> None:
    parts = split(total, weights)
    assert sum(parts) == total
    assert min(parts) >= 0
    whole = sum(weights)
    if whole:
        assert all(abs(p - total * w / whole) < 1 for p, w in zip(parts, weights, strict=True))


_USD = st.decimals(0, 100, places=6).map(str)


@given(_USD, _USD, st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_cost_is_the_exact_rational_sum_rounded_up_once(
    prompt_usd: str, completion_usd: str, prompt: int, completion: int
) -> None:
    price = Price.per_mtok(prompt_usd, completion_usd, None)
    exact = Fraction(prompt_usd) * prompt * 1000 + Fraction(completion_usd) * completion * 1000
    cost = price.cost_nano(Usage(prompt, 0, completion))
    assert 0 <= cost - exact < 1
    assert cost <= price.worst_nano(prompt, completion)


@pytest.mark.parametrize(
    ("rent", "speed", "pico"), [("2.0", "800", 694445), ("3.6", "1000", 1000000)]
)
def test_a_rented_server_is_billed_per_completion_token(rent: str, speed: str, pico: int) -> None:
    price = Price.per_gpu_hour(rent, speed)
    assert (price.prompt_pico, price.completion_pico) == (0, pico)


def test_a_limit_is_rounded_down() -> None:
    assert nano_from_usd("0.0000000019") == 1
