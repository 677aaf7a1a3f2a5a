"""Upstream answers as samples: reading choices, whole or from stream deltas, and usage."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from samplewise.policies.price import Usage
from samplewise.proxy.backends.base import ALL, Done, Reading, Trace
from samplewise.proxy.backends.confidence import Meter
from samplewise.proxy.jsontext import encode, members_of, object_text
from samplewise.verifiers.base import Ended, LogprobSummary, ToolCall

__all__ = ["Assembly", "ProtocolError", "read_choice", "read_usage"]

_FINISH = {
    "stop": Ended.EOS,
    "length": Ended.LENGTH,
    # vLLM ends a sample that loops with a reason of its own: not a whole answer.
    "repetition": Ended.LENGTH,
    "tool_calls": Ended.TOOL_CALL,
    "function_call": Ended.TOOL_CALL,
    "content_filter": Ended.REFUSAL,
}
_MOST_TOKENS = 10**9
# What msgspec raises for bytes that are no JSON, or not what is looked for in it.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class ProtocolError(Exception):
    """The upstream's answer is not what the protocol says; the message says what is wrong."""


class _Function(msgspec.Struct):
    name: str = ""
    arguments: msgspec.Raw = msgspec.Raw(b'""')


class _ToolCall(msgspec.Struct):
    id: str | None = ""
    function: _Function | None = None


class _Message(msgspec.Struct):
    content: str | list[dict[str, Any]] | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None
    function_call: _Function | None = None


class _Choice(msgspec.Struct):
    message: _Message | None = None
    text: str | None = None
    index: int = 0
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    logprobs: msgspec.Raw = msgspec.Raw(b"null")


class _Top(msgspec.Struct):
    logprob: float


class _Logprob(msgspec.Struct):
    logprob: float
    top_logprobs: msgspec.Raw = msgspec.Raw(b"null")


class _Logprobs(msgspec.Struct):
    """Of a chat in `content`; of a completed text in `token_logprobs`, None for the first token."""

    content: list[_Logprob] | None = None
    token_logprobs: list[float | None] | None = None


_choice = msgspec.json.Decoder(_Choice)
_logprobs = msgspec.json.Decoder(_Logprobs | None)
_top = msgspec.json.Decoder(list[_Top] | None)
_PLAIN = Reading()


def read_choice(
    raw: bytes, tokens: int = 0, number: int | None = None, reading: Reading = _PLAIN
) -> Done:
    """Read one choice of an unstreamed answer, of a chat or a completed text.

    `number` is used instead of its own index.

    Raises:
        ProtocolError: when it is not a choice object, or the upstream says that it broke.
    """
    try:
        return _done(raw, tokens, number, reading)
    except _UNREADABLE as error:
        raise ProtocolError(f"choice cannot be read: {error}") from None


def _done(raw: bytes, tokens: int, number: int | None, reading: Reading) -> Done:
    choice = _choice.decode(raw)
    logprobs = _summary(choice.logprobs, reading)
    message = choice.message
    if message is None:
        if choice.text is None:
            raise ProtocolError("choice cannot be read: it has neither a message nor a text")
        message = _Message(choice.text)
    calls = _tool_calls(message)
    ended, stop = _ended(choice, message, bool(calls))
    return Done(
        choice=choice.index if number is None else number,
        raw=raw if reading.keep == ALL else _trimmed(raw, choice.logprobs, reading.keep),
        text=_text(message),
        ended=ended,
        tokens=tokens or (logprobs.tokens if logprobs else 0),
        stop=stop,
        tool_calls=calls,
        logprobs=logprobs,
    )


def _ended(choice: _Choice, message: _Message, calls: bool) -> tuple[Ended, str]:
    if choice.finish_reason in ("error", "abort"):
        raise ProtocolError(f"upstream ended the choice with {choice.finish_reason!r}")
    if message.refusal:
        return Ended.REFUSAL, ""
    ended = _FINISH.get(choice.finish_reason or "stop", Ended.EOS)
    if ended is Ended.EOS and calls:
        return Ended.TOOL_CALL, ""
    if ended is Ended.EOS and isinstance(choice.stop_reason, str):
        return Ended.STOP_STRING, choice.stop_reason
    return ended, ""


