"""Structured logs: one event a line, with the request id, never with a prompt or a key."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any, Literal

import structlog

__all__ = ["set_up_logs"]

# The only fields that are ever written. A new field is a decision, not an accident.
_FIELDS = frozenset(
    {
        "event", "level", "timestamp", "logger", "request_id", "route", "policy", "outcome",
        "stop_reason", "degraded", "drawn", "good", "cost_usd", "seconds", "status", "code",
        "sample", "backend", "reason", "detail", "verifier", "error", "worker", "address",
        "in_flight", "warning", "exception",
    }
)  # fmt: skip


def set_up_logs(style: Literal["auto", "json", "console"], level: str) -> None:
    """Configure logging for this process: JSON lines, or aligned text at a terminal."""
    console = style == "console" or (style == "auto" and sys.stderr.isatty())
    renderer: Any = (
        structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            only_known_fields(),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def only_known_fields() -> Callable[[Any, str, Any], Any]:
    """Return a processor that drops every field that is not on the list."""

    def keep(logger: Any, method: str, fields: Any) -> Any:
        return {name: value for name, value in fields.items() if name in _FIELDS}

    return keep
