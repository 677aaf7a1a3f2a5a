"""Backend `tiny` and the verifiers of its problems, through the real proxy."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from samplewise.models.problems import parse_problem, replay
from samplewise.proxy.embedded import MODEL
from tests.embedded.upstream import PUZZLE, SUM, eventually, user
from tests.wire.proxy import Proxy, Reply, serve

CONFIG = """
backends:
  tiny: {type: tiny, price: {input_usd_per_mtok: 0.37, output_usd_per_mtok: 1.93}}
verifiers:
  countdown: {type: countdown}
  wrong: {type: countdown, false_pass: 1, false_fail: 1}
  read: {type: arithmetic, judge: false}
routes:
  one: {backends: [tiny], policy: single}
  best: {backends: [tiny], policy: {type: best_of_n, samples: 8}, verifiers: [countdown]}
  first: {backends: [tiny], policy: {type: first_pass, max_samples: 64}, verifiers: [countdown]}
  fooled: {backends: [tiny], policy: {type: first_pass, max_samples: 4}, verifiers: [wrong]}
  vote: {backends: [tiny], policy: {type: majority_vote, samples: 16}, answers: read}
  adaptive: {backends: [tiny], answers: read,
             policy: {type: adaptive_vote, margin: 3, max_samples: 24}}
"""


async def _exact_bill(reply: Reply, proxy: Proxy) -> None:
    usage = reply.json["usage"]
    cost = usage["prompt_tokens"] * 370 + usage["completion_tokens"] * 1930
    assert await proxy.ledger_spent() == cost


async def test_one_answer_is_billed_by_its_true_tokens(tmp_path: Path) -> None:
    async with serve(CONFIG, tmp_path) as proxy:
        reply = await proxy.chat("one", PUZZLE, seed=1)
        assert reply.status == 200
        assert reply.said["chosen"]["model"] == MODEL
        await _exact_bill(reply, proxy)


async def test_a_verified_answer_is_right(tmp_path: Path) -> None:
    problem = parse_problem(PUZZLE)
    async with serve(CONFIG, tmp_path) as proxy:
        for route in ("best", "first"):
            reply = await proxy.chat(route, PUZZLE, seed=1)
            assert reply.status == 200
            verified = reply.said["outcome"] == "verified"
            assert verified == replay(problem, reply.text).correct
            assert reply.said["samples"]["errored"] == 0


async def test_a_wrong_verifier_lets_wrong_answers_pass(tmp_path: Path) -> None:
    async with serve(CONFIG, tmp_path) as proxy:
        reply = await proxy.chat("fooled", PUZZLE, seed=1, samplewise={"return": ["verdicts"]})
    assert reply.said["outcome"] == "verified"
    assert not replay(parse_problem(PUZZLE), reply.text).correct
    assert reply.said["verifiers"][0]["assurance"] == "heuristic"


async def test_answers_vote_without_a_judge(tmp_path: Path) -> None:
    async with serve(CONFIG, tmp_path) as proxy:
        for route in ("vote", "adaptive"):
            reply = await proxy.chat(route, SUM, seed=1)
            assert reply.status == 200
            assert reply.said["outcome"] in ("agreed", "best_effort", "unverified")
            assert reply.said["samples"]["drawn"] >= 3


async def test_a_request_outside_the_grammar_is_the_clients_fault(tmp_path: Path) -> None:
    async with serve(CONFIG, tmp_path) as proxy:
        reply = await proxy.chat("one", "Hello!")
        assert reply.status == 400
        assert "only knows Countdown" in reply.error["message"]
        assert await proxy.ledger_spent() == 0


async def test_a_stream_ends_with_the_same_text(tmp_path: Path) -> None:
    async with serve(CONFIG, tmp_path) as proxy:
        whole = await proxy.chat("one", PUZZLE, seed=1)
        streamed = await proxy.chat("one", PUZZLE, seed=1, stream=True)
    assert streamed.streamed == whole.text


async def test_requests_at_the_same_time_share_the_batch(tmp_path: Path) -> None:
    async with serve(CONFIG, tmp_path) as proxy:
        replies = await asyncio.gather(*(proxy.chat("best", PUZZLE, seed=i * 8) for i in range(6)))
        again = await proxy.chat("best", PUZZLE, seed=0)
    assert {reply.status for reply in replies} == {200}
    assert again.text == replies[0].text


async def test_a_client_that_leaves_pays_only_for_what_was_decoded(tmp_path: Path) -> None:
    async with serve(CONFIG, tmp_path) as proxy:
        body: dict[str, Any] = {"model": "one", "messages": user(PUZZLE), "stream": True}
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{proxy.url}/v1/chat/completions", data=msgspec.json.encode(body)) as reply,
        ):
            await reply.content.readany()

        async def settled() -> bool:
            return bool(await _spent(proxy))

        await eventually(settled)
        spent = await _spent(proxy)
    prompt = len(PUZZLE.split()) + 2
    assert spent is not None
    assert 0 < spent < prompt * 370 + 64 * 1930


async def _spent(proxy: Proxy) -> int | None:
    """Return what was spent in all, None while something is held."""
    balances = await proxy.service.balances()
    everything = next(b for b in balances if b.account.name == "all")
    return None if everything.reserved.nano or not everything.spent.nano else everything.spent.nano
