"""Lines are found whatever pieces they come in, and looked at before anything is bought."""

from __future__ import annotations

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.proxy.batches.lines import Line, lines, look_at, read_line
from samplewise.proxy.errors import RequestError

GOOD = {"custom_id": "a", "method": "POST", "url": "/v1/x", "body": {"model": "m"}}


@given(st.lists(st.binary(max_size=12), max_size=8), st.integers(1, 10))
def test_pieces_make_no_difference(pieces: list[bytes], longest: int) -> None:
    whole = b"".join(pieces)
    found = list(lines(pieces, longest))
    expected = [
        (number, None if len(text) > longest else text)
        for number, text in enumerate(whole.split(b"\n"), 1)
        if len(text) > longest or text.strip()
    ]
    assert found == expected


def test_a_line_that_never_ends_is_never_held() -> None:
    """Its pieces are dropped as they come; a line of 300 MB is as good as one of any length."""
    piece = b"x" * 2**20
    found = list(lines((piece for _ in range(300)), 2**21))
    assert found == [(1, None)]


def test_a_line_is_read_with_its_body_as_it_came() -> None:
    text = b'{"custom_id":"a","method":"POST","url":"/v1/x","body":{"x": 1.50}}'
    assert read_line(text, ("/v1/x",)) == Line("a", "/v1/x", b'{"x": 1.50}')


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"custom_id": 7}, "custom_id"),
        ({"custom_id": ""}, "custom_id"),
        ({"custom_id": "x" * 600}, "custom_id"),
        ({"custom_id": None}, "custom_id"),
        ({"method": "GET"}, "method"),
        ({"url": "/v1/y"}, "url"),
        ({"body": []}, "body"),
        ({"body": None}, "body"),
        ({"bdy": {}}, "bdy"),
    ],
)
def test_what_is_wrong_with_a_line_is_said_with_its_member(
    changes: dict[str, object], param: str
) -> None:
    with pytest.raises(RequestError) as caught:
        read_line(msgspec.json.encode({**GOOD, **changes}), ("/v1/x",))
    assert caught.value.param == param


def test_names_that_stand_twice_are_told_with_both_lines() -> None:
    names = ["a", "b", "a", "b", "a"]
    text = b"\n".join(msgspec.json.encode({"custom_id": name}) for name in names)
    count, problems = look_at([text], 1_000, 100)
    assert count == 5
    assert [problem.line for problem in problems] == [3, 4, 5]
    assert all("line 1 already" in p.message or "line 2 already" in p.message for p in problems)


def test_too_many_lines_are_refused() -> None:
    _, (problem,) = look_at([b"{}\n" * 11], 1_000, 10)
    assert (problem.code, problem.line) == ("too_many_lines", 11)


@given(st.binary(max_size=200))
def test_any_bytes_can_be_looked_at_and_read(text: bytes) -> None:
    look_at([text], 1_000, 100)
    with suppress(RequestError):
        read_line(text, ("/v1/x",))
