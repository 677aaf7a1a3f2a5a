"""What only the upstream can judge goes there as it came, and its word comes back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from samplewise.proxy.jsontext import members
from tests.upstream import Answer, Fault, UpstreamProcess
from tests.wire.bodies import CHAT, written
from tests.wire.proxy import Proxy, backend, serve

ROUTES = """
  one: {backends: [local], side_requests: {}}
  vote: {backends: [local], policy: 'majority_vote:2', side_requests: {}, on_tools: vote,
    progress: reasoning}
"""
ODD = {
    "unknown part": '[{"role":"user","content":[{"type":"hologram","data":{"x":1.50}}]}]',
    "part without type": '[{"role":"user","content":[{"text":"hi"}]}]',
    "text that is none": '[{"role":"user","content":[{"type":"text","text":7}]}]',
    "audio": '[{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"AA=="}}]}]',
    "file": '[{"role":"user","content":[{"type":"file","file":{"file_id":"f1"}}]}]',
    "result without its call": '[{"role":"tool","tool_call_id":"call_9","content":"42"}]',
    "call without its result": '[{"role":"assistant","content":null,"tool_calls":[{"id":"c"}]}]',
    "unknown role": '[{"role":"oracle","content":"hi"}]',
    "role that is none": '[{"role":{},"content":"hi"}]',
    "developer": '[{"role":"developer","content":"be brief"},{"role":"user","content":"hi"}]',
    "no role": '[{"content":"hi"}]',
    "no content": '[{"role":"user"}]',
    "content that is none": '[{"role":"user","content":7}]',
    "empty message": "[{}]",
    "many digits": f'[{{"role":"user","content":"hi","x":{"9" * 5000}}}]',
    "small number": '[{"role":"user","content":"hi","x":1e-5000}]',
    "zero byte": '[{"role":"user","content":"a\\u0000b"}]',
    "same key twice": '[{"role":"user","content":"a","content":"b"}]',
    "thoughts that come back": (
        '[{"role":"assistant","content":"x","reasoning_content":"r","reasoning_details":[1]},'
        '{"role":"user","content":"hi","cache_control":{"type":"ephemeral"}}]'
    ),
}


@asynccontextmanager
async def served(upstream: UpstreamProcess, folder: Path) -> AsyncIterator[Proxy]:
    given = backend(upstream, max_tokens_per_image=9)
    async with serve(f"backends:\n{given}routes:{ROUTES}", folder) as proxy:
        yield proxy


@pytest.mark.parametrize("stream", ["true", "false"])
@pytest.mark.parametrize("route", ["one", "vote"])
async def test_messages_are_the_upstreams_to_judge(
    upstream: UpstreamProcess, tmp_path: Path, route: str, stream: str
) -> None:
    refusal = {"error": {"message": "not these messages", "type": "invalid_request_error"}}
    fault = Fault(kind="status", status=400, body=refusal)
    await upstream.script("m", faults=[fault], cycle_faults=True)
    async with served(upstream, tmp_path) as proxy:
        for name, messages in ODD.items():
            await upstream.reset()
            await upstream.script("m", faults=[fault], cycle_faults=True)
            body = written({"model": f'"{route}"', "messages": messages, "stream": stream})
            reply = await proxy.post(CHAT, body)
            assert reply.status == 400, (name, reply.body)
            assert reply.error["code"] == "upstream_refused", name
            records = await upstream.records()
            assert records, name
            for record in records:
                assert members(record.body)["messages"] == messages.encode(), name


async def test_fields_of_answers_that_nobody_reads_are_kept(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    audio = {"id": "audio_1", "data": "AA==", "transcript": "four", "expires_at": 1}
    more = {"audio": audio, "annotations": [], "reasoning_details": [{"type": "x"}]}
    await upstream.script("m", Answer(text="4", message_extra=more), extra={"service_tier": "flex"})
    async with served(upstream, tmp_path) as proxy:
        for route in ("one", "vote"):
            plain = await proxy.chat(route)
            assert plain.json["service_tier"] == "flex"
            message = plain.json["choices"][0]["message"]
            assert {name: message[name] for name in more} == more
            streamed = await proxy.chat(route, stream=True)
            deltas = [choice["delta"] for e in streamed.events for choice in e["choices"]]
            assert [delta["audio"] for delta in deltas if "audio" in delta] == [audio]
            assert all(e["service_tier"] == "flex" for e in streamed.events if "audio" in str(e))


async def test_fields_of_requests_that_nobody_reads_go_on_byte_for_byte(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    fields = {
        "metadata": '{"a": "b"}',
        "reasoning_effort": '"xhigh"',
        "verbosity": '"low"',
        "modalities": '["text", "audio"]',
        "audio": '{"voice":"alloy","format":"wav"}',
        "prediction": '{"type":"content","content":"x"}',
        "prompt_cache_key": '"k"',
        "safety_identifier": '"s"',
        "service_tier": '"flex"',
        "store": "false",
        "parallel_tool_calls": "true",
        "logit_bias": '{"50256": -100}',
        "top_k": "1.0e1",
        "chat_template_kwargs": '{"enable_thinking": false}',
        "provider": '{"order": ["a"]}',
        "x-odd": '{"n": 12345678901234567890123, "f": 0.10}',
    }
    await upstream.script("m", "fine")
    async with served(upstream, tmp_path) as proxy:
        body = written({"model": '"vote"', "messages": '[{"role":"user","content":"x"}]', **fields})
        assert (await proxy.post(CHAT, body)).status == 200
        for record in await upstream.records():
            sent = members(record.body)
            assert {name: sent[name].decode() for name in fields} == fields
