from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from samplewise.proxy.backends.litellm import LiteLLMBackend
from samplewise.proxy.backends.litellm_process import LiteLLMProcess
from tests.backends.far import (
    MESSAGES,
    TOO_LONG,
    draw,
    draw_broken,
    far_upstream,
    make_call,
    needs_litellm,
    routes,
)
from tests.upstream import Answer, Fault, UpstreamProcess
from tests.wire import books
from tests.wire.faulty import true_cost
from tests.wire.proxy import PRICE, serve


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
    process: LiteLLMProcess, mock: str, status: int | None
) -> None:
    far = far_upstream(process, "anthropic/claude-sonnet-4-5", params={"mock_response": mock})
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
    process: LiteLLMProcess,
    route: str,
    status: int,
    body: Any,
    headers: dict[str, str],
    wait: float | None,
) -> None:
    fault = Fault(kind="status", status=status, body=body, headers=headers)
    await upstream.script("m", "late", faults=[fault])
    broken = await draw_broken(far_upstream(process, route, upstream.base_url))
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
    upstream: UpstreamProcess, process: LiteLLMProcess, route: str, kind: Any, reason: str
) -> None:
    # With a status it would be billed nothing, though its tokens were made.
    await upstream.script("m", "a b c", faults=[Fault(kind=kind)], cycle_faults=True)
    broken = await draw_broken(far_upstream(process, route, upstream.base_url))
    assert (broken.reason, broken.status, broken.sent) == (reason, None, True)
    assert (await upstream.state()).started == 1


@needs_litellm
@routes
async def test_nobody_there_is_a_connection_error_that_counts_as_sent(
    process: LiteLLMProcess, route: str
) -> None:
    broken = await draw_broken(far_upstream(process, route, "http://127.0.0.1:1/v1"))
    assert (broken.reason, broken.status, broken.sent) == ("connect", None, True)


@needs_litellm
@routes
async def test_an_upstream_that_hangs_times_out_and_is_left(
    upstream: UpstreamProcess, process: LiteLLMProcess, route: str
) -> None:
    await upstream.script("m", "late", faults=[Fault(kind="hang")])
    far = far_upstream(process, route, upstream.base_url)
    broken = await draw_broken(far, timeout_s=0.3)
    assert (broken.reason, broken.status, broken.sent) == ("timeout", None, True)
    await upstream.wait("aborted", equals=1)


@needs_litellm
async def test_litellms_own_timeout_is_a_timeout(
    upstream: UpstreamProcess, process: LiteLLMProcess
) -> None:
    await upstream.script("m", "late", faults=[Fault(kind="hang")])
    own = {"api_base": upstream.base_url, "api_key": "our-key"}
    body = {"model": "openai/m", "messages": MESSAGES}
    call = {"id": "r1-0.0", "model": "openai/m", "body": body, "own": own, "timeout_s": 0.2}
    # Asked directly, so that nobody else's clock runs.
    broken = (await process.ask({"call": call}))["broken"]
    assert (broken["reason"], broken["status"], broken["sent"]) == ("timeout", None, True)
    assert "litellm.Timeout" in broken["detail"]


@needs_litellm
@routes
async def test_cancelling_a_draw_closes_its_connection(
    upstream: UpstreamProcess, process: LiteLLMProcess, route: str
) -> None:
    await upstream.script("m", Answer(text="a b c", hold="gate", hold_after=1))
    far = far_upstream(process, route, upstream.base_url)

    async def draw() -> None:
        async with aclosing(far.backend.draw(make_call(far.model))) as events:
            async for event in events:
                raise AssertionError(event)

    task = asyncio.create_task(draw())
    await upstream.wait("held", equals=1, timeout_s=60.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    state = await upstream.wait("aborted", equals=1)
    assert state.tokens == 1


@needs_litellm
async def test_calls_work_in_litellms_process_and_not_in_ours(
    upstream: UpstreamProcess, process: LiteLLMProcess
) -> None:
    await upstream.script("m", "it is 42")
    far = far_upstream(process, "openai/m", upstream.base_url)
    await draw(far)
    assert process.pid is not None

    def theirs() -> float:
        user, system = Path(f"/proc/{process.pid}/stat").read_text().split()[13:15]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    before, ours = theirs(), time.process_time()
    await asyncio.gather(*(draw(far) for _ in range(64)))
    took, ours = theirs() - before, time.process_time() - ours
    print(f"64 calls: {took * 1e3:.0f} ms of processor time there, {ours * 1e3:.0f} ms here")
    # Clock ticks are coarse, a ratio of the same run is not.
    assert took > 3 * ours


@needs_litellm
async def test_calls_of_a_process_that_dies_are_lost_as_sent_and_the_next_one_starts_it_again(
    upstream: UpstreamProcess, process: LiteLLMProcess
) -> None:
    await upstream.script(
        "m", Answer(text="a b", hold="gate"), Answer(text="a b", hold="gate"), "c"
    )
    far = far_upstream(process, "openai/m", upstream.base_url)
    lost = [asyncio.create_task(draw_broken(far)) for _ in range(2)]
    await upstream.wait("held", equals=2, timeout_s=60.0)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    for broken in await asyncio.gather(*lost):
        assert (broken.reason, broken.status, broken.sent) == ("cut", None, True)
        assert "exit status -9" in broken.detail
    await upstream.wait("aborted", equals=2)
    [done], _ = await draw(far, timeout_s=60.0)
    assert done.text == "c"


@needs_litellm
async def test_a_call_whose_process_dies_is_asked_again_and_paid_at_its_worst_case(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="a b", hold="gate"), "c d")
    config = (
        f"backends:\n  far: {{type: litellm, model: openai/m, api_base: '{upstream.base_url}', "
        f"price: {PRICE}, api_key: '${{KEY}}'}}\n"
        f"  spare: {{type: openai, model: m, base_url: '{upstream.base_url}', price: {PRICE}}}\n"
        "routes:\n  r: {backends: [far, spare], policy: single, max_tokens: 50}\n"
    )
    async with serve(config, tmp_path, {"KEY": "sk-our-own-key"}) as proxy:
        asked = asyncio.create_task(proxy.chat("r"))
        await upstream.wait("held", equals=1, timeout_s=60.0)
        backend = proxy.service.upstreams["far"].backend
        assert isinstance(backend, LiteLLMBackend)
        assert backend.process.pid is not None
        os.kill(backend.process.pid, signal.SIGKILL)
        reply = await asked
        assert (reply.text, reply.said["degraded"]) == ("c d", ["backend"])
        lost, whole = books.rows(tmp_path / "ledger.db")
        assert (lost["usage_source"], lost["completion_tokens"]) == ("worst_case", 50)
        assert whole["usage_source"] == "provider"
        spent = lost["nano_settled"] + whole["nano_settled"]
        assert await proxy.ledger_spent() == spent >= true_cost(await upstream.records())


@needs_litellm
async def test_closing_ends_the_process_and_its_calls_and_starts_no_other(
    upstream: UpstreamProcess,
) -> None:
    await upstream.script("m", Answer(text="a b", hold="gate"))
    process = LiteLLMProcess()
    far = far_upstream(process, "openai/m", upstream.base_url)
    task = asyncio.create_task(draw_broken(far, timeout_s=60.0))
    await upstream.wait("held", equals=1, timeout_s=60.0)
    pid = process.pid
    await process.close()
    await process.close()
    assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    await upstream.wait("aborted", equals=1)
    assert (await task).reason == "cut"
    late = await draw_broken(far)
    assert (late.reason, late.sent) == ("connect", False)
