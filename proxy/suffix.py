"""`route:8` as a model name: a route, and how many samples at most."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace

import msgspec

from samplewise.proxy.errors import RequestError
from samplewise.proxy.wire import ChatRequest

__all__ = ["without_suffix"]

_MOST_DIGITS = 9


def without_suffix(request: ChatRequest, routes: Container[str]) -> tuple[str, ChatRequest]:
    """Return the route that a request names, and the request with the samples of the suffix.

    What the request's body or headers say of samples goes before. A name of no route stays whole.

    Raises:
        RequestError: the suffix is 0.
    """
    name, colon, digits = request.model.rpartition(":")
    if not colon or name not in routes or not (digits.isascii() and digits.isdecimal()):
        return request.model, request
    if not digits.strip("0") or len(digits) > _MOST_DIGITS:
        shown = request.model[:100]
        raise RequestError(f"model: {shown!r} must end in a number of samples", param="model")
    if request.options.samples is not None:
        return name, request
    options = msgspec.structs.replace(request.options, samples=int(digits))
    return name, replace(request, options=options)
