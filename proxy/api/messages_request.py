"""A request to `/v1/messages` as a chat request: what each field becomes, and what cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from samplewise.proxy.api.fields import check_unset, given, read, wrong
from samplewise.proxy.api.messages_blocks import chat_messages
from samplewise.proxy.jsontext import encode, members, object_text

__all__ = ["NAMES", "Translated", "translate"]

NAMES: Mapping[str, str] = {
    "stop": "stop_sequences",
    "response_format": "output_config.format",
    "reasoning_effort": "output_config.effort",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
}
"""What fields of a chat request are called here."""

_ONE = "there is one answer; `samplewise.samples` says from how many it is chosen"
_CHATS_OWN = {
    **{
        name: f"belongs to chat completions; here it is called `{own}`"
        for name, own in {**NAMES, "max_completion_tokens": "max_tokens"}.items()
    },
    "functions": "belongs to chat completions; here there are `tools`",
    "logprobs": "a message has no place for log-probabilities; chat completions have",
    "n": _ONE,
    "best_of": _ONE,
}
_CANNOT = {
    "container": "there are no containers here; run what has to run on your side",
    "mcp_servers": "no MCP servers are called here; call them on your side, as tools",
}
# Read here, or of no meaning for a chat: not forwarded. Every other field goes on as it came.
_READ = frozenset(
    {
        *_CHATS_OWN, *_CANNOT, "messages", "system", "tools", "tool_choice", "thinking",
        "stop_sequences", "output_config", "metadata", "service_tier", "cache_control",
        "context_management", "diagnostics", "inference_geo", "speed", "user_profile_id",
        "workspace_id",
    }
)  # fmt: skip
_NO_EFFECT = {
    "context_management": "context_management: nothing is cleared or compacted here",
}


class _Typed(msgspec.Struct):
    type: str


class _Tool(msgspec.Struct):
    name: str
    input_schema: msgspec.Raw
    type: str | None = None
    description: str | None = None
    strict: bool | None = None


class _Choice(msgspec.Struct):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool = False


class _Thinking(msgspec.Struct):
    type: str
    display: str | None = None
    budget_tokens: int | None = None


class _Schema(msgspec.Struct):
    type: str
    schema: msgspec.Raw


class _OutputConfig(msgspec.Struct):
    effort: str | None = None
    format: _Schema | None = None


@dataclass(frozen=True, slots=True)
class Translated:
    """A request in both forms: `body` is the chat request.

    `thinking` says whether the client wants to see reasoning, `stops` are its stop sequences.
    """

    body: bytes
    thinking: bool = False
    stops: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def translate(body: bytes, *, counting: bool = False) -> Translated:
    """Return the chat request that asks the same; with `counting`, no answer is asked for.

    Raises:
        RequestError: something cannot be asked in a chat, or not here; says where it stands.
    """
    fields = members(body)
    check_unset(fields, _CHATS_OWN)
    check_unset(fields, _CANNOT)
    for name in ("messages",) if counting else ("messages", "max_tokens"):
        if fields.get(name, b"null") == b"null":
            raise wrong(name, "missing")
    chat: dict[str, bytes] = {
        name: value for name, value in fields.items() if name not in _READ and value != b"null"
    }
    chat["messages"] = encode(chat_messages(fields["messages"], fields.get("system")))
    tools = _tools(fields.get("tools"))
    if tools:
        chat["tools"] = encode(tools)
        chat |= _choice(fields.get("tool_choice"), {tool["function"]["name"] for tool in tools})
    stops = given(fields.get("stop_sequences"), list[str], "stop_sequences") or []
    if stops:
        chat["stop"] = encode(stops)
    chat |= _output(given(fields.get("output_config"), _OutputConfig, "output_config"))
    thinking, warnings = _thinking(given(fields.get("thinking"), _Thinking, "thinking"))
    warnings += [said for name, said in _NO_EFFECT.items() if fields.get(name, b"null") != b"null"]
    return Translated(object_text(chat.items()), thinking, tuple(stops), tuple(warnings))


def _tools(raw: bytes | None) -> list[dict[str, Any]]:
    found = []
    for index, one in enumerate(given(raw, list[msgspec.Raw], "tools") or ()):
        path = f"tools.{index}"
        type_ = (given(one, dict[str, msgspec.Raw], path) or {}).get("type", msgspec.Raw(b"null"))
        if given(type_, str, f"{path}.type") not in (None, "custom"):
            shown = bytes(type_).decode()[:60]
            raise wrong(
                f"{path}.type",
                f"{shown} is known to Anthropic's models alone; describe the tool by an "
                "input_schema, or leave it out",
            )
        tool = read(one, _Tool, path)
        read(tool.input_schema, dict[str, msgspec.Raw], f"{path}.input_schema")
        function: dict[str, Any] = {"name": tool.name, "parameters": tool.input_schema}
        if tool.description is not None:
            function["description"] = tool.description
        if tool.strict is not None:
            function["strict"] = tool.strict
        found.append({"type": "function", "function": function})
    return found


def _choice(raw: bytes | None, names: set[str]) -> dict[str, bytes]:
    choice = given(raw, _Choice, "tool_choice")
    if choice is None:
        return {}
    found: dict[str, bytes] = {}
    if choice.disable_parallel_tool_use:
        found["parallel_tool_calls"] = b"false"
    if choice.type == "tool":
        if choice.name not in names:
            shown = (choice.name or "")[:60]
            raise wrong("tool_choice.name", f"there is no tool {shown!r} among `tools`")
        said: Any = {"type": "function", "function": {"name": choice.name}}
    else:
        said = {"auto": "auto", "any": "required", "none": "none"}.get(choice.type)
    if said is None:
        known = "say auto, any, tool or none"
        raise wrong("tool_choice.type", f"{choice.type[:60]!r} is not known; {known}")
    return {**found, "tool_choice": encode(said)}


def _output(config: _OutputConfig | None) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    if config is None:
        return found
    if config.effort is not None:
        found["reasoning_effort"] = encode(config.effort)
    if config.format is not None:
        if config.format.type != "json_schema":
            shown = config.format.type[:60]
            raise wrong("output_config.format.type", f"{shown!r} is not known; say json_schema")
        schema = {"name": "answer", "schema": config.format.schema, "strict": True}
        found["response_format"] = encode({"type": "json_schema", "json_schema": schema})
    return found


def _thinking(thinking: _Thinking | None) -> tuple[bool, list[str]]:
    if thinking is None or thinking.type == "disabled":
        return False, []
    if thinking.type not in ("enabled", "adaptive", "between_tools"):
        known = "say enabled, adaptive, between_tools or disabled"
        raise wrong("thinking.type", f"{thinking.type[:60]!r} is not known; {known}")
    budget = "thinking.budget_tokens: the upstream decides how long it reasons"
    return thinking.display != "omitted", [] if thinking.budget_tokens is None else [budget]
