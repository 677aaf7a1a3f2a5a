"""Content blocks of `/v1/messages` as chat messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import msgspec

from samplewise.proxy.api.fields import read, wrong

__all__ = ["chat_messages"]

Message = dict[str, Any]
_Known = Mapping[str, Callable[[msgspec.Raw, str], list[Message]]]

# Claude Code puts a line of its own there that differs from request to request: no server could
# keep the prompt's beginning in its cache.
_BILLING = "x-anthropic-billing-header:"


class _Turn(msgspec.Struct):
    role: Literal["user", "assistant", "system"]
    content: str | list[msgspec.Raw]


class _Typed(msgspec.Struct):
    type: str


class _Text(msgspec.Struct):
    text: str


class _Thinking(msgspec.Struct):
    thinking: str


class _Use(msgspec.Struct):
    id: str
    name: str
    input: msgspec.Raw


class _Result(msgspec.Struct):
    tool_use_id: str
    content: str | list[msgspec.Raw] = ""


class _Citations(msgspec.Struct):
    enabled: bool = False


class _Source(msgspec.Struct):
    source: msgspec.Raw
    title: str | None = None
    context: str | None = None
    citations: _Citations | None = None


class _Data(msgspec.Struct):
    media_type: str
    data: str


class _Url(msgspec.Struct):
    url: str


class _Content(msgspec.Struct):
    content: str | list[msgspec.Raw]


def chat_messages(turns: bytes, system: bytes | None) -> list[Message]:
    """Return the chat messages that say what `messages` and `system` say.

    Raises:
        RequestError: a turn or a block of one cannot be said in a chat; says where it stands.
    """
    first = [] if system is None or system == b"null" else _system(system)
    given = read(turns, list[msgspec.Raw], "messages")
    found = list(_messages(given))
    if found and found[-1]["role"] == "assistant":
        rule = "an answer cannot be begun here; the last turn must be the user's"
        raise wrong(f"messages.{len(given) - 1}", rule)
    return [{"role": "system", "content": "\n\n".join(first)}, *found] if first else found


def _system(raw: bytes) -> list[str]:
    if raw.startswith(b'"'):
        texts = [read(raw, str, "system")]
    else:
        texts = _texts(read(raw, list[msgspec.Raw], "system"), "system")
    return [text for text in texts if not text.startswith(_BILLING)]


def _messages(turns: list[msgspec.Raw]) -> Iterator[Message]:
    used: set[str] = set()
    for index, raw in enumerate(turns):
        path = f"messages.{index}"
        turn = read(raw, _Turn, path)
        path = f"{path}.content"
        if not turn.content:
            raise wrong(path, "must not be empty")
        if turn.role == "assistant":
            yield _said(turn.content, path, used)
        elif turn.role == "user":
            yield from _asked(turn.content, path, used)
        elif isinstance(turn.content, str):
            yield {"role": "system", "content": turn.content}
        else:
            yield {"role": "system", "content": "\n\n".join(_texts(turn.content, path))}


def _asked(content: str | list[msgspec.Raw], path: str, used: set[str]) -> Iterator[Message]:
    """Yield a user's turn: results of tools first, each a message of its own."""
    if isinstance(content, str):
        yield {"role": "user", "content": content}
        return
    parts: list[Message] = []
    for index, raw in enumerate(content):
        place = f"{path}.{index}"
        if read(raw, _Typed, place).type != "tool_result":
            parts += _parts([raw], path, _SHOWN, index)
            continue
        if parts:
            raise wrong(place, "tool_result blocks come before all others of their turn")
        result = read(raw, _Result, place)
        if result.tool_use_id not in used:
            shown = result.tool_use_id[:60]
            raise wrong(f"{place}.tool_use_id", f"no tool_use {shown!r} comes before its result")
        inner = _joined(_listed(result.content, f"{place}.content", _SHOWN))
        yield {"role": "tool", "tool_call_id": result.tool_use_id, "content": inner}
    if parts:
        yield {"role": "user", "content": _joined(parts)}


