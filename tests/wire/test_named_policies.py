"""Policies with settings of their own, chosen by single requests of one route."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

from samplewise.policies.price import NANO
from samplewise.proxy.build import preflight
from samplewise.proxy.cli import main
from samplewise.proxy.config import load_text
from samplewise.proxy.errors import ConfigError
from samplewise.proxy.logs import only_known_fields
from tests.upstream import Answer, Digits, UpstreamProcess
from tests.wire.bodies import CHAT
from tests.wire.proxy import Proxy, Reply, backend, serve

VERIFIERS = """
  number: {type: number}
  step: {type: python, function: 'tests.contract.graders:last_digit', scope: step, required: false}
  judge: {type: python, compare: 'tests.contract.graders:longer'}
"""
ROUTE = """
  r:
    backends: [local, other, dear]
    answers: number
    verifiers: [step]
    comparator: judge
    max_tokens: 50
    policy: single
    budget: {usd_per_request: 0.5}
    policies:
      searched: {type: beam, samples: 8, width: 2, score: step, stop: [";"], max_steps: 4}
      tiers: {type: cascade, tiers: [{backend: local, beside: {backend: other}}, {backend: dear}]}
      ranked: {type: tournament, samples: 4, opponents: 3}
      sure: {type: deepconf, samples: 3}
      majority_vote: majority_vote:3
