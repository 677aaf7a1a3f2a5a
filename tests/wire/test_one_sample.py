"""Requests that one sample answers, whatever the policy of their route."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.upstream import UpstreamProcess
from tests.wire.proxy import Proxy, backend, serve

TITLE = "### Task:\nGenerate a concise, 3-5 word title with an emoji.\n### Chat History:\n..."


@asynccontextmanager
async def served(upstream: UpstreamProcess, folder: Path) -> AsyncIterator[Proxy]:
    both = backend(upstream) + backend(upstream, "cheap", "n")
    routes = """
  chat: {backends: [local], policy: 'majority_vote:4', on_unverified: error, verifiers: [never],
    side_requests: {backend: cheap, max_tokens: 50}}
  own: {backends: [local], policy: 'majority_vote:4', side_requests: {begins: [Name this]}}
  plain: {backends: [local], policy: 'majority_vote:4'}
"""
    verifiers = "verifiers: {never: {type: regex, pattern: '^$'}}\n"
    async with serve(f"backends:\n{both}{verifiers}routes:{routes}", folder) as proxy:
        yield proxy


async def test_a_side_request_gets_one_cheap_sample_without_verifiers(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("n", "A title")
    async with served(upstream, tmp_path) as proxy:
        reply = await proxy.chat("chat", TITLE)
        assert reply.text == "A title"
        assert (reply.said["policy"], reply.said["samples"]["drawn"]) == ("single", 1)
        assert "side request" in reply.said["warnings"][0]
        [record] = await upstream.records()
        assert (record.model, record.json["max_tokens"]) == ("n", 50)


async def test_parts_of_text_and_the_operators_own_beginnings_count(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine")
    async with served(upstream, tmp_path) as proxy:
        parts = [{"type": "text", "text": "  Name this chat, please"}]
        messages = [{"role": "user", "content": "hi"}, {"role": "user", "content": parts}]
        reply = await proxy.chat("own", messages=messages)
        assert reply.said["samples"]["drawn"] == 1
        assert (await proxy.chat("own", TITLE)).said["samples"]["drawn"] == 4


@pytest.mark.parametrize(
    ("route", "text", "fields"),
    [
        ("plain", TITLE, {}),
        ("own", "What does 'Name this' mean?", {}),
        ("own", "Name this", {"samplewise": {"samples": 3}}),
        ("own", "Name this", {"n": 2}),
        ("own", "", {"messages": [{"role": "assistant", "content": "Name this"}]}),
        ("own", "", {"messages": [{"role": "user", "content": [{"type": "odd", "x": 1}]}]}),
    ],
)
async def test_all_other_requests_get_their_policy(
    upstream: UpstreamProcess, tmp_path: Path, route: str, text: str, fields: dict[str, Any]
) -> None:
    await upstream.script("m", "fine")
    async with served(upstream, tmp_path) as proxy:
        reply = await proxy.chat(route, text, **fields)
        assert reply.said["policy"] == "majority_vote"


async def test_a_search_of_the_web_is_paid_for_once(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine")
    async with served(upstream, tmp_path) as proxy:
        reply = await proxy.chat("plain", web_search_options={})
        assert reply.said["samples"]["drawn"] == 1
        assert "web_search_options" in reply.said["warnings"][0]
        [record] = await upstream.records()
        assert record.json["web_search_options"] == {}
        asked = await proxy.chat("plain", web_search_options={}, samplewise={"samples": 3})
        assert asked.said["samples"]["drawn"] == 3
