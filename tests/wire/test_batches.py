"""`/v1/batches`: many requests in the background, each answered and paid for once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from samplewise.policies.price import NANO
from samplewise.proxy.keys.base import Terms
from tests.upstream import Answer, Fault, Rule, UpstreamProcess
from tests.wire.books import reserved, rows, soon, spent
from tests.wire.proxy import Proxy, backend, serve
from tests.wire.sdk import asking

ROUTES = """
  one: {backends: [local]}
  vote: {backends: [local], policy: 'majority_vote:3'}
"""
CHAT = "/v1/chat/completions"
OVER = ("completed", "failed", "cancelled", "expired")


@asynccontextmanager
async def opened(
    upstream: UpstreamProcess, where: Path | str, server: str = "", more: str = ""
) -> AsyncIterator[Proxy]:
    config = f"server: {{{server}}}\nbackends:\n{backend(upstream)}routes:{ROUTES}{more}"
    async with serve(config, where) as proxy:
        yield proxy


def chat(custom_id: str, text: str = "hi", model: str = "one", **fields: Any) -> dict[str, Any]:
    body = {"model": model, "messages": [{"role": "user", "content": text}], **fields}
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body}


def jsonl(items: Iterable[Any]) -> bytes:
    texts = [item if isinstance(item, bytes) else msgspec.json.encode(item) for item in items]
    return b"".join(text + b"\n" for text in texts)


async def upload(proxy: Proxy, content: bytes) -> str:
    form = aiohttp.FormData()
    form.add_field("purpose", "batch")
    form.add_field("file", content, filename="in.jsonl")
    async with proxy.http.post(f"{proxy.url}/v1/files", data=form) as reply:
        id_: str = (await reply.json())["id"]
        return id_


async def start(proxy: Proxy, content: bytes, endpoint: str = CHAT, **fields: Any) -> Any:
    file = await upload(proxy, content)
    asked = {"input_file_id": file, "endpoint": endpoint, "completion_window": "24h", **fields}
    reply = await proxy.post("/v1/batches", msgspec.json.encode(asked))
    assert reply.status == 200, reply.body
    return reply.json


async def over(proxy: Proxy, id_: str) -> Any:
    """Wait until a batch has come to its end, and return it."""
    found: Any = None

    async def ended() -> bool:
        nonlocal found
        found = (await proxy.get(f"/v1/batches/{id_}")).json
        return found["status"] in OVER

    await soon(ended, "the batch has ended", 30)
    return found


async def results(proxy: Proxy, file: str | None) -> dict[str | None, Any]:
    """Return the lines of a result file by custom id."""
    if file is None:
        return {}
    body = (await proxy.get(f"/v1/files/{file}/content")).body
    found = [msgspec.json.decode(line) for line in body.splitlines()]
    return {line["custom_id"]: line for line in found}


async def test_every_line_is_answered_and_billed_like_a_request(
    upstream: UpstreamProcess, tmp_path: Path, where: Path | str
) -> None:
    await upstream.script("m", "it is 4", "it is 5", "it is 4")
    store = where if isinstance(where, str) else tmp_path
    ledger = where if isinstance(where, str) else tmp_path / "ledger.db"
    async with opened(upstream, store) as proxy:
        lines = [chat(f"id-{i}", f"question {i}", "vote") for i in range(20)]
        made = await start(proxy, jsonl(lines), metadata={"name": "mine"})
        assert made["status"] == "validating"
        batch = await over(proxy, made["id"])
        assert batch["status"] == "completed"
        assert batch["request_counts"] == {"total": 20, "completed": 20, "failed": 0}
        assert (batch["error_file_id"], batch["metadata"]) == (None, {"name": "mine"})
        found = await results(proxy, batch["output_file_id"])
        assert list(found) == [f"id-{i}" for i in range(20)]
        said = [line["response"]["body"]["samplewise"] for line in found.values()]
        assert {one["outcome"] for one in said} == {"agreed"}
        nano = sum(round(one["cost_usd"]["total"] * NANO) for one in said)
        records = await upstream.records()
        true = sum(370 * r.prompt_tokens + 1930 * r.total_tokens for r in records)
        assert nano == true == spent(ledger)
        assert round(batch["samplewise"]["cost_usd"] * NANO) == true
        assert reserved(ledger) == 0


async def test_the_openai_client_runs_a_batch(upstream: UpstreamProcess, tmp_path: Path) -> None:
    await upstream.script("m", "fine")
    async with opened(upstream, tmp_path) as proxy, asking(proxy) as client:
        file = await client.files.create(file=("b", jsonl([chat("a")])), purpose="batch")
        batch = await client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        await over(proxy, batch.id)
        batch = await client.batches.retrieve(batch.id)
        assert batch.request_counts is not None
        assert (batch.status, batch.request_counts.completed) == ("completed", 1)
        assert batch.output_file_id is not None
        text = (await client.files.content(batch.output_file_id)).text
        assert msgspec.json.decode(text)["custom_id"] == "a"
        assert [one.id async for one in client.batches.list()] == [batch.id]
        # What has ended stays as it is.
        assert (await client.batches.cancel(batch.id)).status == "completed"


async def test_one_bad_line_never_stops_the_others(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine")
    wrong: list[Any] = [
        b"{not json",
        b"\xff\xfe",
        b'"text"',
        b"[" * 5_000,
        {**chat("no-url"), "url": "/v1/completions"},
        {**chat("get"), "method": "GET"},
        {**chat("more"), "extra": 1},
        {**chat("no-body"), "body": None},
        chat("bad-n", n=0),
        chat("stream", stream=True),
        chat("no-model", model="none"),
        chat("nan", temperature="warm"),
        {"method": "POST"},
        b"  ",
        b'{"custom_id": "long", "body": "' + b"x" * 200_000,
    ]
    async with opened(upstream, tmp_path, "max_body_mb: 0.1") as proxy:
        made = await start(proxy, jsonl([chat("first"), *wrong, chat("last")]).rstrip(b"\n"))
        batch = await over(proxy, made["id"])
        assert batch["status"] == "completed"
        assert batch["request_counts"] == {"total": 16, "completed": 2, "failed": 14}
        assert list(await results(proxy, batch["output_file_id"])) == ["first", "last"]
        body = (await proxy.get(f"/v1/files/{batch['error_file_id']}/content")).body
        errors = [msgspec.json.decode(line) for line in body.splitlines()]
        places = [e["error"]["line"] for e in errors if e["error"]]
        assert places == [2, 3, 4, 5, 6, 7, 8, 9, 14, 16]
        asked = {e["custom_id"]: e["response"] for e in errors if e["response"]}
        assert {name: said["status_code"] for name, said in asked.items()} == {
            "bad-n": 400, "stream": 400, "no-model": 404, "nan": 400,
        }  # fmt: skip
        assert asked["bad-n"]["body"]["error"]["param"] == "n"
        assert len(await upstream.records()) == 2


@pytest.mark.parametrize(
    ("content", "code", "line"),
    [
        (jsonl([chat("a"), chat("b"), b"{", chat("a")]), "duplicate_custom_id", 4),
        (b"\n \n", "empty_file", None),
        (b"", "empty_file", None),
    ],
    ids=["twice", "blank", "empty"],
)
async def test_what_would_be_ambiguous_is_refused_as_a_whole_with_its_line(
    upstream: UpstreamProcess, tmp_path: Path, content: bytes, code: str, line: int | None
) -> None:
    async with opened(upstream, tmp_path) as proxy:
        batch = await over(proxy, (await start(proxy, content))["id"])
        assert batch["status"] == "failed"
        [error] = batch["errors"]["data"]
        assert (error["code"], error["line"]) == (code, line)
        assert not await upstream.records()


async def test_prompts_embeddings_and_responses_can_be_batches_too(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine")
    async with opened(upstream, tmp_path) as proxy:
        for path, field in (
            ("/v1/completions", "prompt"),
            ("/v1/embeddings", "input"),
            ("/v1/responses", "input"),
        ):
            line = {**chat("a"), "url": path, "body": {"model": "one", field: "hi there"}}
            batch = await over(proxy, (await start(proxy, jsonl([line]), path))["id"])
            found = await results(proxy, batch["output_file_id"])
            assert found["a"]["response"]["status_code"] == 200
            assert found["a"]["response"]["body"]["object"] in (
                "text_completion",
                "list",
                "response",
            )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input_file_id": "file-none"}, "input_file_id"),
        ({"input_file_id": 7}, "input_file_id"),
        ({"endpoint": "/v1/images/generations"}, "endpoint"),
        ({"completion_window": "48h"}, "completion_window"),
        ({"metadata": {"a": 1}}, "metadata[...]"),
        ({"metadata": {str(i): "" for i in range(17)}}, "metadata"),
        ({"samplewise": {"max_cost_usd": 0}}, "samplewise.max_cost_usd"),
        ({"samplewise": {"max_usd": 1}}, "samplewise"),
        ({"input_file": "x"}, "input_file"),
    ],
    ids=str,
)
async def test_what_is_wrong_with_a_batch_is_refused_with_its_place(
    upstream: UpstreamProcess, tmp_path: Path, fields: dict[str, Any], param: str
) -> None:
    async with opened(upstream, tmp_path) as proxy:
        file = await upload(proxy, jsonl([chat("a")]))
        asked = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h", **fields}
        reply = await proxy.post("/v1/batches", msgspec.json.encode(asked))
        assert (reply.status, reply.error["param"]) == (400, param)
        assert (await proxy.get("/v1/batches")).json["data"] == []


async def test_a_cancelled_batch_begins_nothing_more_and_keeps_what_is_paid_for(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="fine", hold="gate"))
    async with opened(upstream, tmp_path, "batch_at_once: 2") as proxy:
        content = jsonl([chat(f"id-{i}") for i in range(9)])
        made = await start(proxy, content)
        await upstream.wait("held", equals=2)
        reply = await proxy.ask("DELETE", f"/v1/files/{made['input_file_id']}")
        assert (reply.status, reply.error["code"]) == (409, "file_in_use")
        reply = await proxy.post(f"/v1/batches/{made['id']}/cancel", b"")
        assert reply.json["status"] == "cancelling"
        await soon(lambda: _told(proxy), "the runner was told")
        await upstream.release("gate")
        batch = await over(proxy, made["id"])
        assert batch["status"] == "cancelled"
        assert batch["request_counts"] == {"total": 9, "completed": 2, "failed": 0}
        assert len(await results(proxy, batch["output_file_id"])) == 2
        assert len(await upstream.records()) == 2
        assert reserved(tmp_path / "ledger.db") == 0


async def test_what_is_not_begun_in_time_is_an_error_of_its_own(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="fine", hold="gate"))
    async with opened(upstream, tmp_path, "batch_at_once: 2") as proxy:
        lines = [*(chat(f"id-{i}") for i in range(4)), b"{not json"]
        made = await start(proxy, jsonl(lines))
        await upstream.wait("held", equals=2)
        clock = proxy.runner.store.clock
        proxy.runner.store.clock = lambda: clock() + 25 * 3600
        await soon(lambda: _told(proxy), "the runner was told")
        await upstream.release("gate")
        batch = await over(proxy, made["id"])
        assert batch["status"] == "expired"
        assert batch["request_counts"] == {"total": 5, "completed": 2, "failed": 3}
        errors = await results(proxy, batch["error_file_id"])
        assert set(errors) == {"id-2", "id-3", None}
        assert {error["error"]["code"] for error in errors.values()} == {"batch_expired"}
        assert len(await upstream.records()) == 2


def _told(proxy: Proxy) -> bool:
    runs = proxy.runner._runs
    return all(run._work.stopped.is_set() for run in runs)


async def test_a_batch_spends_no_more_than_its_own_limit(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 4")
    async with opened(upstream, tmp_path, "batch_at_once: 4") as proxy:
        lines = [chat(f"id-{i}", max_tokens=20) for i in range(30)]
        made = await start(proxy, jsonl(lines), samplewise={"max_cost_usd": 0.0002})
        batch = await over(proxy, made["id"])
        done, failed = (batch["request_counts"][name] for name in ("completed", "failed"))
        assert done + failed == 30
        # It goes on as long as one more worst case fits, however many ran at once.
        worst = max(row["nano_held"] for row in rows(tmp_path / "ledger.db"))
        used = round(batch["samplewise"]["cost_usd"] * NANO)
        assert 200_000 - worst < used <= 200_000
        assert used == spent(tmp_path / "ledger.db")
        errors = await results(proxy, batch["error_file_id"])
        assert {e["response"]["status_code"] for e in errors.values()} == {402}
        assert "0.0002" in next(iter(errors.values()))["response"]["body"]["error"]["message"]


async def test_an_upstream_that_stumbles_is_asked_again_and_one_that_is_down_is_an_error(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    lost = Fault(kind="status", status=503)
    rules = [
        Rule(contains="stumble", faults=(lost, lost), answers=(Answer(text="fine"),)),
        Rule(contains="wrong", faults=(Fault(kind="status", status=400),), cycle_faults=True),
    ]
    await upstream.script("m", "fine", rules=rules)
    async with opened(upstream, tmp_path) as proxy:
        made = await start(proxy, jsonl([chat("a", "stumble"), chat("b", "wrong")]))
        batch = await over(proxy, made["id"])
        assert list(await results(proxy, batch["output_file_id"])) == ["a"]
        errors = await results(proxy, batch["error_file_id"])
        assert errors["b"]["response"]["status_code"] == 400


async def test_a_batch_of_a_key_that_is_revoked_asks_no_more(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="fine", hold="gate"))
    async with opened(upstream, tmp_path, "batch_at_once: 1") as proxy:
        keys = proxy.service.keys
        assert keys is not None
        key, secret = await asyncio.to_thread(keys.create, "mine", Terms())
        proxy.service.guard.adopt(await asyncio.to_thread(keys.load))
        mine = {"authorization": f"Bearer {secret}"}
        form = aiohttp.FormData({"purpose": "batch"})
        form.add_field("file", jsonl([chat("a"), chat("b")]), filename="in.jsonl")
        async with proxy.http.post(f"{proxy.url}/v1/files", data=form, headers=mine) as reply:
            file = (await reply.json())["id"]
        asked = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}
        made = (await proxy.post("/v1/batches", msgspec.json.encode(asked), mine)).json
        await upstream.wait("held", equals=1)
        assert (await proxy.get(f"/v1/batches/{made['id']}")).status == 404
        await asyncio.to_thread(keys.revoke, key.id)
        proxy.service.guard.adopt(await asyncio.to_thread(keys.load))
        await upstream.release("gate")
        found = partial(proxy.runner.store.find, made["id"], key.id)
        await soon(lambda: (batch := found()) is not None and batch.status in OVER, "it ended")
        batch = found()
        assert batch is not None
        assert (batch.status, batch.completed, batch.failed) == ("completed", 1, 1)
        assert {row["key"] for row in rows(tmp_path / "ledger.db")} == {key.id}
