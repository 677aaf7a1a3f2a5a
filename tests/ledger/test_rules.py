"""What reserving and settling mean, rule by rule, on every ledger."""

from __future__ import annotations

import asyncio
import json

import pytest

from samplewise.policies.price import Usage
from samplewise.proxy.errors import StoreError
from samplewise.proxy.ledger.base import (
    Account,
    Grant,
    Ledger,
    Limit,
    Scope,
    Settlement,
    State,
    UsageSource,
    Wave,
    Window,
)
from tests.ledger.conftest import Store
from tests.ledger.kit import (
    DAY,
    HOUR,
    NOON,
    AnyLedger,
    Clock,
    account,
    check_sums,
    hold,
    nano_of,
    released,
    spent,
    wave,
)

DAILY = account("alice", Window.DAY, 1_000)
MONTHLY = account("all", Window.MONTH, 5_000, scope=Scope.GLOBAL)


@pytest.fixture
def ledger(any_ledger: AnyLedger) -> AnyLedger:
    return any_ledger


async def test_it_is_a_ledger(ledger: AnyLedger) -> None:
    contract: Ledger = ledger
    assert contract is ledger


async def test_a_wave_that_fits_is_reserved_whole_in_every_account(ledger: AnyLedger) -> None:
    assert await ledger.reserve(wave(DAILY, MONTHLY, ids=["a", "b"])) == Grant(2)
    for balance in await ledger.balances([DAILY, MONTHLY]):
        assert balance.spent == Limit(0, 0, 0)
        assert balance.reserved == Limit(200, 20, 2)


async def test_the_largest_prefix_that_fits_is_reserved_and_the_account_in_the_way_named(
    ledger: AnyLedger,
) -> None:
    ids = [str(i) for i in range(12)]
    assert await ledger.reserve(wave(MONTHLY, DAILY, ids=ids)) == Grant(10, DAILY)
    assert await nano_of(ledger, DAILY) == (0, 1_000)
    assert await ledger.open_rows() == 10


async def test_nothing_is_written_when_the_first_bundle_does_not_fit(ledger: AnyLedger) -> None:
    small = account("bob", nano=99)
    assert await ledger.reserve(wave(DAILY, small, ids=["a"])) == Grant(0, small)
    assert await nano_of(ledger, DAILY) == (0, 0)
    assert (await ledger.totals()).rows == 0


async def test_a_bundle_is_reserved_whole_or_not_at_all(ledger: AnyLedger) -> None:
    bundles = [(hold(f"s{i}", 300), hold(f"v{i}", 100, sample=False)) for i in range(3)]
    assert await ledger.reserve(wave(DAILY, bundles=bundles)) == Grant(2, DAILY)
    assert await nano_of(ledger, DAILY) == (0, 800)


@pytest.mark.parametrize(
    ("limit", "fits"),
    [
        (account(nano=250), 2),
        (account(tokens=39), 3),
        (account(samples=4), 4),
        (account(nano=500, tokens=50, samples=1), 1),
        (account(nano=0), 0),
        (account(), 5),
    ],
)
async def test_nano_tokens_and_samples_are_all_limits(
    ledger: AnyLedger, limit: Account, fits: int
) -> None:
    grant = await ledger.reserve(wave(limit, ids=list("abcde")))
    assert grant == Grant(fits, None if fits == 5 else limit)


async def test_a_verifier_row_counts_no_sample(ledger: AnyLedger) -> None:
    one = account(samples=1)
    bundle = (hold("s"), hold("v", sample=False))
    assert await ledger.reserve(wave(one, bundles=[bundle])) == Grant(1)
    await ledger.settle([spent("s", 5, 1), spent("v", 7, 2)])
    (balance,) = await ledger.balances([one])
    assert balance.spent == Limit(12, 3, 1)


async def test_what_costs_nothing_fits_a_limit_of_zero_until_there_is_an_overrun(
    ledger: AnyLedger,
) -> None:
    free = account(nano=0)
    assert await ledger.reserve(wave(free, holds=[hold("a", 0)])) == Grant(1)
    await ledger.settle([spent("a", 1)])
    assert await ledger.reserve(wave(free, holds=[hold("b", 0)])) == Grant(0, free)


