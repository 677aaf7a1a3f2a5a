"""Work beside a server: it ends with its body, and never in silence before that."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from samplewise.proxy.background import beside


async def test_a_defect_is_logged_at_once_and_leaves_the_body_alone() -> None:
    async def broken() -> None:
        raise KeyError("a secret")

    with capture_logs() as logs:
        async with beside(broken(), "some work"):
            for _ in range(3):  # it begins, ends, and is told
                await asyncio.sleep(0)
            assert logs
    [line] = logs
    assert (line["log_level"], line["reason"], line["error"]) == ("error", "some work", "KeyError")
    assert "a secret" not in str(line)


async def test_work_is_cut_when_the_body_ends() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def endless() -> None:
        try:
            began.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    with capture_logs() as logs:
        async with beside(endless(), "some work"):
            await began.wait()
    assert ended.is_set()
    assert logs == []
