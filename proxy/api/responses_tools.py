"""Tools of a request to `/v1/responses` as functions of a chat."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any, Literal

import msgspec

from samplewise.proxy.api.fields import given, read, wrong
from samplewise.proxy.api.responses_items import chat_name
from samplewise.proxy.jsontext import encode

__all__ = ["Tools", "tool_fields"]


class _Typed(msgspec.Struct):
    type: str


class _Tool(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: msgspec.Raw = msgspec.Raw(b"null")
    strict: bool | None = None


class _Namespace(msgspec.Struct):
    name: str
    tools: list[msgspec.Raw]


class _Chosen(msgspec.Struct):
    name: str
    namespace: str | None = None


class _Allowed(msgspec.Struct):
    tools: list[msgspec.Raw]
    mode: Literal["none", "auto", "required"] = "auto"


class Tools:
    """The tools of a request: as this surface shows them, and as functions of a chat by name.

    `grouped` has the namespace and own name of those that are in one, by their name in the chat.
    """

    def __init__(self, raws: Iterable[msgspec.Raw]) -> None:
        """Read them; raises RequestError with the place of one that cannot be had here."""
        self.shown: list[Any] = []
        self.functions: dict[str, dict[str, Any]] = {}
        self.grouped: dict[str, tuple[str, str]] = {}
        for index, raw in enumerate(raws):
            path = f"tools.{index}"
            if read(raw, _Typed, path).type == "namespace":
                self._group(read(raw, _Namespace, path), path)
                self.shown.append(raw)
            else:
                tool = _function_tool(raw, path)
                self._add(tool.name, tool, path)
                self.shown.append({"type": "function", **msgspec.structs.asdict(tool)})

    def _group(self, group: _Namespace, path: str) -> None:
        for index, raw in enumerate(group.tools):
            place = f"{path}.tools.{index}"
            tool = _function_tool(raw, place)
            name = chat_name(group.name, tool.name)
            self._add(name, tool, place)
            self.grouped[name] = (group.name, tool.name)

    def _add(self, name: str, tool: _Tool, path: str) -> None:
        if name in self.functions:
            raise wrong(f"{path}.name", f"there are two tools {name[:60]!r}")
        said = {k: v for k, v in msgspec.structs.asdict(tool).items() if v is not None}
        if bytes(tool.parameters) == b"null":
            del said["parameters"]
        self.functions[name] = {**said, "name": name}


def _function_tool(raw: msgspec.Raw, path: str) -> _Tool:
    type_ = read(raw, _Typed, path).type
    if type_ != "function":
        raise wrong(
            f"{path}.type",
            f"{type_[:60]!r} tools are run by OpenAI and cannot be here; only `function` is known, "
            "also in a `namespace`: switch it off, or offer a function that does the same",
        )
    tool = read(raw, _Tool, path)
    given(tool.parameters, dict[str, msgspec.Raw], f"{path}.parameters")
    return tool


def tool_fields(
    fields: Mapping[str, bytes], tools: Mapping[str, dict[str, Any]], echo: dict[str, Any]
) -> dict[str, bytes]:
    """Return the fields of a chat that say which tools there are and which may be called.

    What the response repeats of that goes into `echo`.

    Raises:
        RequestError: a choice is not known, or names a tool that is not there.
    """
    found: dict[str, bytes] = {}
    allowed: set[str] | None = None
    choice = fields.get("tool_choice", b"null")
    if choice != b"null":
        echo["tool_choice"] = msgspec.Raw(choice)
        said, allowed = _choice(choice, tools)
        found["tool_choice"] = encode(said)
    parallel = given(fields.get("parallel_tool_calls"), bool, "parallel_tool_calls")
    if parallel is not None:
        echo["parallel_tool_calls"] = parallel
        found["parallel_tool_calls"] = encode(parallel)
    functions = [
        {"type": "function", "function": function}
        for name, function in tools.items()
        if allowed is None or name in allowed
    ]
    return {**found, "tools": encode(functions)}


def _choice(raw: bytes, names: Container[str]) -> tuple[Any, set[str] | None]:
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


def _named(raw: bytes | msgspec.Raw, names: Container[str], path: str) -> str:
    chosen = read(raw, _Chosen, path)
    name = chat_name(chosen.namespace, chosen.name)
    if name not in names:
        raise wrong(f"{path}.name", f"there is no tool {name[:60]!r} among `tools`")
    return name
