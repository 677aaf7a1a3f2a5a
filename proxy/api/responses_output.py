"""An answer as output items of `/v1/responses`, and as the events that build them up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from samplewise.proxy.api.deltas import CallDelta, delta_parts

__all__ = ["Event", "Output"]

Event = tuple[str, dict[str, Any]]
"""The type of an event and its fields, without its number in the stream."""

_ADDED, _DONE = "response.content_part.added", "response.content_part.done"


class Output:
    """Output items as they grow. Every method yields the events of what it changes.

    Reasoning and messages end where the next item begins; calls end with the answer, because
    upstreams may write several at a time.
    """

    def __init__(self, name: str, grouped: Mapping[str, tuple[str, str]]) -> None:
        """Begin with nothing; ids of items are made of `name`.

        `grouped` has the namespace and own name of tools that are in one, by their name in a chat.
        """
        self.items: list[dict[str, Any]] = []
        self._name, self._grouped = name, grouped
        self._ids = Counter[str]()
        self._open: set[int] = set()
        self._calls: dict[int, int] = {}
        # What the open part of each open item says so far.
        self._said: dict[int, list[str]] = {}

    def take(self, delta: Mapping[str, Any], logprobs: Any = None) -> Iterator[Event]:
        """Add a delta of a chat message."""
        for kind, said in delta_parts(delta):
            if kind == "reasoning":
                yield from self._reasoning(said)
            elif kind == "call":
                yield from self._call(said)
            else:
                yield from self._message(kind, said, _logprobs(logprobs))

    def close(self, *, cut: bool) -> Iterator[Event]:
        """End all items; with `cut` the last one is incomplete."""
        last = len(self.items) - 1
        for index in sorted(self._open):
            yield from self._end(index, "incomplete" if cut and index == last else "completed")

    def _reasoning(self, text: str) -> Iterator[Event]:
        if not self._on("reasoning"):
            yield from self._add({"type": "reasoning", "id": self._id("rs"), "summary": []})
        index = len(self.items) - 1
        yield from self._part(index, {"type": "reasoning_text", "text": ""})
        self._said[index].append(text)
        yield "response.reasoning_text.delta", {**self._place(index), "delta": text}

    def _message(self, kind: str, text: str, logprobs: list[Any]) -> Iterator[Event]:
        if not self._on("message"):
            yield from self._add({"type": "message", "id": self._id("msg"), "role": "assistant"})
        index = len(self.items) - 1
        if kind == "refusal":
            yield from self._part(index, {"type": "refusal", "refusal": ""})
            self._said[index].append(text)
            yield "response.refusal.delta", {**self._place(index), "delta": text}
            return
        new = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        yield from self._part(index, new)
        self._said[index].append(text)
        self.items[index]["content"][-1]["logprobs"] += logprobs
        said = {"delta": text, "logprobs": logprobs}
        yield "response.output_text.delta", {**self._place(index), **said}

    def _call(self, call: CallDelta) -> Iterator[Event]:
        number = len(self._calls) if call.number is None else call.number
        if number not in self._calls:
            item: dict[str, Any] = {"type": "function_call", "id": self._id("fc")}
            item["call_id"] = call.id or self._id("call")
            item |= {"name": call.name, "arguments": ""}
            if item["name"] in self._grouped:
                item["namespace"], item["name"] = self._grouped[item["name"]]
            yield from self._add(item)
            self._calls[number] = len(self.items) - 1
            self._said[self._calls[number]] = []
        if call.arguments:
            index = self._calls[number]
            self._said[index].append(call.arguments)
            said = {"item_id": self.items[index]["id"], "output_index": index}
            yield "response.function_call_arguments.delta", {**said, "delta": call.arguments}

    def _id(self, prefix: str) -> str:
        # Counted by kind: lines of progress are reasoning that a kept response does not have.
        self._ids[prefix] += 1
        return f"{prefix}_{self._name}_{self._ids[prefix]}"

    def _on(self, type_: str) -> bool:
        """Say whether the last item is of a type and still open."""
        last = len(self.items) - 1
        return last in self._open and self.items[last]["type"] == type_

    def _add(self, item: dict[str, Any]) -> Iterator[Event]:
        for index in sorted(self._open - set(self._calls.values())):
            yield from self._end(index, "completed")
        content: dict[str, Any] = {} if item["type"] == "function_call" else {"content": []}
        self.items.append({**item, **content, "status": "in_progress"})
        index = len(self.items) - 1
        self._open.add(index)
        yield "response.output_item.added", {"output_index": index, "item": self._copy(index)}

    def _part(self, index: int, part: dict[str, Any]) -> Iterator[Event]:
        """Open a part of an item unless the last one is of its type."""
        parts = self.items[index]["content"]
        if parts and parts[-1]["type"] == part["type"]:
            return
        if parts:
            yield from self._end_part(index)
        parts.append(part)
        self._said[index] = []
        yield _ADDED, {**self._place(index), "part": dict(part)}

    def _end_part(self, index: int) -> Iterator[Event]:
        part, place = self.items[index]["content"][-1], self._place(index)
        text = "".join(self._said.pop(index))
        if part["type"] == "refusal":
            part["refusal"] = text
            yield "response.refusal.done", {**place, "refusal": text}
            yield _DONE, {**place, "part": dict(part)}
            return
        part["text"] = text
        said = {name: part[name] for name in ("text", "logprobs") if name in part}
        yield f"response.{part['type']}.done", {**place, **said}
        yield _DONE, {**place, "part": dict(part)}

    def _end(self, index: int, status: str) -> Iterator[Event]:
        item = self.items[index]
        item["status"] = status
        self._open.discard(index)
        if item["type"] == "function_call":
            said = {"item_id": item["id"], "output_index": index, "name": item["name"]}
            said["arguments"] = item["arguments"] = "".join(self._said.pop(index))
            yield "response.function_call_arguments.done", said
        else:
            yield from self._end_part(index)
        yield "response.output_item.done", {"output_index": index, "item": self._copy(index)}

    def _place(self, index: int) -> dict[str, Any]:
        item = self.items[index]
        place = {"item_id": item["id"], "output_index": index}
        return {**place, "content_index": len(item["content"]) - 1}

    def _copy(self, index: int) -> dict[str, Any]:
        # Events are written later than they are made.
        item = self.items[index]
        if "content" not in item:
            return dict(item)
        return {**item, "content": [dict(part) for part in item["content"]]}


def _logprobs(found: Any) -> list[Any]:
    """Return the log-probabilities of text with every field that this surface promises."""
    tokens = found.get("content") if isinstance(found, dict) else None
    tokens = tokens if isinstance(tokens, list) else []
    return [_logprob(token) for token in tokens if isinstance(token, dict)]


def _logprob(token: Mapping[str, Any]) -> dict[str, Any]:
    others = token.get("top_logprobs")
    others = [one for one in others if isinstance(one, dict)] if isinstance(others, list) else []
    return {**_entry(token), "top_logprobs": [_entry(one) for one in others]}


def _entry(token: Mapping[str, Any]) -> dict[str, Any]:
    text = str(token.get("token", ""))
    logprob, given = token.get("logprob"), token.get("bytes")
    bytes_ = given if isinstance(given, list) else [None]
    return {
        "token": text,
        "logprob": logprob if isinstance(logprob, int | float) else 0.0,
        "bytes": bytes_ if all(type(one) is int for one in bytes_) else list(text.encode()),
    }
