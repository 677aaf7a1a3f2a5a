"""Errors in the shape that the clients of a path read: OpenAI's, or Anthropic's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from samplewise.proxy.api.replies import error_reply, json_reply
from samplewise.proxy.errors import AnswerError
from samplewise.proxy.jsontext import encode

__all__ = ["message_error", "message_error_body", "path_error"]

_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    502: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def path_error(path: str, error: AnswerError, request_id: str) -> Response:
    """Return an error for a request that no surface has read."""
    reply = message_error if path.startswith("/v1/messages") else error_reply
    return reply(error, request_id)


def message_error(error: AnswerError, request_id: str) -> Response:
    """Return an error in Anthropic's shape with its status and headers."""
    fields = {"x-request-id": request_id, "request-id": request_id, **error.headers}
    return json_reply(encode(message_error_body(error, request_id)), fields, error.status)


def message_error_body(error: AnswerError, request_id: str) -> dict[str, Any]:
    """Return Anthropic's error object; `code` and `param` in it are ours, as on other surfaces."""
    said = {
        "type": _TYPES.get(error.status, "invalid_request_error"),
        "message": error.message,
        "code": error.code,
        "param": error.param,
    }
    return {"type": "error", "error": said, "request_id": request_id}
