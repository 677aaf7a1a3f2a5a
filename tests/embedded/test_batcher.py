"""Requests that share one batch, come and go, and do not notice each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

from samplewise.models.sampler import Sampling, TinyModel
from samplewise.proxy.embedded.batcher import Ask, Batcher
from samplewise.proxy.errors import AnswerError, RequestError
from tests.embedded.upstream import PUZZLE, SUM


@asynccontextmanager
async def opened(model: TinyModel, most_rows: int = 512) -> AsyncIterator[Batcher]:
    batcher = Batcher(model, most_rows)
    batcher.open()
    try:
        yield batcher
    finally:
        await asyncio.to_thread(batcher.close)


async def texts(batcher: Batcher, ask: Ask, leave_after: int = 1000) -> list[str]:
    found = [""] * ask.n
    async with aclosing(batcher.generate(ask)) as steps:
        async for step in steps:
            for event in step:
                found[event.row] += event.text
            leave_after -= 1
            if not leave_after:
                break
    return found


async def test_requests_that_come_and_go_get_what_they_get_alone(model: TinyModel) -> None:
    async def one(batcher: Batcher, i: int) -> list[str]:
        await asyncio.sleep(i % 7 * 0.003)
        prompt, leave = (PUZZLE, SUM)[i % 2], 5 if i % 3 == 0 else 1000
        ask = Ask(prompt, 1 + i % 4, Sampling(seed=100 * i))
        return await texts(batcher, ask, leave)

    async with opened(model) as batcher:
        found = await asyncio.gather(*(one(batcher, i) for i in range(16)))
    for i, drawn in enumerate(found):
        alone = model.sample((PUZZLE, SUM)[i % 2], 1 + i % 4, seed=100 * i)
        wanted = [completion.text for completion in alone]
        if i % 3 == 0:
            assert all(w.startswith(d) for w, d in zip(wanted, drawn, strict=True))
        else:
            assert drawn == wanted


async def test_requests_wait_for_room_in_their_order(model: TinyModel) -> None:
    done: list[int] = []

    async def one(batcher: Batcher, i: int) -> None:
        await texts(batcher, Ask(PUZZLE, 4, Sampling(seed=i, max_tokens=5)))
        done.append(i)

    async with opened(model, most_rows=4) as batcher:
        await asyncio.gather(*(one(batcher, i) for i in range(5)))
    assert done == [0, 1, 2, 3, 4]


async def test_a_waiting_request_can_leave(model: TinyModel) -> None:
    async with opened(model, most_rows=4) as batcher:
        first = asyncio.create_task(texts(batcher, Ask(PUZZLE, 4)))
        second = asyncio.create_task(texts(batcher, Ask(PUZZLE, 4)))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert len(await first) == 4
        assert len(await texts(batcher, Ask(SUM, 4))) == 4


async def test_a_problem_outside_the_grammar_is_refused_and_the_batch_goes_on(
    model: TinyModel,
) -> None:
    async with opened(model) as batcher:
        with pytest.raises(RequestError, match="only knows Countdown"):
            await texts(batcher, Ask("What is love?"))
        with pytest.raises(RequestError, match="at most 512"):
            await texts(batcher, Ask(PUZZLE, 513))
        assert len(await texts(batcher, Ask(PUZZLE, 2))) == 2


async def test_open_and_new_requests_are_told_when_the_batch_is_closed(model: TinyModel) -> None:
    async with opened(model) as batcher:
        ask = Ask(PUZZLE, 64)
        async with aclosing(batcher.generate(ask)) as steps:
            await anext(steps)
            await asyncio.to_thread(batcher.close)
            with pytest.raises(AnswerError, match="stopped"):
                async for _ in steps:
                    pass
        with pytest.raises(AnswerError, match="stopped"):
            await texts(batcher, ask)
