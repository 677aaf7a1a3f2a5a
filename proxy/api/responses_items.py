"""Input items of `/v1/responses` as chat messages."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from samplewise.proxy.api.fields import read, wrong
from samplewise.proxy.jsontext import encode

__all__ = ["chat_messages", "chat_name", "input_items", "referred"]

Message = dict[str, Any]

_HEADS = ("system", "developer")

_STORED = (
    "no such item is kept here; send the item itself (clients do so with `store: false`), or let "
    "responses be kept by `records: {text: true}`"
)
_UNKNOWN = (
    "is not supported here; known are message, function_call, function_call_output and reasoning"
)


class _Kind(msgspec.Struct):
    type: str | None = None
    role: str | None = None


class _Named(msgspec.Struct):
    id: str


class _Message(msgspec.Struct):
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[msgspec.Raw]


class _Call(msgspec.Struct):
    call_id: str
    name: str
    arguments: str
    namespace: str | None = None


class _CallOutput(msgspec.Struct):
    call_id: str
    output: str | list[msgspec.Raw]


class _Text(msgspec.Struct):
    text: str


class _Refusal(msgspec.Struct):
    refusal: str


class _Image(msgspec.Struct):
    image_url: str | None = None
    detail: str | None = None


class _File(msgspec.Struct):
    file_data: str | None = None
    filename: str | None = None


class _Audio(msgspec.Struct):
    input_audio: dict[str, Any]


class _Reasoning(msgspec.Struct):
    content: list[_Text] | None = None


def chat_name(namespace: str | None, name: str) -> str:
    """Return what a tool is called in a chat, which knows no namespaces."""
    return name if namespace is None else f"{namespace}__{name}"


def input_items(raw: bytes) -> list[msgspec.Raw]:
    """Return `input` as items; a text is what the user says.

    Raises:
        RequestError: it is neither a text nor a list.
    """
    if raw.startswith(b'"'):
        turn = {"type": "message", "role": "user", "content": read(raw, str, "input")}
        return [msgspec.Raw(encode(turn))]
    return read(raw, list[msgspec.Raw], "input")


def referred(items: Sequence[msgspec.Raw]) -> dict[int, str]:
    """Return the names of items that stand for others, by their place.

    Raises:
        RequestError: an item is no object, or such a one names nothing.
    """
    found = {}
    for index, raw in enumerate(items):
        # Most have no such word in them, and need not be read twice.
        if b"item_reference" in bytes(raw):
            kind = read(raw, _Kind, f"input.{index}")
            if kind.type == "item_reference":
                found[index] = read(raw, _Named, f"input.{index}").id
    return found


def chat_messages(
    items: Sequence[msgspec.Raw], instructions: str | None, before: int = 0
) -> list[Message]:
    """Return the chat messages that say what items and `instructions` say.

    `before` is how many items are not in this request. Instructions and what systems and developers
    say before all else are one message: chat templates know only one, and only at the beginning.
    Reasoning goes with what the assistant says next.

    Raises:
        RequestError: an item or a part of one cannot be said in a chat; says where it stands.
    """
    found = list(_Reader(before).messages(items))
    if instructions is not None:
        found.insert(0, {"role": "system", "content": instructions})
    heads = list(itertools.takewhile(lambda turn: turn["role"] in _HEADS, found))
    if len(heads) < 2:
        return found
    role = "system" if any(head["role"] == "system" for head in heads) else "developer"
    text = "\n\n".join(head["content"] for head in heads)
    return [{"role": role, "content": text}, *found[len(heads) :]]


class _Reader:
    """Reads items in order; knows what earlier ones said."""

    def __init__(self, before: int) -> None:
        self._before = before
        self._reasoning = ""
        self._called: set[str] = set()
        self._turn: Message | None = None

    def messages(self, items: Sequence[msgspec.Raw]) -> Iterator[Message]:
        """Yield the messages. Text and calls that follow each other are one turn."""
        for index, raw in enumerate(items, -self._before):
            path = f"input.{index}"
            kind = read(raw, _Kind, path)
            type_ = kind.type or ("message" if kind.role is not None else "")
            if type_ == "reasoning":
                yield from self._reasoned(read(raw, _Reasoning, path))
            elif type_ == "function_call":
                self._call(read(raw, _Call, path))
            elif type_ == "function_call_output":
                yield from self._end_turn()
                yield self._output(read(raw, _CallOutput, path), path)
            elif type_ == "message":
                message = read(raw, _Message, path)
                if message.role == "assistant":
                    yield from self._said(message.content, f"{path}.content")
                else:
                    yield from self._end_turn()
                    yield _plain(message, f"{path}.content")
            elif type_ == "item_reference":
                raise wrong(path, _STORED)
            else:
                raise wrong(f"{path}.type", f"{type_[:60]!r} {_UNKNOWN}")
        yield from self._end_turn()

    def _end_turn(self) -> Iterator[Message]:
        if self._turn is not None:
            yield self._turn
            self._turn = None

    def _reasoned(self, reasoning: _Reasoning) -> Iterator[Message]:
        self._reasoning += "".join(part.text for part in reasoning.content or ())
        if self._turn is not None and "tool_calls" in self._turn:
            # Between calls of one turn, whose outputs are still to come.
            self._with_reasoning(self._turn)
        else:
            yield from self._end_turn()

    def _said(self, content: str | list[msgspec.Raw], path: str) -> Iterator[Message]:
        if not isinstance(content, str):
            content = "".join(part["text"] for part in _parts(content, path, _SAID))
        if self._turn is not None and "tool_calls" in self._turn:
            self._turn["content"] = (self._turn["content"] or "") + content
            return
        yield from self._end_turn()
        self._turn = self._with_reasoning({"role": "assistant", "content": content})

    def _with_reasoning(self, message: Message) -> Message:
        if self._reasoning:
            message["reasoning_content"] = message.get("reasoning_content", "") + self._reasoning
            self._reasoning = ""
        return message

    def _call(self, call: _Call) -> None:
        if self._turn is None:
            self._turn = self._with_reasoning({"role": "assistant", "content": None})
        name = chat_name(call.namespace, call.name)
        function = {"name": name, "arguments": call.arguments}
        calls = self._turn.setdefault("tool_calls", [])
        calls.append({"id": call.call_id, "type": "function", "function": function})
        self._called.add(call.call_id)

    def _output(self, output: _CallOutput, path: str) -> Message:
        if output.call_id not in self._called:
            shown = output.call_id[:60]
            raise wrong(f"{path}.call_id", f"no function_call {shown!r} comes before its output")
        content = _content(output.output, f"{path}.output", _ASKED)
        return {"role": "tool", "tool_call_id": output.call_id, "content": content}


def _plain(message: _Message, path: str) -> Message:
    """Return a turn of somebody else than the assistant; systems and developers only write."""
    if message.role == "user":
        return {"role": "user", "content": _content(message.content, path, _ASKED)}
    content = message.content
    if not isinstance(content, str):
        content = "\n\n".join(part["text"] for part in _parts(content, path, _TOLD))
    return {"role": message.role, "content": content}


def _content(content: str | list[msgspec.Raw], path: str, known: Mapping[str, Any]) -> Any:
    if isinstance(content, str):
        return content
    parts = _parts(content, path, known)
    # The plainest form that says the same is the one that every server knows.
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _parts(
    content: list[msgspec.Raw], path: str, known: Mapping[str, Callable[..., Message]]
) -> list[Message]:
    found = []
    for index, raw in enumerate(content):
        place = f"{path}.{index}"
        type_ = read(raw, _Kind, place).type or ""
        if type_ not in known:
            raise wrong(
                f"{place}.type", f"{type_[:60]!r} cannot stand here; known are {', '.join(known)}"
            )
        found.append(known[type_](raw, place))
    return found


def _text(raw: msgspec.Raw, path: str) -> Message:
    return {"type": "text", "text": read(raw, _Text, path).text}


def _refusal(raw: msgspec.Raw, path: str) -> Message:
    return {"type": "text", "text": read(raw, _Refusal, path).refusal}


def _image(raw: msgspec.Raw, path: str) -> Message:
    image = read(raw, _Image, path)
    if image.image_url is None:
        raise wrong(path, "has no image_url; images by file_id cannot be read here")
    url = {"url": image.image_url}
    return {
        "type": "image_url",
        "image_url": url | ({"detail": image.detail} if image.detail else {}),
    }


def _file(raw: msgspec.Raw, path: str) -> Message:
    file = read(raw, _File, path)
    if file.file_data is None:
        raise wrong(path, "has no file_data; files by file_id or file_url cannot be read here")
    name = {"filename": file.filename} if file.filename else {}
    return {"type": "file", "file": {"file_data": file.file_data, **name}}


def _audio(raw: msgspec.Raw, path: str) -> Message:
    return {"type": "input_audio", "input_audio": read(raw, _Audio, path).input_audio}


_TOLD = {"input_text": _text}
_ASKED = {**_TOLD, "input_image": _image, "input_file": _file, "input_audio": _audio}
_SAID = {"output_text": _text, "refusal": _refusal}
