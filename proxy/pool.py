"""The hosts of one upstream: which of them gets the next call, and which are left alone now."""

from __future__ import annotations

import time
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from itertools import count

from samplewise.proxy.health import Circuit, Phase, RetryBudget

__all__ = ["Host", "Pool"]

# How far a host may be busier than the idlest before samples of one prompt leave it: their common
# prefix is in its cache, and engines run this many at a time beside each other without waiting.
_SLACK = 16
# What a server says of its queue is soon no longer true.
_FRESH_S = 5.0


@dataclass(slots=True, eq=False)
class Host:
    """One address. `in_flight` counts samples asked of it now, `waiting` is its own last word.

    No call is sent before `cool_until`; `cool_status` is the HTTP status that asked for that.
    """

    url: str = ""
    circuit: Circuit = field(default_factory=Circuit)
    in_flight: int = 0
    cool_until: float = 0.0
    cool_status: int = 429
    waiting: float = 0.0
    told_at: float = 0.0

    def load(self, now: float) -> float:
        """Return how many samples are ahead of the next one, as far as is known."""
        return self.in_flight + self.queue(now)

    def queue(self, now: float) -> float:
        """Return how many requests wait in its own queue, by its last word if that is fresh."""
        return self.waiting if now - self.told_at < _FRESH_S else 0.0


@dataclass(slots=True)
class Pool:
    """The hosts of an upstream, shared by all requests. Times are of `clock`, in seconds.

    A host that is put aside gets no call while another one is there; if all are put aside, all are
    asked as if none were: the last one is never given up. A host that cools is never asked.
    `changed` says that a circuit has changed since it was last set to False.
    """

    hosts: tuple[Host, ...] = field(default_factory=lambda: (Host(),))
    retries: RetryBudget = field(default_factory=RetryBudget)
    clock: Callable[[], float] = time.monotonic
    changed: bool = True
    ejected: int = 0
    _turn: count[int] = field(default_factory=count)

    def pick(self, home: Host | None = None, tried: Set[str] = frozenset()) -> Host | None:
        """Return the host for the next call; None while all of them cool.

        `home` is where the prompt was sent before; `tried` are addresses to go round if possible.
        """
        now = self.clock()
        if len(self.hosts) == 1:
            return None if self.hosts[0].cool_until > now else self.hosts[0]
        warm = [host for host in self.hosts if host.cool_until <= now]
        able = [host for host in warm if host.circuit.admits(now)] or warm
        able = [host for host in able if host.url not in tried] or able
        if not able:
            return None
        # Only a prompt's first call takes its turn: else prompts of as many samples as there are
        # hosts would all begin at the same one.
        start = 0 if home in able else next(self._turn) % len(able)
        idlest = min(able[start:] + able[:start], key=lambda host: host.load(now))
        if home is None or home not in able or home.queue(now):
            return idlest
        return home if home.load(now) - idlest.load(now) <= _SLACK else idlest

    @property
    def available(self) -> bool:
        """Whether some host is neither put aside nor cooling."""
        now = self.clock()
        return any(host.cool_until <= now and host.circuit.admits(now) for host in self.hosts)

    def elsewhere(self, tried: Set[str]) -> bool:
        """Say whether a host that was not tried could be asked now."""
        now = self.clock()
        return any(
            host.url not in tried and host.cool_until <= now and host.circuit.admits(now)
            for host in self.hosts
        )

    def wait_s(self) -> float:
        """Return the seconds until a host may be asked that all have told to wait; 0 if any may."""
        return max(0.0, min(host.cool_until for host in self.hosts) - self.clock())

    @property
    def crowded(self) -> bool:
        """Whether requests wait in the queues of all hosts, by what they said lately."""
        now = self.clock()
        return all(host.queue(now) > 0 for host in self.hosts)

    def waiting(self) -> float:
        """Return how many requests wait in the servers' own queues, by what they said lately."""
        now = self.clock()
        return sum(host.queue(now) for host in self.hosts)

    def began(self, host: Host, samples: int) -> None:
        """Note a call for so many samples that leaves for a host."""
        host.in_flight += samples
        before = host.circuit.phase
        host.circuit.sent(self.clock())
        self.changed |= host.circuit.phase is not before

    def ended(self, host: Host, samples: int, worked: bool | None) -> None:
        """Note the end of a call: it worked, it failed, or None when that tells nothing."""
        host.in_flight -= samples
        circuit, before = host.circuit, host.circuit.phase
        if worked is None:
            circuit.given_up()
        elif worked:
            circuit.succeeded()
        else:
            circuit.failed(self.clock())
        if circuit.phase is not before:
            self.changed = True
            self.ejected += circuit.phase is Phase.OPEN and worked is False

    def cool(self, host: Host, wait_s: float, status: int) -> None:
        """Leave a host alone for as long as it has asked for."""
        until = self.clock() + wait_s
        if until > host.cool_until:
            host.cool_until, host.cool_status = until, status

    def heard(self, host: Host, waiting: float) -> None:
        """Note what a host says of its queue."""
        host.waiting, host.told_at = waiting, self.clock()

    def earn(self) -> None:
        """Note a first call: it makes room for a share of a repeated one."""
        self.retries.earn(self.clock())

    def may_repeat(self, calls: int) -> bool:
        """Take the room for calls that repeat lost ones; False where there is none left."""
        return self.retries.take(self.clock(), calls)

    def phases(self) -> dict[str, int]:
        """Return how many hosts are in each phase."""
        found = dict.fromkeys((phase.value for phase in Phase), 0)
        for host in self.hosts:
            found[host.circuit.phase.value] += 1
        return found
