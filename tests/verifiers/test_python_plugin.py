from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from samplewise.verifiers.base import (
    Comparator,
    Equivalence,
    Status,
    ToolCall,
    Verdict,
    VerifierError,
    VerifierSetupError,
)
from samplewise.verifiers.plugin_runner import PLUGIN_TARGET, LoopRunner, ProcessRunner, Runner
from samplewise.verifiers.python_plugin import PythonComparator, PythonPlugin
from tests.verifiers.making import sample, task
from tests.verifiers.making_pools import pool_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

_G = "tests.verifiers.graders"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runner() -> AsyncIterator[Runner]:
    async with pool_of(PLUGIN_TARGET, size=2, timeout_s=2.0, preload=[f"{_G}:grade"]) as pool:
        yield ProcessRunner(pool)


async def _verify(runner: Runner, function: str, text: str = "x", **settings: Any) -> Verdict:
    plugin = PythonPlugin(name="p", runner=runner, function=f"{_G}:{function}", **settings)
    given = task("42", item={"style": "tabs", "half": True, "reference": "client's"})
    return await plugin.verify(given, sample(text))


async def _reason(runner: Runner, function: str, text: str) -> str:
    with pytest.raises(VerifierError) as caught:
        await _verify(runner, function, text)
    return caught.value.reason


async def test_a_number_is_a_score(runner: Runner) -> None:
    assert (await _verify(runner, "grade", "so 42")).status is Status.PASS
    assert (await _verify(runner, "grade", "so 41")).status is Status.FAIL


async def test_an_object_says_it_all(runner: Runner) -> None:
    verdict = await _verify(runner, "detailed", "text")
    assert (verdict.status, verdict.score, verdict.answer) == (Status.FAIL, 0.25, "text")
    assert (verdict.reason, verdict.feedback) == ("style", "Use tabs.")


async def test_numbers_of_other_libraries_are_numbers(runner: Runner) -> None:
    assert (await _verify(runner, "number_like")).score == 0.5
    assert (await _verify(runner, "number_like", pass_threshold=0.5)).status is Status.PASS


async def test_the_function_sees_sample_and_item_and_ours_win(runner: Runner) -> None:
    plugin = PythonPlugin(name="p", runner=runner, function=f"{_G}:everything")
    given = sample("<think>a</think>b", ToolCall("f", "{}", id="c1"))
    item = {"x": [1], "reference": "forged", "messages": "forged"}
    seen = (await plugin.verify(task("true one", item=item), given)).answer or ""
    for part in (
        "'output_text': 'b'",
        "'raw_text': '<think>a</think>b'",
        "{'id': 'c1', 'type': 'function', 'function': {'name': 'f', 'arguments': '{}'}}",
        "'x': [1]",
        "'reference': 'true one'",
        "'messages': [{'role': 'user', 'content': '?'}]",
    ):
        assert part in seen
    assert "forged" not in seen


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise", "crash"),
        ("exit", "crash"),
        ("hang", "timeout"),
        ("none", "protocol"),
        ("text", "protocol"),
        ("nan", "protocol"),
        ("object", "protocol"),
        ("yes", "protocol"),
    ],
)
async def test_a_broken_grader_is_an_error_never_a_verdict(
    runner: Runner, text: str, reason: str
) -> None:
    assert await _reason(runner, "by_text", text) == reason
    assert (await _verify(runner, "by_text", "fine")).status is Status.PASS


async def test_an_async_function_runs_in_a_process_too(runner: Runner) -> None:
    assert (await _verify(runner, "slow_but_fine", "good")).status is Status.PASS


async def test_reward_functions_of_the_verifiers_library_are_understood(runner: Runner) -> None:
    assert (await _verify(runner, "reward", " 42", style="completion")).status is Status.PASS
    assert (await _verify(runner, "reward", "41", style="completion")).status is Status.FAIL
    assert (await _verify(runner, "reward_async", style="completion")).score == 0.5


