from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.proxy.judge_prompts import JudgePrompt, as_data, judge_prompt
from samplewise.verifiers.base import VerifierError, VerifierSetupError
from tests.verifiers.making import sample, task

ANY = st.text(st.characters(exclude_categories=["Cs"]))
# What forgers write: marks, look-alikes, template tokens, and the nonce itself.
HOSTILE = st.lists(
    st.sampled_from(["<", "</answer-", "n0>", "\uff1c", "\u2039", "|im_end|>", "[INST]", "\\", '"'])
    | ANY
).map("".join)


def numbered() -> Callable[[], str]:
    """Return a source of chance for tests: n0, n1, ..."""
    numbers: Iterator[int] = count()
    return lambda: f"n{next(numbers)}"


def prompt(pair: bool = False) -> JudgePrompt:
    return replace(judge_prompt("Say it.", pair=pair), nonce=numbered())


@given(HOSTILE)
def test_a_text_comes_back_whole_and_holds_nothing_that_opens_a_mark(text: str) -> None:
    data = as_data(text)
    assert json.loads(data) == text
    assert not re.search("[<\uff1c\u2039\ufe64\u3008\u200b-\u200f\u202a-\u202e]", data)
    assert not re.search(r"\[/?[A-Z_]+\]", data)
    assert "\n" not in data


@given(HOSTILE, HOSTILE)
def test_marks_stand_only_where_we_put_them_even_for_one_who_knows_the_nonce(
    asked: str, answered: str
) -> None:
    messages = msgspec.json.encode([{"role": "user", "content": asked}])
    written = prompt().write(task(messages=messages), [sample(answered)])
    text = written[-1]["content"]
    assert re.findall(r"</?[\w-]+>", text) == [
        "<conversation-n0>",
        "</conversation-n0>",
        "<answer-n0>",
        "</answer-n0>",
    ]
    inside = re.search(r"<answer-n0>\n(.*)\n</answer-n0>", text)
    assert inside is not None
    assert json.loads(inside[1]) == answered


@given(HOSTILE, st.text(max_size=20), st.booleans())
def test_a_prompt_is_never_larger_than_was_said(text: str, reference: str, pair: bool) -> None:
    shown = [sample(text), sample(text[::-1], index=1)]
    given_, writer = task(reference), prompt(pair)
    written = writer.write(given_, shown)
    size = sum(len(message["content"].encode()) for message in written)
    parts = [writer.answer_bytes(one) for one in (shown if pair else shown[:1])]
    # The nonces of tests grow by a digit now and then; real ones have one length.
    assert size <= writer.fixed_bytes(given_) + sum(parts) + 20


def test_real_nonces_are_long_and_never_the_same() -> None:
    writer = judge_prompt("Say it.")
    marks = {
        re.findall(r"<answer-([0-9a-f]{16})>", writer.write(task(), [sample("x")])[-1]["content"])[
            0
        ]
        for _ in range(100)
    }
    assert len(marks) == 100


def test_a_reference_is_shown_where_the_request_brought_one() -> None:
    (_, user) = prompt().write(task("42"), [sample("x")])
    assert '<reference-n0>\n"42"\n</reference-n0>' in user["content"]
    assert "reference" not in prompt().write(task(), [sample("x")])[-1]["content"]


def test_media_are_left_out() -> None:
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    ]
    messages = msgspec.json.encode([{"role": "user", "content": parts}])
    (_, user) = prompt().write(task(messages=messages), [sample("x")])
    assert "AAAA" not in user["content"]
    assert "What is it?" in user["content"]


def test_messages_that_nest_too_deeply_are_an_error_and_have_no_size() -> None:
    deep = b'[{"role": "user", "content": "image", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}]"
    assert prompt().fixed_bytes(task(messages=deep)) == 0
    with pytest.raises(VerifierError, match="cannot be read"):
        prompt().write(task(messages=deep), [sample("x")])


def test_an_own_prompt_has_one_system_message_and_our_rules_first() -> None:
    writer = judge_prompt(
        "Say it.", None, [("system", "Kind."), ("user", "{{sample.output_text}}")]
    )
    system, user = writer.write(task(), [sample("x")])
    assert system["content"].index("It is data") < system["content"].index("Kind.")
    assert (system["role"], user["role"]) == ("system", "user")
    assert user["content"].endswith("Say it.")


def test_a_template_that_cannot_be_filled_is_refused_at_once() -> None:
    with pytest.raises(VerifierSetupError, match=r"sample\.text"):
        judge_prompt("Say it.", None, [("user", "{{sample.text}}")])


def test_an_item_that_did_not_come_is_an_error_and_has_no_size() -> None:
    writer = judge_prompt("Say it.", None, [("user", "{{item.x}} {{sample.output_text}}")])
    assert writer.fixed_bytes(task()) == 0
    with pytest.raises(VerifierError, match=r"item\.x"):
        writer.write(task(), [sample("x")])
