"""The one place where any exception is caught: at the edge to code that is not ours.

Verifier plug-ins, policies of an operator and provider libraries may raise anything. What they
raise becomes the error of that boundary; cancellation always passes.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

import structlog

from samplewise.proxy.errors import AnswerError
from samplewise.proxy.logs import where

__all__ = ["boundary", "internal_error"]

_log = structlog.get_logger("samplewise.boundary")


class boundary:
    """Turns whatever its body raises into `wrap(error)`; exceptions of `known` types pass as is.

    A class, because a generator costs twice as much, and several stand around every sample.
    """

    __slots__ = ("_known", "_wrap")

    def __init__(self, wrap: Callable[[Exception], Exception], *known: type[Exception]) -> None:
        """Keep what to do with errors."""
        self._wrap, self._known = wrap, known

    def __enter__(self) -> None:
        """Begin the body."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the body."""
        if isinstance(error, Exception) and not isinstance(error, self._known):
            raise self._wrap(error) from error


def internal_error(error: Exception) -> AnswerError:
    """Return what a client is told of a defect, and log where it was raised."""
    _log.error("internal error", error=type(error).__name__, exception=where(error))
    return AnswerError("an internal error; the operator's log says which", code="internal_error")
