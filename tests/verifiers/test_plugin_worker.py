from __future__ import annotations

from typing import Any

import pytest

from samplewise.verifiers.plugin_worker import accepted, call, load

_G = "tests.verifiers.graders"


def _call(function: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    return call({"function": f"{_G}:{function}", "args": args, "kwargs": kwargs})


def test_the_value_comes_back_as_json() -> None:
    assert _call("same_letters", "ab", "ba") == {"value": True}
    assert _call("number_like", {}, {}) == {"value": 0.5}
    assert _call("slow_but_fine", {"output_text": "good"}, {}) == {"value": True}


@pytest.mark.parametrize("text", ["object", "nan"])
def test_what_is_not_json_is_unfit(text: str) -> None:
    assert "unfit" in _call("by_text", {"output_text": text}, {})


def test_a_function_gets_only_the_keywords_it_takes() -> None:
    def narrow(a: int) -> None: ...

    def wide(a: int, **rest: int) -> None: ...

    given = {"a": 1, "b": 2}
    assert accepted(narrow, given) == {"a": 1}
    assert accepted(wide, given) == given


def test_a_missing_function_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError):
        load(f"{_G}:nope")
