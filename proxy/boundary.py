"""The one place where any exception is caught: at the edge to code that is not ours.

Verifier plug-ins, policies of an operator and provider libraries may raise anything. What they
raise becomes the error of that boundary; cancellation always passes.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

__all__ = ["boundary"]


class boundary:
    """Turns whatever its body raises into `wrap(error)`; exceptions of `known` types pass as is.

    A class, because a generator costs three times as much, and several stand around every sample.
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
