"""The official `openai` client against streamed answers of the proxy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest

from tests.upstream import Answer, Fault, UpstreamProcess
from tests.upstream.client import chunks
from tests.wire.sdk import ASK, CALLS, Sum, asking, said, serving


@pytest.mark.parametrize("route", ["one", "vote"])
async def test_a_streamed_answer_reads_like_openais_own(
    upstream: UpstreamProcess, tmp_path: Path, route: str
) -> None:
    text = "one two three four five six seven eight nine ten eleven"
    await upstream.script("m", text)
    async with serving(upstream, tmp_path) as proxy, asking(proxy) as client:
        stream = await client.chat.completions.create(
            model=route, messages=ASK, stream=True, stream_options={"include_usage": True}
        )
        request_id = stream.response.headers["x-request-id"]
        chunks = [chunk async for chunk in stream]
        *texts, usage = chunks
        assert len({(c.id, c.created, c.model, c.object) for c in chunks}) == 1
        assert (chunks[0].model, chunks[0].object) == (route, "chat.completion.chunk")
        assert texts[0].choices[0].delta.role == "assistant"
        assert "".join(c.choices[0].delta.content or "" for c in texts) == text
        finished = [c.choices[0].finish_reason for c in texts]
        assert finished == [None] * (len(texts) - 1) + ["stop"]
        assert all(c.usage is None for c in texts)
        assert usage.choices == []
        assert usage.usage is not None
        assert usage.usage.model_extra == {"cost": said(usage)["cost_usd"]["total"]}
        assert said(usage)["request_id"] == request_id


@pytest.mark.parametrize("route", ["one", "vote"])
async def test_the_stream_helper_says_when_content_is_done(
    upstream: UpstreamProcess, tmp_path: Path, route: str
) -> None:
    await upstream.script("m", '{"steps": ["6 + 7"], "answer": 13}')
    async with serving(upstream, tmp_path) as proxy, asking(proxy) as client:
        async with client.chat.completions.stream(
            model=route, messages=ASK, response_format=Sum
        ) as stream:
            done = [event async for event in stream if event.type == "content.done"]
            final = await stream.get_final_completion()
        assert [event.parsed for event in done] == [Sum(steps=["6 + 7"], answer=13)]
        assert final.choices[0].message.parsed == Sum(steps=["6 + 7"], answer=13)


@pytest.mark.parametrize("route", ["one", "vote"])
async def test_comments_keep_an_impatient_client_waiting(
    upstream: UpstreamProcess, tmp_path: Path, route: str
) -> None:
    await upstream.script("m", Answer(text="worth it", delay_s=1.2))
    async with (
        serving(upstream, tmp_path, "first_comment_after_s: 0.1, comment_every_s: 0.1") as proxy,
        asking(proxy, timeout=0.6) as client,
        client.chat.completions.stream(model=route, messages=ASK) as stream,
    ):
        final = await stream.get_final_completion()
        assert final.choices[0].message.content == "worth it"


async def test_an_error_after_the_first_byte_is_raised_from_the_stream(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "one two three", faults=[Fault(kind="reset", after=2)])
    async with serving(upstream, tmp_path) as proxy, asking(proxy) as client:
        stream = await client.chat.completions.create(model="one", messages=ASK, stream=True)
        with pytest.raises(openai.APIError) as caught:
            async for _ in stream:
                pass
        assert not isinstance(caught.value, openai.APIStatusError)
        assert (caught.value.type, caught.value.code) == ("upstream_error", "upstream_error")


_ODD = Answer(
    text="Straße: ½ + ¼ = ¾ 👍",
    reasoning_content="let me see",
    message_extra={"mood": "calm"},
    extra={"stop_reason": "eos"},
)


@pytest.mark.parametrize("usage", [False, True])
@pytest.mark.parametrize("answer", [_ODD, Answer(tool_calls=CALLS), Answer(refusal="I will not")])
async def test_a_single_sample_is_streamed_as_the_upstream_streams_it(
    upstream: UpstreamProcess, tmp_path: Path, answer: Answer, usage: bool
) -> None:
    fixed = {"created": 1_700_000_000, "system_fingerprint": "fp_1", "odd": {"a": [1]}}
    await upstream.script("m", answer, extra=fixed)
    ask: dict[str, Any] = {"logprobs": True, "top_logprobs": 1, "stream": True}
    if usage:
        ask["stream_options"] = {"include_usage": True}
    async with serving(upstream, tmp_path) as proxy:
        ours = (await proxy.chat("one", **ask)).events
        call = await upstream.record()
        own = await proxy.http.post(
            f"{upstream.base_url}/chat/completions",
            data=call.body,
            headers={"x-request-id": call.request_id},
        )
        theirs = chunks(await own.read())
    last = ours[-1]
    report = last.pop("samplewise")
    assert report["samples"]["ok"] == 1
    # The proxy always asks for usage, so the upstream's own stream ends with it.
    billed = theirs.pop()["usage"]
    if usage:
        assert ours.pop()["usage"].items() >= billed.items()
    assert all(chunk.pop("model") == "m" and chunk.pop("usage") is None for chunk in theirs)
    assert all(chunk.pop("model") == "one" for chunk in ours)
    if usage:
        assert all(chunk.pop("usage") is None for chunk in ours)
    assert ours == theirs
