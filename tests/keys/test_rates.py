"""Requests per window: exact, refused in constant work, and apart from money."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from samplewise.proxy.errors import RateLimited
from samplewise.proxy.keys.base import ClientKey, Terms
from samplewise.proxy.keys.rates import Rates
from samplewise.proxy.keys.store import KeyStore
from samplewise.proxy.ledger.accounts import window_end, window_starts
from samplewise.proxy.ledger.base import Window
from samplewise.proxy.ledger.places import SqlitePlace
from samplewise.proxy.ledger.sqlite import SqliteLedger
from tests.cli.served import Served, config, serving
from tests.keys.kit import TOO_LITTLE, bearer, both_routes, store_of
from tests.upstream import Answer, UpstreamProcess
from tests.wire.books import rows, soon
from tests.wire.proxy import Reply, serve

SAID = Answer(text="forty-two", tokens=40)
HOUR_MS = 3_600_000
NOON = 1_795_262_400_000  # 2026-11-21T12:00Z


def _requests(**most: int) -> Terms:
    return Terms(requests=tuple((Window(name), count) for name, count in most.items()))


def _limited(reply: Reply) -> str:
    assert (reply.status, reply.error["type"]) == (429, "rate_limit_error")
    assert reply.error["code"] == "rate_limit_exceeded"
    message: str = reply.error["message"]
    return message


class _Clock:
    """A time that only a test moves."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> int:
        return self.now


async def _count(rates: Rates, key: ClientKey, number: int) -> Mapping[str, str]:
    """Count a request; return the headers of the refusal, if it is one."""
    try:
        await rates.count(key, f"req_{number}")
    except RateLimited as error:
        return {**error.headers, "refused": "yes"}
    return {}


@pytest.mark.parametrize(
    ("window", "now", "end"),
    [
        (Window.MINUTE, NOON + 59_999, NOON + 60_000),
        (Window.HOUR, NOON, NOON + HOUR_MS),
        (Window.DAY, NOON, NOON + 12 * HOUR_MS),
        (Window.MONTH, NOON, NOON + 12 * HOUR_MS + 9 * 24 * HOUR_MS),
        (Window.TOTAL, NOON, None),
    ],
)
def test_a_window_ends_where_the_next_one_begins(window: Window, now: int, end: int | None) -> None:
    assert window_end(window, now) == end
    if end is not None:
        assert window_starts(end)[window] == end


async def test_a_window_takes_its_number_and_the_next_one_again(tmp_path: Path) -> None:
    clock = _Clock()
    ledger = await SqliteLedger.open(tmp_path / "a.db", clock=clock)
    rates = Rates(ledger, clock)
    key = ClientKey("key_1", "a", b"", _requests(hour=3)).with_accounts()
    clock.now += 1_000
    found = await asyncio.gather(*(_count(rates, key, number) for number in range(10)))
    assert sum(1 for headers in found if not headers) == 3
    assert {h["retry-after"] for h in found if h} == {"3599"}
    written = ledger.stats.operations
    for number in range(100):
        assert await _count(rates, key, 100 + number)
    # What was refused once is refused without asking the ledger.
    assert ledger.stats.operations == written
    clock.now += HOUR_MS
    assert not await _count(rates, key, 201)
    await ledger.close()
    assert len(rows(tmp_path / "a.db")) == 4


async def test_a_limit_that_is_raised_holds_at_once(tmp_path: Path) -> None:
    clock = _Clock()
    ledger = await SqliteLedger.open(tmp_path / "a.db", clock=clock)
    rates = Rates(ledger, clock)
    key = ClientKey("key_1", "a", b"", _requests(day=1)).with_accounts()
    assert [bool(await _count(rates, key, n)) for n in range(3)] == [False, True, True]
    raised = ClientKey("key_1", "a", b"", _requests(day=2)).with_accounts()
    assert [bool(await _count(rates, raised, n)) for n in range(3, 6)] == [False, True, True]
    await ledger.close()


async def test_a_clock_that_jumps_back_locks_nobody_out_for_longer(tmp_path: Path) -> None:
    clock = _Clock()
    ledger = await SqliteLedger.open(tmp_path / "a.db", clock=clock)
    rates = Rates(ledger, clock)
    key = ClientKey("key_1", "a", b"", _requests(hour=1)).with_accounts()
    assert [bool(await _count(rates, key, n)) for n in range(2)] == [False, True]
    clock.now -= HOUR_MS
    assert not await _count(rates, key, 2)
    await ledger.close()


