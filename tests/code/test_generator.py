"""Tests are written once for each request, by whoever asks first and is not cut."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from samplewise.proxy.tests_prompt import TestsPrompt
from samplewise.verifiers.asking import Biller, Cost, Question, Reply, Tab
from samplewise.verifiers.base import VerifierError
from samplewise.verifiers.generated_tests import Generator
from tests.verifiers.making import task


@dataclass
class SlowModel:
    """Answers when it is let; each call costs one nano-dollar."""

    text: str = "assert f(1) == 2"
    let: asyncio.Event = field(default_factory=asyncio.Event)
    began: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def biller(self) -> Biller:
        return Biller("b", "m", "p")

    def worst(self, prompt_bytes: int, max_tokens: int) -> Cost:
        return Cost(prompt_bytes, max_tokens)

    async def ask(self, question: Question, tab: Tab) -> Reply:
        tab.nano += 1
        self.began.set()
        await self.let.wait()
        return Reply(self.text, b"{}")


async def test_all_samples_share_the_tests_and_the_first_pays() -> None:
    model = SlowModel()
    model.let.set()
    generator = Generator(model=model, writer=TestsPrompt(5), sets=3)
    tabs = [Tab(str(number)) for number in range(4)]
    found = await asyncio.gather(*(generator.asserts(task(), tab) for tab in tabs))
    assert found == [("assert f(1) == 2",) * 3] * 4
    assert [tab.nano for tab in tabs] == [3, 0, 0, 0]


async def test_when_the_first_is_cut_the_next_begins_anew() -> None:
    model = SlowModel()
    generator = Generator(model=model, writer=TestsPrompt(5), sets=1)
    tabs = [Tab("a"), Tab("b")]
    first, second = (asyncio.create_task(generator.asserts(task(), tab)) for tab in tabs)
    await model.began.wait()
    first.cancel()
    model.let.set()
    assert await second == ("assert f(1) == 2",)
    assert [tab.nano for tab in tabs] == [1, 1]
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_model_that_writes_none_is_an_error_for_all() -> None:
    model = SlowModel(text="<think>assert f(1) == 2</think>\nI would test it.")
    model.let.set()
    generator = Generator(model=model, writer=TestsPrompt(5))
    for tab in (Tab("a"), Tab("b")):
        with pytest.raises(VerifierError, match="wrote no test"):
            await generator.asserts(task(), tab)
    assert tab.nano == 0


def test_the_worst_case_is_that_of_all_sets() -> None:
    generator = Generator(model=SlowModel(), writer=TestsPrompt(5), sets=3, max_tokens=10)
    prompt = TestsPrompt(5).fixed_bytes(task())
    assert generator.worst(task()) == Cost(3 * prompt, 30)
