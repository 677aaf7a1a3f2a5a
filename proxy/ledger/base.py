"""The contract of money: reserve before dispatch, settle once, release the rest.

Amounts are whole nano-dollars, tokens and samples are counts. At every instant, for every account:
true spend <= spent + reserved <= limit, plus overruns that an upstream caused, which are recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from samplewise.policies.price import Usage

__all__ = [
    "Account",
    "Balance",
    "Grant",
    "Hold",
    "Ledger",
    "Limit",
    "Recent",
    "Scope",
    "Settlement",
    "State",
    "UsageSource",
    "Wave",
    "Window",
]


class Scope(StrEnum):
    """Whose money an account counts; `requests` counts the requests of a key, as samples."""

    REQUEST = "request"
    KEY = "key"
    REQUESTS = "requests"
    ROUTE = "route"
    TAG = "tag"
    BACKEND = "backend"
    GLOBAL = "global"


class Window(StrEnum):
    """How long an account counts before it starts again, in UTC; `total` never starts again."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"
    TOTAL = "total"


class State(StrEnum):
    """The life of a row. After `dispatched` nothing is released without knowing what it cost."""

    HELD = "held"
    DISPATCHED = "dispatched"
    SETTLED = "settled"
    RELEASED = "released"
    RECOVERING = "recovering"
    RECOVERED = "recovered"


class UsageSource(StrEnum):
    """Where the settled tokens come from, most to least exact."""

    PROVIDER = "provider"
    RECONCILED = "reconciled"
    COUNTED = "counted"
    WORST_CASE = "worst_case"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Limit:
    """What an account may hold and spend together; None means no limit."""

    nano: int | None = None
    tokens: int | None = None
    samples: int | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """One counter that a wave must fit into. `name` is a configured name or a request id.

    An account of scope `backend` counts the rows of that backend, any other all rows of a wave.
    """

    scope: Scope
    name: str
    window: Window
    limit: Limit = field(default_factory=Limit)

    def counts(self, hold: Hold) -> bool:
        """Tell whether a row is posted to this account."""
        return self.scope is not Scope.BACKEND or self.name == hold.backend


@dataclass(frozen=True, slots=True)
class Hold:
    """The worst case of one row. `sample` is False for verifier rows, which count no sample."""

    id: str
    call_id: str
    index: int
    backend: str
    model: str
    purpose: str
    nano: int
    tokens: int
    price_version: str
    sample: bool = True


@dataclass(frozen=True, slots=True)
class Wave:
    """Holds that are reserved together; each bundle (a sample and its verifiers) whole or not.

    `dispatched` says that the rows are sent as soon as the reservation is durable, so that one
    commit serves both.
    """

    request_id: str
    route: str
    key: str
    accounts: tuple[Account, ...]
    bundles: tuple[tuple[Hold, ...], ...]
    dispatched: bool = True


@dataclass(frozen=True, slots=True)
class Grant:
    """The first `bundles` of a wave are reserved. `blocked` names the account that had no room.

    `unmetered` says that nothing is reserved: the store cannot be reached, and the operator wants
    requests to go on then.
    """

    bundles: int
    blocked: Account | None = None
    unmetered: bool = False


@dataclass(frozen=True, slots=True)
class Settlement:
    """The end of one row: what it really cost, or that it cost nothing (`released`)."""

    id: str
    nano: int
    usage: Usage = field(default_factory=Usage)
    source: UsageSource = UsageSource.NONE
    state: State = State.SETTLED


@dataclass(frozen=True, slots=True)
class Balance:
    """An account now. `overrun` counts settled amounts above what was held for them."""

    account: Account
    spent: Limit
    reserved: Limit
    overrun_nano: int


@dataclass(frozen=True, slots=True)
class Recent:
    """What a route's requests have cost of late: how many were counted, and all their dollars."""

    requests: int
    nano: int


class Ledger(Protocol):
    """One store of rows and counters. Every method raises `StoreError` when it is unreachable."""

    async def reserve(self, wave: Wave) -> Grant:
        """Reserve as many leading bundles as fit into all accounts; durable when it returns.

        When the caller is cancelled meanwhile, whatever was reserved is released again.
        """
        ...

    async def dispatch(self, ids: Sequence[str]) -> None:
        """Mark held rows as about to be sent; durable when it returns."""
        ...

    def settle(self, settlements: Sequence[Settlement]) -> asyncio.Future[None]:
        """Post what rows cost and free their reservations. Settling a row again changes nothing.

        Queued, in order, when it returns; durable when the future is done.
        """
        ...

    async def balances(self, accounts: Sequence[Account]) -> Sequence[Balance]:
        """Read accounts as of now, in the order given."""
        ...

    async def recent(self, route: str, days: int) -> Recent:
        """Return what requests of a route have cost in the last days.

        Counted are requests without open rows, with at least one sample that was billed; a store
        may look at its newest rows alone.
        """
        ...

    async def close(self) -> None:
        """Write what is queued and close the store."""
        ...
