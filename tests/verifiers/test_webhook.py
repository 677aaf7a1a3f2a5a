from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from samplewise.verifiers.base import Status, ToolCall, VerifierError
from samplewise.verifiers.webhook import SIGNATURE_HEADER, Webhook, signature
from tests.verifiers.making import sample, task

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def _hook(handler: Handler, **settings: Any) -> AsyncIterator[Webhook]:
    """A webhook and a real server on loopback that answers it."""
    app = web.Application()
    app.router.add_post("/grade", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        hook = Webhook(name="w", url=f"http://127.0.0.1:{port}/grade", **settings)
        await hook.open()
        try:
            yield hook
        finally:
            await hook.close()
    finally:
        await runner.cleanup()


def _says(*answers: web.Response | Any) -> tuple[Handler, list[web.Request]]:
    """Return a handler that gives one answer after the other, the last for ever."""
    seen: list[web.Request] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        await request.read()
        answer = answers[min(len(seen), len(answers) - 1)]
        seen.append(request)
        if type(answer) is int:  # a status; a bool is an answer
            return web.Response(status=answer)
        if isinstance(answer, web.Response):
            return answer
        return web.json_response(answer)

    return handle, seen


async def _reason(hook: Webhook) -> str:
    with pytest.raises(VerifierError) as caught:
        await hook.verify(task("r"), sample("x"))
    return caught.value.reason


async def test_the_service_gets_the_task_and_its_answer_is_the_verdict() -> None:
    handler, seen = _says({"status": "pass", "score": 0.9, "answer": "42", "feedback": "good"})
    async with _hook(handler) as hook:
        verdict = await hook.verify(
            task("7", item={"x": 1}), sample("text", ToolCall("f", "{}", id="c"), index=3)
        )
    assert (verdict.status, verdict.score, verdict.answer) == (Status.PASS, 0.9, "42")
    assert await seen[0].json() == {
        "request_id": "r1",
        "route": "math",
        "messages": [{"role": "user", "content": "?"}],
        "sample": {
            "text": "text",
            "index": 3,
            "tool_calls": [{"id": "c", "name": "f", "arguments": "{}"}],
        },
        "item": {"x": 1},
        "reference": "7",
    }
    assert SIGNATURE_HEADER not in seen[0].headers


async def test_requests_are_signed_with_the_secret() -> None:
    handler, seen = _says(True)
    async with _hook(handler, secret="s3cret", clock=lambda: 1700000000.9) as hook:
        await hook.verify(task(), sample("x"))
        assert "s3cret" not in repr(hook)
    body = await seen[0].read()
    assert seen[0].headers[SIGNATURE_HEADER] == signature("s3cret", 1700000000, body)


def test_the_signature_is_what_other_tools_compute() -> None:
    # printf '1700000000.{}' | openssl dgst -sha256 -hmac key
    assert signature("key", 1700000000, b"{}") == (
        "t=1700000000,v1=9d713ed406bb7076d4123f0dc2c39d2df5c654ed4b0cd56b52c8b4c940bd63ae"
    )


async def test_a_5xx_is_tried_once_more() -> None:
    handler, seen = _says(503, True)
    async with _hook(handler) as hook:
        assert (await hook.verify(task(), sample("x"))).status is Status.PASS
    assert len(seen) == 2


async def test_two_5xx_are_unavailable() -> None:
    handler, seen = _says(500)
    async with _hook(handler) as hook:
        assert await _reason(hook) == "unavailable"
    assert len(seen) == 2


@pytest.mark.parametrize("status", [400, 401, 404, 429])
async def test_a_refusal_is_not_repeated(status: int) -> None:
    handler, seen = _says(status)
    async with _hook(handler) as hook:
        assert await _reason(hook) == "unavailable"
    assert len(seen) == 1


async def test_no_number_of_verdicts_at_once_has_to_wait() -> None:
    here, all_here = 0, asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal here
        here += 1
        if here == 120:
            all_here.set()
        await all_here.wait()
        return web.json_response(True)

    async with _hook(handle, timeout_s=60.0) as hook, asyncio.TaskGroup() as group:
        tasks = [group.create_task(hook.verify(task(), sample(str(i)))) for i in range(120)]
    assert {done.result().status for done in tasks} == {Status.PASS}


async def test_redirects_are_not_followed() -> None:
    target, visited = _says(True)
    async with _hook(target) as elsewhere:
        handler, _ = _says(web.Response(status=307, headers={"location": elsewhere.url}))
        async with _hook(handler) as hook:
            assert await _reason(hook) == "protocol"
    assert visited == []


@pytest.mark.parametrize(
    "answer",
    [
        web.Response(text="pass"),
        web.Response(body=b'{"reason": "\xff"}'),
        web.Response(text="[" * 10_000),
        web.Response(text=""),
        {"status": "ok"},
        {"score": 0.5, "extra": 1},
        [],
        None,
        web.Response(text='{"score": NaN}'),
        web.Response(body=gzip.compress(b"true"), headers={"content-encoding": "gzip"}),
    ],
)
async def test_an_answer_of_the_wrong_form_is_an_error(answer: Any) -> None:
    async def handle(_: web.Request) -> web.StreamResponse:
        return answer if isinstance(answer, web.Response) else web.json_response(answer)

    async with _hook(handle) as hook:
        assert await _reason(hook) == "protocol"


async def test_a_service_may_say_that_it_cannot_tell() -> None:
    handler, _ = _says({"status": "error", "reason": "no database"})
    async with _hook(handler) as hook:
        assert await _reason(hook) == "crash"


async def test_an_endless_answer_is_cut() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b" " * 10_000)
        except ConnectionError:
            return response

    async with _hook(handle, max_response_bytes=100_000) as hook:
        assert await _reason(hook) == "protocol"


async def test_a_service_that_does_not_answer_is_a_timeout() -> None:
    asked = asyncio.Event()

    async def handle(_: web.Request) -> web.StreamResponse:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with _hook(handle, timeout_s=0.05) as hook:
        assert await _reason(hook) == "timeout"
    async with _hook(handle, timeout_s=60.0) as hook:
        asked.clear()
        running = asyncio.create_task(hook.verify(task(), sample("x")))
        await asked.wait()
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()


async def test_nobody_there_is_unavailable() -> None:
    handler, _ = _says(True)
    async with _hook(handler) as hook:
        url = hook.url
    gone = Webhook(name="w", url=url)
    assert await _reason(gone) == "unavailable"  # not open
    await gone.open()
    assert await _reason(gone) == "unavailable"
    await gone.close()
    await gone.close()
