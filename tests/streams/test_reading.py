"""An upstream's stream reads the same however it is cut, and half of one is never an answer."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.proxy.backends.base import Broken, Totals
from tests.streams.reading import RECORDED, Read, cut, read

WHOLE = read([RECORDED])
RAW = read([RECORDED], raw=True, n=1)
_FINISHED = [match.end() for match in re.finditer(rb'"finish_reason":"\w+".*\r?\n\r?\n', RECORDED)]


def test_the_recorded_stream_is_what_the_upstream_said() -> None:
    said, called = WHOLE.done
    assert said.text == "Straße: ½ + ¼ = ¾ 👍"
    assert [(call.name, call.arguments) for call in called.tool_calls] == [
        ("weather", '{"city": "Osló", "unit": "C"}'),
        ("clock", '{"city": "Rome"}'),
    ]
    assert isinstance(WHOLE.end, Totals)
    assert WHOLE.end.usage is not None
    assert len(_FINISHED) == 2
    assert len(RAW.raw) == RECORDED.count(b"data: {")


@given(st.lists(st.integers(1, len(RECORDED) - 1)), st.booleans())
def test_any_pieces_give_the_same_answer(places: list[int], raw: bool) -> None:
    whole = RAW if raw else WHOLE
    assert read(cut(RECORDED, places), raw=raw, n=1 if raw else 2) == whole


@pytest.mark.parametrize("raw", [False, True])
def test_a_piece_for_each_byte_gives_the_same_answer(raw: bool) -> None:
    pieces = cut(RECORDED, range(len(RECORDED)))
    assert len(pieces) == len(RECORDED)
    assert read(pieces, raw=raw, n=1 if raw else 2) == (RAW if raw else WHOLE)


def _check_cut(found: Read, at: int) -> None:
    """Check that what is given as done was wholly there, and that nothing more was made up."""
    there = sum(at >= end for end in _FINISHED)
    assert len(found.done) in (there, there + 1)  # the last line end may be missing
    assert all(done in WHOLE.done for done in found.done)
    assert len(found.done) == 2 or isinstance(found.end, Broken)
    assert found.raw == ()


@pytest.mark.parametrize("broken", [False, True])
def test_a_stream_cut_at_any_byte_gives_whole_choices_or_none(broken: bool) -> None:
    for at in range(len(RECORDED)):
        _check_cut(read([RECORDED[:at]], broken=broken), at)


def test_a_stream_cut_at_any_byte_passes_whole_events_on_or_none() -> None:
    for at in range(len(RECORDED)):
        found = read([RECORDED[:at]], raw=True, n=1)
        assert found.raw == RAW.raw[: len(found.raw)]
        assert isinstance(found.end, Broken) == (len(found.done) < 1)


@pytest.mark.parametrize("behind", [b"data: no JSON\n\n", b"data: [DONE]\n\ndata: no JSON\n\n"])
def test_what_comes_behind_a_whole_choice_does_not_undo_it_in_whatever_pieces(
    behind: bytes,
) -> None:
    data = RECORDED[: _FINISHED[-1]] + behind
    for at in (*range(1, len(data), 97), *range(len(data) - 50, len(data))):
        assert read(cut(data, [at])).done == WHOLE.done


def test_what_is_added_to_a_choice_behind_its_end_does_not_count_in_whatever_pieces() -> None:
    more = (
        b'data: {"choices":[{"index":0,"delta":{"content":"more"},"finish_reason":"length"}]}\n\n'
    )
    end = _FINISHED[-1]
    data = RECORDED[:end] + more + RECORDED[end:]
    for at in range(end - 3, end + len(more) + 3):
        assert read(cut(data, [at])).done == WHOLE.done
