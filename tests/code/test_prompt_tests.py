"""Tests in the user's message are found, and what is no test is not taken for one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.verifiers.code.prompt_tests import prompt_suite, user_text


def _asserts(text: str) -> list[str]:
    suite = prompt_suite(text, "python")
    return [] if suite is None else ["".join(code.split("\n")) for code in suite.asserts]


def _cases(text: str, language: str = "python") -> list[tuple[object, object]]:
    suite = prompt_suite(text, language)
    return [] if suite is None else [(case.stdin, case.stdout) for case in suite.cases]


@pytest.mark.parametrize(
    ("text", "asserts"),
    [
        (">>> f(1)\n2", ["assert (f(1)) == (2)"]),
        ('    """\n    >>> f(1)\n    True\n    """', ["assert (f(1)) is (True)"]),
        (">>> f(1)\n[1,\n 2]\n\nText", ["assert (f(1)) == ([1,2])"]),
        (">>> f(\n...   1)\n2", ["assert (f(  1)) == (2)"]),
        (">>> x = [1]\n>>> f(x)\n2", ["x = [1]assert (f(x)) == (2)"]),
        (
            "Tests:\nassert f(1) == 2\n    assert f(2) == 3",
            ["assert f(1) == 2", "assert f(2) == 3"],
        ),
        (">>> print(f(1))\ntwo words", []),
        (">>> f(1)\nTraceback (most recent call last):\nValueError", []),
        (">>> f(\n2", []),
        ("we assert that all is well", []),
        ("assert that f works", []),
        (">>> import os\n>>> f(os)\n1", ["import osassert (f(os)) == (1)"]),
        ("nothing here", []),
    ],
)
def test_doctests_and_asserts(text: str, asserts: list[str]) -> None:
    assert _asserts(text) == asserts


@pytest.mark.parametrize(
    ("text", "cases"),
    [
        ("Sample Input 1:\n3\n1 2\nSample Output 1:\n6\n", [("3\n1 2\n", "6\n")]),
        ("### Example\n**Input:**\n```\n3\n```\n**Output:**\n```\n6\n```", [("3\n", "6\n")]),
        ("Input:\n```\n3\n```\nOutput:\n```\n6\n```", [("3\n", "6\n")]),
        (
            "-----Examples-----\nInput\n1\n\nOutput\n2\n\nInput\n3\n\nOutput\n4\n\n-----Note-----\nx",
            [("1\n", "2\n"), ("3\n", "4\n")],
        ),
        ("-----Input-----\n\nOne line with n.\n\n-----Output-----\n\nPrint n.\n", []),
        ("Input: the first line has n\nOutput: the sum", []),
        ("Input\nA number n.\nOutput\nIts square.", []),
        ("Sample Input:\n5\n\nno output", []),
    ],
)
def test_examples_of_input_and_output(text: str, cases: list[tuple[str, str]]) -> None:
    assert _cases(text) == cases


def test_asserts_go_before_examples_and_only_for_python() -> None:
    text = "assert f(1) == 2\nSample Input:\n1\nSample Output:\n2\n"
    assert (_asserts(text), _cases(text)) == (["assert f(1) == 2"], [])
    assert _cases(text, "cpp") == [("1\n", "2\n")]


def test_only_the_last_message_of_the_user_is_looked_at() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "old"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}]},
        {"role": "assistant", "content": "b"},
    ]
    assert user_text(messages) == "a"
    assert user_text([{"role": "system", "content": "x"}]) == ""


@given(st.text(alphabet=">. \n=asertInputOle:-`1", max_size=300))
def test_any_text_gives_tests_or_none(text: str) -> None:
    suite = prompt_suite(text, "python")
    assert suite is None or suite.total > 0
