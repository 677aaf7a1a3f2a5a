"""What a ledger must do, without counters and stores: every sum is over all rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias

from samplewise.proxy.errors import StoreError
from samplewise.proxy.ledger.base import (
    Account,
    Grant,
    Hold,
    Scope,
    Settlement,
    State,
    Wave,
    Window,
)
from tests.ledger.kit import Clock

NAMES = [
    (Scope.KEY, "alice", Window.HOUR),
    (Scope.ROUTE, "math", Window.DAY),
    (Scope.GLOBAL, "all", Window.MONTH),
    (Scope.KEY, "alice", Window.TOTAL),
    (Scope.TAG, "team", Window.MINUTE),
    (Scope.BACKEND, "gpu", Window.DAY),
]
PERIOD = {Window.MINUTE: 16, Window.HOUR: 13, Window.DAY: 10, Window.MONTH: 7, Window.TOTAL: 0}

Sums: TypeAlias = tuple[int, int, int]
Op: TypeAlias = Wave | list[str] | list[Settlement]


@dataclass
class Line:
    """A row of the model."""

    held: Sums
    accounts: set[tuple[str, str, str]]
    state: State
    opening: int
    spent: Sums = (0, 0, 0)
    overrun: int = 0


@dataclass
class Model:
    """What the ledger must do, without counters: every sum is over all rows."""

    clock: Clock
    lines: dict[str, Line] = field(default_factory=dict)
    opening: int = 0

    def place(self, account: Account) -> tuple[str, str, str]:
        moment = datetime.fromtimestamp(self.clock.now / 1000, UTC).isoformat()
        return account.scope, account.name, account.window + moment[: PERIOD[account.window]]

    def sums(self, account: Account) -> tuple[Sums, Sums, int]:
        """Return spent, reserved and overrun."""
        lines = [line for line in self.lines.values() if self.place(account) in line.accounts]
        waiting = [line for line in lines if line.state in (State.HELD, State.DISPATCHED)]
        return (
            added([line.spent for line in lines]),
            added([line.held for line in waiting]),
            sum(line.overrun for line in lines),
        )

    def fits(self, wave: Wave, count: int, account: Account) -> bool:
        holds = [hold for bundle in wave.bundles[:count] for hold in bundle]
        wanted = [need(hold) for hold in holds if concerns(account, hold)]
        if not wanted:
            return True
        spent, reserved, _ = self.sums(account)
        total = added([spent, reserved, *wanted])
        limits = (account.limit.nano, account.limit.tokens, account.limit.samples)
        return all(
            limit is None or amount <= limit for amount, limit in zip(total, limits, strict=True)
        )

    def reserve(self, wave: Wave) -> Grant | None:
        ids = [hold.id for bundle in wave.bundles for hold in bundle]
        if len(set(ids)) < len(ids) or not self.lines.keys().isdisjoint(ids):
            return None
        count = len(wave.bundles)
        while count and not all(self.fits(wave, count, one) for one in wave.accounts):
            count -= 1
        blocked = None
        if count < len(wave.bundles):
            blocked = next(one for one in wave.accounts if not self.fits(wave, count + 1, one))
        state = State.DISPATCHED if wave.dispatched else State.HELD
        for bundle in wave.bundles[:count]:
            for hold in bundle:
                places = {self.place(one) for one in wave.accounts if concerns(one, hold)}
                self.lines[hold.id] = Line(need(hold), places, state, self.opening)
        return Grant(count, blocked)

    def dispatch(self, ids: list[str]) -> bool:
        lines = [self.lines.get(id_) for id_ in ids]
        if not all(line and line.state in (State.HELD, State.DISPATCHED) for line in lines):
            return False
        for id_ in ids:
            self.lines[id_].state = State.DISPATCHED
        return True

    def settle(self, settlements: list[Settlement]) -> None:
        for end in settlements:
            line = self.lines.get(end.id)
            if line is None or line.state not in (State.HELD, State.DISPATCHED):
                continue
            line.state = end.state
            if end.state is not State.RELEASED:
                line.spent = (end.nano, end.usage.prompt + end.usage.completion, line.held[2])
                line.overrun = max(0, end.nano - line.held[0])

    def recover(self) -> list[str]:
        """Release what was held, and book at its worst what was sent, by openings before this."""
        sent = []
        for id_, line in self.lines.items():
            if line.opening == self.opening or line.state not in (State.HELD, State.DISPATCHED):
                continue
            if line.state is State.HELD:
                line.state = State.RELEASED
            else:
                line.state, line.spent = State.RECOVERED, line.held
                sent.append(id_)
        return sent

    def expected(self, op: Op) -> Any:
        """Apply one operation; return what the ledger must answer, `StoreError` if it must fail."""
        if isinstance(op, Wave):
            return self.reserve(op) or StoreError
        if op and isinstance(op[0], str):
            return None if self.dispatch([str(id_) for id_ in op]) else StoreError
        self.settle([end for end in op if isinstance(end, Settlement)])
        return None


def concerns(account: Account, hold: Hold) -> bool:
    return account.scope != "backend" or account.name == hold.backend


def need(hold: Hold) -> Sums:
    return hold.nano, hold.tokens, int(hold.sample)


def added(amounts: Sequence[Sums]) -> Sums:
    return (
        sum(amount[0] for amount in amounts),
        sum(amount[1] for amount in amounts),
        sum(amount[2] for amount in amounts),
    )
