"""A request to `/v1/responses` as a chat request: what each field becomes, and what cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from samplewise.proxy.api.fields import check_unset, given, read, wrong
from samplewise.proxy.api.responses_items import chat_messages, input_items
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
        "max_tool_calls", "include", "top_logprobs", "stream_options", "metadata", "store",
        "truncation",
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


class _Tool(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: msgspec.Raw = msgspec.Raw(b"null")
    strict: bool | None = None


class _Chosen(msgspec.Struct):
    name: str


class _Allowed(msgspec.Struct):
    tools: list[msgspec.Raw]
    mode: Literal["none", "auto", "required"] = "auto"


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
    """

    body: bytes
    echo: Mapping[str, Any]
    items: list[msgspec.Raw]
    store: bool = True
    warnings: tuple[str, ...] = ()


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
    tools = _tools(fields.get("tools"))
    echo: dict[str, Any] = {"instructions": instructions, "tools": tools, "tool_choice": "auto"}
    if tools:
        chat |= _tool_fields(fields, tools, echo)
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
    return Translated(text, echo, items, store, tuple(_warnings(fields)))


def _tools(raw: bytes | None) -> list[dict[str, Any]]:
    """Return the function tools as this surface writes them."""
    found = []
    for index, one in enumerate(given(raw, list[msgspec.Raw], "tools") or ()):
        path = f"tools.{index}"
        type_ = read(one, _Typed, path).type
        if type_ != "function":
            raise wrong(
                f"{path}.type",
                f"{type_[:60]!r} tools are run by OpenAI and cannot be here; only `function` is "
                "known: leave it out, or offer a function that does the same",
            )
        tool = read(one, _Tool, path)
        given(tool.parameters, dict[str, msgspec.Raw], f"{path}.parameters")
        found.append({"type": "function", **msgspec.structs.asdict(tool)})
    return found


def _tool_fields(
    fields: Mapping[str, bytes], tools: list[dict[str, Any]], echo: dict[str, Any]
) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    allowed: set[str] | None = None
    choice = fields.get("tool_choice", b"null")
    if choice != b"null":
        echo["tool_choice"] = msgspec.Raw(choice)
        said, allowed = _choice(choice, {tool["name"] for tool in tools})
        found["tool_choice"] = encode(said)
    parallel = given(fields.get("parallel_tool_calls"), bool, "parallel_tool_calls")
    if parallel is not None:
        echo["parallel_tool_calls"] = parallel
        found["parallel_tool_calls"] = encode(parallel)
    functions = [
        {"type": "function", "function": _function(tool)}
        for tool in tools
        if allowed is None or tool["name"] in allowed
    ]
    return {**found, "tools": encode(functions)}


def _function(tool: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in tool.items() if name != "type" and value is not None}
    if given["parameters"] == msgspec.Raw(b"null"):
        del given["parameters"]
    return given


def _choice(raw: bytes, names: set[str]) -> tuple[Any, set[str] | None]:
    """Return the chat's tool choice, and the names of the tools that may be called, None for all.

    A chat knows no list of allowed tools that every server understands: the others are left out.
    """
    if not raw.startswith(b"{"):
        said = read(raw, str, "tool_choice")
        if said not in ("none", "auto", "required"):
            raise wrong("tool_choice", f"{said[:60]!r} is not known; say none, auto or required")
        return said, None
    kind = read(raw, _Typed, "tool_choice").type
    if kind == "function":
        name = _named(raw, names, "tool_choice")
        return {"type": "function", "function": {"name": name}}, None
    if kind != "allowed_tools":
        known = "say function or allowed_tools"
        raise wrong("tool_choice.type", f"{kind[:60]!r} is not known here; {known}")
    allowed = read(raw, _Allowed, "tool_choice")
    listed = enumerate(allowed.tools)
    return allowed.mode, {_named(one, names, f"tool_choice.tools.{at}") for at, one in listed}


def _named(raw: bytes | msgspec.Raw, names: set[str], path: str) -> str:
    name = read(raw, _Chosen, path).name
    if name not in names:
        raise wrong(f"{path}.name", f"there is no tool {name[:60]!r} among `tools`")
    return name


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
