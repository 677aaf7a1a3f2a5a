from __future__ import annotations

import asyncio
import time

import pytest

from samplewise.verifiers.base import Status, VerifierError, VerifierSetupError
from samplewise.verifiers.regex import Regex
from tests.verifiers.making import sample, task


async def test_without_a_group_a_match_passes() -> None:
    check = Regex(name="r", pattern=r"\d{3}")
    assert (await check.verify(task(), sample("call 123"))).status is Status.PASS
    assert (await check.verify(task(), sample("call 12"))).status is Status.FAIL


async def test_fullmatch_wants_the_whole_text_without_thinking() -> None:
    check = Regex(name="r", pattern=r"\d+", mode="fullmatch")
    assert (await check.verify(task(), sample("<think>so</think> 12\n"))).status is Status.PASS
    assert (await check.verify(task(), sample("12 apples"))).status is Status.FAIL


@pytest.mark.parametrize("group", [1, "x"])
async def test_a_group_votes_and_judges_only_with_a_reference(group: int | str) -> None:
    voter = Regex(name="r", pattern=r"Answer: (?P<x>\w+)", group=group)
    verdict = await voter.verify(task("paris"), sample("Answer: Paris"))
    assert (verdict.status, verdict.answer) == (Status.NONE, "paris")
    judge = Regex(name="r", pattern=r"Answer: (?P<x>\w+)", group=group, reference=True)
    assert (await judge.verify(task("Paris."), sample("Answer: Paris"))).status is Status.PASS
    assert (await judge.verify(task("Rome"), sample("Answer: Paris"))).status is Status.FAIL
    assert (await judge.verify(task(), sample("Answer: Paris"))).status is Status.NONE


async def test_a_group_that_took_no_part_is_no_answer() -> None:
    judge = Regex(name="r", pattern="a(b)?", group=1, reference=True)
    verdict = await judge.verify(task(""), sample("a"))
    assert (verdict.status, verdict.answer) == (Status.FAIL, None)


@pytest.mark.parametrize(
    ("pattern", "group", "reference"),
    [("(a", None, False), (r"(a)\1", None, False), ("(?=a)", None, False), ("a", 1, False),
     ("(a)", "x", False), ("(a)", None, True)],
)  # fmt: skip
def test_what_cannot_work_is_a_setup_error(
    pattern: str, group: int | str | None, reference: bool
) -> None:
    with pytest.raises(VerifierSetupError):
        Regex(name="r", pattern=pattern, group=group, reference=reference)


def test_the_error_names_the_pattern() -> None:
    with pytest.raises(VerifierSetupError, match=r"'\(a' is not RE2: missing \)"):
        Regex(name="r", pattern="(a")


async def test_a_text_above_the_cap_is_an_error() -> None:
    with pytest.raises(VerifierError) as caught:
        await Regex(name="r", pattern="a", max_chars=10).verify(task(), sample("a" * 11))
    assert caught.value.reason == "protocol"


async def test_patterns_that_blow_up_elsewhere_are_linear_and_off_the_loop() -> None:
    check = Regex(name="r", pattern=r"^(a+)+$")
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    began = time.process_time()
    ticker = asyncio.create_task(tick())
    verdict = await check.verify(task(), sample("a" * 100_000 + "b"))
    ticker.cancel()
    assert verdict.status is Status.FAIL
    assert time.process_time() - began < 1
    assert ticks
