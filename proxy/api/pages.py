"""Long lists in pages, as OpenAI's API has them: `limit` and `after`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from samplewise.proxy.errors import RequestError

__all__ = ["not_listed", "page", "page_size"]

T = TypeVar("T")

_USUAL = 100
_MOST = 1_000


def page(
    items: Sequence[T], query: Mapping[str, str], name: Callable[[T], str]
) -> tuple[Sequence[T], bool]:
    """Return items, at most `limit`, behind the one named by `after`; and whether there are more.

    Raises:
        RequestError: `limit` is no number from 1 to 1,000, or `after` names none of them.
    """
    most = page_size(query)
    start = 0
    if "after" in query:
        after = query["after"]
        start = next((n for n, item in enumerate(items, 1) if name(item) == after), 0)
        if not start:
            raise not_listed(after)
    return items[start : start + most], len(items) > start + most


def page_size(query: Mapping[str, str]) -> int:
    """Return the `limit` of a query.

    Raises:
        RequestError: it is no number from 1 to 1,000.
    """
    text = query.get("limit", str(_USUAL))
    most = int(text) if text.isascii() and text.isdecimal() and len(text) < 9 else 0
    if not 1 <= most <= _MOST:
        raise RequestError(f"limit: must be 1 to {_MOST}, got {text[:60]!r}", param="limit")
    return most


def not_listed(after: str) -> RequestError:
    """Say that a list has no such item to go on behind."""
    return RequestError(f"after: there is no {after[:60]!r} in this list", param="after")
