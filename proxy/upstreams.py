"""A configured upstream at work: its backend, its price, its room, and what was learnt of it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal

from samplewise.policies.evidence import Offer
from samplewise.policies.price import Price
from samplewise.proxy.backends.abilities import Abilities
from samplewise.proxy.backends.base import Backend
from samplewise.proxy.checkpoints import Checkpoints
from samplewise.proxy.pace import Pace
from samplewise.proxy.pool import Pool

__all__ = ["Dispatch", "Upstream"]

Dispatch = Literal["auto", "calls", "n"]

# So many samples must have ended before their times say when one is late.
_ENOUGH = 20


@dataclass(slots=True)
class Upstream:
    """One entry of `backends:` in use. Shared by all requests; holds no request's state.

    `max_n` is the largest n it is sent in one call: from the config, lowered for good when it is
    seen to ignore or refuse more. `max_top_logprobs` is how many likeliest tokens of a place it
    tells. `developer` says that the role of that name is understood.
    `dispatch` is how several samples are asked for. `slots` bounds calls in flight (None:
    unbounded), `queue_s` how long a call waits for one of them; `pace` is the room that the server
    itself leaves. `pool` has its hosts and what is known of their health. `hedge` is the share of
    samples after whose time a late one is asked for twice (None: never). `checkpoints` are there
    where they decide what a call costs whose process died. `tokens` asks a host how many tokens a
    prompt has, where it is known to tell. `relays` says that calls can be made to other paths than
    that of chats.
    """

    name: str
    backend: Backend
    model: str
    price: Price
    timeout_s: float = 600.0
    max_n: int | None = None
    max_top_logprobs: int = 20
    streams: bool = True
    stream_options: Mapping[str, Any] | None = None
    token_field: str | None = None
    seed_field: str = "seed"
    developer: bool = True
    abilities: Abilities = field(default_factory=Abilities)
    dispatch: Dispatch = "auto"
    max_tokens_per_image: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    slots: asyncio.Semaphore | None = None
    max_in_flight: int | None = None
    queue_s: float = 600.0
    hedge: float | None = None
    in_flight: int = 0
    pace: Pace | None = None
    checkpoints: Checkpoints | None = None
    relays: bool = False
    tokens: Callable[[str, bytes], Awaitable[int | None]] | None = None
    pool: Pool = field(default_factory=Pool)
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=64))

    def largest_n(self, wanted: int) -> int:
        """Return how many of `wanted` samples may go into one call."""
        return wanted if self.max_n is None else max(1, min(wanted, self.max_n))

    @property
    def harvests(self) -> bool:
        """Whether samples that may be cut are asked for in one stream, and taken as they end."""
        if not self.streams or self.dispatch == "calls" or self.max_n == 1:
            return False
        if self.dispatch == "n":
            return True
        # Only where it saves the price of prompts, and n is known to work.
        return self.abilities.n is True and self.price.prompt_pico > 0

    def learn_n(self, choices: int) -> None:
        """Remember that a call for more came back with only so many choices."""
        self.max_n = max(1, choices)

    def learn_seconds(self, seconds: float) -> None:
        """Remember how long a finished sample took."""
        self.seconds.append(seconds)

    @property
    def p50_s(self) -> float | None:
        """The median time of the last finished samples; None before the first."""
        return median(self.seconds) if self.seconds else None

    @property
    def hedge_after_s(self) -> float | None:
        """How long a sample takes before it is late; None where nothing is hedged, or not yet."""
        if self.hedge is None or len(self.seconds) < _ENOUGH:
            return None
        return sorted(self.seconds)[min(len(self.seconds) - 1, int(self.hedge * len(self.seconds)))]

    def offer(self) -> Offer:
        """Return what policies may know of this upstream now."""
        free = None if self.max_in_flight is None else max(0, self.max_in_flight - self.in_flight)
        if self.pool.crowded:
            # What is sent now would only wait there.
            free = 0
        able = self.abilities
        return Offer(
            backend=self.name,
            price=self.price,
            p50_s=self.p50_s,
            free_slots=free,
            room=None if self.pace is None else self.pace.free,
            honours_n=False if self.max_n == 1 else able.n,
            streams=self.streams,
            logprobs=able.logprobs,
            seed=able.seed,
            stop=able.stop,
            continuation=able.continuation,
            structured=able.structured,
            aborts=able.aborts,
        )
