"""The one place where any exception is caught: at the edge to code that is not ours.

Verifier plug-ins, policies of an operator and provider libraries may raise anything. What they
raise becomes the error of that boundary; cancellation always passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["boundary"]


@contextmanager
def boundary(wrap: Callable[[Exception], Exception], *known: type[Exception]) -> Iterator[None]:
    """Turn whatever the body raises into `wrap(error)`; exceptions of `known` types pass as is."""
    try:
        yield
    except known:
        raise
    except Exception as error:
        raise wrap(error) from error
