from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.verifiers.base import VerifierError, VerifierSetupError
from samplewise.verifiers.templates import Template
from tests.verifiers.making import sample, task


def _fill(text: str, output: str = "out", reference: str | None = "ref", **item: object) -> str:
    return Template.parse(text).fill(task(reference, item=item), sample(output))


def test_fields_are_filled_in() -> None:
    assert _fill("{{sample.output_text}}-{{ reference }}-{{item.x}}", x="y") == "out-ref-y"


def test_items_are_reached_by_keys_and_positions() -> None:
    assert _fill("{{item.a.1.b}}", a=[0, {"b": "deep"}]) == "deep"


def test_values_that_are_not_text_come_as_json() -> None:
    assert _fill("{{item.x}}", x={"b": True, "a": [1, None]}) == '{"a":[1,null],"b":true}'


def test_output_text_comes_without_thinking() -> None:
    assert _fill("{{sample.output_text}}", "<think>x</think>y") == "y"


@pytest.mark.parametrize(
    "name", ["", "item", "item.", "sample.text", "sample.__class__", "1+1", "item.x()", "item[0]"]
)
def test_unknown_fields_are_a_setup_error(name: str) -> None:
    with pytest.raises(VerifierSetupError, match="template"):
        Template.parse(f"a {{{{{name}}}}} b")


@pytest.mark.parametrize("name", ["item.nope", "item.l.9", "item.s.0", "item.d.keys", "item.l.x"])
def test_an_item_that_did_not_come_is_an_error_not_a_fail(name: str) -> None:
    with pytest.raises(VerifierError, match="brought no") as caught:
        _fill(f"{{{{{name}}}}}", l=[1], s="text", d={})
    assert caught.value.reason == "protocol"


def test_a_missing_reference_is_an_error() -> None:
    with pytest.raises(VerifierError, match="no reference"):
        _fill("{{reference}}", reference=None)


@given(st.text())
def test_what_is_filled_in_is_not_read_again(text: str) -> None:
    tricky = "{{reference}}" + text
    assert _fill("{{item.x}}", x=tricky) == tricky