async def test_a_comparator_says_which_is_better(runner: Runner) -> None:
    judge = PythonComparator(name="p", runner=runner, compare_function=f"{_G}:longer")
    short, long, other = sample("a", index=0), sample("aa", index=1), sample("b", index=2)
    assert (await judge.compare(task(), short, long)).winner == long.id
    assert (await judge.compare(task(), long, short)).winner == long.id
    assert (await judge.compare(task(), short, other)).winner is None
    assert (await judge.verify(task(), short)).status is Status.NONE


async def test_a_comparator_that_says_nonsense_is_an_error(runner: Runner) -> None:
    judge = PythonComparator(name="p", runner=runner, compare_function=f"{_G}:unsure")
    with pytest.raises(VerifierError) as caught:
        await judge.compare(task(), sample("a"), sample("b"))
    assert caught.value.reason == "protocol"


async def test_only_a_plugin_with_a_comparison_is_a_comparator(runner: Runner) -> None:
    plugin = PythonPlugin(name="p", runner=runner, function=f"{_G}:grade", pass_threshold=0.5)
    judge = PythonComparator.extending(plugin, f"{_G}:longer")
    assert not isinstance(plugin, Comparator)
    assert isinstance(judge, Comparator)
    assert isinstance(plugin, Equivalence)
    assert (judge.function, judge.pass_threshold) == (f"{_G}:grade", 0.5)


async def test_equivalence_is_the_operators_or_plain_equality(runner: Runner) -> None:
    plain = PythonPlugin(name="p", runner=runner)
    letters = PythonPlugin(name="p", runner=runner, equivalent_function=f"{_G}:same_letters")
    wrong = PythonPlugin(name="p", runner=runner, equivalent_function=f"{_G}:same_wrong")
    assert not await plain.equivalent("ab", "ba")
    assert await letters.equivalent("ab", "ba")
    assert not await letters.equivalent("ab", "bc")
    assert await wrong.equivalent("a", "a")
    with pytest.raises(VerifierError):
        await wrong.equivalent("a", "b")


async def test_on_the_loop_async_functions_work_on_a_copy() -> None:
    loop = LoopRunner.load([f"{_G}:async_by_text"], 5.0)
    assert (await _verify(loop, "async_by_text", "fine")).status is Status.PASS
    shared = [{"output_text": "x"}, {}]
    await loop.call(f"{_G}:async_by_text", shared, {})
    assert shared[0] == {"output_text": "x"}


@pytest.mark.parametrize("text", ["raise", "cancel"])
async def test_on_the_loop_an_exception_is_an_error(text: str) -> None:
    loop = LoopRunner.load([f"{_G}:async_by_text"], 5.0)
    assert await _reason(loop, "async_by_text", text) == "crash"


async def test_on_the_loop_a_hang_is_a_timeout_and_cancelling_passes() -> None:
    quick = LoopRunner.load([f"{_G}:async_by_text"], 0.01)
    assert await _reason(quick, "async_by_text", "hang") == "timeout"
    slow = LoopRunner.load([f"{_G}:async_by_text"], 60.0)
    running = asyncio.create_task(_verify(slow, "async_by_text", "hang"))
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()


@pytest.mark.parametrize("name", [f"{_G}:grade", f"{_G}:nope", "no.such.module:f"])
async def test_on_the_loop_only_async_functions_that_exist_are_taken(name: str) -> None:
    with pytest.raises(VerifierSetupError, match=name):
        LoopRunner.load([name], 5.0)


async def test_a_function_that_is_missing_is_told_when_the_server_starts() -> None:
    async with pool_of(PLUGIN_TARGET, size=1, preload=[f"{_G}:nope"]) as pool:
        plugin = PythonPlugin(name="p", runner=ProcessRunner(pool), function=f"{_G}:nope")
        with pytest.raises(VerifierSetupError, match="nope"):
            await plugin.open()


async def test_the_key_knows_text_and_tool_calls(runner: Runner) -> None:
    plugin = PythonPlugin(name="p", runner=runner)
    assert plugin.key(sample("x", index=0)) == plugin.key(sample("x", index=1))
    assert plugin.key(sample("x")) != plugin.key(sample("x", ToolCall("f", "{}")))
