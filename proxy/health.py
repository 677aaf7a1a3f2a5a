"""What is known of an upstream's health: a circuit for each host, and a budget of retries.

Pure state with the time as an argument: nothing here waits, sends or logs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Circuit", "Phase", "RetryBudget"]


class Phase(StrEnum):
    """Closed: calls flow. Open: it is put aside. Half open: one call tries whether it is back."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(slots=True)
class Circuit:
    """Puts a host aside after `after` failures in a row, each time for twice as long.

    Times in seconds: `first_s` the first time, never more than `most_s`. An answer closes it again,
    the next one forgets how often it was open. Source: the outlier detection of Envoy, with
    consecutive failures alone.
    """

    after: int = 5
    first_s: float = 10.0
    most_s: float = 300.0
    phase: Phase = Phase.CLOSED
    failures: int = 0
    ejections: int = 0
    until: float = 0.0

    def admits(self, now: float) -> bool:
        """Say whether a call may be sent: also when it is time to try once."""
        return self.phase is Phase.CLOSED or (self.phase is Phase.OPEN and now >= self.until)

    def sent(self, now: float) -> None:
        """Note that a call leaves."""
        if self.phase is Phase.OPEN and now >= self.until:
            self.phase = Phase.HALF_OPEN

    def succeeded(self) -> None:
        """Note a sign of life."""
        if self.phase is Phase.CLOSED:
            self.ejections = 0
        self.phase = Phase.CLOSED
        self.failures = 0

    def failed(self, now: float) -> None:
        """Note a failure; those of calls that left before it was put aside change nothing."""
        self.failures += 1
        tried = self.phase is Phase.HALF_OPEN
        if tried or (self.phase is Phase.CLOSED and self.failures >= self.after):
            self.phase = Phase.OPEN
            self.ejections += 1
            # The exponent is bounded: a host may stay away for years.
            self.until = now + min(self.most_s, self.first_s * 2 ** min(self.ejections - 1, 30))

    def given_up(self) -> None:
        """Note a call that we ended ourselves, which tells nothing: another one may try."""
        if self.phase is Phase.HALF_OPEN:
            self.phase = Phase.OPEN


@dataclass(slots=True)
class RetryBudget:
    """How many calls may be repeated: a share of all first calls, and a few a second in any case.

    What is not used fades with a time constant of `window_s`, so in the long run there are at most
    `share` x calls + `floor_per_s` x seconds repetitions. Source: the retry budget of Finagle, with
    exponential fading in place of a window.
    """

    share: float = 0.2
    floor_per_s: float = 1.0
    window_s: float = 10.0
    balance: float = math.nan
    at: float = 0.0

    def left(self, now: float) -> float:
        """Return how many calls may be repeated now."""
        full = self.floor_per_s * self.window_s
        if math.isnan(self.balance):
            self.balance = full
        else:
            self.balance = full + (self.balance - full) * math.exp((self.at - now) / self.window_s)
        self.at = now
        return self.balance

    def earn(self, now: float) -> None:
        """Note a first call."""
        self.balance = self.left(now) + self.share

    def take(self, now: float, calls: int = 1) -> bool:
        """Take the room for repeated calls, all or nothing."""
        # Sums of shares: a millionth of a call must not make the difference.
        if self.left(now) < calls - 1e-6:
            return False
        self.balance -= calls
        return True
