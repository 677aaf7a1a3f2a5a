"""Output items and content blocks, built from deltas that no upstream should send like that."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.proxy.api.messages_output import Blocks
from samplewise.proxy.api.responses_output import Output

TEXT = st.sampled_from(("", "a", "b ", "\n", "{}", "é"))
CALL = st.fixed_dictionaries(
    {"index": st.integers(0, 2), "function": st.fixed_dictionaries({"arguments": TEXT})},
    optional={"id": TEXT},
)
DELTA = st.fixed_dictionaries(
    {},
    optional={
        "content": TEXT,
        "reasoning_content": TEXT,
        "reasoning": TEXT,
        "refusal": TEXT,
        "tool_calls": st.lists(CALL, max_size=2),
    },
)


def call(number: int, arguments: str, **more: Any) -> dict[str, Any]:
    function = {"name": f"f{number}", "arguments": arguments}
    return {"tool_calls": [{"index": number, "id": f"c{number}", "function": function, **more}]}


def said(deltas: Iterable[dict[str, Any]], *names: str) -> str:
    """Return all text under these names."""
    return "".join(delta.get(name) or "" for delta in deltas for name in names)


def numbers(deltas: Iterable[dict[str, Any]]) -> set[int]:
    """Return the numbers of all calls."""
    return {call["index"] for delta in deltas for call in delta.get("tool_calls", [])}


@given(st.lists(DELTA, max_size=8))
def test_nothing_that_was_said_is_lost_in_items(deltas: list[dict[str, Any]]) -> None:
    output = Output("x", {})
    for delta in deltas:
        for _ in output.take(delta):
            pass
    for _ in output.close(cut=False):
        pass
    parts = [part for item in output.items for part in item.get("content", [])]
    assert said(deltas, "content") == said([p for p in parts if p["type"] == "output_text"], "text")
    assert said(deltas, "refusal") == said(parts, "refusal")
    assert {item["status"] for item in output.items} <= {"completed"}
    calls = [item for item in output.items if item["type"] == "function_call"]
    assert len(calls) == len(numbers(deltas))


@given(st.lists(DELTA, max_size=8), st.booleans())
def test_nothing_that_was_said_is_lost_in_blocks(
    deltas: list[dict[str, Any]], thinking: bool
) -> None:
    blocks = Blocks("x", thinking=thinking)
    for delta in deltas:
        for _ in blocks.take(delta):
            pass
    for _ in blocks.close():
        pass
    shown = [block for block in blocks.blocks if block["type"] == "text"]
    wanted = [delta.get("refusal", "") + delta.get("content", "") for delta in deltas]
    assert said(shown, "text") == "".join(wanted)
    assert thinking or not any(block["type"] == "thinking" for block in blocks.blocks)
    calls = [block for block in blocks.blocks if block["type"] == "tool_use"]
    assert len(calls) == len(numbers(deltas))


MIXED = [call(0, '{"a": '), call(1, '{"b": '), {"content": "so"}, call(0, "1}"), call(1, "2}")]


def test_calls_that_are_mixed_are_told_apart_in_items() -> None:
    output = Output("x", {"f1": ("space", "one")})
    for delta in MIXED:
        for _ in output.take(delta):
            pass
    for _ in output.close(cut=False):
        pass
    first, second, text = output.items
    assert (first["call_id"], first["name"], first["arguments"]) == ("c0", "f0", '{"a": 1}')
    assert (second["namespace"], second["name"], second["arguments"]) == (
        "space",
        "one",
        '{"b": 2}',
    )
    assert text["content"][0]["text"] == "so"


def test_calls_that_are_mixed_are_told_apart_in_blocks_one_at_a_time() -> None:
    blocks = Blocks("x", thinking=False)
    events = [event for delta in MIXED for event in blocks.take(delta)]
    events += list(blocks.close())
    open_: list[int] = []
    for name, fields in events:
        if name == "content_block_start":
            assert not open_
            open_.append(fields["index"])
        elif name == "content_block_stop":
            assert open_.pop() == fields["index"]
        else:
            assert open_ == [fields["index"]]
    assert [block.get("input") for block in blocks.blocks] == [{"a": 1}, {"b": 2}, None]
    assert blocks.blocks[2]["text"] == "so"


@pytest.mark.parametrize("arguments", ["[1]", "{", "null", '"x"'])
def test_arguments_that_are_no_object_reach_the_tool_as_they_are(arguments: str) -> None:
    blocks = Blocks("x", thinking=False)
    for _ in (*blocks.take(call(0, arguments)), *blocks.close()):
        pass
    assert blocks.blocks[0]["input"] == {"arguments": arguments}


@pytest.mark.parametrize("odd", [None, [None], [True], "ab", [1.5]])
def test_log_probabilities_have_every_field_whatever_came(odd: Any) -> None:
    output = Output("x", {})
    token = {"token": "a", "logprob": "low", "bytes": odd, "top_logprobs": [None, {"token": "b"}]}
    for _ in (*output.take({"content": "a"}, {"content": [token, None]}), *output.close(cut=True)):
        pass
    (part,) = output.items[0]["content"]
    other = {"token": "b", "logprob": 0.0, "bytes": [98]}
    wanted = {"token": "a", "logprob": 0.0, "bytes": [97], "top_logprobs": [other]}
    assert part["logprobs"] == [wanted]
    assert output.items[0]["status"] == "incomplete"
