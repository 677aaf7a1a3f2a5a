"""The one place where any exception is caught: at the edge to code that is not ours.

Verifier plug-ins, policies of an operator and provider libraries may raise anything. What they
raise becomes the error of that boundary; cancellation always passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from samplewise.proxy.errors import AnswerError
from samplewise.proxy.logs import where

__all__ = ["boundary", "internal_error"]

_log = structlog.get_logger("samplewise.boundary")


@contextmanager
def boundary(wrap: Callable[[Exception], Exception], *known: type[Exception]) -> Iterator[None]:
    """Turn whatever the body raises into `wrap(error)`; exceptions of `known` types pass as is."""
    try:
        yield
    except known:
        raise
    except Exception as error:
        raise wrap(error) from error


def internal_error(error: Exception) -> AnswerError:
    """Return what a client is told of a defect, and log where it was raised."""
    _log.error("internal error", error=type(error).__name__, exception=where(error))
    return AnswerError("an internal error; the operator's log says which", code="internal_error")
