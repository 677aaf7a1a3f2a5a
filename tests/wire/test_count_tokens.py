"""`POST /v1/messages/count_tokens`: by the server's word where it has one, else a marked guess."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anthropic
import pytest

from samplewise.proxy.wire import parse_chat, prompt_guess
from tests.upstream import UpstreamProcess
from tests.wire.bodies import MESSAGES, written
from tests.wire.proxy import PRICE, serve

COUNT = f"{MESSAGES}/count_tokens"
TURNS = '[{"role": "user", "content": "how many are six and seven"}]'
IMAGE = '{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "%s"}}'


def config(upstream: UpstreamProcess, kind: str, model: str = "m") -> str:
    extra = ", probe: none, follow_load: false" if kind == "vllm" else ""
    place = f"base_urls: [{upstream.base_url}], model: {model}, price: {PRICE}"
    routes = "  one: {backends: [b]}\n  vote: {backends: [b], policy: 'majority_vote:4'}\n"
    return f"backends:\n  b: {{type: {kind}, {place}{extra}}}\nroutes:\n{routes}"


async def test_vllm_tells_how_many_there_are(upstream: UpstreamProcess, tmp_path: Path) -> None:
    await upstream.script("m", "fine")
    async with (
        serve(config(upstream, "vllm"), tmp_path) as proxy,
        anthropic.AsyncAnthropic(base_url=proxy.url, api_key="x", max_retries=0) as client,
    ):
        tools: Any = [{"name": "f", "input_schema": {"type": "object"}}]
        turns: Any = [{"role": "user", "content": "how many are six and seven"}]
        found = await client.messages.count_tokens(model="vote", messages=turns, tools=tools)
        assert found.input_tokens == 6
        assert found.model_extra == {"samplewise": {"estimate": False, "route": "vote"}}
        more = await client.messages.count_tokens(model="vote", messages=turns, system="be brief")
        assert more.input_tokens == 8
        assert await upstream.records() == []
        assert await proxy.ledger_spent() == 0


@pytest.mark.parametrize(("kind", "model"), [("openai", "m"), ("vllm", "unknown to it")])
async def test_a_guess_is_marked_as_one(
    upstream: UpstreamProcess, tmp_path: Path, kind: str, model: str
) -> None:
    await upstream.script("m", "fine")
    async with serve(config(upstream, kind, model), tmp_path) as proxy:
        reply = await proxy.post(COUNT, written({"model": '"one"', "messages": TURNS}))
        assert reply.status == 200
        assert reply.json["samplewise"] == {"estimate": True, "route": "one"}
        # The messages as they go upstream, a token for every four bytes.
        sent = '[{"role":"user","content":"how many are six and seven"}]'
        assert reply.json["input_tokens"] == -(-len(sent) // 4)
        assert reply.headers["request-id"]


async def test_what_could_not_be_asked_cannot_be_counted(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    async with serve(config(upstream, "vllm"), tmp_path) as proxy:
        turns = f'[{{"role": "user", "content": [{IMAGE % "AA=="}]}}]'
        reply = await proxy.post(COUNT, written({"model": '"vote"', "messages": turns}))
        assert (reply.status, reply.error["param"]) == (400, "messages")
        reply = await proxy.post(COUNT, written({"model": '"none"', "messages": TURNS}))
        assert (reply.status, reply.error["type"]) == (404, "not_found_error")


def test_an_inline_image_counts_as_an_image_and_not_by_its_bytes() -> None:
    def guess(data: str, per_image: int | None = None) -> int:
        part = f'{{"type": "image_url", "image_url": {{"url": "data:image/png;base64,{data}"}}}}'
        turns = f'[{{"role": "user", "content": [{part}]}}]'
        chat = parse_chat(written({"model": '"one"', "messages": turns}), {})
        return prompt_guess(chat, per_image)

    assert guess("A" * 100_000) == guess("AAAA") == guess("AAAA", 1_000)
    assert guess("AAAA", 300) == guess("AAAA") - 700
