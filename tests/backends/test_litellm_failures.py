from __future__ import annotations

import asyncio
import threading
import time
from contextlib import aclosing
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from samplewise.proxy.backends.litellm import (
    LiteLLMBackend,
    LiteLLMThread,
)
from samplewise.proxy.upstreams import Upstream
from tests.backends.far import (
    TOO_LONG,
    draw,
    draw_broken,
    far_upstream,
    make_call,
    needs_litellm,
    routes,
)
from tests.upstream import Answer, Fault, UpstreamProcess


@needs_litellm
@pytest.mark.parametrize(
    ("mock", "status"),
    [
        ("litellm.RateLimitError", 429),
        ("litellm.ContextWindowExceededError", 400),
        # A 5xx without an answer's headers is litellm's own word for anything at all.
        ("litellm.InternalServerError", None),
    ],
)
async def test_litellms_mock_errors_are_read(
    thread: LiteLLMThread, mock: str, status: int | None
) -> None:
    far = far_upstream(thread, "anthropic/claude-sonnet-4-5", params={"mock_response": mock})
    broken = await draw_broken(far)
    assert (broken.status, broken.sent) == (status, True)
    assert broken.reason == ("status" if status else "protocol")


@needs_litellm
@routes
@pytest.mark.parametrize(
    ("status", "body", "headers", "wait"),
    [
        (429, {"error": {"message": "slow down"}}, {"retry-after": "7"}, 7.0),
        (429, {"error": {"message": "slow down"}}, {}, None),
        (503, {}, {"retry-after": "9"}, 9.0),
        (400, TOO_LONG, {}, None),
        (400, {"error": {"message": "bad top_p"}}, {}, None),
        (401, {"error": {"message": "bad key"}}, {}, None),
        (402, {}, {}, None),
        (403, {}, {}, None),
        (404, {"error": {"message": "no such model"}}, {}, None),
        (408, {}, {}, None),
        (413, {}, {}, None),
        (422, {}, {}, None),
        (500, {"error": {"message": "boom"}}, {}, None),
        (504, {}, {}, None),
        (529, {}, {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
    ],
)
async def test_an_error_answer_keeps_its_status_and_is_not_tried_again(
    upstream: UpstreamProcess,
    thread: LiteLLMThread,
    route: str,
    status: int,
    body: Any,
    headers: dict[str, str],
    wait: float | None,
) -> None:
    fault = Fault(kind="status", status=status, body=body, headers=headers)
    await upstream.script("m", "late", faults=[fault])
    broken = await draw_broken(far_upstream(thread, route, upstream.base_url))
    assert (broken.reason, broken.status, broken.sent) == ("status", status, True)
    assert broken.retry_after_s == wait
    assert broken.detail
    assert (await upstream.state()).started == 1


@needs_litellm
@routes
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("reset", "connect"),
        ("close", "cut"),
        ("html", "protocol"),
        ("truncated", "protocol"),
        ("malformed", "protocol"),
        ("error_event", "protocol"),
    ],
)
async def test_a_call_without_an_answer_has_no_status_and_is_not_tried_again(
    upstream: UpstreamProcess, thread: LiteLLMThread, route: str, kind: Any, reason: str
) -> None:
    # With a status it would be billed nothing, though its tokens were made.
    await upstream.script("m", "a b c", faults=[Fault(kind=kind)], cycle_faults=True)
    broken = await draw_broken(far_upstream(thread, route, upstream.base_url))
    assert (broken.reason, broken.status, broken.sent) == (reason, None, True)
    assert (await upstream.state()).started == 1


@needs_litellm
@routes
async def test_nobody_there_is_a_connection_error_that_counts_as_sent(
    thread: LiteLLMThread, route: str
) -> None:
    broken = await draw_broken(far_upstream(thread, route, "http://127.0.0.1:1/v1"))
    assert (broken.reason, broken.status, broken.sent) == ("connect", None, True)


