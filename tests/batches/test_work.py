"""Lines that wait: for money that others hold, for upstreams that stumble; and what stops them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from samplewise.proxy.batches.base import Result
from samplewise.proxy.batches.work import Work, one_by_one
from samplewise.proxy.build import open_service
from samplewise.proxy.config import load_text
from samplewise.proxy.ledger.base import Account, Limit, Scope, Window
from samplewise.proxy.service import Service
from samplewise.proxy.serving import Client
from tests.upstream import Answer, Fault, UpstreamProcess
from tests.wire.books import soon
from tests.wire.proxy import backend

CHAT = "/v1/chat/completions"


@asynccontextmanager
async def opened(upstream: UpstreamProcess, folder: Path) -> AsyncIterator[Service]:
    routes = "routes:\n  one: {backends: [local], max_tokens: 20}\n"
    text = f'store: "sqlite:///{folder}/ledger.db"\nbackends:\n{backend(upstream)}{routes}'
    async with open_service(load_text(text, "test.yaml", {})) as service:
        yield service


def work(service: Service, at_once: int, nano: int | None = None) -> Work:
    account = Account(Scope.TAG, "batch-test", Window.TOTAL, Limit(nano=nano))
    places = asyncio.Semaphore(at_once)
    return Work(
        service,
        (CHAT,),
        lambda: Client(service.new_request_id(), accounts=(account,)),
        places,
        least_wait_s=0.01,
    )


def lines(count: int) -> AsyncIterator[tuple[int, bytes | None]]:
    def line(number: int) -> bytes:
        messages = [{"role": "user", "content": "hi"}]
        body = {"model": "one", "messages": messages}
        whole = {"custom_id": str(number), "method": "POST", "url": CHAT, "body": body}
        return msgspec.json.encode(whole)

    return one_by_one([(number, line(number)) for number in range(1, count + 1)])


async def test_money_for_one_is_enough_for_all_one_after_another(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 4")
    found: list[Result] = []
    async with opened(upstream, tmp_path) as service:
        # Room for two worst cases of some 70,000 at a time, and for one beside the cost of all.
        await work(service, 8, nano=160_000).run(lines(12), found.append)
    assert [result.ok for result in found] == [True] * 12
    assert len(await upstream.records()) == 12


async def test_a_stop_leaves_lines_that_wait_for_money_without_a_result(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="it is 4", hold="gate"))
    found: list[Result] = []
    async with opened(upstream, tmp_path) as service:
        at_work = work(service, 4, nano=100_000)
        running = asyncio.create_task(at_work.run(lines(9), found.append))
        await upstream.wait("held", equals=1)
        await soon(lambda: len(at_work._waiting) == 3, "the others wait for its money")
        at_work.stopped.set()
        await upstream.release("gate")
        await running
    assert [result.ok for result in found] == [True]
    assert len(await upstream.records()) == 1


@pytest.mark.parametrize(("failures", "ok"), [(1, True), (9, False)])
async def test_an_upstream_that_fails_is_asked_again_a_few_times(
    upstream: UpstreamProcess, tmp_path: Path, failures: int, ok: bool
) -> None:
    await upstream.script("m", "it is 4", faults=[Fault(kind="status", status=500)] * failures)
    found: list[Result] = []
    async with opened(upstream, tmp_path) as service:
        await work(service, 1).run(lines(1), found.append)
    assert [result.ok for result in found] == [ok]
    assert ok or msgspec.json.decode(found[0].data)["response"]["status_code"] == 502
