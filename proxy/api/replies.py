"""What all surfaces share: JSON replies, errors in OpenAI's shape, request bodies with a cap."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from samplewise.proxy.errors import AnswerError, RequestError, error_bytes

__all__ = ["OPEN_JSON", "error_reply", "json_reply", "read_body", "wait_gone"]

# Of a body that begins with blank lines: a proxy that keeps them back makes them useless.
OPEN_JSON: Mapping[str, str] = {"content-type": "application/json", "x-accel-buffering": "no"}


def json_reply(
    body: bytes, headers: Mapping[str, str] | None = None, status: int = 200
) -> Response:
    """Return a ready JSON reply."""
    return Response(body, status, dict(headers or {}), "application/json")


def error_reply(error: AnswerError, request_id: str) -> Response:
    """Return an error with its status and headers."""
    headers = {"x-request-id": request_id, **error.headers}
    return json_reply(error_bytes(error), headers, error.status)


async def read_body(request: Request, most_bytes: int) -> bytes:
    """Read a request body, at most `most_bytes`, counted while it comes in.

    Raises:
        RequestError: the body is too large (413) or compressed.
        AnswerError: the client left before it was sent (499).
    """
    if request.headers.get("content-encoding", "identity") != "identity":
        raise RequestError("content-encoding: send the body uncompressed", param="content-encoding")
    parts: list[bytes] = []
    size = 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > most_bytes:
                raise RequestError(
                    f"the body is larger than {most_bytes} bytes", status=413, code="body_too_large"
                )
            parts.append(part)
    except ClientDisconnect:
        raise AnswerError("the client left", status=499, code="client_gone") from None
    return b"".join(parts)


async def wait_gone(request: Request, leave: Callable[[], object]) -> None:
    """Call `leave` when the client closes its connection; the body must have been read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    leave()