@needs_litellm
@routes
async def test_an_upstream_that_hangs_times_out_and_is_left(
    upstream: UpstreamProcess, thread: LiteLLMThread, route: str
) -> None:
    await upstream.script("m", "late", faults=[Fault(kind="hang")])
    far = far_upstream(thread, route, upstream.base_url)
    broken = await draw_broken(far, timeout_s=0.3)
    assert (broken.reason, broken.status, broken.sent) == ("timeout", None, True)
    await upstream.wait("aborted", equals=1)


def _watched(upstream: Upstream, seen: list[str], **instead: Any) -> Upstream:
    """Return the upstream with a litellm that writes down which thread calls it."""
    backend = upstream.backend
    assert isinstance(backend, LiteLLMBackend)
    library = ModuleType("watched")

    async def acompletion(**arguments: Any) -> Any:
        seen.append(threading.current_thread().name)
        return await backend.library.acompletion(**{**arguments, **instead})

    vars(library)["acompletion"] = acompletion
    return replace(upstream, backend=replace(backend, library=library))


@needs_litellm
async def test_litellms_own_timeout_is_a_timeout(
    upstream: UpstreamProcess, thread: LiteLLMThread
) -> None:
    await upstream.script("m", "late", faults=[Fault(kind="hang")])
    far = _watched(far_upstream(thread, "openai/m", upstream.base_url), [], timeout=0.2)
    broken = await draw_broken(far)
    assert (broken.reason, broken.status, broken.sent) == ("timeout", None, True)
    assert "litellm.Timeout" in broken.detail


@needs_litellm
@routes
async def test_cancelling_a_draw_closes_its_connection(
    upstream: UpstreamProcess, thread: LiteLLMThread, route: str
) -> None:
    await upstream.script("m", Answer(text="a b c", hold="gate", hold_after=1))
    far = far_upstream(thread, route, upstream.base_url)

    async def draw() -> None:
        async with aclosing(far.backend.draw(make_call(far.model))) as events:
            async for event in events:
                raise AssertionError(event)

    task = asyncio.create_task(draw())
    await upstream.wait("held", equals=1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    state = await upstream.wait("aborted", equals=1)
    assert state.tokens == 1


@needs_litellm
async def test_calls_run_in_litellms_thread_and_leave_the_loop_free(
    upstream: UpstreamProcess, thread: LiteLLMThread
) -> None:
    await upstream.script("m", "it is 42")
    seen: list[str] = []
    far = _watched(far_upstream(thread, "openai/m", upstream.base_url), seen)
    await draw(far)
    lags: list[float] = []

    async def feel() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            lags.append(time.perf_counter() - before - 0.001)

    feeling = asyncio.create_task(feel())
    began = time.perf_counter()
    await asyncio.gather(*(draw(far) for _ in range(16)))
    seconds = time.perf_counter() - began
    feeling.cancel()
    lags.sort()
    print(
        f"16 calls at once: {seconds * 1e3:.0f} ms; lag of the proxy's loop: "
        f"median {lags[len(lags) // 2] * 1e3:.1f} ms, most {lags[-1] * 1e3:.1f} ms"
    )
    assert seen == ["litellm"] * 17


@needs_litellm
async def test_closing_ends_the_thread_and_its_calls_and_another_can_follow(
    upstream: UpstreamProcess,
) -> None:
    for _ in range(3):
        await upstream.script("m", Answer(text="a b", hold="gate"))
        thread = LiteLLMThread()
        far = far_upstream(thread, "openai/m", upstream.base_url)
        task = asyncio.create_task(draw_broken(far))
        await upstream.wait("held", equals=1)
        await thread.close()
        await thread.close()
        assert "litellm" not in [running.name for running in threading.enumerate()]
        await upstream.wait("aborted", equals=1)
        await asyncio.gather(task, return_exceptions=True)
        await upstream.reset()
