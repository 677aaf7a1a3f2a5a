"""Records of requests: who may read them, what they hold, and that they agree with the bill."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from samplewise.proxy.cli import main
from tests.upstream import Answer, Fault, ToolCall, UpstreamProcess
from tests.wire.books import store_url
from tests.wire.proxy import Proxy, Reply, backend, serve

ROUTES = """
  vote: {backends: [local], policy: 'majority_vote:4'}
  judged: {backends: [local], policy: 'best_of_n:3', verifiers: [is_yes]}
  strict: {backends: [local], policy: 'best_of_n:3', verifiers: [is_yes], on_unverified: error}
  poor: {backends: [local], budget: {usd_per_request: 0.000001}}
"""
SECRET = "a word that nobody else may read"
MINE, OTHER, ADMIN = ("sk-sw-" + letter * 43 for letter in "moa")
ENV = {"MINE": MINE, "OTHER": OTHER, "ADMIN": ADMIN}


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


@asynccontextmanager
async def served(
    upstream: UpstreamProcess, where: Path | str, records: str = "", keys: bool = False
) -> AsyncIterator[Proxy]:
    server = "server: {admin_key: '${ADMIN}'}\n" if keys else ""
    listed = "{name: mine, key: '${MINE}'}, {name: other, key: '${OTHER}'}"
    server += f"keys: {{list: [{listed}]}}\n" if keys else ""
    verifiers = "verifiers: {is_yes: {type: regex, pattern: '^yes$'}}\n"
    config = f"{server}{records}backends:\n{backend(upstream)}{verifiers}routes:{ROUTES}"
    place = where if isinstance(where, str) else where.parent
    async with serve(config, place, ENV) as proxy:
        yield proxy


async def record(proxy: Proxy, of: Reply | str, headers: Any = None) -> Any:
    name = of if isinstance(of, str) else of.headers["x-request-id"]
    found = await proxy.get(f"/v1/samplewise/requests/{name}", headers)
    assert found.status == 200, found.body
    return found.json


async def test_a_record_shows_all_samples_side_by_side_and_the_bill(
    upstream: UpstreamProcess, where: Path | str
) -> None:
    await upstream.script("m", "it is 4", "it is 5", "it is 4", "no idea")
    async with served(upstream, where) as proxy:
        reply = await proxy.chat("vote", SECRET)
        found = await record(proxy, reply)
        assert (found["object"], found["id"]) == (
            "samplewise.request",
            reply.said["request_id"],
        )
        kept = found["record"]
        for name in ("policy", "outcome", "stop_reason", "samples", "cost_usd", "decision"):
            assert kept[name] == reply.said[name]
        assert [one["index"] for one in kept["candidates"]] == [0, 1, 2, 3]
        assert [one["returned"] for one in kept["candidates"]] == [True, False, False, False]
        assert [one["votes"] for one in kept["candidates"]][:3] == [2, 1, 2]
        hashes = [one["text_hmac"] for one in kept["candidates"]]
        assert hashes[0] == hashes[2] != hashes[1]
        assert [vote["votes"] for vote in kept["votes"]][:2] == [2, 1]
        assert found["cost_usd"] == pytest.approx(reply.said["cost_usd"]["total"])
        assert len(found["rows"]) == 4
        assert found["settled"] is True


async def test_without_text_no_word_of_prompt_or_answer_is_stored(
    upstream: UpstreamProcess, where: Path | str
) -> None:
    call = ToolCall(name="weather", arguments=f'{{"city": "{SECRET}"}}')
    refused = Fault(kind="status", status=400, body={"error": {"message": SECRET}})
    answers: list[Answer | str] = [
        SECRET,
        Answer(tool_calls=(call,)),
        Answer(text="", refusal=SECRET),
    ]
    await upstream.script("m", *answers)
    async with served(upstream, where) as proxy:
        replies = [await proxy.chat(route, SECRET) for route in ("vote", "judged", "strict")]
        await upstream.script("m", faults=[refused], cycle_faults=True)
        replies.append(await proxy.chat("vote", SECRET))
        assert SECRET in replies[-1].error["message"]
        for reply in replies:
            assert SECRET not in str(await record(proxy, reply))


async def test_a_hash_is_the_same_for_the_same_words_and_cannot_be_guessed(
    upstream: UpstreamProcess, where: Path | str, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 4")
    seen = []
    (tmp_path / "other").mkdir()
    for store in (where, where, tmp_path / "other" / "ledger.db"):
        async with served(upstream, store) as proxy:
            found = await record(proxy, await proxy.chat("vote", SECRET))
        assert sha256(b"it is 4").hexdigest() not in str(found)
        one = found["record"]["candidates"][0]
        seen.append((one["text_hmac"], found["record"]["request"]["messages_hmac"]))
    assert seen[0] == seen[1]
    assert not set(seen[0]) & set(seen[2])


async def test_with_text_every_word_is_there(upstream: UpstreamProcess, where: Path | str) -> None:
    call = ToolCall(name="weather", arguments='{"city": "Oslo"}')
    await upstream.script("m", "it is 4", Answer(tool_calls=(call,)))
    async with served(upstream, where, "records: {text: true}\n") as proxy:
        found = await record(proxy, await proxy.chat("vote", SECRET))
        kept = found["record"]
        assert SECRET in kept["request"]["messages"]
        assert [one["text"] for one in kept["candidates"]] == ["it is 4", ""] * 2
        assert "Oslo" in kept["candidates"][1]["tool_calls"]
        assert kept["votes"][0]["answer"] == "it is 4"


async def test_a_request_without_an_answer_has_a_record_of_why(
    upstream: UpstreamProcess, where: Path | str
) -> None:
    await upstream.script("m", "no", "nor this", "never")
    async with served(upstream, where) as proxy:
        reply = await proxy.chat("strict")
        kept = (await record(proxy, reply))["record"]
        assert (reply.status, kept["error"]["code"]) == (422, "no_verified_answer")
        assert [one["status"] for one in kept["candidates"]] == ["fail"] * 3
        poor = await proxy.chat("poor")
        found = await record(proxy, poor)
        assert (poor.status, found["record"]["rounds"][0]["why"]) == (402, "budget")
        assert found["rows"] == []
        await upstream.script("m", faults=[Fault(kind="status", status=503)], cycle_faults=True)
        lost = (await record(proxy, await proxy.chat("vote")))["record"]["lost"]
        assert [one["index"] for one in lost] == [0, 1, 2, 3]
        assert {one["status"] for one in lost} == {503}


async def test_a_record_is_for_its_key_and_the_admin_alone(
    upstream: UpstreamProcess, where: Path | str
) -> None:
    await upstream.script("m", "it is 4")
    async with served(upstream, where, keys=True) as proxy:
        given = {"x-request-id": "edge/7"}
        reply = await proxy.chat("vote", headers={**bearer(MINE), **given})
        ours = reply.headers["x-samplewise-request-id"]
        for name in (ours, "edge/7"):
            path = f"/v1/samplewise/requests/{name}"
            assert (await proxy.get(path, bearer(MINE))).json["id"] == ours
            assert (await proxy.get(path, bearer(ADMIN))).json["id"] == ours
            refused = await proxy.get(path, bearer(OTHER))
            assert (refused.status, refused.error["code"]) == (404, "request_not_found")
            assert (await proxy.get(path)).status == 401
        theirs = await proxy.chat("vote", headers={**bearer(OTHER), **given})
        # The same name from outside: everybody finds their own.
        found = await record(proxy, "edge/7", bearer(MINE))
        assert found["id"] == ours != theirs.headers["x-samplewise-request-id"]
        unknown = await proxy.get("/v1/samplewise/requests/req_none", bearer(MINE))
        assert unknown.status == 404


async def test_without_records_the_bill_is_still_there(
    upstream: UpstreamProcess, where: Path | str
) -> None:
    await upstream.script("m", "it is 4")
    async with served(upstream, where, "records: {keep_days: 0}\n") as proxy:
        reply = await proxy.chat("vote")
        found = await record(proxy, reply)
        assert (found["record"], len(found["rows"])) == (None, 4)


async def test_records_outlive_the_server_and_the_command_explains_them(
    upstream: UpstreamProcess, where: Path | str
) -> None:
    await upstream.script("m", "it is 4", "it is 5", "it is 4", "it is 4")
    async with served(upstream, where) as proxy:
        reply = await proxy.chat("vote")
        lost = await proxy.chat("poor")
    runner, store = CliRunner(), store_url(where)
    id_ = reply.said["request_id"]
    shown = runner.invoke(main, ["explain", id_, "--store", store], catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    assert "stopped because: agreed (votes 3, runner_up 1, voters 4)" in shown.output
    assert "3 votes" in shown.output
    assert "Bill" in shown.output
    as_json = runner.invoke(main, ["explain", id_, "--store", store, "--json"])
    assert f'"id": "{id_}"' in as_json.output
    failed = runner.invoke(main, ["explain", lost.headers["x-request-id"], "--store", store])
    assert "It ended with 402 budget_exceeded" in failed.output
    unknown = runner.invoke(main, ["explain", "req_none", "--store", store])
    assert (unknown.exit_code, "there is no request" in unknown.output) == (1, True)
