"""Keys and times as people and HTTP clients write and read them. No secret is ever shown."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from samplewise.proxy.keys.base import ClientKey, KeyRefused
from samplewise.proxy.keys.limits import limits_of, plain

__all__ = ["fields", "parse_duration", "parse_expiry", "parse_time", "shown_time"]

_DURATION = re.compile(r"([1-9]\d{0,4})([smhd])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_duration(text: str) -> int | None:
    """Return a duration such as 90d, 12h, 30m or 10s in milliseconds; None if it is none."""
    found = _DURATION.fullmatch(text)
    return None if found is None else int(found[1]) * _SECONDS[found[2]] * 1000


def parse_time(text: str) -> int | None:
    """Return a date or time as UTC milliseconds, rounded up; without a zone it is UTC."""
    try:
        when = datetime.fromisoformat(text)
        when = when.replace(tzinfo=when.tzinfo or UTC)
        return -((_EPOCH - when) // timedelta(milliseconds=1))
    except (ValueError, OverflowError):
        return None


def parse_expiry(text: str, now_ms: int) -> int:
    """Return when a key ends, as UTC milliseconds, from a date, a time, or a duration from now.

    Raises:
        KeyRefused: it is none of these, or in the past.
    """
    duration = parse_duration(text)
    expires = parse_time(text) if duration is None else now_ms + duration
    if expires is None:
        raise KeyRefused(
            f"expires: must be a date, a time or a duration such as 90d, got {text[:60]!r}"
        )
    if expires <= now_ms:
        raise KeyRefused(f"expires: is in the past, got {text[:60]!r}")
    return expires


def shown_time(ms: int | None) -> str | None:
    """Return UTC milliseconds as text, None for none."""
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC).isoformat()[:19] + "Z"


def fields(key: ClientKey, now_ms: int) -> dict[str, Any]:
    """Return all that is shown of a key, as JSON has it."""
    terms = key.terms
    return {
        "id": key.id,
        "name": key.name,
        "state": key.state(now_ms),
        "source": "config" if key.configured else "store",
        "routes": terms.routes,
        "limits": plain(limits_of(terms)),
        "max_samples": terms.max_samples,
        "tests": terms.tests,
        "tags": terms.tags,
        "created_at": shown_time(key.created_at or None),
        "expires_at": shown_time(terms.expires_at),
        "revoked_at": shown_time(key.revoked_at),
        "previous_secret_until": shown_time(key.previous_until),
    }
