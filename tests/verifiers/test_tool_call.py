from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from samplewise.verifiers.base import Status, ToolCall, VerifierError
from samplewise.verifiers.schema_check import SchemaChecker
from samplewise.verifiers.tool_call import ToolCalls
from tests.verifiers.making import sample, task
from tests.verifiers.making_pools import schema_checker

_CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
}
_TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "weather", "parameters": _CITY}},
    {"type": "function", "function": {"name": "now"}},
    {"type": "function", "name": "flat", "parameters": {"type": "object"}},
    {"type": "custom", "custom": {"name": "shell"}},
]


@pytest.fixture
async def check() -> AsyncIterator[ToolCalls]:
    async with schema_checker() as checker:
        yield ToolCalls(name="t", checker=checker)


async def test_a_call_that_fits_passes(check: ToolCalls) -> None:
    for call in (
        ToolCall("weather", '{"city": "Rome", "days": 2}'),
        ToolCall("now", "{}"),
        ToolCall("flat", '{"a": 1}'),
        ToolCall("shell", "ls -l"),
    ):
        assert (await check.verify(task(tools=_TOOLS), sample("", call))).status is Status.PASS


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (ToolCall("rm", "{}"), "unknown_tool"),
        (ToolCall("weather", '{"city": 5}'), "invalid"),
        (ToolCall("weather", "{}"), "invalid"),
        (ToolCall("weather", '{"city": "Rome"'), "parse"),
        (ToolCall("weather", '{"city": "a", "city": "b"}'), "parse"),
        (ToolCall("now", ""), "parse"),
        (ToolCall("now", "[]"), "invalid"),
    ],
)
async def test_a_call_that_does_not_fit_fails(
    check: ToolCalls, call: ToolCall, reason: str
) -> None:
    good = ToolCall("now", "{}")
    verdict = await check.verify(task(tools=_TOOLS), sample("", good, call))
    assert (verdict.status, verdict.reason) == (Status.FAIL, reason)
    assert call.name in verdict.feedback


async def test_equal_calls_vote_together_in_any_order_and_spelling(check: ToolCalls) -> None:
    one = sample(
        "", ToolCall("now", "{}", id="1"), ToolCall("weather", '{"days": 2.0, "city": "Rome"}')
    )
    two = sample(
        "thinking aloud", ToolCall("weather", '{"city":"Rome","days":2}'), ToolCall("now", "{ }")
    )
    answers = {(await check.verify(task(tools=_TOOLS), s)).answer for s in (one, two)}
    assert answers == {'[["now","{}"],["weather","{\\"city\\":\\"Rome\\",\\"days\\":2}"]]'}


async def test_without_calls_it_depends_on_require(check: ToolCalls) -> None:
    strict = ToolCalls(name="t", checker=check.checker, require=True)
    assert (await check.verify(task(tools=_TOOLS), sample("hi"))).status is Status.NONE
    assert (await strict.verify(task(tools=_TOOLS), sample("hi"))).status is Status.FAIL


async def test_a_call_without_any_tools_fails(check: ToolCalls) -> None:
    verdict = await check.verify(task(), sample("", ToolCall("now", "{}")))
    assert verdict.reason == "unknown_tool"


@pytest.mark.parametrize(
    "tools",
    [
        5,
        [5],
        [{"type": "function"}],
        [{"type": "function", "function": {"name": "now", "parameters": {"type": 5}}}],
    ],
)
async def test_tools_that_make_no_sense_are_an_error(check: ToolCalls, tools: Any) -> None:
    with pytest.raises(VerifierError) as caught:
        await check.verify(task(tools=tools), sample("", ToolCall("now", "{}")))
    assert caught.value.reason == "protocol"


def test_the_key_is_the_calls_not_the_text() -> None:
    check = ToolCalls(name="t", checker=SchemaChecker(pool=None))  # type: ignore[arg-type]
    a, b = ToolCall("f", "{}"), ToolCall("f", '{"x": 1}')
    assert check.key(sample("one", a)) == check.key(sample("two", a))
    assert check.key(sample("one", a)) != check.key(sample("one", b))
