"""Any OpenAI-compatible server over HTTP: one call per `draw`, plain or streamed."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from time import monotonic, time
from typing import Any

import msgspec

from samplewise.proxy.backends.base import (
    Broken,
    Call,
    Done,
    Progress,
    RawEvents,
    Reading,
    SampleEvent,
    Started,
    Totals,
    unranked,
)
from samplewise.proxy.backends.choices import Assembly, ProtocolError, read_choice, read_usage
from samplewise.proxy.backends.events import Alike, EventSplitter, Mould, TooLarge, mould_of
from samplewise.proxy.backends.http import (
    BrokenOff,
    HttpAnswer,
    HttpClient,
    Patience,
    Unreached,
)
from samplewise.proxy.jsontext import encode, members_of, object_text

__all__ = ["OpenAIBackend"]

_ERROR_BODY = 65_536
_SHORTEST_SECRET = 8
_LONGEST_WAIT_S = 86_400.0
# What a server answers that was asked to stream and does not; streams come under several names.
_WHOLE = ("application/json", "text/html")
# vLLM then tells with its answer how many requests wait.
_ASK_LOAD = {"endpoint-load-metrics-format": "json"}
_RANK = "X-data-parallel-rank"
_chunk = msgspec.json.Decoder()
# A mould costs as much as reading a few events: streams that change too often do without.
_FIRST_MOULDS, _PAYS = 8, 4


class _Load(msgspec.Struct):
    named_metrics: dict[str, float] = {}


_load = msgspec.json.Decoder(_Load)


class _TooSlow(Exception):
    """The answer comes more slowly than is allowed."""


@dataclass(slots=True)
class _Pace:
    """Watches that an answer comes no slower than `least` bytes a second, over `window_s` each."""

    least: float
    window_s: float
    began: float = field(default_factory=monotonic)
    size: int = 0

    def took(self, piece: bytes) -> None:
        """Take note of a piece; raise `_TooSlow` at the end of a window with too little in it."""
        self.size += len(piece)
        passed = monotonic() - self.began
        if passed >= self.window_s:
            if self.size < self.least * passed:
                raise _TooSlow
            self.began, self.size = self.began + passed, 0


@dataclass(slots=True)
class OpenAIBackend:
    """Calls one upstream, at the base URL that each call names.

    `headers` hold the upstream's own key; nothing of the client's headers ever goes upstream.
    `ask_load` asks the server to tell the length of its queue.
    """

    client: HttpClient
    headers: Mapping[str, str]
    connect_timeout_s: float = 5.0
    idle_timeout_s: float = 120.0
    min_bytes_per_s: float = 1.0
    max_response_bytes: int = 64 * 2**20
    ask_load: bool = False

    async def draw(self, call: Call) -> AsyncGenerator[SampleEvent, None]:
        """Send the call and yield what comes. Closing the iterator closes the connection."""
        url, rank = unranked(call.host)
        try:
            async with self.client.post(
                f"{url}{call.path}",
                self._headers(call, rank),
                call.body,
                self._patience(call),
                call.sending,
            ) as answer:
                yield Started(_waiting(answer.header("endpoint-load-metrics")))
                async for event in self._read(call, answer):
                    yield event
        except Unreached as error:
            yield Broken("connect", str(error)[:300], sent=False)
        except TimeoutError:
            yield Broken("timeout", f"no answer within {call.timeout_s:g} s or idle for too long")
        except BrokenOff as error:
            yield Broken("cut", str(error)[:300])
        except _TooSlow:
            yield Broken("timeout", f"answer slower than {self.min_bytes_per_s:g} bytes a second")
        except TooLarge:
            yield Broken("too_large", f"answer exceeds {self.max_response_bytes} bytes")
        except ProtocolError as error:
            yield Broken("protocol", self._scrubbed(str(error)))

    def _headers(self, call: Call, rank: str) -> dict[str, str]:
        return {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "X-Request-Id": call.id,
            **(_ASK_LOAD if self.ask_load else {}),
            **({_RANK: rank} if rank else {}),
            **self.headers,
        }

    def _patience(self, call: Call) -> Patience:
        # A stream has its headers before the first token. Until an unstreamed answer begins, all of
        # it is being generated, so only silence in its body counts.
        head_s = self.idle_timeout_s if call.stream else None
        return Patience(call.timeout_s, self.connect_timeout_s, self.idle_timeout_s, head_s)

    def _pace(self) -> _Pace:
        return _Pace(self.min_bytes_per_s, self.idle_timeout_s)

    async def _piece(self, answer: HttpAnswer, pace: _Pace) -> bytes:
        """Return the next piece of the decoded body, in time and fast enough; empty at its end."""
        piece = await answer.piece()
        pace.took(piece)
        return piece

    async def _read(self, call: Call, answer: HttpAnswer) -> AsyncIterator[SampleEvent]:
        if answer.status != 200:
            yield await self._refused(call, answer)
        elif call.stream and answer.content_type not in _WHOLE:
            async for event in self._read_stream(call, answer):
                yield event
        else:
            for event in _read_whole(await self._body(answer), answer, call):
                yield event

    async def _body(self, answer: HttpAnswer) -> bytes:
        parts: list[bytes] = []
        size = 0
        pace = self._pace()
        while part := await self._piece(answer, pace):
            size += len(part)
            if size > self.max_response_bytes:
                raise TooLarge
            parts.append(part)
        return b"".join(parts)

    async def _refused(self, call: Call, answer: HttpAnswer) -> Broken:
        body = b""
        pace = self._pace()
        while len(body) <= _ERROR_BODY and (part := await self._piece(answer, pace)):
            body += part
        refused_n = call.n > 1 and answer.status in (400, 422)
        return Broken(
            "refused_n" if refused_n else "status",
            f"HTTP {answer.status}: {self._scrubbed(_message(body[:_ERROR_BODY]))}",
            status=answer.status,
            retry_after_s=_retry_after(answer.header("Retry-After")),
            body=body[:_ERROR_BODY],
        )

    def _scrubbed(self, text: str) -> str:
        # Some upstreams repeat the key they were sent; what they say may reach clients and logs.
        for value in self.headers.values():
            secret = value.removeprefix("Bearer ")
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, "[secret]")
        return text

    async def _read_stream(self, call: Call, answer: HttpAnswer) -> AsyncIterator[SampleEvent]:
        splitter = EventSplitter(self.max_response_bytes)
        stream = _Stream(call.n, call.reading, call.echo)
        pace = self._pace()
        while part := await self._piece(answer, pace):
            touched: set[int] = set()
            raw: list[RawEvents] = []
            broken: ProtocolError | None = None
            try:
                for data in splitter.feed(part):
                    if isinstance(data, Alike):
                        touched.add(stream.take_alike(data))
                        if call.raw:
                            raw.append(data.events)
                        continue
                    touched |= stream.take(data)
                    if stream.ended:
                        break
                    splitter.mould = stream.mould
                    if call.raw:
                        raw.append(RawEvents(data))
            except ProtocolError as error:
                # What was whole before counts, also where it came in the same piece.
                broken = error
            if raw:
                yield Progress(0, stream.choice(0).trace, tuple(raw))
            elif not call.raw:
                for index in touched:
                    yield Progress(index, stream.choice(index).trace)
            if broken is not None:
                for done in stream.newly_done():
                    yield done
                raise broken
            if stream.ended:
                break
            # The end of the stream may be late: an answer that is whole must not wait for it.
            for done in stream.newly_done():
                yield done
        for event in stream.close():
            yield event


@dataclass(slots=True)
class _Stream:
    """The state of one event stream."""

    n: int
    reading: Reading
    echo: bool = False
    choices: dict[int, Assembly] = field(default_factory=dict)
    head: dict[str, object] = field(default_factory=dict)
    usage: object = None
    ended: bool = False
    told: set[int] = field(default_factory=set)
    mould: Mould | None = None
    worth: int = _FIRST_MOULDS * _PAYS

    def newly_done(self) -> list[Done]:
        """Return the choices that have ended since the last time."""
        new = [i for i, c in self.choices.items() if c.finished and i not in self.told]
        self.told.update(new)
        return [self.choices[i].done() for i in new]

    def choice(self, index: int) -> Assembly:
        """Return a choice, made when it is first seen."""
        if index not in self.choices:
            self.choices[index] = Assembly(index, self.reading)
        return self.choices[index]

    def take_alike(self, alike: Alike) -> int:
        """Read events that differ in their text alone; return which choice they touched."""
        index = alike.mould.index
        self.choice(index).add_texts(alike.mould.name, alike.texts)
        self.worth = min(self.worth + len(alike.texts), _FIRST_MOULDS * _PAYS)
        return index

    def take(self, data: bytes) -> set[int]:
        """Read one event; return which choices it touched."""
        self.mould = None
        if data == b"[DONE]":
            self.ended = True
            return set()
        try:
            chunk = _chunk.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolError(f"an event of the stream is not JSON: {error}") from None
        if not isinstance(chunk, dict):
            raise ProtocolError("an event of the stream is not an object")
        if chunk.get("error"):
            raise ProtocolError(f"error in the stream: {_message(data)}")
        touched: set[int] = set()
        try:
            for choice in _listed(chunk.get("choices")):
                index = choice.get("index") or 0
                if not isinstance(index, int) or index < 0:
                    raise ValueError(f"index {index!r}")
                # What comes behind the end of a choice would count or not as the pieces fall.
                if not self.choice(index).finished:
                    self.choice(index).add(choice)
                touched.add(index)
        except (AttributeError, TypeError, KeyError, ValueError) as error:
            raise ProtocolError(f"a chunk of the stream cannot be read: {error}") from None
        if chunk.get("usage"):
            self.usage = chunk["usage"]
            if touched and self.n == 1:
                self.choice(0).trace.reported = read_usage(encode(self.usage))[0]
        if not self.head or not chunk.get("choices"):
            self.head |= {k: v for k, v in chunk.items() if k not in ("choices", "usage")}
        # Of several choices the events take turns, so none is like the one before.
        if self.n == 1 and self.worth > 0 and not any(c.finished for c in self.choices.values()):
            self.worth -= _PAYS
            self.mould = mould_of(data, chunk)
        return touched

    def close(self) -> list[SampleEvent]:
        """Return the finished choices and the totals, or what broke."""
        dones = [c.done() for c in self.choices.values() if c.finished]
        events: list[SampleEvent] = [*dones]
        if not self.ended and len(events) < min(self.n, max(1, len(self.choices))):
            return [*events, Broken("cut", "the stream ended before the answer did")]
        said = not self.echo and _said(dones)
        usage, warning = read_usage(encode(self.usage) if self.usage else None, said=said)
        model = self.head.get("model")
        warnings = (warning,) if warning else ()
        totals = Totals(usage, model if isinstance(model, str) else "", encode(self.head), warnings)
        return [*events, totals]


def _listed(choices: object) -> list[Any]:
    if choices is not None and not isinstance(choices, list):
        raise ValueError("choices are no list")
    return choices or []


def _read_whole(body: bytes, answer: HttpAnswer, call: Call) -> list[SampleEvent]:
    try:
        # Reading leaves fields out, but what is passed on must be text everywhere.
        body.decode("utf-8")
        fields = members_of(body)
        raw_choices = msgspec.json.decode(fields.get("choices", b"[]"), type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        kind = answer.content_type
        raise ProtocolError(f"answered 200 with {kind}, which is no completion") from None
    if call.whole:
        usage, warning = read_usage(fields.get("usage"))
        return [Totals(usage, "", body, (warning,) if warning else ())]
    if not raw_choices:
        raise ProtocolError(f"answered 200 without choices: {_message(body)}")
    # The position counts, not the index: some servers number every choice 0.
    dones = [
        read_choice(bytes(raw), number=i, reading=call.reading) for i, raw in enumerate(raw_choices)
    ]
    usage, warning = read_usage(fields.get("usage"), said=not call.echo and _said(dones))
    model = fields.get("model", b'""')
    head = object_text((k, v) for k, v in fields.items() if k not in ("choices", "usage"))
    name = msgspec.json.decode(model) if model.startswith(b'"') else ""
    return [*dones, Totals(usage, name, head, (warning,) if warning else ())]


def _said(dones: Iterable[Done]) -> bool:
    """Say whether any choice holds something that must have cost a token."""
    return any(done.text or done.tool_calls for done in dones)


def _message(body: bytes) -> str:
    """Return what an error body says, short; never more than its first 300 characters."""
    try:
        found = msgspec.json.decode(body)
        error = found.get("error", found) if isinstance(found, dict) else found
        text = error.get("message", error) if isinstance(error, dict) else error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = body.decode("utf-8", "replace")
    return " ".join(str(text).split())[:300]


def _waiting(value: str | None) -> float | None:
    """Return the length of the server's queue from the load header that vLLM sends when asked."""
    if value is None:
        return None
    try:
        waiting = _load.decode(value.partition("JSON ")[2]).named_metrics["num_requests_waiting"]
    except (msgspec.DecodeError, UnicodeError, RecursionError, KeyError):
        return None  # a header's bytes that are no text are read as surrogates
    return waiting if waiting >= 0 else None


def _retry_after(value: str | None) -> float | None:
    """Return the seconds to wait, at most a day; None when there is nothing to be read."""
    if not value:
        return None
    try:
        wait_s = float(value)
    except ValueError:
        try:
            wait_s = parsedate_to_datetime(value).timestamp() - time()
        except (ValueError, TypeError):
            return None
    return None if math.isnan(wait_s) else min(max(0.0, wait_s), _LONGEST_WAIT_S)
