"""A request to `/v1/responses` as a chat request: what each field becomes, and what cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from samplewise.proxy.api.fields import check_unset, given, read, wrong
from samplewise.proxy.api.responses_items import chat_messages, input_items
from samplewise.proxy.api.responses_tools import Tools, tool_fields
from samplewise.proxy.jsontext import encode, members, object_text

__all__ = ["NAMES", "Translated", "opened", "translate"]

NAMES: Mapping[str, str] = {
    "messages": "input",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "verbosity": "text.verbosity",
}
"""What fields of a chat request are called here."""

_OWN = {
    **NAMES,
    "max_tokens": "max_output_tokens",
    "functions": "tools",
    "function_call": "tool_choice",
    "logprobs": "top_logprobs",
}
_ONE = "there is one answer; `samplewise.samples` says from how many it is chosen"
_CHATS_OWN = {
    **{
        name: f"belongs to chat completions; here it is called `{own}`"
        for name, own in _OWN.items()
    },
    "n": _ONE,
    "best_of": _ONE,
}
_CANNOT = {
    "conversation": "there are no conversations here; send what was said before in `input`",
    "background": "nothing runs in the background here; wait for the answer, or stream it",
    "prompt": "there are no stored prompts here; send the text in `instructions` and `input`",
    "context_management": "nothing is compacted here; shorten `input`",
}
# Read here, or of no meaning for a chat: not forwarded. Every other field goes on as it came.
_READ = frozenset(
    {
        *_CANNOT, *_CHATS_OWN, "input", "previous_response_id", "instructions", "tools",
        "tool_choice", "parallel_tool_calls", "text", "reasoning", "max_output_tokens",
        "max_tool_calls", "include", "top_logprobs", "stream_options", "metadata",
        "client_metadata", "store", "truncation",
    }
)  # fmt: skip
_INCLUDABLE = frozenset(
    {
        "code_interpreter_call.outputs", "computer_call_output.output.image_url",
        "file_search_call.results", "message.input_image.image_url",
        "message.output_text.logprobs", "reasoning.encrypted_content",
        "web_search_call.action.sources", "web_search_call.results",
    }
)  # fmt: skip
_LOGPROBS = "message.output_text.logprobs"


class _Typed(msgspec.Struct):
    type: str


class _Format(msgspec.Struct):
    name: str
    schema: msgspec.Raw
    description: str | None = None
    strict: bool | None = None


class _TextField(msgspec.Struct):
    format: msgspec.Raw = msgspec.Raw(b"null")
    verbosity: str | None = None


class _Reasoning(msgspec.Struct):
    effort: str | None = None


@dataclass(frozen=True, slots=True)
class Translated:
    """A request in both forms: `body` is the chat request, `echo` what the response repeats.

    `items` is the whole conversation so far, `store` whether the client lets it be kept.
    `grouped` has the namespace and the name of every tool that is in one, by its name in the chat.
    """

    body: bytes
    echo: Mapping[str, Any]
    items: list[msgspec.Raw]
    store: bool = True
    warnings: tuple[str, ...] = ()
    grouped: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def opened(body: bytes) -> tuple[dict[str, bytes], list[msgspec.Raw], str | None]:
    """Return the fields of a request, its input as items, and the response that it goes on from.

    Raises:
        RequestError: it cannot be read, or asks for what cannot be done here.
    """
    fields = members(body)
    check_unset(fields, _CHATS_OWN)
    check_unset(fields, _CANNOT)
    if "input" not in fields:
        raise wrong("input", "missing")
    name = given(fields.get("previous_response_id"), str, "previous_response_id")
    return fields, input_items(fields["input"]), name


def translate(fields: Mapping[str, bytes], items: list[msgspec.Raw], before: int = 0) -> Translated:
    """Return the chat request that asks the same.

    `items` is the whole conversation, the first `before` of them from a kept response.

    Raises:
        RequestError: something cannot be asked in a chat; says where it stands.
    """
    instructions = given(fields.get("instructions"), str, "instructions")
    chat: dict[str, bytes] = {
        name: value for name, value in fields.items() if name not in _READ and value != b"null"
    }
    chat["messages"] = encode(chat_messages(items, instructions, before))
    tools = Tools(given(fields.get("tools"), list[msgspec.Raw], "tools") or ())
    echo: dict[str, Any] = {"instructions": instructions, "tools": tools.shown}
    echo["tool_choice"] = "auto"
    if tools.functions:
        chat |= tool_fields(fields, tools.functions, echo)
    chat |= _text_fields(fields.get("text"), echo)
    chat |= _logprob_fields(fields)
    effort = _effort(fields.get("reasoning"), echo)
    if effort is not None:
        chat["reasoning_effort"] = encode(effort)
    if fields.get("max_output_tokens", b"null") != b"null":
        chat["max_completion_tokens"] = fields["max_output_tokens"]
    for name in ("max_output_tokens", "max_tool_calls", "metadata", "previous_response_id"):
        echo[name] = msgspec.Raw(fields.get(name, b"null"))
    store = given(fields.get("store"), bool, "store") is not False
    text = object_text(chat.items())
    return Translated(text, echo, items, store, tuple(_warnings(fields)), tools.grouped)


def _text_fields(raw: bytes | None, echo: dict[str, Any]) -> dict[str, bytes]:
    text = given(raw, _TextField, "text") or _TextField()
    found: dict[str, bytes] = {}
    echo["text"] = {"format": {"type": "text"}}
    if text.verbosity is not None:
        found["verbosity"] = encode(text.verbosity)
        echo["text"]["verbosity"] = text.verbosity
    if bytes(text.format) == b"null":
        return found
    kind = read(text.format, _Typed, "text.format").type
    if kind not in ("text", "json_object", "json_schema"):
        known = "say text, json_object or json_schema"
        raise wrong("text.format.type", f"{kind[:60]!r} is not known; {known}")
    if kind == "text":
        return found
    format_: dict[str, Any] = {"type": kind}
    echo["text"]["format"] = {"type": kind}
    if kind == "json_schema":
        said = msgspec.structs.asdict(read(text.format, _Format, "text.format"))
        format_["json_schema"] = {k: v for k, v in said.items() if v is not None}
        echo["text"]["format"] |= {**said, "strict": bool(said["strict"])}
    return {**found, "response_format": encode(format_)}


def _logprob_fields(fields: Mapping[str, bytes]) -> dict[str, bytes]:
    included = given(fields.get("include"), list[str], "include") or []
    for index, name in enumerate(included):
        if name not in _INCLUDABLE:
            raise wrong(f"include.{index}", f"{name[:60]!r} is not known")
    top = given(fields.get("top_logprobs"), int, "top_logprobs")
    if _LOGPROBS not in included and not top:
        return {}
    return {"logprobs": b"true"} | ({"top_logprobs": encode(top)} if top else {})


def _effort(raw: bytes | None, echo: dict[str, Any]) -> str | None:
    effort = (given(raw, _Reasoning, "reasoning") or _Reasoning()).effort
    # There are no summaries: what comes is the reasoning itself, where the upstream shows it.
    echo["reasoning"] = {"effort": effort, "summary": None}
    return effort


def _warnings(fields: Mapping[str, bytes]) -> list[str]:
    if fields.get("truncation", b"null") in (b"null", b'"disabled"'):
        return []
    return ["truncation: nothing is cut from the input here; it is answered as `disabled`"]