async def test_two_limits_on_one_account_both_hold_and_count_once(ledger: AnyLedger) -> None:
    money, few = account(nano=1_000), account(samples=3)
    assert await ledger.reserve(wave(money, few, ids=list("abcd"))) == Grant(3, few)
    await ledger.settle([spent("a", 100)])
    assert await nano_of(ledger, money) == (100, 200)
    await check_sums(ledger)


async def test_a_wave_without_accounts_or_without_bundles_is_granted(ledger: AnyLedger) -> None:
    assert await ledger.reserve(wave(ids=["a"])) == Grant(1)
    assert await ledger.reserve(wave(DAILY)) == Grant(0)
    await ledger.settle([spent("a", 7)])
    assert (await ledger.totals()).settled_nano == 7


async def test_settling_posts_the_actual_cost_and_frees_the_rest(ledger: AnyLedger) -> None:
    await ledger.reserve(wave(DAILY, MONTHLY, ids=["a", "b"]))
    usage = Usage(prompt=7, cached=3, completion=5, reasoning=2)
    await ledger.settle([Settlement("a", 40, usage, UsageSource.PROVIDER)])
    for balance in await ledger.balances([DAILY, MONTHLY]):
        assert balance.spent == Limit(40, 12, 1)
        assert balance.reserved == Limit(100, 10, 1)


async def test_settling_again_changes_nothing(ledger: AnyLedger) -> None:
    await ledger.reserve(wave(DAILY, ids=["a"]))
    await ledger.settle([spent("a", 40), spent("a", 50)])
    await ledger.settle([spent("a", 60)])
    await ledger.settle([released("a")])
    assert await nano_of(ledger, DAILY) == (40, 0)
    assert ledger.stats.unknown == 0


async def test_a_released_row_only_frees_and_counts_no_sample(ledger: AnyLedger) -> None:
    await ledger.reserve(wave(DAILY, ids=["a"]))
    await ledger.settle([released("a")])
    (balance,) = await ledger.balances([DAILY])
    assert balance.spent == balance.reserved == Limit(0, 0, 0)


async def test_a_cost_above_the_hold_is_recorded_in_full_and_stops_the_next_wave(
    ledger: AnyLedger, store: Store
) -> None:
    await ledger.reserve(wave(DAILY, ids=["a"]))
    await ledger.settle([spent("a", 1_250)])
    (balance,) = await ledger.balances([DAILY])
    assert (balance.spent.nano, balance.overrun_nano) == (1_250, 1_150)
    assert await store.rows("nano_settled, overrun_nano") == [(1_250, 1_150)]
    assert await ledger.reserve(wave(DAILY, ids=["b"])) == Grant(0, DAILY)


async def test_unknown_rows_are_counted_and_ignored(ledger: AnyLedger) -> None:
    await ledger.reserve(wave(DAILY, ids=["a"]))
    await ledger.settle([spent("nobody", 9), spent("a", 40)])
    assert ledger.stats.unknown == 1
    assert await nano_of(ledger, DAILY) == (40, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        Settlement("a", -1),
        Settlement("a", 1, Usage(completion=-1)),
        Settlement("a", 1, state=State.RELEASED),
        Settlement("a", 0, Usage(prompt=1), state=State.RELEASED),
        Settlement("a", 1, state=State.DISPATCHED),
        Settlement("a", 1, state=State.RECOVERING),
    ],
)
async def test_an_impossible_settlement_is_refused_with_all_beside_it(
    ledger: AnyLedger, wrong: Settlement
) -> None:
    await ledger.reserve(wave(DAILY, ids=["a", "b"]))
    with pytest.raises(ValueError, match="Row 'a'"):
        await ledger.settle([spent("b", 1), wrong])
    assert await nano_of(ledger, DAILY) == (0, 200)


@pytest.mark.parametrize(
    "wrong",
    [
        wave(DAILY, holds=[hold("a", -1)]),
        wave(DAILY, holds=[hold("a", 1, -1)]),
        wave(DAILY, holds=[hold("a", 2**63)]),
        wave(DAILY, ids=["a\0b"]),
        wave(account("al\0ice"), ids=["a"]),
    ],
)
async def test_a_wave_that_cannot_be_counted_is_refused(ledger: AnyLedger, wrong: Wave) -> None:
    with pytest.raises(ValueError, match=r"holds|NUL"):
        await ledger.reserve(wrong)
    assert (await ledger.totals()).rows == 0


