"""What is said of a body that is no JSON object."""

from __future__ import annotations

import pytest

from samplewise.proxy.errors import RequestError
from samplewise.proxy.jsontext import members


@pytest.mark.parametrize(
    ("text", "half", "at"),
    [
        (r'{"a": "\ud800"}', r"\ud800", 7),
        (r'{"a": "x\\\uD83d y", "b": 1}', r"\uD83d", 10),
        (r'{"a": "\ud83d\ude00 \ud83d"}', r"\ud83d", 20),
    ],
)
def test_half_of_a_surrogate_pair_is_called_so(text: str, half: str, at: int) -> None:
    with pytest.raises(RequestError) as caught:
        members(text.encode())
    said = f"body: {half} is half of a surrogate pair (character {at})"
    assert caught.value.message == said


@pytest.mark.parametrize("text", [r'{"a": "\\ud800"}', r'{"a": "\ud83d\ude00"}'])
def test_what_is_whole_is_read(text: str) -> None:
    assert members(text.encode())["a"] == text[6:-1].encode()


def test_what_is_cut_off_is_not_called_so() -> None:
    with pytest.raises(RequestError, match="truncated"):
        members(b'{"a": "x')
