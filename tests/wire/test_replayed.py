"""Backend `replay`: recorded samples through the real proxy."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from samplewise.proxy.build import open_service
from samplewise.proxy.config import load_text
from samplewise.proxy.errors import ConfigError
from tests.upstream import UpstreamProcess
from tests.wire.proxy import PRICE, backend, serve

HEADER = {"samplewise": "samples", "version": 1}
TEXTS = ["it is 42", "it is 41", "42", "7", "it is 42"]
MESSAGES = [{"role": "system", "content": "short"}, {"role": "user", "content": "how many?"}]
PROBLEMS: list[dict[str, Any]] = [
    {
        "id": "a",
        "prompt": "six times seven",
        "prompt_tokens": 12,
        "samples": [
            {"text": text, "tokens": 10 + i, "seconds": 0.05, "backend": "own"}
            for i, text in enumerate(TEXTS)
        ]
        + [
            {"text": "half of", "tokens": 3, "ended": "cut", "backend": "own"},
            {"text": "a revision", "source": "revise", "parents": [0], "backend": "own"},
            {"text": "other", "tokens": 1, "backend": "strange"},
        ],
    },
    {
        "id": "b",
        "prompt": msgspec.json.encode(MESSAGES).decode(),
        "prompt_tokens": 20,
        "samples": [{"text": "twelve words" * 6, "tokens": 24, "backend": "own"}],
    },
]
ROUTES = """
verifiers:
  number: {type: number}
routes:
  one: {backends: [taped], policy: single}
  vote: {backends: [taped], policy: 'majority_vote:5', answers: number}
  live: {backends: [taped], policy: {type: adaptive_vote, margin: 2, max_samples: 5, window: 5}, answers: number}
  late: {backends: [taped, local], policy: single}
"""  # noqa: E501


def config(folder: Path, more: str = "", **extra: Any) -> str:
    file = folder / "samples.jsonl"
    lines = [HEADER, *PROBLEMS]
    file.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    given = {"samples_of": "own", **extra}
    fields = ", ".join(f"{k}: {msgspec.json.encode(v).decode()}" for k, v in given.items())
    taped = f"  taped: {{type: replay, file: {file}, price: {PRICE}, {fields}}}\n"
    routes = (
        ROUTES
        if more
        else ROUTES.replace("  late: {backends: [taped, local]", "  late: {backends: [taped]")
    )
    return f"backends:\n{taped}{more}{routes}"


async def test_samples_of_a_prompt_come_in_turn_and_are_billed_as_recorded(tmp_path: Path) -> None:
    async with serve(config(tmp_path), tmp_path) as proxy:
        for i in range(7):
            reply = await proxy.chat("one", "six times seven")
            assert reply.text == TEXTS[i % 5]
            assert reply.json["usage"]["prompt_tokens"] == 12
            assert reply.json["usage"]["completion_tokens"] == 10 + i % 5
        tokens = sum(10 + i % 5 for i in range(7))
        assert await proxy.ledger_spent() == 7 * 12 * 370 + tokens * 1930


async def test_a_seed_gives_the_same_samples_every_time(tmp_path: Path) -> None:
    async with serve(config(tmp_path), tmp_path) as proxy:
        for seed in (1, 3, 1, 13):
            reply = await proxy.chat("one", "six times seven", seed=seed)
            assert reply.text == TEXTS[seed % 5]
        assert (await proxy.chat("one", "six times seven")).text == TEXTS[0]


@pytest.mark.parametrize("route", ["vote", "live"])
async def test_a_policy_votes_on_recorded_answers_by_live_verifiers(
    tmp_path: Path, route: str
) -> None:
    async with serve(config(tmp_path), tmp_path) as proxy:
        reply = await proxy.chat(route, "six times seven", seed=0)
        assert (reply.said["outcome"], reply.text) == ("agreed", "it is 42")
        assert reply.said["chosen"]["votes"] >= 2


async def test_messages_are_found_as_they_were_recorded_and_streams_are_whole(
    tmp_path: Path,
) -> None:
    async with serve(config(tmp_path), tmp_path) as proxy:
        for stream in (False, True):
            body = {"model": "one", "messages": MESSAGES, "stream": stream}
            reply = await proxy.post("/v1/chat/completions", msgspec.json.encode(body))
            assert (reply.streamed if stream else reply.text) == "twelve words" * 6


async def test_a_cap_on_tokens_cuts_the_text_and_the_bill(tmp_path: Path) -> None:
    async with serve(config(tmp_path), tmp_path) as proxy:
        body = {"model": "one", "messages": MESSAGES, "max_tokens": 8}
        reply = await proxy.post("/v1/chat/completions", msgspec.json.encode(body))
        assert reply.text == "twelve words" * 2
        assert reply.json["choices"][0]["finish_reason"] == "length"
        assert await proxy.ledger_spent() == 20 * 370 + 8 * 1930


async def test_a_prompt_that_was_not_recorded_goes_to_the_next_backend(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "live")
    async with serve(config(tmp_path, backend(upstream)), tmp_path) as proxy:
        reply = await proxy.chat("late", "never heard")
        assert (reply.text, reply.said["degraded"]) == ("live", ["backend"])
        lost = await proxy.chat("one", "never heard")
        assert lost.status == 502
        assert "taped: status 404" in lost.error["message"]


async def test_a_cut_sample_is_billed_by_the_share_that_had_come(tmp_path: Path) -> None:
    # 12 tokens in 8 pieces of 400 s: the deadline comes before the second of them.
    async with serve(config(tmp_path, pace=8000 / 10), tmp_path) as proxy:
        reply = await proxy.chat("live", "six times seven", samplewise={"deadline_s": 0.5})
        assert (reply.status, reply.error["code"]) == (504, "deadline_exceeded")
        assert 0 < await proxy.ledger_spent() <= 5 * 200 * 370


async def test_the_recorded_time_passes_where_a_pace_is_set(tmp_path: Path) -> None:
    async with serve(config(tmp_path, pace=1), tmp_path) as proxy:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await proxy.chat("vote", "six times seven")
        assert loop.time() - began >= 0.05


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"samples_of": "nobody"}, r"no whole sample of backend 'nobody' \(it has: own, strange\)"),
        ({"file": "/nowhere/x.jsonl"}, r"backends\.taped\.file: /nowhere/x\.jsonl: cannot be read"),
    ],
)
async def test_a_file_that_cannot_serve_is_refused_at_start(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    text = config(tmp_path, samples_of=change.get("samples_of", "own"))
    if "file" in change:
        text = text.replace(str(tmp_path / "samples.jsonl"), change["file"])
    with pytest.raises(ConfigError, match=said):
        async with open_service(load_text(f'store: "sqlite:///{tmp_path}/l.db"\n{text}', "x", {})):
            pass
