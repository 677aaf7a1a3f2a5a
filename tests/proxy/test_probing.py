"""Probes against the scripted upstream: each ability there, ignored and refused; and the money."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from samplewise.policies.price import Price
from samplewise.proxy.backends.abilities import Abilities
from samplewise.proxy.backends.glance import Work
from samplewise.proxy.backends.openai import OpenAIBackend
from samplewise.proxy.backends.sessions import Sessions
from samplewise.proxy.backends.through_aiohttp import AiohttpClient
from samplewise.proxy.ledger.base import Account, Limit, Scope, Window
from samplewise.proxy.ledger.sqlite import SqliteLedger
from samplewise.proxy.pool import Host, Pool
from samplewise.proxy.probing import Probe
from samplewise.proxy.purse import Purse
from samplewise.proxy.upstreams import Upstream
from tests.upstream import Digits, Fault, UpstreamProcess
from tests.wire.books import reserved, rows, spent

DIGITS = Digits()
ALL = Abilities(
    n=True,
    logprobs=True,
    seed=True,
    stop=True,
    continuation=True,
    stream_usage=True,
    structured=False,
)


@asynccontextmanager
async def probing(
    upstream: UpstreamProcess, folder: Path, *, nano: int | None = None, **settings: Any
) -> AsyncIterator[Probe]:
    ledger = await SqliteLedger.open(str(folder / "ledger.db"))
    sessions = Sessions()
    try:
        purse = Purse(
            ledger=ledger,
            request_id="probe_1",
            route="(probe)",
            accounts=(Account(Scope.GLOBAL, "all", Window.DAY, Limit(nano)),),
            limit=Limit(),
            told=lambda money: None,
            posted=lambda rows: None,
        )
        price = Price.per_mtok("0.37", "1.93", None)
        pool = Pool((Host(upstream.base_url),))
        options = {"stream_options": {"include_usage": True}, "pool": pool, **settings}
        yield Probe(
            Upstream("up", OpenAIBackend(AiohttpClient(sessions), {}), "m", price, **options), purse
        )
    finally:
        await sessions.close()
        await ledger.close()


async def probed(upstream: UpstreamProcess, folder: Path, **settings: Any) -> Abilities:
    async with probing(upstream, folder, **settings) as probe:
        return await probe.run()


async def test_an_upstream_that_can_everything_is_known_to(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", digits=DIGITS)
    assert await probed(upstream, tmp_path) == ALL


@pytest.mark.parametrize(
    ("feature", "ability"),
    [
        ("logprobs", "logprobs"),
        ("seed", "seed"),
        ("stop", "stop"),
        ("continue_final_message", "continuation"),
        ("include_usage", "stream_usage"),
    ],
)
async def test_a_feature_without_effect_is_found(
    upstream: UpstreamProcess, tmp_path: Path, feature: Any, ability: str
) -> None:
    await upstream.script("m", digits=DIGITS, ignores=(feature,))
    found = await probed(upstream, tmp_path)
    assert dict(found.named()) == {**dict(ALL.named()), ability: False}


@pytest.mark.parametrize(
    ("field", "ability"),
    [
        ("logprobs", "logprobs"),
        ("stop", "stop"),
        ("continue_final_message", "continuation"),
        ("stream_options", "stream_usage"),
        ("response_format", "structured"),
        ("n", "n"),
    ],
)
async def test_a_feature_that_is_refused_is_found(
    upstream: UpstreamProcess, tmp_path: Path, field: str, ability: str
) -> None:
    await upstream.script("m", digits=DIGITS, refuses=(field,))
    found = await probed(upstream, tmp_path)
    assert dict(found.named()) == {**dict(ALL.named()), ability: False}


@pytest.mark.parametrize(("most", "learnt", "ability"), [(1, 1, False), (3, 3, True)])
async def test_choices_that_came_back_are_counted(
    upstream: UpstreamProcess, tmp_path: Path, most: int, learnt: int, ability: bool
) -> None:
    await upstream.script("m", digits=DIGITS, max_n=most, over_max_n="cap")
    async with probing(upstream, tmp_path) as probe:
        found = await probe.run()
        assert (found.n, probe.upstream.max_n) == (ability, learnt)


async def test_likeliest_tokens_that_are_refused_leave_plain_log_probabilities(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", digits=DIGITS, refuses=("top_logprobs",))
    async with probing(upstream, tmp_path) as probe:
        found = await probe.run()
        assert (found.logprobs, probe.upstream.max_top_logprobs) == (True, 0)


async def test_a_model_that_always_says_the_same_tells_nothing_of_seeds(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "always the same words")
    found = await probed(upstream, tmp_path)
    assert (found.seed, found.logprobs, found.stop) == (None, True, True)


async def test_what_probes_cost_is_on_the_books_and_nothing_stays_held(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", digits=DIGITS)
    async with probing(upstream, tmp_path) as probe:
        await probe.run()
    file = tmp_path / "ledger.db"
    records = await upstream.records()
    prompt = sum(record.prompt_tokens for record in records)
    completion = sum(record.total_tokens for record in records)
    price = Price.per_mtok("0.37", "1.93", None)
    exact = (prompt * price.prompt_pico + completion * price.completion_pico) / 1000
    assert reserved(file) == 0
    # Every row is rounded up to a whole nano-dollar.
    assert exact <= spent(file) <= exact + len(rows(file))
    assert {row["route"] for row in rows(file)} == {"(probe)"}


async def test_a_probe_that_no_limit_has_room_for_sends_nothing(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", digits=DIGITS)
    assert await probed(upstream, tmp_path, nano=1) == Abilities()
    assert await upstream.records() == []
    assert reserved(tmp_path / "ledger.db") == 0


async def test_an_upstream_out_of_order_stays_unknown(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    fault = Fault(kind="status", status=500)
    await upstream.script("m", digits=DIGITS, faults=(fault,), cycle_faults=True)
    assert await probed(upstream, tmp_path) == Abilities()
    assert len(await upstream.records()) == 1


async def test_an_upstream_that_is_not_there_stays_unknown_and_costs_nothing(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    async with probing(upstream, tmp_path) as probe:
        probe.upstream.pool = Pool((Host("http://127.0.0.1:9/v1"),))
        assert await probe.run() == Abilities()
    assert spent(tmp_path / "ledger.db") == 0


def counters(*seen: Work | None) -> Any:
    """Return a reader of these counters in turn; the last one stays."""
    left = list(seen)

    async def read() -> Work | None:
        return left.pop(0) if len(left) > 1 else left[0]

    return read


@pytest.mark.parametrize(
    ("seen", "aborts"),
    [
        # It came to rest with most of the tokens unmade.
        ((Work(0, 100), Work(8, 110), Work(0, 120)), True),
        # The counters lag: running is 0 once, then 8 again.
        ((Work(0, 100), Work(0, 110), Work(8, 400), Work(0, 400)), True),
        # All was made, and at once: nothing can be said.
        ((Work(0, 100), Work(0, 100 + 8 * 256)), None),
        # All was made, long after the connection's end.
        ((Work(0, 0), *[Work(8, i) for i in range(8)], Work(0, 8 * 256)), False),
        # Others use it too.
        ((Work(3, 100),), None),
        ((None,), None),
    ],
)
async def test_aborts_are_told_by_the_servers_own_counters(
    upstream: UpstreamProcess, tmp_path: Path, seen: Sequence[Work | None], aborts: bool | None
) -> None:
    await upstream.script("m", digits=DIGITS)
    async with probing(upstream, tmp_path) as probe:
        probe.work = counters(*seen)
        assert (await probe.run()).aborts is aborts
