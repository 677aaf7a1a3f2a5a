"""What the upstream knows about the calls it got, as read by tests."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

__all__ = ["Field", "Phase", "Record", "State", "Waited"]

Phase = Literal["running", "finished", "aborted", "faulted"]
Field = Literal[
    "started", "running", "finished", "aborted", "faulted", "max_running", "held", "tokens"
]


class State(msgspec.Struct, kw_only=True):
    """Counts of calls, of one model or of all.

    A call is running, then finished (answered in full), aborted (the client left before), or
    faulted (refused, or spoilt by a scripted fault). `held` counts choices that wait at a gate,
    `tokens` the tokens really generated.
    """

    started: int = 0
    running: int = 0
    finished: int = 0
    aborted: int = 0
    faulted: int = 0
    max_running: int = 0
    held: int = 0
    tokens: int = 0


class Waited(msgspec.Struct):
    """Whether what was waited for came in time, and the counts then."""

    ok: bool
    state: State


class Record(msgspec.Struct, kw_only=True):
    """One call. `request_id` is its X-Request-Id, else `request_id` of the body, else empty.

    `tokens` are those really generated, one count per choice. `prompt_tokens` are the words of all
    messages. `status` is 0 until headers are sent. Header names are lower case. Times are of the
    monotonic clock, which all processes of the machine share.
    """

    request_id: str
    model: str
    n: int
    stream: bool
    prompt_tokens: int
    body: bytes
    headers: dict[str, str]
    started_s: float
    ended_s: float | None = None
    phase: Phase = "running"
    status: int = 0
    fault: str = ""
    tokens: list[int] = []

    @property
    def json(self) -> dict[str, Any]:
        """The decoded body."""
        return msgspec.json.decode(self.body, type=dict[str, Any])

    @property
    def total_tokens(self) -> int:
        """Tokens generated over all choices."""
        return sum(self.tokens)
