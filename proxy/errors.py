"""Every error a client or operator can see, and its OpenAI-shaped body.

SamplewiseError
|-- ConfigError            the configuration is wrong; the server does not start
|-- StoreError        503  the ledger cannot be reached: nothing is dispatched
`-- AnswerError            a request ends without an answer; carries the HTTP status
    |-- RequestError  400  the request is wrong (401, 404, 405, 413 by `status`)
    |   `-- Forbidden 403  the key may not do this
    |-- Elsewhere     409  another process works on this request, or has its answer
    |-- RateLimited   429  a key sends more requests than it may
    |-- Overloaded    503  there is no place for the request, nothing was reserved
    |-- BudgetExceeded 402 the first wave does not fit into a limit
    |-- NoVerifiedAnswer 422  nothing passed and the route wants an error then
    `-- UpstreamFailed 502 too few samples came back (504 when time ran out)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from samplewise.policies.price import nano_from_usd, usd

__all__ = [
    "AnswerError",
    "BudgetExceeded",
    "ConfigError",
    "Elsewhere",
    "Forbidden",
    "NoVerifiedAnswer",
    "Overloaded",
    "RateLimited",
    "RequestError",
    "SamplewiseError",
    "StoreError",
    "UpstreamFailed",
    "error_body",
    "error_bytes",
    "store_error",
]

_COST = "x-samplewise-cost-usd"


class SamplewiseError(Exception):
    """Base of all errors of this project."""


class ConfigError(SamplewiseError):
    """The configuration is wrong. The message names the file, the path and what to change."""


class StoreError(SamplewiseError):
    """The ledger cannot be read or written; the message says which store and why."""


class AnswerError(SamplewiseError):
    """A request ends without an answer. Holds all that the HTTP layer needs."""

    status = 500
    type = "server_error"
    code: str | None = None

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Keep the message for the client; it must hold no secrets and no internals."""
        super().__init__(message)
        self.message = message
        self.status = status or type(self).status
        self.code = code or type(self).code
        self.param = param
        self.headers = dict(headers or {})

    @property
    def cost_nano(self) -> int:
        """What the request has cost all the same, in nano-dollars; clients see it as a header."""
        return nano_from_usd(self.headers.get(_COST, "0"))

    @cost_nano.setter
    def cost_nano(self, nano: int) -> None:
        self.headers[_COST] = f"{usd(nano):.9f}"

    def costing(self, nano: int) -> AnswerError:
        """Return the same error with another cost; requests that joined one run share its own."""
        other = type(self).__new__(type(self), *self.args)
        vars(other).update(vars(self), headers=dict(self.headers))
        other.cost_nano = nano
        return other


class RequestError(AnswerError):
    """The request is wrong; `param` names the field."""

    status = 400
    type = "invalid_request_error"


class Forbidden(RequestError):
    """The key may not do this, whoever holds it."""

    status = 403
    type = "permission_error"


class Elsewhere(AnswerError):
    """Another process works on this request, or has its answer, and is at `address` if anywhere.

    What a client is told if it cannot be passed on to there.
    """

    status = 409
    type = "invalid_request_error"

    def __init__(self, address: str, kept_ms: int | None = None) -> None:
        """Keep the address; `kept_ms` is how long the answer is kept, None while it is made."""
        if kept_ms is None:
            said = "another server works on this request already; try again in a moment"
            code = "idempotency_running_elsewhere"
        else:
            said = (
                "another server has answered this request, and keeps the answer for"
                f" {max(1, round(kept_ms / 1000))} s: try again, there if you can; to have it"
                " answered and billed anew, use a new idempotency key"
            )
            code = "idempotency_finished_elsewhere"
        headers = {"retry-after": "1", "x-should-retry": "true"}
        super().__init__(said, code=code, headers=headers)
        self.address = address


class RateLimited(AnswerError):
    """A key sends more requests than it may; `retry-after` says when to come back."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class Overloaded(AnswerError):
    """The server, or every upstream of the route, has no place for the request now."""

    status = 503
    code = "overloaded"

    def __init__(self, why: str) -> None:
        """Say why, and when to come back."""
        super().__init__(f"overloaded: {why}; try again later", headers={"retry-after": "1"})


class BudgetExceeded(AnswerError):
    """A limit has no room for the smallest wave. Not retried by the SDKs."""

    status = 402
    type = "budget_exceeded"
    code = "budget_exceeded"


class NoVerifiedAnswer(AnswerError):
    """No sample passed its verifiers and the route is set to `on_unverified: error`."""

    status = 422
    type = "no_verified_answer"
    code = "no_verified_answer"


class UpstreamFailed(AnswerError):
    """Fewer good samples came back than the policy needs."""

    status = 502
    type = "upstream_error"
    code = "upstream_error"


def error_body(error: AnswerError) -> dict[str, Any]:
    """Return the OpenAI error object: message, type, param, code."""
    return {
        "error": {
            "message": error.message,
            "type": error.type,
            "param": error.param,
            "code": error.code,
        }
    }


def error_bytes(error: AnswerError) -> bytes:
    """Encode `error_body` as JSON."""
    return msgspec.json.encode(error_body(error))


def store_error(error: StoreError) -> AnswerError:
    """Return what a client sees of a ledger that cannot be reached: nothing was sent upstream."""
    return AnswerError(
        "the ledger cannot be reached, so nothing can be paid for; try again later",
        status=503,
        code="ledger_unavailable",
        headers={"retry-after": "5"},
    )
