"""Budgets of backends and tags: what they count, and what happens when they are used up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from samplewise.policies.price import NANO
from samplewise.proxy.keys.base import Terms
from samplewise.proxy.keys.store import KeyStore
from samplewise.proxy.ledger.places import SqlitePlace
from tests.upstream import Answer, UpstreamProcess
from tests.wire.faulty import PROMPT_NANO, TOKEN_NANO, counts
from tests.wire.proxy import backend, serve

CAP = 100
SAID = Answer(text="forty-two", tokens=40)
COST = PROMPT_NANO + 40 * TOKEN_NANO
ROOM = CAP * TOKEN_NANO + 200 * PROMPT_NANO  # more than what one sample is held at


def _usd(nano: int) -> str:
    return f"{nano / NANO:.9f}"


async def test_a_backend_whose_budget_is_used_up_is_followed_by_the_next_one(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("cheap", SAID)
    await upstream.script("dear", SAID)
    cheap = backend(upstream, "cheap", "cheap", max_n=1, budget={"samples_per_day": 3})
    dear = backend(upstream, "dear", "dear", max_n=1)
    config = (
        f"backends:\n{cheap}{dear}routes:\n"
        f"  both: {{backends: [cheap, dear], max_tokens: {CAP}, policy: 'majority_vote:2'}}\n"
    )
    async with serve(config, tmp_path) as proxy:
        first = await proxy.chat("both")
        assert (counts(first)[0], first.said["degraded"]) == (2, [])
        second = await proxy.chat("both")
        assert (counts(second)[0], second.said["degraded"]) == (2, ["backend"])
        third = await proxy.chat("both")
        assert (counts(third)[0], third.said["degraded"]) == (2, ["backend"])
    asked = [record.model for record in await upstream.records()]
    assert (asked.count("cheap"), asked.count("dear")) == (3, 3)


async def test_a_backends_budget_counts_nothing_of_others_and_all_routes_together(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", SAID)
    limited = backend(upstream, "limited", max_n=1, budget={"usd_total": _usd(COST + ROOM)})
    config = (
        f"backends:\n{limited}{backend(upstream, 'free', max_n=1)}routes:\n"
        f"  a: {{backends: [limited], max_tokens: {CAP}}}\n"
        f"  b: {{backends: [limited], max_tokens: {CAP}}}\n"
        f"  other: {{backends: [free], max_tokens: {CAP}}}\n"
    )
    async with serve(config, tmp_path) as proxy:
        for _ in range(3):
            assert (await proxy.chat("other")).status == 200
        assert (await proxy.chat("a")).status == 200
        assert (await proxy.chat("b")).status == 200
        refused = await proxy.chat("a")
        assert (refused.status, refused.error["code"]) == (402, "budget_exceeded")
        assert "the backend 'limited' limit of $" in refused.error["message"]
        assert (await proxy.chat("other")).status == 200
        assert await proxy.ledger_spent() == 6 * COST


async def test_a_tag_counts_the_requests_of_its_routes_and_of_its_keys_once(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", SAID)
    store = KeyStore(SqlitePlace(tmp_path / "ledger.db"))
    _, tagged = store.create("tagged", Terms(tags=("team", "a word")))
    _, plain = store.create("plain", Terms())
    config = (
        "tags: {team: {budget: {samples_per_month: 3}}}\n"
        f"backends:\n{backend(upstream)}routes:\n"
        f"  team: {{backends: [local], max_tokens: {CAP}, tags: [team]}}\n"
        f"  open: {{backends: [local], max_tokens: {CAP}}}\n"
    )
    both = {"authorization": f"Bearer {tagged}"}
    other = {"authorization": f"Bearer {plain}"}
    async with serve(config, tmp_path) as proxy:
        assert (await proxy.chat("team", headers=both)).status == 200  # of both, counted once
        assert (await proxy.chat("open", headers=both)).status == 200
        assert (await proxy.chat("team", headers=other)).status == 200
        for route, headers in (("open", both), ("team", other)):
            refused = await proxy.chat(route, headers=headers)
            assert (refused.status, refused.error["code"]) == (402, "budget_exceeded")
            assert "the tag 'team' limit of 3 samples per month" in refused.error["message"]
        assert (await proxy.chat("open", headers=other)).status == 200
        page = (await proxy.get("/metrics")).body.decode()
        assert 'samplewise_budget_spent_usd{name="team",scope="tag",window="month"}' in page


async def test_a_request_carries_the_tags_that_its_metadata_names(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", SAID)
    config = (
        "tags:\n  team: {budget: {samples_per_month: 2}, metadata: {team: a}}\n"
        "  both: {budget: {samples_per_month: 1}, metadata: {team: b, stage: test}}\n"
        f"backends:\n{backend(upstream)}routes:\n"
        f"  open: {{backends: [local], max_tokens: {CAP}}}\n"
        f"  team: {{backends: [local], max_tokens: {CAP}, tags: [team]}}\n"
    )
    others: list[Any] = [None, {}, {"team": "c"}, {"team": 1}, {"team": "b"}, ["a"], "a", 5]
    async with serve(config, tmp_path) as proxy:
        assert (await proxy.chat("team", metadata={"team": "a"})).status == 200  # counted once
        assert (await proxy.chat("open", metadata={"team": "a", "other": "x"})).status == 200
        assert (await proxy.chat("open", metadata={"team": "b", "stage": "test"})).status == 200
        for said, name in (({"team": "a"}, "team"), ({"team": "b", "stage": "test"}, "both")):
            refused = await proxy.chat("open", metadata=said)
            assert (refused.status, refused.error["code"]) == (402, "budget_exceeded")
            assert f"the tag '{name}' limit of" in refused.error["message"]
        for metadata in others:
            assert (await proxy.chat("open", metadata=metadata)).status == 200
    sent = [record.json.get("metadata") for record in await upstream.records()]
    assert sent[3:] == others