async def test_amounts_never_leave_the_integers_of_the_store(ledger: AnyLedger) -> None:
    endless = account()
    most = 2**63 - 1
    holds = [hold("a", most - 5, most), hold("b", 6, 0)]
    assert await ledger.reserve(wave(endless, holds=holds)) == Grant(1, endless)
    assert await nano_of(ledger, endless) == (0, most - 5)
    await ledger.settle([spent("a", most, most)])
    assert await nano_of(ledger, endless) == (most, 0)


async def test_a_row_is_reserved_once(ledger: AnyLedger) -> None:
    await ledger.reserve(wave(DAILY, ids=["a"]))
    with pytest.raises(StoreError, match=r"'a'.*already"):
        await ledger.reserve(wave(DAILY, ids=["b", "a"]))
    with pytest.raises(StoreError, match="twice in one wave"):
        await ledger.reserve(wave(DAILY, ids=["c", "c"]))
    await ledger.settle([spent("a", 40)])
    with pytest.raises(StoreError, match="already"):
        await ledger.reserve(wave(DAILY, ids=["a"]))
    assert await nano_of(ledger, DAILY) == (40, 0)
    assert (await ledger.totals()).rows == 1


async def test_the_same_wave_sent_twice_at_once_is_charged_once(ledger: AnyLedger) -> None:
    same = wave(DAILY, ids=["a", "b"])
    outcomes = await asyncio.gather(
        ledger.reserve(same), ledger.reserve(same), return_exceptions=True
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Grant", "StoreError"]
    assert await nano_of(ledger, DAILY) == (0, 200)


async def test_held_rows_are_dispatched_later_and_once(ledger: AnyLedger, store: Store) -> None:
    await ledger.reserve(wave(DAILY, ids=["a", "b"], dispatched=False))
    assert await store.rows("state, dispatched_at", "id = 'a'") == [("held", None)]
    await ledger.dispatch(["a"])
    await ledger.dispatch(["a"])
    assert await store.rows("id, state, dispatched_at") == [
        ("a", "dispatched", NOON),
        ("b", "held", None),
    ]
    assert await ledger.open_rows() == 2


async def test_rows_that_are_not_open_must_not_be_sent(ledger: AnyLedger, store: Store) -> None:
    await ledger.reserve(wave(DAILY, ids=["a", "b"], dispatched=False))
    await ledger.settle([released("b")])
    with pytest.raises(StoreError, match="'b' must not be sent: the ledger has it as released"):
        await ledger.dispatch(["a", "b"])
    with pytest.raises(StoreError, match="unknown"):
        await ledger.dispatch(["nobody"])
    assert await store.rows("state", "id = 'a'") == [("held",)]


async def test_a_row_keeps_all_that_is_known_of_it(ledger: AnyLedger, store: Store) -> None:
    await ledger.reserve(wave(DAILY, MONTHLY, ids=["a"]))
    await ledger.settle(
        [Settlement("a", 40, Usage(7, 3, 5, 2), UsageSource.COUNTED)],
    )
    names = (
        "call_id, sample_index, purpose, is_sample, route, key, backend, model, nano_held,"
        " tokens_held, state, prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens,"
        " nano_settled, usage_source, price_version, held_at, dispatched_at, settled_at, accounts"
    )
    (row,) = await store.rows(names)
    assert row[:-1] == (
        *("call-a", 0, "sample", 1, "math", "alice", "local", "m", 100, 10, "settled"),
        *(7, 3, 5, 2, 40, "counted", "v1", NOON, NOON, NOON),
    )
    assert json.loads(str(row[-1])) == [
        ["key", "alice", "day", NOON - 12 * HOUR - HOUR // 2],
        ["global", "all", "month", NOON - 28 * DAY - 12 * HOUR - HOUR // 2],
    ]


async def test_a_row_is_settled_in_the_window_it_was_reserved_in(
    ledger: AnyLedger, clock: Clock
) -> None:
    await ledger.reserve(wave(DAILY, MONTHLY, ids=["a"]))
    clock.now += DAY  # from 29 February to 1 March: another day, another month
    assert await nano_of(ledger, DAILY) == (0, 0)
    await ledger.reserve(wave(DAILY, ids=["b"]))
    await ledger.settle([spent("a", 40), spent("b", 50)])
    assert await nano_of(ledger, DAILY) == (50, 0)
    assert await nano_of(ledger, MONTHLY) == (0, 0)
    clock.now -= DAY
    assert await nano_of(ledger, DAILY) == (40, 0)
    assert await nano_of(ledger, MONTHLY) == (40, 0)


async def test_a_clock_that_jumps_back_and_forth_gives_no_window_twice(
    ledger: AnyLedger, clock: Clock
) -> None:
    hourly = account(window=Window.HOUR, nano=100)
    assert await ledger.reserve(wave(hourly, ids=["a"])) == Grant(1)
    clock.now -= HOUR
    assert await ledger.reserve(wave(hourly, ids=["b"])) == Grant(1)
    assert await ledger.reserve(wave(hourly, ids=["c"])) == Grant(0, hourly)
    clock.now += HOUR
    assert await ledger.reserve(wave(hourly, ids=["c"])) == Grant(0, hourly)


async def test_changing_a_limit_leaves_what_is_spent(ledger: AnyLedger) -> None:
    await ledger.reserve(wave(DAILY, ids=list("abcde")))
    lower, higher = account(nano=400), account(nano=1_100)
    assert await ledger.reserve(wave(lower, ids=["f"])) == Grant(0, lower)
    assert await ledger.reserve(wave(higher, ids=list("fghijkl"))) == Grant(6, higher)


async def test_accounts_differ_by_scope_name_and_window(ledger: AnyLedger) -> None:
    await ledger.reserve(wave(DAILY, ids=["a"]))
    others = [
        account("bob"),
        account("alice", Window.HOUR),
        account("alice", Window.TOTAL),
        account("alice", scope=Scope.ROUTE),
    ]
    for balance in await ledger.balances(others):
        assert balance.reserved == Limit(0, 0, 0)


async def test_balances_come_in_the_order_asked_for_with_repeats(ledger: AnyLedger) -> None:
    await ledger.reserve(wave(DAILY, ids=["a"]))
    asked = [MONTHLY, DAILY, MONTHLY, DAILY]
    balances = await ledger.balances(asked)
    assert [balance.account for balance in balances] == asked
    assert [balance.reserved.nano for balance in balances] == [0, 100, 0, 100]
    assert await ledger.balances([]) == []


async def test_names_in_any_script_are_told_apart(ledger: AnyLedger) -> None:
    names = ["zoë", "zoe\u0308", '"', "\\u0000", "'; DROP TABLE counters; --", "", "\x01", "🦆"]
    limits = [account(name, nano=100) for name in names]
    for limit, name in zip(limits, names, strict=True):
        assert await ledger.reserve(wave(limit, ids=[f"row {name}"])) == Grant(1)
        assert await ledger.reserve(wave(limit, ids=[f"more {name}"])) == Grant(0, limit)
    await ledger.settle([spent(f"row {name}", 40) for name in names])
    assert ledger.stats.unknown == 0
    for limit in limits:
        assert await nano_of(ledger, limit) == (40, 0)
    await check_sums(ledger)


async def test_a_large_wave_is_one_operation(ledger: AnyLedger) -> None:
    ids = [str(i) for i in range(1_300)]
    assert await ledger.reserve(wave(account(), ids=ids)) == Grant(1_300)
    await ledger.settle([spent(id_, 3) for id_ in ids])
    assert await nano_of(ledger, account()) == (3_900, 0)
    await check_sums(ledger)


async def test_totals_find_a_counter_that_is_not_the_sum_of_its_rows(
    ledger: AnyLedger, store: Store
) -> None:
    await ledger.reserve(wave(DAILY, MONTHLY, ids=["a"]))
    await check_sums(ledger)
    await store.run("UPDATE samplewise.counters SET spent_nano = 1 WHERE scope = 'key'")
    assert (await ledger.totals()).wrong_counters == 1
