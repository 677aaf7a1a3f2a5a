"""How many requests a key may send in a window: counted by the ledger, exact for all workers.

Only keys with such a limit are counted. A refusal is remembered until its window ends, so that a
client that goes on asking costs a look-up and writes nothing.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from samplewise.proxy.errors import RateLimited
from samplewise.proxy.keys.base import ClientKey
from samplewise.proxy.keys.room import shown_time
from samplewise.proxy.ledger.accounts import utc_ms, window_end, window_starts
from samplewise.proxy.ledger.base import Account, Hold, Ledger, Settlement, Wave

__all__ = ["PURPOSE", "Rates"]

_log = structlog.get_logger("samplewise.rates")
PURPOSE = "request"
"""The purpose of rows that count a request; they cost nothing and are no samples."""


@dataclass(slots=True)
class Rates:
    """The rates of all keys. `clock` gives UTC milliseconds."""

    ledger: Ledger
    clock: Callable[[], int] = utc_ms
    _refused: dict[str, tuple[Account, int]] = field(default_factory=dict)

    def check(self, key: ClientKey | None) -> None:
        """Refuse a request whose key is known to have no room in this window.

        Raises:
            RateLimited: it has none (429).
        """
        if key is None or key.id not in self._refused:
            return
        account, start = self._refused[key.id]
        # A limit that was changed since is another account, and is asked for again.
        if account in key.rates and window_starts(self.clock())[account.window] == start:
            raise self._error(account)
        del self._refused[key.id]

    async def count(self, key: ClientKey | None, request_id: str) -> None:
        """Count a request against the rates of its key; durable when it returns.

        Raises:
            RateLimited: one of them has no room (429); nothing was written.
            StoreError: the ledger cannot be reached.
        """
        self.check(key)
        if key is None or not key.rates:
            return
        hold = Hold(f"{request_id}:request", request_id, 0, "", "", PURPOSE, 0, 0, "")
        wave = Wave(request_id, "", key.id, key.rates, ((hold,),))
        grant = await self.ledger.reserve(wave)
        if not grant.bundles:
            account = grant.blocked or key.rates[0]
            self._refused[key.id] = account, window_starts(self.clock())[account.window]
            raise self._error(account)
        # Written with what comes next; should this process die first, recovery counts it the same.
        self.ledger.settle([Settlement(hold.id, 0)]).add_done_callback(_settled)

    def _error(self, account: Account) -> RateLimited:
        limit = account.limit.samples
        most = f"{limit} request{'s' * (limit != 1)}"
        now = self.clock()
        end = window_end(account.window, now)
        room = {"x-ratelimit-limit-requests": str(limit), "x-ratelimit-remaining-requests": "0"}
        if end is None:
            return RateLimited(
                f"this key may send {most} in all, and has",
                headers={**room, "x-should-retry": "false"},
            )
        wait_s = max(1, math.ceil((end - now) / 1000))
        return RateLimited(
            f"this key may send {most} a {account.window.value}; try again in {wait_s} s",
            headers={
                **room,
                "x-ratelimit-reset-requests": shown_time(end - now),
                "retry-after": str(wait_s),
            },
        )


def _settled(settling: asyncio.Future[None]) -> None:
    error = None if settling.cancelled() else settling.exception()
    if error is not None:
        # Held, it counts as well; the ledger writes it when it can.
        _log.error("settle failed", error=str(error))
