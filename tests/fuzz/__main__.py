"""Looks for bytes that break a law, led by coverage: `make fuzz`, by hand.

The first byte of an example says what the rest is: a request, or a stream in two pieces. Arguments
are libFuzzer's; one that names a file runs that example alone.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["samplewise.proxy"]):
    from tests.streams.laws import check_request, check_stream
from tests.streams.reading import RECORDED
from tests.wire.bodies import ask

# What it begins with, where it has learnt nothing yet.
SEEDS = {
    "stream": b"\x40" + RECORDED,
    "request": b"\x80" + ask(n="2", tools="[]", stream="true", samplewise='{"samples": 2}'),
}


def one(data: bytes) -> None:
    """Check one example."""
    kind, rest = data[:1], data[1:]
    if kind < b"\x80":
        check_stream(rest, [len(rest) * (kind or b"\0")[0] // 128])
    else:
        check_request(rest)


corpus = Path(sys.argv[-1])
if corpus.is_dir():
    for name, seed in SEEDS.items():
        (corpus / name).write_bytes(seed)
atheris.Setup(sys.argv, one)
atheris.Fuzz()
