"""The money of one request: the only code between the engine and the ledger.

Every wave is reserved here before it is dispatched, every row is settled here once, shielded from
cancellation. The request's own limits are kept in memory, exactly, because one request lives in one
process; all other accounts are the ledger's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog

from samplewise.policies.evidence import Money
from samplewise.proxy.errors import StoreError
from samplewise.proxy.ledger.base import (
    Account,
    Grant,
    Hold,
    Ledger,
    Limit,
    Scope,
    Settlement,
    State,
    Wave,
    Window,
)

__all__ = ["Purse", "shielded"]

_log = structlog.get_logger("samplewise.purse")


_T = TypeVar("_T")


async def shielded(work: Coroutine[Any, Any, _T]) -> _T:
    """Await work to its end even when the caller is cancelled meanwhile; then cancel the caller."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.cancelled():
            await asyncio.wait([task])
        raise


@dataclass(slots=True)
class Purse:
    """Holds, spends and releases for one request. Amounts in nano-dollars.

    `limit` is what the request itself may hold and spend; `accounts` are the shared ones. `told` is
    called with the new state after every change, `posted` with every settled row and its hold.
    """

    ledger: Ledger
    request_id: str
    route: str
    accounts: tuple[Account, ...]
    limit: Limit
    told: Callable[[Money], None]
    posted: Callable[[Hold, Settlement], None]
    key: str = ""
    spent: int = 0
    reserved: int = 0
    tokens: int = 0
    open: dict[str, Hold] = field(default_factory=dict)
    rows: dict[str, Settlement] = field(default_factory=dict)
    cost_by_purpose: dict[str, int] = field(default_factory=dict)
    blocked: Account | None = None

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
            return 0
        # Held in memory before the first await: two waves of one request cannot both take the room.
        self._hold(fit)
        wave = Wave(self.request_id, self.route, self.key, self.accounts, fit, dispatched)
        reserving = asyncio.ensure_future(self.ledger.reserve(wave))
        try:
            grant = await asyncio.shield(reserving)
        except asyncio.CancelledError:
            await self._undo(fit, reserving)
            raise
        except StoreError:
            self._drop(fit)
            raise
        self._drop(fit[grant.bundles :])
        if grant.bundles < len(fit):
            self.blocked = grant.blocked
        self.told(self._money())
        return grant.bundles

    async def settle(self, settlements: Iterable[Settlement]) -> None:
        """Post what rows cost. The one place where money is settled; rows not held are ignored.

        Everything is posted even when the caller is cancelled meanwhile: the request's own account
        before the first await, the ledger's shielded.
        """
        posted = []
        for row in settlements:
            hold = self.open.pop(row.id, None)
            if hold is None:
                continue
            posted.append(row)
            self.rows[row.id] = row
            self.reserved -= hold.nano
            self.spent += row.nano
            self.tokens += row.usage.prompt + row.usage.completion - hold.tokens
            self.cost_by_purpose[hold.purpose] = (
                self.cost_by_purpose.get(hold.purpose, 0) + row.nano
            )
            self.posted(hold, row)
        if not posted:
            return
        self.told(self._money())
        try:
            await shielded(self.ledger.settle(posted))
        except StoreError as error:
            # The rows stay reserved, which is the safe side; recovery settles them.
            _log.error("settle failed", request_id=self.request_id, error=str(error))

    @asynccontextmanager
    async def paying(self, close: Callable[[], Sequence[Settlement]]) -> AsyncIterator[None]:
        """Run the body, then settle what `close` says, whatever happened and uncancellably."""
        try:
            yield
        finally:
            await self.settle(close())

    async def close(self) -> None:
        """Release what is still held: verifiers that were reserved for and never ran."""
        await self.settle([Settlement(id_, 0, state=State.RELEASED) for id_ in self.open])

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

    async def _undo(
        self, bundles: Sequence[tuple[Hold, ...]], reserving: asyncio.Future[Grant]
    ) -> None:
        await asyncio.wait([reserving])
        if reserving.exception() is not None:
            self._drop(bundles)
            return
        granted = reserving.result().bundles
        self._drop(bundles[granted:])
        unused = [hold.id for bundle in bundles[:granted] for hold in bundle]
        await self.settle(Settlement(id_, 0, state=State.RELEASED) for id_ in unused)

    def _money(self) -> Money:
        return Money(self.spent, self.reserved, self.left)
