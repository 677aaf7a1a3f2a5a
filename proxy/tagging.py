"""Tags that a request carries itself: by its `metadata`, where the configuration knows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from samplewise.proxy.wire import ChatRequest

__all__ = ["tags_of"]

_metadata = msgspec.json.Decoder(dict[str, Any])


def tags_of(request: ChatRequest, known: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Yield the tags whose entries all stand in the request's `metadata`. Pure.

    `known` has these entries by tag. What the request says besides is the upstream's to judge.
    """
    if not known:
        return
    try:
        said = _metadata.decode(request.fields.get("metadata", b"{}"))
    except (msgspec.DecodeError, RecursionError):
        return
    for tag, entries in known.items():
        if all(said.get(name) == value for name, value in entries.items()):
            yield tag
