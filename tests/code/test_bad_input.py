"""What is no test, no program, or far too much of it gets a defined verdict or a place."""

from __future__ import annotations

import datetime
import json
import math
from typing import Any, Literal

import pytest

from samplewise.verifiers.base import Status, TestsError
from samplewise.verifiers.code.extract import find_program
from samplewise.verifiers.code.languages import PYTHON
from samplewise.verifiers.code.suite import read_suite
from samplewise.verifiers.code_tests import CodeTests
from samplewise.verifiers.patch.diff import find_patch
from samplewise.verifiers.patch_tests import PatchTests
from samplewise.verifiers.sandbox.pool import SandboxPool
from tests.verifiers.making import sample, task

DEEP: Any = []
for _ in range(200):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("expected", datetime.date(2026, 1, 1), "holds a date"),
        ("expected", {1: 2}, "key that is no text"),
        ("expected", math.nan, "no number of JSON"),
        ("expected", [[math.inf]], "no number of JSON"),
        ("args", [{1, 2}], "holds a set"),
        ("args", [b"x"], "holds a bytes"),
        ("kwargs", {"a": DEEP}, "nested"),
    ],
)
def test_values_that_are_no_json_are_named_with_their_place(
    field: str, value: Any, said: str
) -> None:
    case = {"args": [], "expected": 1, field: value}
    with pytest.raises(TestsError, match=said) as error:
        read_suite({"entry_point": "f", "cases": [{"args": [], "expected": 1}, case]})
    assert error.value.place == f"cases[1].{field}"


async def test_a_program_of_ten_megabytes_is_too_large_and_is_not_run() -> None:
    verifier = CodeTests(name="t", sandbox=SandboxPool(), language=PYTHON)
    asked = task()
    tests = {"entry_point": "f", "cases": [{"args": [], "expected": 1}]}
    object.__setattr__(asked, "tests", json.dumps(tests).encode())
    for size in (2 * 2**20, 10 * 2**20):
        text = "```python\n" + "x = 1\n" * (size // 6) + "```"
        verdict = await verifier.verify(asked, sample(text))
        assert (verdict.status, verdict.reason) == (Status.FAIL, "too_large")
        assert verifier.key(sample(text))


async def test_an_answer_of_ten_megabytes_holds_no_patch(tmp_path: Any) -> None:
    made = PatchTests(name="p", sandbox=SandboxPool(), instances={})
    text = "```diff\n" + "+x\n" * 4_000_000 + "```"
    assert made.key(sample(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        *("`" * 200_000, "```" + "a" * 200_000 + "`", "```\n" * 50_000, "```diff\n" * 30_000),
        *("~" * 200_000 + "\n", "--- a\n" * 30_000, " " * 200_000, "<think>" * 30_000),
    ],
)
def test_looking_for_a_program_takes_time_in_proportion(text: str) -> None:
    # No clock: if it were quadratic, this would take minutes.
    hows: tuple[Literal["last_block", "all_blocks"], ...] = ("last_block", "all_blocks")
    for how in hows:
        find_program(text * 4, PYTHON, how)
        find_patch(text * 4, how)


def test_a_suite_of_an_unknown_kind_is_refused() -> None:
    suites: list[Any] = [{}, {"cases": []}, {"asserts": []}, {"cases": [{}]}, 1]
    for wrong in suites:
        with pytest.raises(TestsError):
            read_suite(wrong)
