"""Structured logs: one event a line, with the request id, never with a prompt or a key."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

import msgspec
import structlog

__all__ = ["catch_standard_logs", "set_up_logs", "where"]

# The only fields that are ever written. A new field is a decision, not an accident.
# `client` is the name of a client key, never its secret.
_FIELDS = frozenset(
    {
        "event", "level", "timestamp", "logger", "request_id", "route", "policy", "policy_name",
        "outcome", "stop_reason", "degraded", "drawn", "good", "cost_usd", "seconds", "status",
        "code", "sample", "backend", "reason", "verifier", "error", "worker", "address",
        "in_flight", "warning", "exception", "rows", "client", "key_id", "action", "actor",
        "routes", "abilities", "shed", "batch", "problems", "mirror", "mirror_request_id", "result",
        "served_outcome", "served_cost_usd", "samples", "records", "ids", "store", "path", "folder",
        "again_in_s",
    }
)  # fmt: skip


# Words of upstreams and verifiers, which may quote a request: for those who ask for them.
_DEBUG_FIELDS = frozenset({"detail"})
_MOST_FRAMES = 12


def set_up_logs(style: Literal["auto", "json", "console"], level: str) -> None:
    """Configure logging for this process: JSON lines, or aligned text at a terminal."""
    console = style == "console" or (style == "auto" and sys.stderr.isatty())
    renderer: Any = (
        structlog.dev.ConsoleRenderer()
        if console
        else structlog.processors.JSONRenderer(serializer=_json)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            only_known_fields(debug=level == "debug"),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=lambda *names: _Stderr(),
        cache_logger_on_first_use=False,
    )


def _json(fields: Any, **_: Any) -> str:
    return msgspec.json.encode(fields, enc_hook=repr).decode()


class _Stderr:
    """Writes lines to standard error; what cannot be written is lost, and fails no request."""

    def write(self, text: str) -> None:
        """Write one line."""
        with suppress(OSError, ValueError):
            # At once: two processes that share the stream must not mix their lines.
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    debug = info = warning = error = critical = write


def only_known_fields(*, debug: bool) -> Callable[[Any, str, Any], Any]:
    """Return a processor that drops every field that is not on the list."""
    known = _FIELDS | _DEBUG_FIELDS if debug else _FIELDS

    def keep(logger: Any, method: str, fields: Any) -> Any:
        return {name: value for name, value in fields.items() if name in known}

    return keep


def catch_standard_logs() -> None:
    """Write what libraries log with the standard module as events too. For whole processes only."""
    logging.basicConfig(handlers=[_Events()], level=logging.WARNING, force=True)
    logging.captureWarnings(True)


class _Events(logging.Handler):
    """Turns records into events: their first line, and where an error came from."""

    def emit(self, record: logging.LogRecord) -> None:
        fields = {"logger": record.name}
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            fields |= {"error": type(error).__name__, "exception": where(error)}
        event = record.getMessage().partition("\n")[0]
        structlog.get_logger().log(record.levelno, event, **fields)


def where(error: BaseException) -> str:
    """Return where an error was raised, innermost first, and by which others before it.

    Without its message and without those of its causes: they may hold what a client sent.
    """
    chain: list[BaseException] = []
    found: BaseException | None = error
    while found is not None and found not in chain:
        chain.append(found)
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
    return " | from ".join(_place(error) for error in chain)


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-_MOST_FRAMES:]
    places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in reversed(frames)]
    return " < ".join([type(error).__name__, *places])
