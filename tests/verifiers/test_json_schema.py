from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from samplewise.verifiers.base import Status, Verdict, VerifierError, VerifierSetupError
from samplewise.verifiers.json_schema import JsonSchema
from samplewise.verifiers.schema_check import SchemaChecker
from tests.verifiers.making import sample, task
from tests.verifiers.making_pools import schema_checker

_POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}},
    "required": ["x"],
    "additionalProperties": False,
}


@pytest.fixture
async def checker() -> AsyncIterator[SchemaChecker]:
    async with schema_checker(timeout_s=0.5) as checker:
        yield checker


def _format(schema: Any) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "point", "schema": schema}}


async def _verify(
    checker: SchemaChecker, text: str, response_format: Any = None, **settings: Any
) -> Verdict:
    verifier = JsonSchema(name="j", checker=checker, **settings)
    return await verifier.verify(task(response_format=response_format), sample(text))


async def test_the_schema_of_the_request_is_used(checker: SchemaChecker) -> None:
    right = await _verify(checker, '{"y": 2.0, "x": 1}', _format(_POINT))
    assert (right.status, right.answer) == (Status.PASS, '{"x":1,"y":2}')
    wrong = await _verify(checker, '{"x": "1"}', _format(_POINT))
    assert (wrong.status, wrong.reason) == (Status.FAIL, "schema")
    assert wrong.feedback.startswith("At /x: ")


async def test_the_responses_api_puts_the_schema_one_level_higher(checker: SchemaChecker) -> None:
    given = {"type": "json_schema", "name": "point", "schema": _POINT}
    assert (await _verify(checker, '{"x": 1}', given)).status is Status.PASS


async def test_the_schema_of_the_operator_wins(checker: SchemaChecker) -> None:
    verdict = await _verify(checker, "5", _format(_POINT), schema={"type": "integer"})
    assert verdict.status is Status.PASS


async def test_json_object_wants_any_object(checker: SchemaChecker) -> None:
    wanted = {"type": "json_object"}
    assert (await _verify(checker, '{"a": 1}', wanted)).status is Status.PASS
    assert (await _verify(checker, "[1]", wanted)).status is Status.FAIL


@pytest.mark.parametrize("response_format", [None, {"type": "text"}])
async def test_without_a_schema_there_is_no_judgement(
    checker: SchemaChecker, response_format: Any
) -> None:
    assert (await _verify(checker, "5", response_format)).status is Status.NONE


@pytest.mark.parametrize(
    "text", ['{"x": 1, "x": 2}', '{"x": NaN}', "x", "", '{"x": 1} thanks', "[" * 1_500]
)
async def test_what_is_not_strict_json_fails(checker: SchemaChecker, text: str) -> None:
    verdict = await _verify(checker, text, _format({}))
    assert (verdict.status, verdict.reason, verdict.answer) == (Status.FAIL, "parse", None)


async def test_fences_are_stripped_only_when_asked(checker: SchemaChecker) -> None:
    text = '<think>so</think>\n```json\n{"x": 1}\n```'
    assert (await _verify(checker, text, _format(_POINT))).status is Status.FAIL
    assert (await _verify(checker, text, _format(_POINT), fences=True)).status is Status.PASS
    bare = await _verify(checker, '{"x": 1}', _format(_POINT), fences=True)
    assert bare.status is Status.PASS
    talk = await _verify(checker, f"Here: {text}", _format(_POINT), fences=True)
    assert talk.status is Status.FAIL


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "strange"},
        {"$ref": "http://127.0.0.1:1/schema"},
        {"$ref": "file:///etc/passwd"},
        {"$ref": "#/nowhere"},
        {"pattern": "(?=a)"},
        [],
        5,
    ],
)
async def test_a_request_with_a_wrong_schema_is_an_error_not_a_fail(
    checker: SchemaChecker, schema: Any
) -> None:
    with pytest.raises(VerifierError, match="no JSON Schema") as caught:
        await _verify(checker, "{}", _format(schema))
    assert caught.value.reason == "protocol"


@pytest.mark.parametrize(
    "response_format", [{"type": "json_schema"}, {"type": "json_schema", "json_schema": 5}, [], {}]
)
async def test_a_request_with_half_a_format_is_an_error(
    checker: SchemaChecker, response_format: Any
) -> None:
    with pytest.raises(VerifierError, match="response_format"):
        await _verify(checker, "{}", response_format)


async def test_a_wrong_schema_of_the_operator_is_a_setup_error(checker: SchemaChecker) -> None:
    with pytest.raises(VerifierSetupError, match="not a JSON Schema"):
        JsonSchema(name="j", checker=checker, schema={"type": "strange"})


async def test_feedback_hides_values_of_the_operators_schema(checker: SchemaChecker) -> None:
    verdict = await _verify(checker, '"blue"', schema={"const": "secret"})
    assert verdict.feedback == "At /: violates 'const'."
    own = await _verify(checker, '"blue"', _format({"const": "open"}))
    assert "open" in own.feedback


async def test_a_schema_that_takes_for_ever_is_a_timeout_and_the_next_check_works(
    checker: SchemaChecker,
) -> None:
    levels = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
    bomb = {"$defs": {**levels, "d40": {"type": "integer"}}, "$ref": "#/$defs/d0"}
    with pytest.raises(VerifierError) as caught:
        await _verify(checker, "5", _format(bomb))
    assert caught.value.reason == "timeout"
    plain = {"$defs": {"a": {"type": "integer"}}, "$ref": "#/$defs/a"}
    assert (await _verify(checker, "5", _format(plain))).status is Status.PASS


async def test_worker_and_loop_say_the_same(checker: SchemaChecker) -> None:
    padding = " " * 5_000
    for text in ('{"x": 1}', '{"x": "1"}', '{"x": 1, "x": 1}', "[]"):
        short = await _verify(checker, text, _format(_POINT))
        long = await _verify(checker, text + padding + "", _format({**_POINT, "$comment": padding}))
        assert (short.status, short.answer, short.feedback) == (
            long.status,
            long.answer,
            long.feedback,
        )


async def test_a_text_above_the_cap_is_an_error() -> None:
    async with schema_checker() as checker:
        small = SchemaChecker(pool=checker.pool, max_chars=10)
        with pytest.raises(VerifierError) as caught:
            await _verify(small, "1" * 11, _format({}))
        assert caught.value.reason == "protocol"


async def test_a_pattern_runs_in_linear_time(checker: SchemaChecker) -> None:
    text = json.dumps("a" * 50_000 + "b")
    verdict = await asyncio.wait_for(_verify(checker, text, _format({"pattern": "^(a+)+$"})), 5)
    assert verdict.status is Status.FAIL
