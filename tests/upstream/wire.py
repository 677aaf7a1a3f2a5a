"""Chat completions as JSON objects: choices, chunks, usage and errors."""

from __future__ import annotations

from typing import Any

import msgspec

from tests.upstream.plan import Choice, Part, Token
from tests.upstream.script import Fault

__all__ = [
    "DONE",
    "JSON",
    "choice_object",
    "delta",
    "encode",
    "error",
    "event",
    "fault_body",
    "first_delta",
    "logprobs",
    "usage",
]

DONE = b"data: [DONE]\n\n"
JSON = dict[str, Any]

encode = msgspec.json.encode


def event(body: Any) -> bytes:
    """Return one server-sent event."""
    return b"data: %b\n\n" % encode(body)


def error(message: str, status: int, param: str | None = None, code: str | None = None) -> JSON:
    """Return an OpenAI error body."""
    kinds = {401: "authentication_error", 429: "rate_limit_error"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def fault_body(fault: Fault) -> bytes:
    """Return the body that a fault brings: its own, or an error that names it."""
    if isinstance(fault.body, str):
        return fault.body.encode()
    scripted = error("scripted fault", fault.status, code="scripted")
    return encode(scripted if fault.body is None else fault.body)


def usage(prompt: int, completion: int, reasoning: int = 0) -> JSON:
    """Return true usage; reasoning tokens are part of the completion's."""
    body: JSON = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    if reasoning:
        body["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return body


def choice_object(index: int, choice: Choice, call_id: str, top: int | None) -> JSON:
    """Return a whole choice; `top` is the wanted top_logprobs, None for no log-probabilities."""
    return {
        "index": index,
        "message": _message(index, choice, call_id),
        "logprobs": None if top is None else logprobs(choice.tokens, top),
        "finish_reason": choice.finish_reason,
        "stop_reason": choice.stop_reason,
    } | choice.answer.extra


def _message(index: int, choice: Choice, call_id: str) -> JSON:
    answer = choice.answer
    shown: dict[tuple[Part, int], str] = {}
    for token in choice.tokens:
        key = (token.part, token.tool)
        shown[key] = shown.get(key, "") + token.shown
    no_content = bool(answer.tool_calls or answer.refusal) and not answer.text
    body: JSON = {
        "role": "assistant",
        "content": None if no_content else shown.get(("content", 0), ""),
        "refusal": shown.get(("refusal", 0)),
    }
    if answer.reasoning_content:
        body["reasoning_content"] = shown.get(("reasoning_content", 0), "")
    calls = [
        _tool_call(index, choice, at, call_id)
        | {"function": {"name": call.name, "arguments": text}}
        for at, call in enumerate(answer.tool_calls)
        if (text := shown.get(("tool", at))) is not None
    ]
    if calls:
        body["tool_calls"] = calls
    return body | answer.message_extra


def _tool_call(index: int, choice: Choice, at: int, call_id: str) -> JSON:
    own = choice.answer.tool_calls[at].id
    return {"id": own or f"call_{call_id}_{index}_{at}", "type": "function"}


def first_delta(choice: Choice) -> JSON:
    """Return the delta that opens a choice, before any token."""
    return {"role": "assistant", "content": "", **choice.answer.message_extra}


def delta(index: int, choice: Choice, start: int, end: int, call_id: str) -> JSON:
    """Return what tokens `start` to `end` of a choice add to its message.

    The first piece of a tool call has its id and name.
    """
    body: JSON = {}
    tools: dict[int, JSON] = {}
    for token in choice.tokens[start:end]:
        if token.part != "tool":
            body[token.part] = body.get(token.part, "") + token.shown
            continue
        if token.tool not in tools:
            tools[token.tool] = {"index": token.tool, "function": {"arguments": ""}}
        tools[token.tool]["function"]["arguments"] += token.shown
    for at, call in tools.items():
        if _first_of_tool(choice.tokens, at) >= start:
            call |= _tool_call(index, choice, at, call_id)
            call["function"] = {"name": choice.answer.tool_calls[at].name, **call["function"]}
    if tools:
        body["tool_calls"] = list(tools.values())
    return body


def _first_of_tool(tokens: list[Token], tool: int) -> int:
    return next(
        at for at, token in enumerate(tokens) if token.part == "tool" and token.tool == tool
    )


def logprobs(tokens: list[Token], top: int) -> JSON:
    """Return the log-probabilities of tokens."""
    return {"content": [_logprob(token, top) for token in tokens], "refusal": None}


def _logprob(token: Token, top: int) -> JSON:
    others = token.others or (
        (token.text, token.logprob),
        *((f"other{rank}", token.logprob - rank) for rank in range(1, top)),
    )
    return _entry(token.text, token.logprob) | {
        "top_logprobs": [_entry(text, logprob) for text, logprob in others[:top]]
    }


def _entry(text: str, logprob: float) -> JSON:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}
