"""An answer as content blocks of `/v1/messages`, and as the events that build them up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from samplewise.proxy.api.deltas import CallDelta, delta_parts

__all__ = ["Blocks", "Event"]

Event = tuple[str, dict[str, Any]]
"""The type of an event and its other fields."""

_EMPTY: Mapping[str, Mapping[str, Any]] = {
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
    "text": {"type": "text", "text": ""},
}


@dataclass(slots=True)
class _Call:
    id: str
    name: str
    said: list[str] = field(default_factory=list)

    def block(self) -> dict[str, Any]:
        """Return the block. Arguments that are no object reach the tool as they are, to refuse."""
        text = "".join(self.said)
        try:
            input_ = msgspec.json.decode(text) if text else {}
        except (msgspec.DecodeError, RecursionError):
            input_ = None
        if not isinstance(input_, dict):
            input_ = {"arguments": text}
        return {"type": "tool_use", "id": self.id, "name": self.name, "input": input_}


class Blocks:
    """Content blocks as they grow. Every method yields the events of what it changes.

    One block is open at a time. The first call of a tool is written as it comes; what comes beside
    it, further calls above all, is kept until it has ended, because upstreams may mix them.
    """

    def __init__(self, name: str, *, thinking: bool) -> None:
        """Begin with nothing; ids of calls without one are made of `name`."""
        self.blocks: list[dict[str, Any]] = []
        self._name, self._thinking = name, thinking
        self._open = ""
        self._said: list[str] = []
        self._calls: dict[int, _Call] = {}
        self._later: list[str] = []
        self.refused = False

    @property
    def calls(self) -> bool:
        """Whether a tool is called."""
        return bool(self._calls)

    def take(self, delta: Mapping[str, Any]) -> Iterator[Event]:
        """Add a delta of a chat message."""
        for kind, said in delta_parts(delta):
            self.refused |= kind == "refusal"
            if kind == "call":
                yield from self._call(said)
            elif kind == "reasoning":
                if self._thinking and not self._calls:
                    yield from self._write("thinking", said)
            elif self._calls:
                self._later.append(said)
            else:
                # A refusal is text here, and a reason to stop.
                yield from self._write("text", said)

    def close(self) -> Iterator[Event]:
        """End all blocks."""
        first, *others = self._calls.values() or [None]
        yield from self._end(first)
        for call in others:
            if call is not None:
                yield from self._start(call)
                yield self._delta("input_json_delta", partial_json="".join(call.said))
                yield from self._end(call)
        if self._later:
            yield from self._write("text", "".join(self._later))
            yield from self._end()

    def _write(self, kind: str, text: str) -> Iterator[Event]:
        if self._open != kind:
            yield from self._end()
            self._open = kind
            yield "content_block_start", {"index": len(self.blocks), "content_block": _EMPTY[kind]}
        self._said.append(text)
        yield self._delta(f"{kind}_delta", **{kind: text})

    def _call(self, call: CallDelta) -> Iterator[Event]:
        number = len(self._calls) if call.number is None else call.number
        if number not in self._calls:
            made = f"toolu_{self._name}_{len(self._calls)}"
            self._calls[number] = _Call(call.id or made, call.name)
            if len(self._calls) == 1:
                yield from self._end()
                yield from self._start(self._calls[number])
        if call.arguments:
            known = self._calls[number]
            known.said.append(call.arguments)
            if known is next(iter(self._calls.values())):
                yield self._delta("input_json_delta", partial_json=call.arguments)

    def _start(self, call: _Call) -> Iterator[Event]:
        self._open = "tool_use"
        begun = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
        yield "content_block_start", {"index": len(self.blocks), "content_block": begun}

    def _delta(self, type_: str, **said: str) -> Event:
        delta = {"type": type_, **said}
        return "content_block_delta", {"index": len(self.blocks), "delta": delta}

    def _end(self, call: _Call | None = None) -> Iterator[Event]:
        if not self._open:
            return
        index = len(self.blocks)
        if self._open == "tool_use" and call is not None:
            self.blocks.append(call.block())
        else:
            self.blocks.append({**_EMPTY[self._open], self._open: "".join(self._said)})
        self._open, self._said = "", []
        yield "content_block_stop", {"index": index}
