"""`/v1/embeddings`: the upstream's own answer, paid for like any other call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from samplewise.policies.price import NANO
from tests.upstream import Fault, UpstreamProcess
from tests.wire.books import counted, reserved, rows, series, spent
from tests.wire.proxy import Proxy, Reply, backend, serve
from tests.wire.sdk import asking

ROUTES = """
  org/embed: {backends: [local]}
  both: {backends: [local, other]}
  poor: {backends: [local], budget: {usd_per_request: 0.0000001}}
  mind: {backends: [small]}
"""
PATH = "/v1/embeddings"


@asynccontextmanager
async def opened(upstream: UpstreamProcess, folder: Path) -> AsyncIterator[Proxy]:
    small = "  small: {type: tiny, price: {input_usd_per_mtok: 1, output_usd_per_mtok: 1}}\n"
    backends = f"{backend(upstream)}{backend(upstream, 'other', 'n')}{small}"
    async with serve(f"backends:\n{backends}routes:{ROUTES}", folder) as proxy:
        yield proxy


async def embed(proxy: Proxy, model: str = "org/embed", **fields: Any) -> Reply:
    body = {"model": model, "input": ["one two", "three"], **fields}
    return await proxy.post(PATH, msgspec.json.encode(body))


async def test_the_answer_is_the_upstreams_own_and_the_bill_stands_in_a_header(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", extra={"own": [1.50]})
    async with opened(upstream, tmp_path) as proxy:
        body = b'{"model":"org/embed","input":["one two"],"dimensions":4,"x":1.50}'
        reply = await proxy.post(PATH, body)
        assert len(reply.json["data"][0]["embedding"]) == 4
        assert reply.json["own"] == [1.5]
        assert "samplewise" not in reply.json
        [record] = await upstream.records()
        assert record.body == b'{"model":"m","input":["one two"],"dimensions":4,"x":1.50}'
        assert float(reply.headers["x-samplewise-cost-usd"]) == 2 * 370 / NANO
        file = tmp_path / "ledger.db"
        [row] = rows(file)
        assert (row["purpose"], row["nano_settled"], row["call_id"]) == (
            "embedding",
            2 * 370,
            record.request_id,
        )
        assert spent(file) == spent(file, "route") == 2 * 370
        assert reserved(file) == 0
        found = series((await proxy.get("/metrics")).body.decode())
        assert counted(found, "samplewise_cost_usd_total") == 2 * 370
        ended = {("endpoint", "embeddings"), ("outcome", "unverified"), ("route", "org/embed")}
        assert found["samplewise_requests_total", frozenset(ended)] == 1


async def test_the_openai_client_reads_embeddings(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m")
    async with opened(upstream, tmp_path) as proxy, asking(proxy) as client:
        found = await client.embeddings.create(
            model="org/embed", input=["one", "two"], encoding_format="float"
        )
        assert [item.index for item in found.data] == [0, 1]
        assert found.usage.prompt_tokens == 2


async def test_the_next_backend_answers_for_one_that_fails(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", faults=[Fault(kind="status", status=503)], cycle_faults=True)
    await upstream.script("n")
    async with opened(upstream, tmp_path) as proxy:
        assert (await embed(proxy, "both")).json["model"] == "n"
        failed = await embed(proxy)
        assert (failed.status, failed.error["type"]) == (502, "upstream_error")
        assert float(failed.headers["x-samplewise-cost-usd"]) == 0
        assert reserved(tmp_path / "ledger.db") == 0


async def test_an_upstream_without_usage_is_billed_at_the_worst_case(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", no_usage=True)
    async with opened(upstream, tmp_path) as proxy:
        reply = await embed(proxy)
        [row] = rows(tmp_path / "ledger.db")
        assert row["usage_source"] == "worst_case"
        cost = float(reply.headers["x-samplewise-cost-usd"])
        assert round(cost * NANO) == row["nano_settled"] == row["nano_held"] > 3 * 370


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"input": None}, 400, "input"),
        ({"model": "none"}, 404, "model"),
        ({"model": "mind"}, 400, "model"),
        ({"model": 7}, 400, "model"),
        ({"samplewise": {"sample": 1}}, 400, "samplewise.sample"),
        ({"input": []}, 400, None),
        ({"model": "poor"}, 402, None),
    ],
    ids=str,
)
async def test_what_is_wrong_is_refused_with_its_place_and_costs_nothing(
    upstream: UpstreamProcess, tmp_path: Path, fields: dict[str, Any], status: int, param: str
) -> None:
    await upstream.script("m")
    async with opened(upstream, tmp_path) as proxy:
        reply = await embed(proxy, **fields)
        assert (reply.status, reply.error["param"]) == (status, param)
        assert spent(tmp_path / "ledger.db") == reserved(tmp_path / "ledger.db") == 0