def _text(message: _Message) -> str:
    if isinstance(message.content, list):
        return "".join(str(part.get("text", "")) for part in message.content)
    return message.content or ""


def _tool_calls(message: _Message) -> tuple[ToolCall, ...]:
    calls = [
        ToolCall(call.function.name, _arguments(call.function), call.id or "")
        for call in message.tool_calls or []
        if call.function is not None
    ]
    if message.function_call is not None:
        calls.append(ToolCall(message.function_call.name, _arguments(message.function_call)))
    return tuple(calls)


def _arguments(function: _Function) -> str:
    text = bytes(function.arguments)
    # A JSON text in a string, as the protocol says; some servers send the object itself.
    return msgspec.json.decode(text, type=str) if text.startswith(b'"') else text.decode()


def _summary(raw: msgspec.Raw, reading: Reading) -> LogprobSummary | None:
    logprobs = _logprobs.decode(raw)
    if logprobs is None:
        return None
    items = logprobs.content or []
    values = [item.logprob for item in items]
    values += [value for value in logprobs.token_logprobs or [] if value is not None]
    if not values:
        return None
    meter = Meter(reading.window)
    for item in items if reading.top else ():
        meter.add([token.logprob for token in _top.decode(item.top_logprobs) or ()])
    margin, confidence = meter.found()
    return LogprobSummary(len(values), sum(values) / len(values), min(values), margin, confidence)


def _trimmed(raw: bytes, logprobs: msgspec.Raw, keep: int | None) -> bytes:
    """Return a choice with no more log-probabilities than the client asked for."""
    fields = members_of(raw)
    found = None if keep is None else msgspec.json.decode(logprobs)
    if found is None:
        fields.pop("logprobs", None)
    else:
        content = [_cut_to(item, keep or 0) for item in found.get("content") or ()]
        fields["logprobs"] = encode({**found, "content": content})
    return object_text(fields.items())


def _cut_to(item: dict[str, Any], keep: int) -> dict[str, Any]:
    top = item.get("top_logprobs")
    return {**item, "top_logprobs": top[:keep] if isinstance(top, list) else []}


class _Details(msgspec.Struct):
    cached_tokens: int | None = 0
    reasoning_tokens: int | None = 0


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None


_usage = msgspec.json.Decoder(_Usage)


def read_usage(raw: bytes | None, *, said: bool = False) -> tuple[Usage | None, str]:
    """Read a usage object; None with a reason when it is absent or cannot be true.

    `said` tells that the answer holds something, so that no completion token at all is not true.
    """
    if raw is None or raw == b"null":
        return None, "upstream sent no usage"
    try:
        found = _usage.decode(raw)
    except _UNREADABLE:
        return None, "upstream sent a usage object that cannot be read"
    prompt_details = found.prompt_tokens_details or _Details()
    completion_details = found.completion_tokens_details or _Details()
    usage = Usage(
        found.prompt_tokens,
        prompt_details.cached_tokens or 0,
        found.completion_tokens,
        completion_details.reasoning_tokens or 0,
    )
    numbers = (usage.prompt, usage.cached, usage.completion, usage.reasoning)
    nothing = said and not usage.completion
    if nothing or min(numbers) < 0 or max(numbers) > _MOST_TOKENS or usage.cached > usage.prompt:
        return None, "upstream sent a usage object that cannot be true"
    return usage, ""


