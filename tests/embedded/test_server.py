"""The embedded model behind the official client, in a process of its own."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from typing import Any

import aiohttp
import pytest

from samplewise.models.problems import parse_problem, replay
from samplewise.models.sampler import TinyModel
from samplewise.proxy.embedded import MODEL
from tests.embedded.upstream import PUZZLE, SUM, Upstream, user


async def test_an_answer_is_what_the_model_says(tiny: Upstream, model: TinyModel) -> None:
    (wanted,) = model.sample(PUZZLE, seed=3)
    async with tiny.client() as client:
        answer = await client.chat.completions.create(model=MODEL, messages=user(PUZZLE), seed=3)
    (choice,) = answer.choices
    assert choice.message.content == wanted.text
    assert choice.finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == wanted.prompt_tokens
    assert answer.usage.completion_tokens == len(wanted.tokens)
    assert answer.model == MODEL


async def test_choice_i_is_the_single_draw_with_the_seed_plus_i(tiny: Upstream) -> None:
    async with tiny.client() as client:

        async def texts(seed: int, n: int) -> list[str | None]:
            answer = await client.chat.completions.create(
                model=MODEL, messages=user(SUM), seed=seed, n=n
            )
            return [choice.message.content for choice in answer.choices]

        together = await texts(10, 4)
        alone = [(await texts(10 + i, 1))[0] for i in range(4)]
    assert together == alone


async def test_a_stream_joins_to_the_whole_answer(tiny: Upstream) -> None:
    ask: dict[str, Any] = {"model": MODEL, "messages": user(PUZZLE), "seed": 5, "n": 3}
    async with tiny.client() as client:
        whole = await client.chat.completions.create(**ask)
        texts, reasons, usage = ["", "", ""], ["", "", ""], None
        stream = await client.chat.completions.create(
            **ask, stream=True, stream_options={"include_usage": True}
        )
        async for chunk in stream:
            usage = chunk.usage
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == [choice.message.content for choice in whole.choices]
    assert reasons == ["stop", "stop", "stop"]
    assert usage == whole.usage


async def test_a_stop_string_ends_a_step_and_is_named_but_not_shown(tiny: Upstream) -> None:
    async with tiny.client() as client:
        answer = await client.chat.completions.create(
            model=MODEL, messages=user(PUZZLE), stop=[";"], temperature=0
        )
    choice = answer.choices[0]
    assert (choice.message.content or "").count(";") == 0
    assert choice.model_extra is not None
    assert choice.model_extra["stop_reason"] == ";"


async def test_steps_go_on_from_where_the_last_one_stopped(tiny: Upstream) -> None:
    async with tiny.client() as client:
        whole = await client.chat.completions.create(
            model=MODEL, messages=user(PUZZLE), temperature=0
        )
        text = whole.choices[0].message.content or ""
        first, _, rest = text.partition(";")
        begun = [*user(PUZZLE), {"role": "assistant", "content": f"{first};"}]
        more = await client.chat.completions.create(
            model=MODEL,
            messages=begun,
            temperature=0,
            extra_body={"continue_final_message": True, "add_generation_prompt": False},
        )
    assert more.choices[0].message.content == rest


async def test_logprobs_belong_to_the_tokens(tiny: Upstream) -> None:
    async with tiny.client() as client:
        answer = await client.chat.completions.create(
            model=MODEL, messages=user(SUM), temperature=0, logprobs=True, top_logprobs=2
        )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert answer.usage is not None
    assert len(logprobs.content) == answer.usage.completion_tokens
    assert all(item.logprob == item.top_logprobs[0].logprob for item in logprobs.content)
    words = [item.token for item in logprobs.content[:-1]]
    assert " ".join(words) == answer.choices[0].message.content


async def test_the_completions_endpoint_gives_the_same_text(tiny: Upstream) -> None:
    async with tiny.client() as client:
        chat = await client.chat.completions.create(model=MODEL, messages=user(SUM), seed=1, n=2)
        plain = await client.completions.create(model=MODEL, prompt=SUM, seed=1, n=2, logprobs=1)
        streamed = ""
        async for chunk in await client.completions.create(
            model=MODEL, prompt=SUM, seed=1, stream=True
        ):
            streamed += chunk.choices[0].text
    assert [c.text for c in plain.choices] == [c.message.content for c in chat.choices]
    assert streamed == plain.choices[0].text
    assert plain.choices[0].logprobs is not None
    assert len(plain.choices[0].logprobs.tokens or ()) > 1


async def test_the_model_is_listed(tiny: Upstream) -> None:
    async with tiny.client() as client:
        assert [model.id async for model in client.models.list()] == [MODEL]


async def test_the_record_of_a_request_id_is_its_usage(tiny: Upstream) -> None:
    body = {"messages": user(PUZZLE), "n": 5}
    _, answer = await tiny.post("/chat/completions", body, **{"X-Request-Id": "whole"})
    record = await tiny.record("whole")
    assert record["state"] == "finished"
    assert record["prompt_tokens"] == answer["usage"]["prompt_tokens"]
    assert record["completion_tokens"] == answer["usage"]["completion_tokens"]
    assert await tiny.record("another") is None


@pytest.mark.parametrize("stream", [True, False])
async def test_the_work_stops_when_the_client_leaves(tiny: Upstream, stream: bool) -> None:
    body = {"messages": user(PUZZLE), "n": 256, "stream": stream}
    name = f"left-{stream}"

    async def ask() -> None:
        async with aiohttp.ClientSession() as http:
            headers = {"X-Request-Id": name}
            async with http.post(f"{tiny.url}/chat/completions", json=body, headers=headers) as r:
                await r.read()

    asking = asyncio.create_task(ask())
    await tiny.began(name)
    asking.cancel()
    record = await tiny.ended(name)
    assert record["state"] == "aborted"
    await asyncio.sleep(0.1)
    assert await tiny.record(name) == record


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"messages": user("Hello!")}, "messages", "only knows Countdown"),
        ({"messages": user("4 7 8 > 24")}, "messages", "4 or 5 numbers"),
        ({"messages": user("eval 1 / 2")}, "messages", "not part of an expression"),
        ({"messages": []}, "messages", "needs a message of the user"),
        ({"messages": [{"role": "system", "content": PUZZLE}]}, "messages", "of the user"),
        ({"messages": user(PUZZLE), "continue_final_message": True}, "messages", "assistant"),
        ({"n": 0}, "n", "at least 1"),
        ({"n": 513}, "n", "at most 512"),
        ({"n": "3"}, "n", "Expected `int"),
        ({"temperature": 3}, "temperature", "between 0 and 2"),
        ({"top_p": 0}, "top_p", "above 0"),
        ({"max_tokens": 0}, "max_tokens", "at least 1"),
        ({"max_completion_tokens": 0}, "max_tokens", "at least 1"),
        ({"stop": [""]}, "stop", "none empty"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "0 and 20"),
    ],
)
async def test_what_is_wrong_with_a_request_is_said(
    tiny: Upstream, fields: dict[str, Any], param: str, said: str
) -> None:
    status, answer = await tiny.post("/chat/completions", {"messages": user(PUZZLE), **fields})
    assert status == 400
    assert answer["error"]["type"] == "invalid_request_error"
    assert answer["error"]["param"] == param
    assert said in answer["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b"\xff", b"[" * 100_000])
async def test_a_body_that_is_no_request_is_refused(tiny: Upstream, body: bytes) -> None:
    status, answer = await tiny.post("/chat/completions", body)
    assert status == 400
    assert answer["error"]["message"]


async def test_a_prefix_that_fills_the_context_is_refused(tiny: Upstream) -> None:
    messages = [*user(PUZZLE), {"role": "assistant", "content": "1 + 1 = 2 ; " * 10}]
    body = {"messages": messages, "continue_final_message": True, "stream": True}
    status, answer = await tiny.post("/chat/completions", body)
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")


async def test_texts_in_parts_are_read(tiny: Upstream) -> None:
    parts = [{"type": "text", "text": "eval 3 + "}, {"type": "text", "text": "4 + 5"}]
    status, answer = await tiny.post(
        "/chat/completions", {"messages": [{"role": "user", "content": parts}], "temperature": 0}
    )
    assert status == 200
    assert replay(parse_problem("eval 3 + 4 + 5"), answer["choices"][0]["message"]["content"])


def test_a_taken_port_is_said_and_ends_cleanly() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "samplewise", "upstream", "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        f"samplewise: cannot listen on 127.0.0.1:{port}: Address already in use\n"
    )


def test_the_commands_and_the_proxy_start_without_numpy() -> None:
    code = (
        "import sys; from samplewise.proxy import app; from samplewise.proxy.cli import upstream;"
        "from samplewise.proxy.cli import serve; print('numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
