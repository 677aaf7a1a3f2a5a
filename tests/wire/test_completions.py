"""`/v1/completions`: prompts continued by the same engine, asked of the upstream's own endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from samplewise.policies.price import NANO
from tests.upstream import Answer, Rule, UpstreamProcess
from tests.wire.books import counted, reserved, rows, series, soon, spent, total
from tests.wire.proxy import Proxy, Reply, backend, serve
from tests.wire.sdk import asking, said

ROUTES = """
  one: {backends: [local]}
  vote: {backends: [local], policy: 'majority_vote:5'}
  window: {backends: [local], policy: {type: adaptive_vote, margin: 9, max_samples: 4, window: 2}}
  sure: {backends: [local], policy: {type: first_pass, max_samples: 4, waves: [2, 2]},
    verifiers: [is_yes], on_unverified: error}
  mind: {backends: [small]}
  again: {backends: [local], policy: {type: revise, turns: 2}, verifiers: [is_yes]}
"""
VERIFIERS = "  is_yes: {type: regex, pattern: '^yes$'}\n"
PATH = "/v1/completions"


@asynccontextmanager
async def opened(upstream: UpstreamProcess, folder: Path, server: str = "") -> AsyncIterator[Proxy]:
    small = "  small: {type: tiny, price: {input_usd_per_mtok: 1, output_usd_per_mtok: 1}}\n"
    config = f"backends:\n{backend(upstream)}{small}verifiers:\n{VERIFIERS}routes:{ROUTES}"
    async with serve(f"server: {{{server}}}\n{config}", folder) as proxy:
        yield proxy


async def ask(proxy: Proxy, model: str, prompt: Any = "one two", **fields: Any) -> Reply:
    return await proxy.post(PATH, msgspec.json.encode({"model": model, "prompt": prompt, **fields}))


async def test_a_prompt_goes_to_the_upstreams_own_endpoint_as_it_is(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "three four")
    async with opened(upstream, tmp_path) as proxy:
        body = b'{"model": "one", "prompt": "one  two", "suffix": "end", "top_k": 1.50}'
        reply = await proxy.post(PATH, body)
        assert reply.json["object"] == "text_completion"
        assert reply.json["choices"] == [
            {"index": 0, "logprobs": None, "finish_reason": "stop", "stop_reason": None,
             "text": "three four"}
        ]  # fmt: skip
        [record] = await upstream.records()
        # 16 tokens where the client says nothing, as OpenAI's API has it; else byte by byte.
        assert record.body == (
            b'{"model":"m","prompt":"one  two","suffix":"end","top_k":1.50,"max_tokens":16}'
        )


async def test_votes_and_verifiers_work_on_texts(upstream: UpstreamProcess, tmp_path: Path) -> None:
    await upstream.script("m", "no", "yes", "yes", "no", "yes")
    async with opened(upstream, tmp_path) as proxy:
        reply = await ask(proxy, "vote")
        assert reply.json["choices"][0]["text"] == "yes"
        assert reply.said["outcome"] == "agreed"
        assert (await ask(proxy, "sure")).said["outcome"] == "verified"


async def test_best_of_draws_so_many_samples_and_n_returns_so_many(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "a", "b", "a", "c")
    async with opened(upstream, tmp_path) as proxy:
        reply = await ask(proxy, "vote", best_of=3, n=2)
        assert reply.said["samples"]["drawn"] == 3
        assert [choice["text"] for choice in reply.json["choices"]] == ["a", "b"]
        assert all(b"best_of" not in record.body for record in await upstream.records())


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"best_of": 9}, "best_of"),
        ({"best_of": 2, "n": 3}, "best_of"),
        ({"best_of": "2"}, "best_of"),
        ({"best_of": 0}, "best_of"),
        ({"samplewise": {"samples": 9}, "best_of": 2}, "samplewise.samples"),
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": ["a", 7]}, "prompt.1"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [[1], []]}, "prompt.1"),
        ({"prompt": ["a", None]}, "prompt.1"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"model": "mind"}, "model"),
        ({"model": "again"}, "model"),
        ({"model": "none"}, "model"),
    ],
    ids=str,
)
async def test_what_is_wrong_is_refused_with_its_place(
    upstream: UpstreamProcess, tmp_path: Path, fields: dict[str, Any], param: str
) -> None:
    async with opened(upstream, tmp_path) as proxy:
        body = {"model": "vote", "prompt": "hi", **fields}
        reply = await proxy.post(PATH, msgspec.json.encode(body))
        assert reply.status in (400, 404)
        assert (reply.error["type"], reply.error["param"]) == ("invalid_request_error", param)
        assert not await upstream.records()


async def test_a_list_of_prompts_is_answered_prompt_by_prompt_in_its_order(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", echo=("prompt",))
    async with opened(upstream, tmp_path) as proxy:
        reply = await ask(proxy, "vote", ["one", [1, 2], "three words here"], n=1, max_tokens=99)
        texts = [choice["text"] for choice in reply.json["choices"]]
        assert texts == ['{"prompt":"one"}', '{"prompt":[1,2]}', '{"prompt":"three words here"}']
        assert [choice["index"] for choice in reply.json["choices"]] == [0, 1, 2]
        usage = reply.json["usage"]
        assert usage["prompt_tokens"] == 1 + 2 + 3
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        ids = {row["request_id"] for row in rows(tmp_path / "ledger.db")}
        first = reply.said["request_id"]
        assert ids == {first, f"{first}_1", f"{first}_2"}
        await check_bill(proxy, reply, upstream, tmp_path)


async def check_bill(proxy: Proxy, reply: Reply, upstream: UpstreamProcess, folder: Path) -> None:
    """Check that answer, header, ledger, metrics and upstream agree on what it cost."""
    file = folder / "ledger.db"
    records = await upstream.records()
    nano = sum(370 * r.prompt_tokens + 1930 * r.total_tokens for r in records if r.status == 200)
    assert reserved(file) == 0
    assert nano == spent(file) == sum(row["nano_settled"] for row in rows(file))
    found = series((await proxy.get("/metrics")).body.decode())
    assert nano == counted(found, "samplewise_cost_usd_total")
    assert total(found, "samplewise_requests_total", endpoint="completions") == asked_for(reply)
    streamed = "event-stream" in reply.headers["content-type"]
    last = reply.events[-1] if streamed else reply.json
    assert round(last["samplewise"]["cost_usd"]["total"] * NANO) == nano
    assert last["usage"]["cost"] == last["samplewise"]["cost_usd"]["total"]
    if not streamed:
        assert float(reply.headers["x-samplewise-cost-usd"]) == nano / NANO
        assert int(reply.headers["x-samplewise-samples"]) == sum(r.n for r in records)


def asked_for(reply: Reply) -> int:
    """Return how many prompts an answer is for."""
    streamed = "event-stream" in reply.headers["content-type"]
    last = reply.events[-1] if streamed else reply.json
    return len(last["samplewise"].get("prompts", (None,)))


@pytest.mark.parametrize(
    "ask_for", [{}, {"stream": True, "stream_options": {"include_usage": True}}], ids=str
)
@pytest.mark.parametrize("route", ["one", "vote", "window"])
async def test_every_book_has_what_the_upstream_did(
    upstream: UpstreamProcess, tmp_path: Path, route: str, ask_for: dict[str, Any]
) -> None:
    await upstream.script("m", "it is 4", "it is quite surely 5", "it is 4")
    async with opened(upstream, tmp_path) as proxy:
        await check_bill(proxy, await ask(proxy, route, **ask_for), upstream, tmp_path)


@pytest.mark.parametrize("tokens", [0, 1])
async def test_a_harness_that_scores_prompts_gets_exactly_what_the_upstream_says(
    upstream: UpstreamProcess, tmp_path: Path, tokens: int
) -> None:
    """As `local-completions` of lm-eval asks for log-likelihoods, and as it reads the answer."""
    await upstream.script("m", Answer(text="more words", logprobs=-0.5))
    shape = {"temperature": 0, "max_tokens": tokens, "logprobs": 1, "seed": 1234, "echo": True}
    async with opened(upstream, tmp_path) as proxy:
        reply = await ask(proxy, "vote", [[11, 12, 13], [7, 8]], **shape)
        choices = sorted(reply.json["choices"], key=itemgetter("index"))
        until = -1 if tokens else None
        read = [choice["logprobs"]["token_logprobs"][1:until] for choice in choices]
        # The upstream scores a word by its length.
        assert read == [[-4 / 8, -4 / 8], [-3 / 8]]
        assert len(choices[0]["logprobs"]["top_logprobs"]) == 3 + tokens
        sent = sorted((record.body for record in await upstream.records()), key=len)
        tail = f'"temperature":0,"logprobs":1,"echo":true,"seed":1234,"max_tokens":{tokens}}}'
        assert [msgspec.json.decode(body) for body in sent] == [
            {"model": "m", "prompt": prompt, **msgspec.json.decode("{" + tail)}
            for prompt in ([7, 8], [11, 12, 13])
        ]
        # Votes on the score of a prompt would buy the same number five times.
        assert [report["samples"]["drawn"] for report in reply.said["prompts"]] == [1, 1]
        await check_bill(proxy, reply, upstream, tmp_path)


async def test_the_openai_client_reads_texts_and_streams(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="one two three", logprobs=(-0.5, -0.25)))
    async with opened(upstream, tmp_path) as proxy, asking(proxy) as client:
        whole = await client.completions.create(model="vote", prompt="hi", logprobs=2)
        assert whole.choices[0].text == "one two three"
        assert whole.choices[0].logprobs is not None
        assert whole.choices[0].logprobs.token_logprobs == [-0.5, -0.25, -0.5]
        assert said(whole)["samples"]["drawn"] == 5
        for model in ("one", "vote"):
            stream = await client.completions.create(
                model=model, prompt="hi", stream=True, stream_options={"include_usage": True}
            )
            chunks = [chunk async for chunk in stream]
            texts = [choice.text for chunk in chunks for choice in chunk.choices]
            assert "".join(texts) == "one two three"
            assert len(texts) > 1 or model == "vote"
            reasons = [c.finish_reason for chunk in chunks for c in chunk.choices]
            assert [reason for reason in reasons if reason] == ["stop"]
            assert chunks[-1].usage is not None
            assert said(chunks[-1])["route"] == model


async def test_long_waits_for_plain_texts_have_signs_of_life_where_that_is_on(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="late", hold="gate"))
    server = "plain_keep_alive: true, first_comment_after_s: 0.01"
    async with opened(upstream, tmp_path, server) as proxy:
        body = msgspec.json.encode({"model": "one", "prompt": "hi"})
        async with proxy.http.post(proxy.url + PATH, data=body) as reply:
            assert await reply.content.read(1) == b"\n"
            await upstream.release("gate")
            rest = await reply.content.read()
            assert msgspec.json.decode(rest)["choices"][0]["text"] == "late"


@pytest.mark.parametrize("server", ["", "plain_keep_alive: true"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("route", ["one", "vote"])
async def test_a_list_of_prompts_can_be_waited_for_in_every_way(
    upstream: UpstreamProcess, tmp_path: Path, route: str, stream: bool, server: str
) -> None:
    rules = [Rule(contains=word, answers=(Answer(text=word.upper()),)) for word in ("one", "two")]
    await upstream.script("m", rules=rules)
    options = {"include_usage": True}
    fields = {"stream": True, "stream_options": options} if stream else {}
    async with opened(upstream, tmp_path, server) as proxy:
        reply = await ask(proxy, route, ["one", "two"], **fields)
        found = reply.events if stream else [reply.json]
        texts = {choice["index"]: choice["text"] for event in found for choice in event["choices"]}
        assert texts == {0: "ONE", 1: "TWO"}
        assert len(found[-1]["samplewise"]["prompts"]) == 2
        await check_bill(proxy, reply, upstream, tmp_path)


async def test_when_the_client_leaves_every_prompt_of_it_ends(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="a b c", hold="never", hold_after=1))
    async with opened(upstream, tmp_path) as proxy:
        asked = asyncio.create_task(ask(proxy, "window", ["one", "two"]))
        await upstream.wait("held", equals=4)
        asked.cancel()
        await upstream.wait("running", equals=0)
        await soon(lambda: reserved(tmp_path / "ledger.db") == 0, "all is settled")


async def test_a_repeated_request_joins_the_runs_of_the_first(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "a", "b")
    body = msgspec.json.encode({"model": "one", "prompt": ["one", "two"]})
    headers = {"idempotency-key": "the-same"}
    async with opened(upstream, tmp_path) as proxy:
        replies = [await proxy.post(PATH, body, headers) for _ in range(3)]
        assert len({msgspec.json.encode(reply.json["choices"]) for reply in replies}) == 1
        assert len(await upstream.records()) == 2
        other = msgspec.json.encode({"model": "one", "prompt": "another"})
        assert (await proxy.post(PATH, other, headers)).status == 409


async def test_every_client_of_a_failed_run_that_was_joined_is_told_its_cost_once(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="no", hold="gate"))
    body = msgspec.json.encode({"model": "sure", "prompt": ["one", "two", "three"]})
    headers = {"idempotency-key": "the-same"}
    async with opened(upstream, tmp_path) as proxy:
        asked = [asyncio.create_task(proxy.post(PATH, body, headers)) for _ in range(3)]

        async def joined() -> bool:
            page = (await proxy.get("/metrics")).body.decode()
            return total(series(page), "samplewise_coalesced_retries_total") == 6

        await soon(joined, "two have joined the three runs of the first")
        await upstream.release("gate")
        replies = await asyncio.gather(*asked)
        assert [reply.status for reply in replies] == [422] * 3
        truth = f"{spent(tmp_path / 'ledger.db') / NANO:.9f}"
        assert {reply.headers["x-samplewise-cost-usd"] for reply in replies} == {truth}


async def test_a_dry_run_buys_nothing(upstream: UpstreamProcess, tmp_path: Path) -> None:
    async with opened(upstream, tmp_path) as proxy:
        reply = await ask(proxy, "vote", samplewise={"dry_run": True})
        assert reply.json["object"] == "samplewise.estimate"
        one = reply.json["samplewise"]
        reply = await ask(proxy, "vote", ["one two"] * 3, samplewise={"dry_run": True})
        said = reply.json["samplewise"]
        assert said["cost_usd"]["worst"] == pytest.approx(3 * one["cost_usd"]["worst"])
        assert said["samples_at_most"] == 3 * one["samples_at_most"]
        assert [each["cost_usd"]["worst"] for each in said["prompts"]] == [
            one["cost_usd"]["worst"]
        ] * 3
        assert not await upstream.records()
