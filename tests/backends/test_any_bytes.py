"""Whatever a server says, reading it gives a value or the error that is made for it."""

from __future__ import annotations

from contextlib import suppress

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from samplewise.proxy.backends.base import ALL, Reading
from samplewise.proxy.backends.choices import ProtocolError, read_choice, read_usage
from samplewise.proxy.backends.openai import _waiting

_DEEP = 10_000
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
# Text as it may stand between the quotes of a JSON string, whole or not.
_raw_text = st.sampled_from([b"", b"a", b"\xff", b"\\ud800", b"\\", b"\x00", b"\xed\xa0\x80"])


def _member(names: list[str]) -> st.SearchStrategy[bytes]:
    """Return a member of an object: one of these names or any, with any value."""
    name = st.sampled_from([name.encode() for name in names]) | _raw_text
    value = _json.map(msgspec.json.encode) | _raw_text.map(lambda text: b'"' + text + b'"')
    return st.builds(lambda n, v: b'"' + n + b'":' + v, name, value | st.binary(max_size=4))


def _objects(*names: str) -> st.SearchStrategy[bytes]:
    members = st.lists(_member(list(names)), max_size=4)
    return members.map(lambda found: b"{" + b",".join(found) + b"}") | st.binary(max_size=40)


@given(_objects("prompt_tokens", "completion_tokens", "prompt_tokens_details"))
@example(b'{"prompt_tokens": 1, "x": ' + b"[" * _DEEP)
@example(b'{"prompt_tokens": 1, "\xff": 1}')
@example(b'{"prompt_tokens": 1, "x": "\xff"}')
def test_a_usage_that_cannot_be_read_is_none_with_a_reason(raw: bytes) -> None:
    usage, why = read_usage(raw)
    assert (usage is None) == bool(why)


@given(_objects("message", "text", "logprobs", "finish_reason", "stop_reason"))
@example(b'{"message": ' + b"[" * _DEEP)
@example(b'{"message": {"content": "\xff"}}')
@example(b'{"message": {"tool_calls": [{"function": {"arguments": "\\ud800"}}]}}')
@example(b'{"message": {"tool_calls": [{"function": {"arguments": {"\xff": 1}}}]}}')
@example(b'{"message": {}, "logprobs": {"content": [{"logprob": 0, "top_logprobs": 7}]}}')
@example(b'{"message": {}, "logprobs": {"content": [], "x": "\xff"}}')
def test_a_choice_that_cannot_be_read_is_an_error_of_the_protocol(raw: bytes) -> None:
    for keep in (ALL, None, 1):
        for top in (False, True):
            with suppress(ProtocolError):
                read_choice(raw, reading=Reading(top=top, keep=keep))


def _load(raw: bytes) -> str:
    # As HTTP clients read headers.
    return "JSON " + raw.decode("utf-8", "surrogateescape")


@given(_objects("named_metrics").map(_load) | st.text(max_size=20))
@example(_load(b'{"named_metrics": {"num_requests_waiting": 3}, "x": ' + b"[" * _DEEP))
@example(_load(b'{"named_metrics": {"num_requests_waiting": 3, "\xff": 1}}'))
@example(_load(b'{"named_metrics": {"num_requests_waiting": 1e999}}'))
def test_a_load_that_cannot_be_read_is_unknown(header: str) -> None:
    waiting = _waiting(header)
    assert waiting is None or waiting >= 0


def test_a_load_that_can_be_read_is_the_length_of_the_queue() -> None:
    assert _waiting(_load(b'{"named_metrics": {"num_requests_waiting": 3}}')) == 3
