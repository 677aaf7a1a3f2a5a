"""The money of one request: the only code between the engine and the ledger.

Every wave is reserved here before it is dispatched, every row is settled here once, in one step.
The request's own limits are kept in memory, exactly, because one request lives in one process; all
other accounts are the ledger's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import structlog

from samplewise.policies.evidence import Money
from samplewise.proxy.errors import StoreError
from samplewise.proxy.ledger.base import (
    Account,
    Balance,
    Hold,
    Ledger,
    Limit,
    Scope,
    Settlement,
    State,
    Wave,
    Window,
)

__all__ = ["Purse", "Short"]

_log = structlog.get_logger("samplewise.purse")
# Samples of one wave end close together: their settlements share one write.
_GATHER_S = 0.005


@dataclass(frozen=True, slots=True)
class Short:
    """What the smallest wave may cost, and what a limit has left for it; None where it has none."""

    need: Limit
    left: Limit = field(default_factory=Limit)


@dataclass(slots=True)
class Purse:
    """Holds, spends and releases for one request. Amounts in nano-dollars.

    `limit` is what the request itself may hold and spend; `accounts` are the shared ones. `told` is
    called with the new state after every change, `posted` with settled rows and their holds.
    `blocked` is the limit that the last refused wave did not fit into, `short` what was missing.
    `unmetered` says that the ledger could not be reached, and some of it counts in `limit` alone.
    """

    ledger: Ledger
    request_id: str
    route: str
    accounts: tuple[Account, ...]
    limit: Limit
    told: Callable[[Money], None]
    posted: Callable[[Iterable[tuple[Hold, Settlement]]], None]
    key: str = ""
    spent: int = 0
    reserved: int = 0
    tokens: int = 0
    open: dict[str, Hold] = field(default_factory=dict)
    rows: dict[str, Settlement] = field(default_factory=dict)
    cost_by_purpose: dict[str, int] = field(default_factory=dict)
    blocked: Account | None = None
    short: Short | None = None
    unmetered: bool = False
    _posted: list[tuple[Hold, Settlement]] = field(default_factory=list)
    _flushing: asyncio.TimerHandle | None = None
    _settling: set[asyncio.Future[None]] = field(default_factory=set)

    @property
    def left(self) -> int | None:
        """What the request may still hold; None without a limit."""
        return None if self.limit.nano is None else self.limit.nano - self.spent - self.reserved

    async def reserve(self, bundles: Sequence[tuple[Hold, ...]], *, dispatched: bool = True) -> int:
        """Reserve leading bundles; return how many. Durable when it returns.

        Raises:
            StoreError: the ledger cannot be reached. Nothing is held then.
        """
        fit = tuple(bundles[: self._fit(bundles)])
        if len(fit) < len(bundles):
            self.blocked = Account(Scope.REQUEST, self.request_id, Window.TOTAL, self.limit)
        if not fit:
            self.short = Short(_sum(bundles[0]), self._own_room())
            return 0
        # Held in memory before the first await: two waves of one request cannot both take the room.
        self._hold(fit)
        wave = Wave(self.request_id, self.route, self.key, self._concerned(fit), fit, dispatched)
        try:
            grant = await self.ledger.reserve(wave)
        except (StoreError, asyncio.CancelledError):
            # The ledger itself releases what nobody waits for any more.
            self._drop(fit)
            raise
        self.unmetered |= grant.unmetered
        self._drop(fit[grant.bundles :])
        if grant.bundles < len(fit):
            self.blocked = grant.blocked
        if not grant.bundles and grant.blocked is not None:
            self.short = await self._short(grant.blocked, fit[0])
        self.told(self._money())
        return grant.bundles

    def settle(self, settlements: Iterable[Settlement]) -> None:
        """Post what rows cost. The one place where money is settled; rows not held are ignored.

        The request's own account has it when this returns, so no cancellation can come in between.
        The ledger gets what comes within a few milliseconds together; `close` waits until it is
        durable. A row whose settlement is lost in a crash stays reserved, which is the safe side.
        """
        posted = []
        for row in settlements:
            hold = self.open.pop(row.id, None)
            if hold is None:
                continue
            posted.append((hold, row))
            self.rows[row.id] = row
            self.reserved -= hold.nano
            self.spent += row.nano
            self.tokens += row.usage.prompt + row.usage.completion - hold.tokens
            self.cost_by_purpose[hold.purpose] = (
                self.cost_by_purpose.get(hold.purpose, 0) + row.nano
            )
        if not posted:
            return
        self._posted += posted
        self.told(self._money())
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_later(_GATHER_S, self._flush)

    async def close(self) -> None:
        """Release what is still held; return when every row is settled durably.

        What is held then are verifiers that were reserved for and never ran.
        """
        self.settle([Settlement(id_, 0, state=State.RELEASED) for id_ in self.open])
        self._flush()
        # Waited for, not awaited: what is queued is written even if this is cancelled.
        if self._settling:
            await asyncio.wait(self._settling)

    def _flush(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        posted, self._posted = self._posted, []
        if not posted:
            return
        self.posted(posted)
        try:
            settling = self.ledger.settle([row for _, row in posted])
        except StoreError as error:
            self._not_settled(error)
            return
        self._settling.add(settling)
        settling.add_done_callback(self._settled)

    def _settled(self, settling: asyncio.Future[None]) -> None:
        self._settling.discard(settling)
        error = None if settling.cancelled() else settling.exception()
        if error is not None:
            self._not_settled(error)

    def _not_settled(self, error: BaseException) -> None:
        # The rows stay reserved, which is the safe side; recovery settles them.
        _log.error("settle failed", request_id=self.request_id, error=str(error))

    async def _short(self, account: Account, bundle: tuple[Hold, ...]) -> Short:
        """Return how much was missing where not even one sample fits."""
        need = _sum(hold for hold in bundle if account.counts(hold))
        try:
            (balance,) = await self.ledger.balances([account])
        except StoreError:
            return Short(need)
        return Short(need, room(account.limit, balance))

    def _own_room(self) -> Limit:
        """Return what this request may still hold, as its own limit says."""
        tokens = self.limit.tokens
        return Limit(
            None if self.left is None else max(0, self.left),
            None if tokens is None else max(0, tokens - self.tokens),
        )

    def _concerned(self, bundles: Sequence[tuple[Hold, ...]]) -> tuple[Account, ...]:
        """Return the accounts that these rows are posted to."""
        asked = {hold.backend for bundle in bundles for hold in bundle}
        return tuple(
            account
            for account in self.accounts
            if account.scope is not Scope.BACKEND or account.name in asked
        )

    def _fit(self, bundles: Sequence[tuple[Hold, ...]]) -> int:
        nano = self.limit.nano
        tokens = self.limit.tokens
        held, used = self.spent + self.reserved, self.tokens
        for number, bundle in enumerate(bundles):
            held += sum(hold.nano for hold in bundle)
            used += sum(hold.tokens for hold in bundle)
            if (nano is not None and held > nano) or (tokens is not None and used > tokens):
                return number
        return len(bundles)

    def _hold(self, bundles: Iterable[tuple[Hold, ...]]) -> None:
        for bundle in bundles:
            for hold in bundle:
                self.open[hold.id] = hold
                self.reserved += hold.nano
                self.tokens += hold.tokens

    def _drop(self, bundles: Iterable[tuple[Hold, ...]]) -> None:
        for bundle in bundles:
            for hold in bundle:
                del self.open[hold.id]
                self.reserved -= hold.nano
                self.tokens -= hold.tokens

    def _money(self) -> Money:
        return Money(self.spent, self.reserved, self.left)


def room(limit: Limit, balance: Balance) -> Limit:
    """Return what an account has left for each of its limits, at least 0."""

    def left(most: int | None, spent: int | None, reserved: int | None) -> int | None:
        return None if most is None else max(0, most - (spent or 0) - (reserved or 0))

    spent, reserved = balance.spent, balance.reserved
    return Limit(
        left(limit.nano, spent.nano, reserved.nano),
        left(limit.tokens, spent.tokens, reserved.tokens),
        left(limit.samples, spent.samples, reserved.samples),
    )


def _sum(holds: Iterable[Hold]) -> Limit:
    rows = list(holds)
    return Limit(
        sum(hold.nano for hold in rows),
        sum(hold.tokens for hold in rows),
        sum(hold.sample for hold in rows),
    )
