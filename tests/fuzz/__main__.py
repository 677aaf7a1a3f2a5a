"""Looks for bytes that break a law, led by coverage: `make fuzz`, by hand.

The first byte of an example says what the rest is: a request, or a stream in two pieces. Arguments
are libFuzzer's; one that names a file runs that example alone.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["samplewise.proxy"]):
    from tests.streams.laws import check_request, check_stream


def one(data: bytes) -> None:
    """Check one example."""
    kind, rest = data[:1], data[1:]
    if kind < b"\x80":
        check_stream(rest, [len(rest) * (kind or b"\0")[0] // 128])
    else:
        check_request(rest)


atheris.Setup(sys.argv, one)
atheris.Fuzz()