def _said(content: str | list[msgspec.Raw], path: str, used: set[str]) -> Message:
    """Return an assistant's turn; what it thought goes with it."""
    if isinstance(content, str):
        return {"role": "assistant", "content": content}
    text, thought = "", ""
    calls: list[Message] = []
    for index, raw in enumerate(content):
        place = f"{path}.{index}"
        type_ = read(raw, _Typed, place).type
        if type_ == "text":
            text += read(raw, _Text, place).text
        elif type_ == "thinking":
            thought += read(raw, _Thinking, place).thinking
        elif type_ == "tool_use":
            use = read(raw, _Use, place)
            read(use.input, dict[str, msgspec.Raw], f"{place}.input")
            function = {"name": use.name, "arguments": bytes(use.input).decode()}
            calls.append({"id": use.id, "type": "function", "function": function})
            used.add(use.id)
        elif type_ != "redacted_thinking":  # which nobody but its maker can read
            raise _strange(place, type_, ("text", "thinking", "redacted_thinking", "tool_use"))
    message: Message = {"role": "assistant", "content": text if text or not calls else None}
    if thought:
        message["reasoning_content"] = thought
    return message | ({"tool_calls": calls} if calls else {})


def _listed(content: str | list[msgspec.Raw], path: str, known: _Known) -> list[Message]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return _parts(content, path, known)


def _parts(content: list[msgspec.Raw], path: str, known: _Known, start: int = 0) -> list[Message]:
    found = []
    for index, raw in enumerate(content, start):
        place = f"{path}.{index}"
        type_ = read(raw, _Typed, place).type
        if type_ not in known:
            raise _strange(place, type_, known)
        found += known[type_](raw, place)
    return found


def _texts(content: list[msgspec.Raw], path: str) -> list[str]:
    return [part["text"] for part in _parts(content, path, {"text": _text})]


def _joined(parts: list[Message]) -> Any:
    # The plainest form that says the same is the one that every server knows.
    if not parts:
        return ""
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _strange(place: str, type_: str, known: Any) -> Exception:
    return wrong(f"{place}.type", f"{type_[:60]!r} cannot stand here; known are {', '.join(known)}")


def _text(raw: msgspec.Raw, path: str) -> list[Message]:
    return [{"type": "text", "text": read(raw, _Text, path).text}]


def _image(raw: msgspec.Raw, path: str) -> list[Message]:
    source, path = read(raw, _Source, path).source, f"{path}.source"
    type_ = read(source, _Typed, path).type
    if type_ == "base64":
        url = _data_url(read(source, _Data, path))
    elif type_ == "url":
        url = read(source, _Url, path).url
    else:
        raise _strange(path, type_, ("base64", "url"))
    return [{"type": "image_url", "image_url": {"url": url}}]


def _document(raw: msgspec.Raw, path: str) -> list[Message]:
    document, path = read(raw, _Source, path), f"{path}.source"
    if document.citations is not None and document.citations.enabled:
        raise wrong(path.removesuffix("source") + "citations", "no citations can be given here")
    type_ = read(document.source, _Typed, path).type
    about = [said for said in (document.title, document.context) if said]
    if type_ == "base64":
        name = document.title or "document.pdf"
        file = {"filename": name, "file_data": _data_url(read(document.source, _Data, path))}
        return [{"type": "file", "file": file}]
    if type_ == "text":
        text = "\n\n".join([*about, read(document.source, _Data, path).data])
        return [{"type": "text", "text": text}]
    if type_ != "content":
        raise _strange(path, type_, ("base64", "text", "content"))
    inner = read(document.source, _Content, path).content
    titles = [{"type": "text", "text": said} for said in about]
    return [*titles, *_listed(inner, f"{path}.content", {"text": _text, "image": _image})]


def _data_url(data: _Data) -> str:
    return f"data:{data.media_type};base64,{data.data}"


_SHOWN: _Known = {"text": _text, "image": _image, "document": _document}
