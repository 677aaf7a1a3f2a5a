"""A verifier that says that it never waits is run without a task, so it must not wait."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from samplewise.proxy.checks_base import Check, make_check, plain_voter
from samplewise.proxy.config_verifiers import VerifierSettings
from samplewise.verifiers.base import ToolCall, VerifierError
from samplewise.verifiers.tool_votes import ToolVotes
from tests.verifiers.making import sample, task

_SETTINGS: TypeAdapter[VerifierSettings] = TypeAdapter(VerifierSettings)


def _check(**settings: Any) -> Check:
    return make_check("v", _SETTINGS.validate_python(settings))


_IMMEDIATE = [
    plain_voter(),
    Check("tools", ToolVotes(name="tools")),
    _check(type="final_answer", check_reference=True),
    _check(type="number", reference="42"),
    _check(type="number", tolerance_abs=0.5),
    _check(
        type="string_check",
        operation="eq",
        input="{{ sample.output_text }}",
        reference="{{ item.wanted }}",
    ),
]
_texts = st.text(max_size=60) | st.sampled_from(
    ["The answer is 42.", "\\boxed{42}", "#### 1,000", "<think>no</think> 7", "1e400", "answer: "]
)


def _at_once(work: Coroutine[Any, Any, object]) -> object:
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    except VerifierError as error:
        return error
    pytest.fail("it waited")


@given(st.sampled_from(_IMMEDIATE), _texts, _texts, st.booleans())
def test_what_is_immediate_never_gives_the_event_loop_a_turn(
    check: Check, text: str, other: str, calls: bool
) -> None:
    assert check.immediate
    calling = [ToolCall("f", other, "id")] if calls else []
    judged = sample(text, *calling)
    assert _at_once(check.verifier.verify(task("42", item={"wanted": other}), judged))
    if check.equivalence is not None:
        assert isinstance(_at_once(check.equivalence.equivalent(text, other)), bool)


def test_what_is_paid_for_or_may_wait_is_not_immediate() -> None:
    assert not _check(type="number", price={"usd_per_call": 1}).immediate
    assert not _check(type="math").immediate