async def test_a_number_in_all_never_comes_back(tmp_path: Path) -> None:
    ledger = await SqliteLedger.open(tmp_path / "a.db")
    rates = Rates(ledger)
    key = ClientKey("key_1", "a", b"", _requests(total=1)).with_accounts()
    assert not await _count(rates, key, 1)
    assert await _count(rates, key, 2) == {
        "x-ratelimit-limit-requests": "1",
        "x-ratelimit-remaining-requests": "0",
        "x-should-retry": "false",
        "refused": "yes",
    }
    await ledger.close()


async def test_a_key_that_sends_too_many_is_told_when_to_come_back(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", SAID)
    store = store_of(tmp_path)
    _, slow = store.create("slow", _requests(day=2))
    _, other = store.create("other", _requests(day=2))
    async with serve(both_routes(upstream), tmp_path) as proxy:
        replies = [
            await proxy.chat("one", headers=bearer(slow), stream=i % 2 == 1) for i in range(5)
        ]
        assert [reply.status for reply in replies] == [200, 200, 429, 429, 429]
        for reply in replies[2:]:
            assert "this key may send 2 requests a " in _limited(reply)
            assert 1 <= int(reply.headers["retry-after"]) <= 86_400
        assert (await proxy.chat("one", headers=bearer(other))).status == 200
        assert len(await upstream.records()) == 3
    found = Counter(row["purpose"] for row in rows(tmp_path / "ledger.db"))
    assert found == {"request": 3, "answer": 3}


async def test_what_is_asked_wrong_or_only_estimated_does_not_count(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", SAID)
    _, secret = store_of(tmp_path).create("a", _requests(day=1))
    async with serve(both_routes(upstream), tmp_path) as proxy:
        for wrong in ({"n": 0}, {"samplewise": {"sample": 1}}, {"samplewise": {"dry_run": True}}):
            reply = await proxy.chat("one", headers=bearer(secret), **wrong)
            assert reply.status == (200 if "dry_run" in str(wrong) else 400)
        assert (await proxy.chat("one", headers=bearer(secret))).status == 200
        assert (await proxy.chat("one", headers=bearer(secret))).status == 429
    assert [row["purpose"] for row in rows(tmp_path / "ledger.db")] == ["request", "answer"]


async def test_rates_are_no_money_and_money_is_no_rate(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", SAID)
    store = store_of(tmp_path)
    _, poor = store.create("poor", Terms(limits=TOO_LITTLE, requests=((Window.DAY, 3),)))
    async with serve(both_routes(upstream), tmp_path) as proxy:
        replies = [await proxy.chat("one", headers=bearer(poor)) for _ in range(5)]
        assert [reply.status for reply in replies] == [402, 402, 402, 429, 429]
        spent = await proxy.ledger_spent()
        key = proxy.service.guard.find("poor")
        assert key is not None
        day, rate = await proxy.service.engine.ledger.balances([key.accounts[0], key.rates[0]])
        assert (spent, day.spent.nano, day.spent.samples, day.reserved.samples) == (0, 0, 0, 0)
        assert (rate.spent.samples, rate.spent.nano, rate.reserved.samples) == (3, 0, 0)


async def test_rates_are_exact_over_processes(upstream: UpstreamProcess, tmp_path: Path) -> None:
    await upstream.script("m", SAID)
    file = config(tmp_path, upstream.base_url, "  one: {backends: [local]}\n", ", log_level: error")
    _, secret = KeyStore(SqlitePlace(tmp_path / "ledger.db")).create("a", _requests(day=20))
    body = b'{"model": "one", "messages": [{"role": "user", "content": "hi"}]}'

    async def ask(served: Served) -> int:
        return (await served.post(body, authorization=f"Bearer {secret}")).status

    async with (
        serving(tmp_path, "--config", file) as first,
        serving(tmp_path, "--config", file) as second,
    ):
        found = Counter([await ask(first), await ask(second)])  # so that both have a part
        found += Counter(await asyncio.gather(*(ask(s) for s in (first, second) * 29)))
        assert found == {200: 20, 429: 40}
        ledger = tmp_path / "ledger.db"
        await soon(lambda: all(r["settled_at"] for r in rows(ledger)), "all is settled")
    counted = [row for row in rows(ledger) if row["purpose"] == "request"]
    assert len(counted) == 20
    assert len({row["owner_epoch"] for row in counted}) == 2
