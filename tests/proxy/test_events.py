from __future__ import annotations

import pytest

from samplewise.proxy.backends.events import EventSplitter, TooLarge

STREAM = (
    b': hello\n\ndata: {"a": 1}\n\nevent: x\r\ndata: two\r\ndata: lines\r\n\r\n'
    b"id: 3\ndata:[DONE]\n\ndata: cut off"
)
WHOLE = [b'{"a": 1}', b"two\nlines", b"[DONE]"]


@pytest.mark.parametrize("at", range(len(STREAM) + 1))
def test_a_stream_cut_at_any_byte_gives_the_same_events(at: int) -> None:
    splitter = EventSplitter(10_000)
    assert [*splitter.feed(STREAM[:at]), *splitter.feed(STREAM[at:])] == WHOLE


def test_a_stream_byte_by_byte_gives_the_same_events() -> None:
    splitter = EventSplitter(10_000)
    assert [e for i in range(len(STREAM)) for e in splitter.feed(STREAM[i : i + 1])] == WHOLE


def test_a_stream_beyond_its_cap_is_refused() -> None:
    splitter = EventSplitter(10)
    with pytest.raises(TooLarge):
        list(splitter.feed(b"data: more than ten bytes"))
