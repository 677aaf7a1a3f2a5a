"""`GET /openapi.json`: what is served, as OpenAPI 3.1. Of bodies, what Samplewise itself reads.

Fields that it does not name are taken too, and go upstream: no schema here is closed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from samplewise import __version__
from samplewise.proxy.jsontext import encode

__all__ = ["openapi"]

_TEXT: dict[str, Any] = {"type": "string"}
_OBJECTS: dict[str, Any] = {"type": "array", "items": {"type": "object"}}
_OPTIONS = {"$ref": "#/components/schemas/SamplewiseOptions"}
_COUNT = {"type": "integer", "minimum": 1}
_MODEL = {"model": {**_TEXT, "description": "a route; `route:8` asks for at most 8 samples"}}
_ASKING = {**_MODEL, "stream": {"type": ["boolean", "null"]}, "samplewise": _OPTIONS}


def _body(required: Iterable[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": properties}


_CHAT = _body(
    ("model", "messages"),
    **_ASKING,
    messages={**_OBJECTS, "minItems": 1},
    n={"type": ["integer", "null"], "minimum": 1, "maximum": 128},
    max_tokens={"type": ["integer", "null"], "minimum": 1},
    max_completion_tokens={"type": ["integer", "null"], "minimum": 1},
    temperature={"type": ["number", "null"]},
    tools=_OBJECTS,
)
_MESSAGES = _body(("model", "messages"), **_MODEL, messages={**_OBJECTS, "minItems": 1})
_PROMPT = {"anyOf": [_TEXT, {"type": "array", "items": {"type": "integer"}, "minItems": 1}]}
_BODIES = {
    "ChatRequest": _CHAT,
    "CompletionRequest": _body(("model", "prompt"), **_ASKING, prompt=_PROMPT),
    "EmbeddingRequest": _body(("model", "input"), **_MODEL, input=_PROMPT),
    "ResponsesRequest": _body(
        ("model", "input"), **_ASKING, input={"anyOf": [_TEXT, {**_OBJECTS, "minItems": 1}]}
    ),
    "MessagesRequest": _body(
        ("model", "messages", "max_tokens"),
        **_ASKING,
        messages={**_OBJECTS, "minItems": 1},
        max_tokens=_COUNT,
    ),
    "CountRequest": _MESSAGES,
    "BatchRequest": _body(
        ("input_file_id", "endpoint", "completion_window"),
        input_file_id=_TEXT,
        endpoint={
            "enum": [
                f"/v1/{it}" for it in ("chat/completions", "completions", "responses", "embeddings")
            ]
        },
        completion_window={"const": "24h"},
    ),
    "KeyRequest": {"type": "object"},
}
_ERROR = _body(
    ("error",),
    error=_body(
        ("message", "type", "param", "code"),
        message=_TEXT,
        type=_TEXT,
        param={"type": ["string", "null"]},
        code={"type": ["string", "null"]},
    ),
)
_ANTHROPIC_ERROR = _body(
    ("type", "error", "request_id"),
    type={"const": "error"},
    error=_body(("type", "message"), type=_TEXT, message=_TEXT),
    request_id=_TEXT,
)
_SAMPLEWISE = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "policy": _TEXT,
        "samples": _COUNT,
        "max_cost_usd": {"type": "number", "exclusiveMinimum": 0},
        "deadline_s": {"type": "number", "exclusiveMinimum": 0},
        "reference": {**_TEXT, "maxLength": 100_000},
        "item": {"type": "object"},
        "tests": {"type": "object"},
        "dry_run": {"type": "boolean"},
        "return": {"type": "array", "items": {"enum": ["candidates", "verdicts", "votes"]}},
    },
}
_STATUSES = {
    400: "the request is wrong; `param` names the field",
    401: "a key is missing or wrong",
    402: "a limit has no room for it",
    403: "the key may not do this",
    404: "there is no such thing",
    405: "the path does not have this method",
    409: "it stands against something that is there or on its way",
    413: "the body is too large",
    422: "nothing passed its verifiers, or the upstream refuses it",
    429: "too many requests, here or upstream",
    500: "a defect",
    502: "too few samples came back",
    503: "there is no place, or no ledger",
    504: "the time was over",
}
_READING = (400, 401, 404, 405, 500, 503)
_CHANGING = (*_READING, 403, 409, 413)
_BUYING = (*_CHANGING, 402, 422, 429, 502, 504)
_KINDS = {
    "json": {"application/json": {"schema": {"type": "object"}}},
    "stream": {
        "application/json": {"schema": {"type": "object"}},
        "text/event-stream": {"schema": _TEXT},
    },
    "text": {"text/plain": {"schema": _TEXT}},
    "bytes": {"application/octet-stream": {}},
    "report": {"application/json": {"schema": {"type": "object"}}, "text/csv": {"schema": _TEXT}},
}
# Method and path, what it does, its body, what comes back, statuses of errors.
_SERVED: tuple[tuple[str, str, str, str, tuple[int, ...]], ...] = (
    ("POST /v1/chat/completions", "Answer a chat", "ChatRequest", "stream", _BUYING),
    ("POST /v1/completions", "Continue prompts", "CompletionRequest", "stream", _BUYING),
    ("POST /v1/embeddings", "Embed texts", "EmbeddingRequest", "json", _BUYING),
    (
        "POST /v1/responses",
        "Answer in the form of Responses",
        "ResponsesRequest",
        "stream",
        _BUYING,
    ),
    ("GET /v1/responses/{response_id}", "Show a kept response", "", "stream", _READING),
    ("DELETE /v1/responses/{response_id}", "Delete a kept response", "", "json", _READING),
    ("POST /v1/responses/{response_id}/cancel", "Not served", "", "json", _READING),
    ("GET /v1/responses/{response_id}/input_items", "Not served", "", "json", _READING),
    ("POST /v1/messages", "Answer in the form of Messages", "MessagesRequest", "stream", _BUYING),
    ("POST /v1/messages/count_tokens", "Count tokens", "CountRequest", "json", _BUYING),
    ("GET /v1/files", "List files", "", "json", _READING),
    ("POST /v1/files", "Take a file in", "", "json", _CHANGING),
    ("GET /v1/files/{id}", "Show a file", "", "json", _READING),
    ("DELETE /v1/files/{id}", "Delete a file", "", "json", (*_READING, 409)),
    ("GET /v1/files/{id}/content", "Return a file's content", "", "bytes", _READING),
    ("GET /v1/batches", "List batches", "", "json", _READING),
    ("POST /v1/batches", "Take a batch in", "BatchRequest", "json", _CHANGING),
    ("GET /v1/batches/{id}", "Show a batch", "", "json", _READING),
    ("POST /v1/batches/{id}/cancel", "Begin no more lines of it", "", "json", (*_READING, 409)),
    (
        "POST /v1/samplewise/estimate",
        "Say what a chat could cost",
        "ChatRequest",
        "json",
        _CHANGING,
    ),
    ("GET /v1/samplewise/budgets", "Show limits and balances", "", "json", _READING),
    ("GET /v1/samplewise/spend", "Show what was spent", "", "report", _READING),
    ("GET /v1/samplewise/requests/{request_id}", "Explain a request", "", "json", _READING),
    ("GET /v1/samplewise/keys", "List keys", "", "json", _READING),
    ("POST /v1/samplewise/keys", "Make a key", "KeyRequest", "json", _CHANGING),
    ("GET /v1/samplewise/keys/{name}", "Show a key", "", "json", _READING),
    ("PATCH /v1/samplewise/keys/{name}", "Change a key", "KeyRequest", "json", _CHANGING),
    ("DELETE /v1/samplewise/keys/{name}", "Revoke a key", "", "json", _CHANGING),
    (
        "POST /v1/samplewise/keys/{name}/rotate",
        "Give it a new secret",
        "KeyRequest",
        "json",
        _CHANGING,
    ),
    ("GET /v1/models", "List routes as models", "", "json", (401, 405, 500)),
    ("GET /v1/models/{name}", "Show a route as a model", "", "json", (401, 404, 405, 500)),
    ("GET /livez", "Say that the process works", "", "text", (405,)),
    ("GET /readyz", "Say whether requests are welcome", "", "text", (405,)),
    ("GET /metrics", "Prometheus metrics", "", "text", (405,)),
    ("GET /openapi.json", "This document", "", "json", (405,)),
)


def openapi() -> bytes:
    """Return the document as JSON text."""
    paths: dict[str, dict[str, Any]] = {}
    for served, does, body, answer, errors in _SERVED:
        method, _, path = served.partition(" ")
        paths.setdefault(path, {})[method.lower()] = _operation(path, does, body, answer, errors)
    schemas = {**_BODIES, "SamplewiseOptions": _SAMPLEWISE}
    schemas |= {"Error": _ERROR, "AnthropicError": _ANTHROPIC_ERROR}
    keys = {"key": {"type": "http", "scheme": "bearer"}}
    return encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "Samplewise", "version": __version__},
            "paths": paths,
            "components": {"schemas": schemas, "securitySchemes": keys},
            "security": [{}, {"key": []}],
        }
    )


def _operation(
    path: str, does: str, body: str, answer: str, errors: tuple[int, ...]
) -> dict[str, Any]:
    shape = "AnthropicError" if path.startswith("/v1/messages") else "Error"
    failed = {"application/json": {"schema": {"$ref": f"#/components/schemas/{shape}"}}}
    made = "201" if does == "Make a key" else "200"
    responses: dict[str, Any] = {made: {"description": does, "content": _KINDS[answer]}}
    for status in sorted(errors):
        responses[str(status)] = {"description": _STATUSES[status], "content": failed}
    if path == "/readyz":
        responses["503"] = {"description": "not now", "content": _KINDS["text"]}
    found: dict[str, Any] = {"summary": does, "responses": responses}
    if body:
        schema = {"$ref": f"#/components/schemas/{body}"}
        found["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
    elif does == "Take a file in":
        form = _body(
            ("file", "purpose"), file={**_TEXT, "format": "binary"}, purpose={"const": "batch"}
        )
        found["requestBody"] = {
            "required": True,
            "content": {"multipart/form-data": {"schema": form}},
        }
    names = re.findall(r"{(\w+)}", path)
    if names:
        found["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {**_TEXT, "minLength": 1}}
            for name in names
        ]
    return found
