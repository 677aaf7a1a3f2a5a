from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.verifiers.strict_json import canonical, loads

_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_PLAIN = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
_JSON = st.recursive(
    _PLAIN | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "NaN",
        "[Infinity]",
        "-Infinity",
        "1e999",
        '{"a": 1, "a": 2}',
        '{"x": {"a": 1, "a": 1}}',
        "[" * 100_000,
        '"\\ud800"',
        "9" * 5_000,
        "{'a': 1}",
        "[1,]",
    ],
    ids=lambda text: text[:12],
)
def test_what_is_not_strict_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the words differ from case to case
        loads(text)


def test_a_pair_of_surrogates_is_one_character() -> None:
    assert loads('"\\ud83d\\ude00"') == "\U0001f600"


@pytest.mark.parametrize(
    ("a", "b"),
    [('{"a": 1, "b": 2}', '{"b":2,"a":1}'), ("1.0", "1"), ("1e2", "100"), ("-0.0", "0")],
)
def test_equal_values_have_one_text(a: str, b: str) -> None:
    assert canonical(loads(a)) == canonical(loads(b))


def test_true_is_not_one() -> None:
    assert canonical(loads("true")) != canonical(loads("1"))


@given(_JSON)
def test_canonical_text_reads_back_to_itself(value: Any) -> None:
    text = canonical(loads(canonical(value)))
    assert canonical(loads(text)) == text
