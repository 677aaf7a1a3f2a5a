"""The official `openai` client against the proxy: what a user of the SDK sees."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from samplewise.policies.price import NANO
from tests.upstream import Answer, Fault, Rule, UpstreamProcess
from tests.wire.books import reserved, soon
from tests.wire.sdk import ASK, CALLS, TOOLS, Sum, asking, said, serving


@contextmanager
def asking_sync(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="sk-of-the-client", max_retries=0) as client:
        yield client


async def test_a_plain_answer_has_its_report_its_cost_and_its_request_id(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 13")
    async with serving(upstream, tmp_path) as proxy, asking(proxy) as client:
        answer = await client.chat.completions.create(model="one", messages=ASK)
        assert (answer.model, answer.object) == ("one", "chat.completion")
        assert answer.choices[0].message.content == "it is 13"
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage is not None
        assert answer.usage.total_tokens == 6 + 3
        assert answer.usage.model_extra == {"cost": said(answer)["cost_usd"]["total"]}
        assert answer._request_id == said(answer)["request_id"]


async def test_the_sync_client_gets_plain_and_streamed_answers(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 13")

    def ask(url: str) -> list[str]:
        texts = []
        with asking_sync(url) as client:
            for model in ("one", "vote"):
                plain = client.chat.completions.create(model=model, messages=ASK)
                texts.append(plain.choices[0].message.content or "")
                stream = client.chat.completions.create(model=model, messages=ASK, stream=True)
                texts.append("".join(chunk.choices[0].delta.content or "" for chunk in stream))
            with client.chat.completions.stream(model="vote", messages=ASK) as events:
                texts.append(events.get_final_completion().choices[0].message.content or "")
        return texts

    async with serving(upstream, tmp_path) as proxy:
        assert await asyncio.to_thread(ask, proxy.url) == ["it is 13"] * 5


async def test_parse_gets_its_schema_through_and_its_object_back(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", '{"steps": [], "answer": 13}')
    async with serving(upstream, tmp_path) as proxy, asking(proxy) as client:
        answer = await client.chat.completions.parse(
            model="vote", messages=ASK, response_format=Sum
        )
        assert answer.choices[0].message.parsed == Sum(steps=[], answer=13)
        sent = (await upstream.record()).json["response_format"]
        assert sent["json_schema"]["strict"] is True
        assert sent["json_schema"]["schema"]["required"] == ["steps", "answer"]


@pytest.mark.parametrize("stream", [False, True])
async def test_n_answers_of_a_vote_are_different_ones(
    upstream: UpstreamProcess, tmp_path: Path, stream: bool
) -> None:
    await upstream.script("m", "it is 4", "it is 5", "it is 4")
    async with serving(upstream, tmp_path) as proxy, asking(proxy) as client:
        if stream:
            events = client.chat.completions.stream(model="vote", messages=ASK, n=2)
            async with events as opened:
                choices: Any = (await opened.get_final_completion()).choices
        else:
            answer = await client.chat.completions.create(model="vote", messages=ASK, n=2)
            choices = answer.choices
        assert [(c.index, c.message.content) for c in choices] == [(0, "it is 4"), (1, "it is 5")]
        assert (await upstream.record()).json["n"] == 6


@pytest.mark.parametrize("route", ["one", "vote"])
async def test_parallel_tool_calls_come_whole(
    upstream: UpstreamProcess, tmp_path: Path, route: str
) -> None:
    await upstream.script("m", Answer(tool_calls=CALLS))
    async with serving(upstream, tmp_path) as proxy, asking(proxy) as client:
        answer = await client.chat.completions.create(model=route, messages=ASK, tools=TOOLS)
        async with client.chat.completions.stream(model=route, messages=ASK, tools=TOOLS) as stream:
            kinds = [event.type async for event in stream]
            streamed = await stream.get_final_completion()
        assert kinds.count("tool_calls.function.arguments.done") == 2
        for message in (answer.choices[0].message, streamed.choices[0].message):
            calls: Any = message.tool_calls
            assert message.content in (None, "")
            assert [(c.id, c.function.name, c.function.arguments) for c in calls] == [
                (c.id, c.name, c.arguments) for c in CALLS
            ]
        assert {answer.choices[0].finish_reason, streamed.choices[0].finish_reason} == {
            "tool_calls"
        }


@pytest.mark.parametrize("route", ["one", "vote"])
async def test_log_probabilities_are_those_of_the_returned_text(
    upstream: UpstreamProcess, tmp_path: Path, route: str
) -> None:
    await upstream.script("m", Answer(text="it is 13", logprobs=(-0.5, -0.25, -1.0)))
    ask: Any = {"model": route, "messages": ASK, "logprobs": True, "top_logprobs": 2}
    async with serving(upstream, tmp_path) as proxy, asking(proxy) as client:
        answer = await client.chat.completions.create(**ask)
        async with client.chat.completions.stream(**ask) as stream:
            streamed = await stream.get_final_completion()
        for choice in (answer.choices[0], streamed.choices[0]):
            assert choice.logprobs is not None
            content = choice.logprobs.content or []
            assert [(t.token, t.logprob) for t in content] == [
                ("it", -0.5), (" is", -0.25), (" 13", -1.0),
            ]  # fmt: skip
            assert [len(t.top_logprobs) for t in content] == [2, 2, 2]


async def test_extra_body_says_how_many_samples_and_what_to_return(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 4", "it is 5", "it is 4")
    wanted = {"samplewise": {"samples": 3, "return": ["votes", "candidates"]}, "top_k": 40}
    async with serving(upstream, tmp_path) as proxy, asking(proxy) as client:
        answer = await client.chat.completions.create(model="vote", messages=ASK, extra_body=wanted)
        report = said(answer)
        assert report["samples"]["drawn"] == 3
        assert report["votes"] == [
            {"answer": "it is 4", "votes": 2},
            {"answer": "it is 5", "votes": 1},
        ]
        assert [c["text"] for c in report["candidates"]] == ["it is 4", "it is 5", "it is 4"]
        sent = (await upstream.record()).json
        assert sent["top_k"] == 40
        assert "samplewise" not in sent


async def test_the_clients_key_never_goes_upstream(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine")
    async with serving(upstream, tmp_path) as proxy, asking(proxy) as client:
        await client.chat.completions.create(model="one", messages=ASK)
        record = await upstream.record()
        assert "sk-of-the-client" not in f"{record.headers}{record.body!r}"


async def test_raw_responses_have_the_bill_in_their_headers(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 4")
    async with serving(upstream, tmp_path) as proxy, asking(proxy) as client:
        raw = await client.chat.completions.with_raw_response.create(model="vote", messages=ASK)
        report = said(raw.parse())
        assert raw.headers["x-request-id"] == report["request_id"]
        assert raw.headers["x-samplewise-samples"] == "6"
        assert raw.headers["x-samplewise-outcome"] == "agreed"
        cost = float(raw.headers["x-samplewise-cost-usd"])
        assert cost == report["cost_usd"]["total"]
        assert round(cost * NANO) == 6 * 370 + 18 * 1930


Refusal = tuple[dict[str, Any], type[openai.APIStatusError], int, str | None, str | None]
_TYPO = {"samplewise": {"sample": 3}}
_REFUSALS: list[Refusal] = [
    ({"model": "none"}, openai.NotFoundError, 404, "model_not_found", "model"),
    ({"model": "one", "n": 2}, openai.BadRequestError, 400, None, "n"),
    (
        {"model": "vote", "extra_body": _TYPO},
        openai.BadRequestError,
        400,
        None,
        "samplewise.sample",
    ),
    ({"model": "poor"}, openai.APIStatusError, 402, "budget_exceeded", None),
    ({"model": "strict"}, openai.UnprocessableEntityError, 422, "no_verified_answer", None),
]


@pytest.mark.parametrize("stream", [False, True])
async def test_errors_have_the_class_that_their_status_means(
    upstream: UpstreamProcess, tmp_path: Path, stream: bool
) -> None:
    await upstream.script("m", "no")
    async with serving(upstream, tmp_path) as proxy, asking(proxy) as client:
        for ask, kind, status, code, param in _REFUSALS:
            with pytest.raises(kind) as caught:
                await client.chat.completions.create(messages=ASK, stream=stream, **ask)
            error = caught.value
            assert type(error) is kind
            assert (error.status_code, error.code, error.param) == (status, code, param)
            assert error.type in ("invalid_request_error", "budget_exceeded", "no_verified_answer")
            assert error.request_id is not None
            assert error.request_id.startswith("req_")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("route", ["one", "vote"])
async def test_upstream_trouble_is_a_rate_limit_or_a_server_error(
    upstream: UpstreamProcess, tmp_path: Path, route: str, stream: bool
) -> None:
    limited = Fault(kind="status", status=429, headers={"retry-after": "7"})
    rules = (
        Rule(contains="limit", faults=(limited,), cycle_faults=True),
        Rule(contains="crash", faults=(Fault(kind="status", status=500),), cycle_faults=True),
    )
    await upstream.script("m", "no", rules=rules)
    # With more time than that, the wait that is asked for would be kept.
    async with serving(upstream, tmp_path) as proxy, asking(proxy, timeout=6.5) as client:
        with pytest.raises(openai.InternalServerError) as crashed:
            await client.chat.completions.create(
                model=route, messages=[{"role": "user", "content": "crash"}], stream=stream
            )
        assert (crashed.value.status_code, crashed.value.type) == (502, "upstream_error")
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(
                model=route, messages=[{"role": "user", "content": "limit"}], stream=stream
            )
        assert caught.value.code == "rate_limit_exceeded"
        assert caught.value.response.headers["retry-after"] == "7"


async def test_a_refusal_for_want_of_money_is_not_tried_again(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine")
    async with serving(upstream, tmp_path) as proxy, asking(proxy, max_retries=3) as client:
        with pytest.raises(openai.APIStatusError, match="does not fit") as caught:
            await client.chat.completions.create(model="poor", messages=ASK)
        assert caught.value.status_code == 402
        page = (await proxy.get("/metrics")).body.decode()
        line = (
            'samplewise_requests_total{endpoint="chat",outcome="budget_refused",route="poor"} 1.0'
        )
        assert line in page.splitlines()
        assert await upstream.records() == []


async def test_a_client_that_times_out_and_tries_again_leaves_nothing_behind(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", faults=[Fault(kind="hang")], cycle_faults=True)
    async with (
        serving(upstream, tmp_path) as proxy,
        asking(proxy, max_retries=1, timeout=0.3) as client,
    ):
        # As a client that does not say how long it waits: others get an answer or a 504 before.
        unannounced = {"x-stainless-read-timeout": "0"}
        with pytest.raises(openai.APITimeoutError):
            await client.chat.completions.create(
                model="vote", messages=ASK, extra_headers=unannounced
            )
        state = await upstream.wait("aborted", equals=2)
        assert (state.started, state.running) == (2, 0)
        await soon(lambda: reserved(tmp_path / "ledger.db") == 0, "settled")


async def test_routes_are_listed_and_found_as_models(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    async with serving(upstream, tmp_path) as proxy, asking(proxy) as client:
        models = [model async for model in client.models.list()]
        assert [m.id for m in models] == ["one", "org/one", "vote", "strict", "poor"]
        assert {(m.object, m.owned_by) for m in models} == {("model", "samplewise")}
        one = await client.models.retrieve("org/one")
        assert one == models[1]
        assert (one.model_extra or {})["description"] == "a name with a slash"
        with pytest.raises(openai.NotFoundError) as caught:
            await client.models.retrieve("none")
        assert caught.value.code == "model_not_found"