"""
TYPES = {
    "searched": "beam",
    "tiers": "cascade",
    "ranked": "tournament",
    "sure": "deepconf",
    "majority_vote": "majority_vote",
}
KEY = "sk-sw-" + "k" * 43


@asynccontextmanager
async def served(upstream: UpstreamProcess, folder: Path) -> AsyncIterator[Proxy]:
    backends = backend(upstream) + backend(upstream, "other", "o") + backend(upstream, "dear", "d")
    keys = "keys: {required: false, list: [{name: app, key: '${KEY}', max_samples: 2}]}\n"
    config = f"{keys}backends:\n{backends}verifiers:{VERIFIERS}routes:{ROUTE}"
    async with serve(config, folder, {"KEY": KEY}) as proxy:
        yield proxy


async def chosen(proxy: Proxy, name: str, **fields: Any) -> Reply:
    """Ask with a policy of the route: what comes must be what was estimated, billed and named."""
    before = await proxy.ledger_spent()
    body = {"model": "r", "messages": [{"role": "user", "content": "hi"}], **fields}
    asked = msgspec.json.encode({**body, "samplewise": {"policy": name}})
    estimate = (await proxy.post("/v1/samplewise/estimate", asked)).said
    reply = await proxy.post(CHAT, asked)
    assert reply.status == 200, reply.body
    for said in (estimate, reply.said):
        assert (said["policy"], said["policy_name"]) == (TYPES[name], name)
    assert reply.said["samples"]["drawn"] <= estimate["samples_at_most"]
    assert reply.said["cost_usd"]["total"] <= estimate["cost_usd"]["worst"]
    spent = await proxy.ledger_spent() - before
    assert spent == round(reply.said["cost_usd"]["total"] * NANO) > 0
    return reply


async def test_a_request_gets_a_search_over_scored_steps(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    for model in ("m", "o", "d"):
        await upstream.script(model, digits=Digits(steps=3, step_tokens=2))
    async with served(upstream, tmp_path) as proxy:
        reply = await chosen(proxy, "searched", seed=11)
        assert [len(step) for step in reply.text.split(";")] == [2, 2, 2, 0]
        assert reply.said["samples"]["drawn"] > 3
        assert any(r.json.get("continue_final_message") for r in await upstream.records())
        plain = await proxy.chat("r", seed=11)
        assert (plain.said["policy"], plain.said["samples"]["drawn"]) == ("single", 1)
        assert "policy_name" not in plain.said


async def test_a_request_gets_a_cascade(upstream: UpstreamProcess, tmp_path: Path) -> None:
    await upstream.script("m", "it is 4", "it is 5")
    await upstream.script("o", "4 I say")
    await upstream.script("d", "7")
    async with served(upstream, tmp_path) as proxy:
        same, torn = await chosen(proxy, "tiers"), await chosen(proxy, "tiers")
        assert (same.text, same.said["outcome"]) == ("it is 4", "agreed")
        assert (torn.text, torn.said["samples"]["drawn"]) == ("7", 3)


async def test_a_request_gets_a_tournament(upstream: UpstreamProcess, tmp_path: Path) -> None:
    await upstream.script("m", "a b", "a b c d", "a", "a b c")
    async with served(upstream, tmp_path) as proxy:
        reply = await chosen(proxy, "ranked")
        assert (reply.text, reply.said["samples"]["drawn"]) == ("a b c d", 4)


async def test_a_request_gets_a_vote_by_confidence(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    answers = [Answer(text="it is 4", logprobs=-0.1)] * 2 + [Answer(text="it is 7", logprobs=-50)]
    await upstream.script("m", *answers, "it is 4")
    async with served(upstream, tmp_path) as proxy:
        assert (await chosen(proxy, "sure")).text == "it is 7"
        assert (await upstream.record()).json["top_logprobs"] == 20
        await proxy.chat("r")
        assert "top_logprobs" not in (await upstream.records())[-1].json


async def test_what_a_cascade_learns_is_of_the_requests_that_chose_it(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    gate = "{type: cascade, tiers: [{backend: local, escalate: 0.5}, {backend: dear}]}"
    await upstream.script("m", Answer(text="it is 4", logprobs=-0.01))
    await upstream.script("d", "7")
    config = (
        f"backends:\n{backend(upstream)}{backend(upstream, 'dear', 'd')}routes:\n"
        f"  r: {{backends: [local, dear], policy: {gate}, policies: {{mine: {gate}}}}}\n"
    )
    async with serve(config, tmp_path) as proxy:
        mine = {"samplewise": {"policy": "mine"}}
        for number in range(20):
            # Nothing is known before 20 requests: all of them go on.
            assert (await proxy.chat("r", f"{number}", **mine)).text == "7"
        assert (await proxy.chat("r", "own")).text == "7"
        assert (await proxy.chat("r", "chosen", **mine)).text == "it is 4"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_header_chooses_and_the_routes_settings_go_before_the_built_in_ones(
    upstream: UpstreamProcess, tmp_path: Path, stream: bool
) -> None:
    await upstream.script("m", "it is 4")
    async with served(upstream, tmp_path) as proxy:
        header = {"x-samplewise-policy": "majority_vote"}
        reply = await proxy.chat("r", headers=header, stream=stream)
        said = reply.events[-1]["samplewise"] if stream else reply.said
        assert (said["policy_name"], said["samples"]["drawn"]) == ("majority_vote", 3)
        # Without an entry it has default settings, and as many samples as the route itself draws.
        built_in = await proxy.chat("r", headers={"x-samplewise-policy": "best_of_n"})
        assert (built_in.said["policy"], built_in.said["samples"]["drawn"]) == ("best_of_n", 1)
        assert "policy_name" not in built_in.said


async def test_a_request_can_only_tighten_a_policy_that_it_chooses(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 4")
    async with served(upstream, tmp_path) as proxy:

        async def ask(samples: int | None = None, **more: Any) -> Reply:
            asked = {"policy": "majority_vote", "samples": samples} | more
            return await proxy.chat("r", samplewise=asked)

        assert (await ask(2)).said["samples"]["drawn"] == 2
        over = await ask(4)
        assert (over.status, over.error["param"]) == (400, "samplewise.samples")
        assert "'majority_vote' of route 'r' allows at most 3, got 4" in over.error["message"]
        assert (await ask(max_cost_usd=9)).said["budget"]["limit_usd"] == 0.5
        poor = await ask(max_cost_usd=0.00025)
        assert poor.said["samples"]["drawn"] < 3
        assert poor.said["degraded"] == ["budget"]
        suffixed = {"x-samplewise-policy": "majority_vote"}
        assert (await proxy.chat("r:2", headers=suffixed)).said["samples"]["drawn"] == 2
        shown = {"authorization": f"Bearer {KEY}"} | suffixed
        assert (await proxy.chat("r", headers=shown)).said["samples"]["drawn"] == 2


@pytest.mark.parametrize("asked", ["fast", "cascade", "majority_vote:3", "sure:2", "Sure"])
async def test_a_policy_that_is_not_there_is_refused_with_the_names_that_are(
    upstream: UpstreamProcess, tmp_path: Path, asked: str
) -> None:
    async with served(upstream, tmp_path) as proxy:
        reply = await proxy.chat("r", samplewise={"policy": asked})
        assert (reply.status, reply.error["param"]) == (400, "samplewise.policy")
        message = reply.error["message"]
        assert "route 'r' has searched, tiers, ranked, sure, majority_vote; " in message
        assert f"got '{asked}'" in message
        assert ("belongs into samplewise.samples" in message) == (":" in asked)
        assert await upstream.records() == []


async def test_models_metrics_and_the_log_name_the_policies(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 4")
    async with served(upstream, tmp_path) as proxy:
        told = (await proxy.get("/v1/models/r")).json["samplewise"]
        assert (told["policy"], told["samples_at_most"]) == ("single", 1)
        assert told["policies"]["searched"] == {"policy": "beam", "samples_at_most": 32}
        assert list(told["policies"]) == list(TYPES)
        with capture_logs() as events:
            await chosen(proxy, "majority_vote")
            await proxy.chat("r")
        written = [only_known_fields(debug=False)(None, "", event) for event in events]
        named = [e.get("policy_name") for e in written if e["event"] == "answered"]
        assert named == ["majority_vote", None]
        page = (await proxy.get("/metrics")).body.decode()
        line = 'samplewise_chosen_policies_total{policy="majority_vote",route="r"} 1.0'
        assert [x for x in page.splitlines() if x.startswith("samplewise_chosen_pol")] == [line]


async def test_the_record_and_the_command_that_explains_it_name_the_policy(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "a b", "a b c d", "a", "a b c")
    async with served(upstream, tmp_path) as proxy:
        id_ = (await chosen(proxy, "ranked")).said["request_id"]
        record = (await proxy.get(f"/v1/samplewise/requests/{id_}")).json["record"]
        assert (record["policy"], record["policy_name"]) == ("tournament", "ranked")
    store = f"sqlite:///{tmp_path}/ledger.db"
    shown = CliRunner().invoke(main, ["explain", id_, "--store", store])
    assert "Policy ranked (tournament) stopped because: exhausted" in shown.output


async def test_an_entry_that_an_upstream_cannot_serve_is_refused_at_start(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    text = ROUTE.replace("local, other, dear", "local").replace("      tiers", "      # tiers")
    local = backend(upstream, profile="groq")
    config = f"store: 'sqlite:///{tmp_path}/l.db'\nbackends:\n{local}verifiers:{VERIFIERS}"
    with pytest.raises(ConfigError) as caught:
        await preflight(load_text(f"{config}routes:{text}", "test.yaml", {}))
    said = str(caught.value)
    assert "routes.r.policies.searched: beam needs" in said
    assert "routes.r.policies.sure: deepconf needs" in said
    assert await upstream.records() == []


async def test_a_prompt_cannot_be_continued_by_a_search_that_is_chosen(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 4")
    async with served(upstream, tmp_path) as proxy:

        async def ask(name: str) -> Reply:
            body = {"model": "r", "prompt": "2 + 2", "samplewise": {"policy": name}}
            return await proxy.post("/v1/completions", msgspec.json.encode(body))

        for name, kind in (("searched", "beam"), ("sure", "deepconf")):
            reply = await ask(name)
            assert (reply.status, reply.error["param"]) == (400, "model")
            assert f"policy {kind} of route 'r'" in reply.error["message"]
        assert (await ask("majority_vote")).status == 200
