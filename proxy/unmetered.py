"""`store_failure: serve_unmetered`: requests go on while the ledger cannot be reached, loudly.

Off by default, because no shared limit can hold then: what is granted here is counted by nobody but
the request itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog

from samplewise.policies.price import usd
from samplewise.proxy.errors import StoreError
from samplewise.proxy.ledger.base import (
    Account,
    Balance,
    Grant,
    Ledger,
    Recent,
    Settlement,
    Wave,
)
from samplewise.proxy.metrics import Metrics

__all__ = ["UnmeteredLedger"]

_log = structlog.get_logger("samplewise.unmetered")
_SAY_EVERY_S = 60.0


class UnmeteredLedger:
    """A `Ledger` over another one that grants everything while that one fails.

    What it grants alone is settled nowhere, only counted in metrics. Rows that the ledger below
    holds are settled there when it works again, whatever happens in between. They are reserved as
    sent, even those of calls that wait for a place: after a crash none is taken for unsent.
    """

    def __init__(
        self, below: Ledger, metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Wrap `below`; `clock` gives seconds and paces what is logged."""
        self._below = below
        self._metrics = metrics
        self._clock = clock
        self._routes: dict[str, str] = {}
        self._failing = False
        self._say_at = 0.0
        self._granted = 0
        self._spent = 0

    async def reserve(self, wave: Wave) -> Grant:
        """Reserve what fits, as sent; everything, unmetered, where the store fails."""
        try:
            # When a call gets its place, the store may be unable to note that it is sent. Left as
            # held, its rows would be released after a crash, although they have cost money.
            grant = await self._below.reserve(replace(wave, dispatched=True))
        except StoreError as error:
            holds = [hold for bundle in wave.bundles for hold in bundle]
            self._routes |= dict.fromkeys((hold.id for hold in holds), wave.route)
            samples = sum(hold.sample for hold in holds)
            self._granted += samples
            self._metrics.unmetered_samples(wave.route, samples)
            self._fails(error)
            return Grant(len(wave.bundles), unmetered=True)
        self._works()
        return grant

    async def dispatch(self, ids: Sequence[str]) -> None:
        """Do nothing: every row is reserved as sent."""

    def settle(self, settlements: Sequence[Settlement]) -> asyncio.Future[None]:
        """Settle what the store holds; count the rest."""
        known = []
        for row in settlements:
            route = self._routes.pop(row.id, None)
            if route is None:
                known.append(row)
            else:
                self._spent += row.nano
                self._metrics.unmetered_cost(route, row.nano)
        if known:
            return self._below.settle(known)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    async def balances(self, accounts: Sequence[Account]) -> Sequence[Balance]:
        """Read accounts; raises `StoreError` as the ledger below."""
        return await self._below.balances(accounts)

    async def recent(self, route: str, days: int) -> Recent:
        """Return what a route has cost; raises `StoreError` as the ledger below."""
        return await self._below.recent(route, days)

    async def close(self) -> None:
        """Close the ledger below."""
        await self._below.close()

    def _fails(self, error: StoreError) -> None:
        now = self._clock()
        if self._failing and now < self._say_at:
            return
        self._failing, self._say_at = True, now + _SAY_EVERY_S
        self._metrics.serving_unmetered(True)
        _log.error(
            "the ledger cannot be reached: requests are answered and count in no limit",
            error=str(error),
            samples=self._granted,
            cost_usd=usd(self._spent),
        )

    def _works(self) -> None:
        if not self._failing:
            return
        self._failing = False
        self._metrics.serving_unmetered(False)
        _log.error(
            "the ledger works again: what was answered meanwhile is in no limit",
            samples=self._granted,
            cost_usd=usd(self._spent),
        )
        self._granted = self._spent = 0
