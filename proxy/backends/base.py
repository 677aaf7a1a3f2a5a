"""The contract of sampling sources: one call in, events per sample out.

A backend sends exactly one upstream call per `draw`, never retries, and knows no budget. Closing
the iterator closes the connection, which makes an engine behind it stop generating.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from samplewise.policies.price import Usage
from samplewise.proxy.backends.confidence import Meter
from samplewise.verifiers.base import Ended, LogprobSummary, ToolCall

__all__ = [
    "ALL",
    "Backend",
    "Broken",
    "Call",
    "Done",
    "Progress",
    "RawEvents",
    "Reading",
    "SampleEvent",
    "Started",
    "Totals",
    "Trace",
    "ranked",
    "unranked",
]


# More than any server reports in one place.
ALL: Final = 1_000_000


def ranked(url: str, rank: int) -> str:
    """Return the host that is one data-parallel rank of the server at a base URL."""
    return f"{url}#{rank}"


def unranked(host: str) -> tuple[str, str]:
    """Return the base URL of a host, and its rank; empty where it is no rank."""
    url, _, rank = host.partition("#")
    return url, rank


def _nothing() -> None:
    """Take no note."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What is read of the likeliest tokens, and how much of the log-probabilities stays in choices.

    `top`: whether they are read. `window`: places in a group of confidence, 0 for none. `keep`: how
    many of them stay in a choice (None: no log-probabilities at all), unread where all stay.
    """

    top: bool = False
    window: int = 0
    keep: int | None = ALL


@dataclass(frozen=True, slots=True)
class Call:
    """One upstream call.

    `id` is the ledger's call id and goes upstream as the request id. `body` is the encoded JSON
    body, complete. `n` is the number of choices it asks for. `raw` asks that streamed events carry
    the upstream's own bytes. `timeout_s` bounds the whole call. `host` is the base URL to ask,
    empty where the upstream has none. `reading` says what of log-probabilities matters. The backend
    calls `sending` before the first byte of the request can have left: what is given up before that
    costs nothing. `path` is where it goes below the host, `echo` says that the answer may repeat
    the prompt, which is no completion, and `whole` that the answer has no choices: `Totals.head` is
    all of it, as it came.
    """

    id: str
    body: bytes
    n: int = 1
    stream: bool = False
    raw: bool = False
    timeout_s: float = 600.0
    host: str = ""
    reading: Reading = Reading()
    sending: Callable[[], None] = _nothing
    path: str = "/chat/completions"
    echo: bool = False
    whole: bool = False

    def at(self, host: str) -> Call:
        """Return the same call to a host."""
        # Field by field: `replace` takes twice as long, and this is done for every call.
        return Call(
            self.id,
            self.body,
            self.n,
            self.stream,
            self.raw,
            self.timeout_s,
            host,
            self.reading,
            self.sending,
            self.path,
            self.echo,
            self.whole,
        )


@dataclass(frozen=True, slots=True)
class Started:
    """The upstream accepted the call: its response headers are in.

    `waiting` is how many requests wait in the server's queue, where its headers tell.
    """

    waiting: float | None = None


@dataclass(slots=True)
class Trace:
    """What has come of one streamed choice so far. Grows in place: read it, do not keep it.

    `reported` is the usage so far where the upstream sends it with every chunk, `meter` takes the
    likeliest tokens in where they are read.
    """

    parts: list[str] = field(default_factory=list)
    tokens: int = 0
    logprob_sum: float = 0.0
    logprob_tokens: int = 0
    lowest_logprob: float = 0.0
    reported: Usage | None = None
    meter: Meter | None = None

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.parts)

    def logprobs(self) -> LogprobSummary | None:
        """Return the log-probabilities so far; None when the upstream sends none."""
        if not self.logprob_tokens:
            return None
        mean = self.logprob_sum / self.logprob_tokens
        margin, confidence = self.meter.found() if self.meter else (None, None)
        return LogprobSummary(self.logprob_tokens, mean, self.lowest_logprob, margin, confidence)


@dataclass(frozen=True, slots=True)
class RawEvents:
    """Events of an upstream's stream as they came, in a row: JSON texts that differ in one place.

    Each is `head`, one of `texts`, `tail`. Texts are JSON strings without their quotes, which head
    and tail have; an event of any form stands alone as `head`, with one empty text.
    """

    head: bytes
    tail: bytes = b""
    texts: tuple[bytes, ...] = (b"",)

    def __iter__(self) -> Iterator[bytes]:
        """Yield each event as a JSON text."""
        return (self.head + text + self.tail for text in self.texts)


@dataclass(frozen=True, slots=True)
class Progress:
    """A streamed choice has grown; `raw` are the events as they came, where the call asked."""

    choice: int
    trace: Trace
    raw: tuple[RawEvents, ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """One choice is complete. `raw` is the choice object as a JSON text, `tokens` as counted."""

    choice: int
    raw: bytes
    text: str
    ended: Ended
    tokens: int
    stop: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: LogprobSummary | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """The end of a call that worked: what the upstream bills for all its choices together.

    `usage` is None when the upstream gave none, or one that cannot be true. `head` is the response
    object without its choices, as JSON text: unknown fields of it reach the client.
    """

    usage: Usage | None
    model: str = ""
    head: bytes = b"{}"
    warnings: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Broken:
    """The call failed; choices that are not `Done` by now are lost.

    `reason` is a bounded word: connect, timeout, status, protocol, cut, too_large, refused_n; of
    calls that were never sent also cooling (every host has asked to wait) and busy (no free place).
    `sent` is False when the request surely never reached the upstream.
    """

    reason: str
    detail: str
    status: int | None = None
    retry_after_s: float | None = None
    sent: bool = True
    body: bytes = b""


SampleEvent = Started | Progress | Done | Totals | Broken


class Backend(Protocol):
    """Draws the samples of one call."""

    def draw(self, call: Call) -> AsyncGenerator[SampleEvent, None]:
        """Yield events until `Totals` or `Broken`, which is the last one. Raises nothing else."""
        ...
