"""Mirrored traffic: answered twice, paid apart, compared in the background."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from samplewise.proxy.config import load_text
from samplewise.proxy.errors import ConfigError
from tests.upstream import Answer, Fault, UpstreamProcess
from tests.wire import books
from tests.wire.faulty import PROMPT_NANO, TOKEN_NANO
from tests.wire.proxy import Proxy, backend, serve

ROUTES = """
verifiers:
  number: {type: number}
routes:
  one: {backends: [local], policy: single, max_tokens: 50, mirror: {route: vote, share: SHARE, at_once: 2}}
  vote: {backends: [other], policy: 'majority_vote:3', answers: number, max_tokens: 50, budget: {usd_per_day: LIMIT}}
"""  # noqa: E501


def config(upstream: UpstreamProcess, share: float = 1, limit: str = "1") -> str:
    routes = ROUTES.replace("SHARE", str(share)).replace("LIMIT", limit)
    other = backend(upstream, "other", "v", max_n=1)
    return f"backends:\n{backend(upstream)}{other}{routes}"


async def ended(proxy: Proxy) -> None:
    """Wait until no mirror runs."""
    if proxy.service.mirrors.tasks:
        await asyncio.wait(list(proxy.service.mirrors.tasks), timeout=20)


async def results(proxy: Proxy) -> dict[str, float]:
    page = books.series((await proxy.get("/metrics")).body.decode())
    words = ("same", "changed", "failed", "budget", "busy")
    name = "samplewise_mirrored_requests_total"
    found = {w: books.total(page, name, route="one", mirror="vote", result=w) for w in words}
    return {word: count for word, count in found.items() if count}


async def test_the_client_waits_for_one_sample_and_never_for_the_mirror(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 41")
    await upstream.script("v", Answer(text="it is 42", hold="gate"))
    async with serve(config(upstream), tmp_path) as proxy:
        reply = await proxy.chat("one")
        assert (reply.text, reply.said["samples"]["drawn"]) == ("it is 41", 1)
        assert reply.said["mirror"]["route"] == "vote"
        await upstream.wait("held", equals=3)
        await upstream.release("gate")
        await ended(proxy)
        assert await results(proxy) == {"changed": 1}
        cost = 3 * (PROMPT_NANO + 3 * TOKEN_NANO)
        page = books.series((await proxy.get("/metrics")).body.decode())
        spent = books.total(page, "samplewise_mirror_cost_usd_total", route="one", mirror="vote")
        assert round(spent * 10**9) == cost
        served = PROMPT_NANO + 3 * TOKEN_NANO
        assert round(float(reply.headers["x-samplewise-cost-usd"]) * 10**9) == served
        assert await proxy.ledger_spent() == served + cost
        rows = books.rows(tmp_path / "ledger.db")
        assert [row["route"] for row in rows] == ["one", "vote", "vote", "vote"]
        assert {row["request_id"] for row in rows[1:]} == {reply.said["mirror"]["request_id"]}


@pytest.mark.parametrize("stream", [False, True])
async def test_answers_are_compared_as_the_other_route_votes(
    upstream: UpstreamProcess, tmp_path: Path, stream: bool
) -> None:
    await upstream.script("m", "it is surely 42")
    await upstream.script("v", "42")
    async with serve(config(upstream), tmp_path) as proxy:
        assert (await proxy.chat("one", stream=stream)).status == 200
        await ended(proxy)
        assert await results(proxy) == {"same": 1}


async def test_a_share_of_the_requests_is_mirrored_and_the_rest_says_nothing(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "42")
    await upstream.script("v", "42")
    async with serve(config(upstream, share=0.5), tmp_path) as proxy:
        mirrored = 0
        for _ in range(60):
            mirrored += "mirror" in (await proxy.chat("one")).said
            await ended(proxy)
        # Fewer or more come once in a million runs.
        assert 10 <= mirrored <= 50
        assert await results(proxy) == {"same": mirrored}


async def test_a_mirror_stops_at_its_own_limit_and_requests_do_not(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "42")
    await upstream.script("v", "42")
    async with serve(config(upstream, limit="0.0000001"), tmp_path) as proxy:
        for _ in range(3):
            assert (await proxy.chat("one")).text == "42"
            await ended(proxy)
        assert await results(proxy) == {"budget": 3}
        assert await proxy.ledger_spent() == 3 * (PROMPT_NANO + TOKEN_NANO)


async def test_no_more_mirrors_run_at_once_than_are_allowed(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "42")
    await upstream.script("v", Answer(text="42", hold="gate"))
    async with serve(config(upstream), tmp_path) as proxy:
        said = [(await proxy.chat("one")).said for _ in range(3)]
        assert ["mirror" in one for one in said] == [True, True, False]
        await upstream.wait("held", equals=6)
        await upstream.release("gate")
        await ended(proxy)
        assert await results(proxy) == {"busy": 1, "same": 2}


async def test_a_mirror_that_fails_is_counted_and_nobody_hears_of_it(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "42")
    await upstream.script("v", "x", faults=[Fault(kind="status")], cycle_faults=True)
    async with serve(config(upstream), tmp_path) as proxy:
        assert (await proxy.chat("one")).text == "42"
        await ended(proxy)
        assert await results(proxy) == {"failed": 1}


async def test_a_server_that_stops_cuts_its_mirrors_and_settles_them(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "42")
    await upstream.script("v", Answer(text="42", hold="never"))
    async with serve(config(upstream), tmp_path) as proxy:
        await proxy.chat("one")
        await upstream.wait("held", equals=3)
    await upstream.wait("aborted", equals=3)
    states = [row["state"] for row in books.rows(tmp_path / "ledger.db")]
    assert states == ["settled"] * 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"route: vote": "route: one"}, "routes.one.mirror.route: must be another route"),
        ({"route: vote": "route: x"}, "there is no route 'x'; there is: one, vote"),
        ({", budget: {usd_per_day: 1}": ""}, "may spend has no limit: set its budget.usd_per_day"),
        ({"share: 1": "share: 1.5"}, "share"),
    ],
)
def test_a_mirror_that_cannot_be_is_refused(change: dict[str, Any], said: str) -> None:
    text = "backends:\n" + "".join(
        f"  {name}: {{type: tiny, price: {{input_usd_per_mtok: 1, output_usd_per_mtok: 1}}}}\n"
        for name in ("local", "other")
    )
    routes = ROUTES.replace("SHARE", "1").replace("LIMIT", "1")
    for old, new in change.items():
        assert old in routes
        routes = routes.replace(old, new)
    with pytest.raises(ConfigError) as raised:
        load_text(f'store: "sqlite:///x.db"\n{text}{routes}', "x.yaml", {})
    assert said in str(raised.value)