@dataclass(slots=True)
class Assembly:
    """One choice put together from the deltas of a stream."""

    index: int
    reading: Reading = _PLAIN
    trace: Trace = field(default_factory=Trace)
    message: dict[str, Any] = field(default_factory=dict)
    choice: dict[str, Any] = field(default_factory=dict)
    logprobs: list[Any] = field(default_factory=list)
    tool_calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)
    finished: bool = False
    of_text: bool = False
    text_logprobs: dict[str, list[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Measure confidence where that is wanted."""
        if self.reading.top:
            self.trace.meter = Meter(self.reading.window)

    def add(self, choice: dict[str, Any]) -> None:
        """Take in one delta of this choice."""
        grown = False
        for name, value in (choice.get("delta") or {}).items():
            grown |= self._add_field(name, value)
        if isinstance(choice.get("text"), str):
            self.of_text = True
            grown |= self._add_field("content", choice["text"])
        logprobs = choice.get("logprobs") or {}
        if logprobs.get("content"):
            self._add_logprobs(logprobs["content"])
        elif logprobs.get("token_logprobs"):
            self._add_text_logprobs(logprobs)
        elif grown:
            self.trace.tokens += 1
        for name, value in choice.items():
            if name not in ("delta", "index", "logprobs", "text") and value is not None:
                self.choice[name] = value
        self.finished = self.finished or bool(choice.get("finish_reason"))

    def add_texts(self, name: str, texts: list[str]) -> None:
        """Take in deltas that bring nothing but text in the field `name`."""
        into = self.trace.parts if name == "content" else self.texts.setdefault(name, [])
        into += texts
        self.trace.tokens += len(texts) - texts.count("")

    def _add_field(self, name: str, value: Any) -> bool:
        if name == "content" and isinstance(value, str):
            self.trace.parts.append(value)
            return bool(value)
        if name == "tool_calls" and isinstance(value, list):
            for part in value:
                self._add_tool_call(part)
            return bool(value)
        if isinstance(value, str) and name != "role":
            # Put together at the end: reasoning can have a hundred thousand pieces.
            self.texts.setdefault(name, []).append(value)
            return bool(value)
        if value is not None:
            self.message[name] = value
        return False

    def _add_tool_call(self, part: dict[str, Any]) -> None:
        index = part.get("index")
        if not isinstance(index, int):
            index = len(self.tool_calls)
        known = self.tool_calls.setdefault(index, {})
        for name, value in part.items():
            if name == "function" and isinstance(value, dict):
                function = known.setdefault("function", {"name": "", "arguments": ""})
                function["name"] += value.get("name") or ""
                function["arguments"] += value.get("arguments") or ""
            elif name != "index" and value is not None:
                known[name] = value

    def _add_logprobs(self, content: list[dict[str, Any]]) -> None:
        keep = self.reading.keep
        if keep is not None:
            # What only the policy asked for is dropped at once: it is a hundred times the text.
            self.logprobs.extend(content if keep == ALL else (_cut_to(i, keep) for i in content))
        if self.trace.meter is not None:
            for item in content:
                top = item.get("top_logprobs") or ()
                self.trace.meter.add([float(token["logprob"]) for token in top])
        self._count([float(item["logprob"]) for item in content])
        self.trace.tokens += len(content)

    def _add_text_logprobs(self, logprobs: dict[str, Any]) -> None:
        for name, values in logprobs.items():
            if isinstance(values, list):
                self.text_logprobs.setdefault(name, []).extend(values)
        values = logprobs["token_logprobs"]
        self._count([float(value) for value in values if value is not None])
        self.trace.tokens += len(values)

    def _count(self, values: list[float]) -> None:
        trace = self.trace
        for value in values:
            trace.logprob_sum += value
            trace.lowest_logprob = min(trace.lowest_logprob, value)
        trace.logprob_tokens += len(values)

    def done(self) -> Done:
        """Return the whole choice.

        Raises:
            ProtocolError: when the pieces do not make a choice.
        """
        content = self.trace.text
        if self.of_text:
            text = {"index": self.index, "text": content, "finish_reason": "stop", **self.choice}
            text["logprobs"] = self.text_logprobs or None
            return read_choice(encode(text), self.trace.tokens)
        texts = {name: "".join(parts) for name, parts in self.texts.items()}
        message: dict[str, Any] = {"role": "assistant", "content": content}
        message |= self.message | texts
        if self.tool_calls:
            message["tool_calls"] = [self.tool_calls[i] for i in sorted(self.tool_calls)]
            message["content"] = content or None
        choice = {"index": self.index, "message": message, **self.choice}
        choice.setdefault("finish_reason", "stop")
        if self.logprobs:
            choice["logprobs"] = {"content": self.logprobs}
        return replace(
            read_choice(encode(choice), self.trace.tokens), logprobs=self.trace.logprobs()
        )
