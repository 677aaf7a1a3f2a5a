"""What is measured: the kinds of requests, and the targets that each is sent to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from bench.load import request_bytes

__all__ = ["FULL", "QUICK", "Scenario"]

_KB = 1_000
_LONE = ("direct", "reference", "samplewise", "bare")
_PAIRS = (*_LONE, "reference x2", "samplewise x2")


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of request. `route` says how many samples there are and in how many calls."""

    route: str
    body_kb: int
    stream: bool
    connections: int
    targets: Sequence[str]

    @property
    def samples(self) -> int:
        """The samples that one request draws."""
        return 1 if self.route in ("one", "long") else int(self.route.partition("-")[2])

    @property
    def name(self) -> str:
        """A name that is unique and can be read."""
        forms = {
            "one": "N=1",
            "long": "N=1, 200 chunks,",
            "calls": f"N={self.samples} calls",
            "n": f"N={self.samples} as n",
        }
        form = forms[self.route.partition("-")[0]]
        return f"{form} {self.body_kb} kB{' SSE' if self.stream else ''} c={self.connections}"

    def request(self, target: str) -> bytes:
        """Return the request; the fake upstream itself is asked for all samples in one call."""
        model = "fake-long" if (target, self.route) == ("direct", "long") else self.route
        fields: dict[str, Any] = {"model": model, "messages": _messages(self.body_kb * _KB)}
        if self.stream:
            fields["stream"] = True
        if target == "direct" and self.samples > 1:
            fields["n"] = self.samples
        return request_bytes(msgspec.json.encode(fields))


def _messages(size: int) -> list[dict[str, str]]:
    """Return a conversation of three messages that makes a body of about `size` bytes."""
    system = "You solve word problems. End with a line that gives the final answer."
    question = "How many apples are left when 58 of 100 are sold?"
    rest = size - len(system) - len(question) - 180
    context = ("Notes of the day: 12 crates came in, 9 went out. " * (rest // 49 + 1))[:rest]
    return [
        {"role": "system", "content": system},
        {"role": "user", "content": context},
        {"role": "user", "content": question},
    ]


_FAN_OUT = ("calls-8", "calls-64", "n-8", "n-64")
QUICK = (
    Scenario("one", 1, False, 1, _LONE),
    Scenario("one", 1, False, 32, _LONE),
    Scenario("one", 100, False, 32, _LONE),
    Scenario("one", 1, True, 32, _LONE),
    Scenario("one", 100, True, 32, _LONE),
    Scenario("long", 1, True, 32, _LONE),
    *(Scenario(route, 1, False, 4, _LONE) for route in _FAN_OUT),
)
FULL = (
    Scenario("one", 1, False, 1, _LONE),
    Scenario("one", 1, False, 32, _PAIRS),
    Scenario("one", 100, False, 1, _LONE),
    Scenario("one", 100, False, 32, _LONE),
    Scenario("one", 1, True, 1, _LONE),
    Scenario("one", 1, True, 32, _LONE),
    Scenario("one", 100, True, 1, _LONE),
    Scenario("one", 100, True, 32, _LONE),
    Scenario("long", 1, True, 32, _LONE),
    *(Scenario(route, 1, False, 4, _PAIRS if route == "calls-8" else _LONE) for route in _FAN_OUT),
)
