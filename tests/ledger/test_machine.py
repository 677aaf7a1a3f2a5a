"""Whatever is asked in whatever order, the ledger agrees with a small model of it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from samplewise.policies.price import Usage
from samplewise.proxy.errors import StoreError
from samplewise.proxy.ledger.base import (
    Account,
    Grant,
    Hold,
    Limit,
    Scope,
    Settlement,
    State,
    Wave,
    Window,
)
from samplewise.proxy.ledger.postgres import PostgresLedger
from samplewise.proxy.ledger.sqlite import SqliteLedger
from tests.ledger.kit import DAY, HOUR, AnyLedger, Clock, Disk, released
from tests.ledger.pg import Server, execute, let_run_out

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


IDS = st.integers(0, 40).map(str)  # few, so that rows are met again; some are never reserved
AMOUNTS = st.integers(0, 60)
LIMITS = st.builds(
    Limit,
    nano=st.none() | st.integers(0, 600),
    tokens=st.none() | st.integers(0, 600),
    samples=st.none() | st.integers(0, 12),
)
ACCOUNTS = st.lists(
    st.builds(
        lambda name, limit: Account(name[0], name[1], name[2], limit),
        st.sampled_from(NAMES),
        LIMITS,
    ),
    max_size=4,
).map(tuple)
HOLDS = st.builds(
    lambda id_, nano, tokens, sample, backend: Hold(
        id_, f"c{id_}", 0, backend, "m", "sample", nano, tokens, "v1", sample
    ),
    IDS,
    AMOUNTS,
    AMOUNTS,
    st.booleans(),
    st.sampled_from(["gpu", "api"]),
)
BUNDLES = st.lists(HOLDS, max_size=8, unique_by=lambda hold: hold.id).flatmap(
    lambda holds: st.sampled_from(
        [tuple((hold,) for hold in holds), tuple(zip(holds[::2], holds[1::2], strict=False))]
    )
)
WAVES = st.builds(
    lambda accounts, bundles, sent: Wave("req", "math", "alice", accounts, bundles, sent),
    ACCOUNTS,
    BUNDLES,
    st.booleans(),
)
ENDS = st.lists(
    st.builds(released, IDS)
    | st.builds(
        lambda id_, nano, prompt, tokens, state: Settlement(
            id_, nano, Usage(prompt, 0, tokens), state=state
        ),
        IDS,
        st.integers(0, 90),
        AMOUNTS,
        AMOUNTS,
        st.sampled_from([State.SETTLED, State.RECOVERED]),
    ),
    max_size=6,
)
OPS = st.lists(WAVES | ENDS | st.lists(IDS, max_size=3), min_size=1, max_size=8)


class Machine(RuleBasedStateMachine):
    """The ledger and its model side by side."""

    steps = 0

    @initialize()
    def begin(self) -> None:
        self.clock = Clock()
        self.model = Model(self.clock)
        self.runner = asyncio.Runner()
        self.make()
        self.open()

    def make(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.disk = Disk()

    def remove(self) -> None:
        self.folder.cleanup()

    def open(self) -> None:
        path = Path(self.folder.name) / "ledger.db"
        self.ledger: AnyLedger = self.runner.run(
            SqliteLedger.open(path, clock=self.clock, connect=self.disk)
        )

    def set_writable(self, writable: bool) -> None:
        if writable:
            self.disk.thaw()
        else:
            self.disk.freeze()

    def ask(self, op: Op) -> Awaitable[Any]:
        if isinstance(op, Wave):
            return self.ledger.reserve(op)
        if op and isinstance(op[0], str):
            return self.ledger.dispatch([str(id_) for id_ in op])
        return self._settled([end for end in op if isinstance(end, Settlement)])

    async def _settled(self, ends: list[Settlement]) -> None:
        # Asked for when its turn comes, as all else is: `settle` queues as soon as it is called.
        await self.ledger.settle(ends)

    async def answers(self, ops: list[Op]) -> list[Any]:
        """Ask everything at once. The order of asking is the order in which it applies."""
        outcomes = await asyncio.gather(*map(self.ask, ops), return_exceptions=True)
        return [StoreError if isinstance(outcome, StoreError) else outcome for outcome in outcomes]

    @rule(ops=OPS)
    def work(self, ops: list[Op]) -> None:
        expected = [self.model.expected(op) for op in ops]
        assert self.runner.run(self.answers(ops)) == expected

    @rule(ops=OPS)
    def fail(self, ops: list[Op]) -> None:
        """Nothing is granted while the disk is read-only; what was settled is posted later."""
        self.set_writable(False)
        for outcome in self.runner.run(self.answers(ops)):
            nothing = isinstance(outcome, Grant) and not outcome.bundles
            assert outcome is StoreError or outcome is None or nothing  # there was nothing to write
        for op in ops:
            if not isinstance(op, Wave):
                self.model.settle([end for end in op if isinstance(end, Settlement)])
        self.set_writable(True)

    @rule(hours=st.integers(-30, 800), days=st.sampled_from([0, 0, 0, -31, 31]))
    def move_clock(self, hours: int, days: int) -> None:
        self.clock.now += hours * HOUR + days * DAY

    @rule()
    def restart(self) -> None:
        self.runner.run(self.ledger.close())
        self.model.opening += 1
        self.open()

    @rule()
    def recover(self) -> None:
        """What earlier openings left open is ended, what was sent at its worst."""
        assert self.runner.run(self.recovered(self.ledger)) == self.model.recover()

    async def recovered(self, ledger: AnyLedger) -> list[str]:
        found = await ledger.orphans()
        ends = [
            Settlement(row.id, row.nano, Usage(completion=row.tokens), state=State.RECOVERED)
            for row in found
        ]
        await ledger.settle(ends)
        order = list(self.model.lines)
        return sorted((row.id for row in found), key=order.index)

    @invariant()
    def agree(self) -> None:
        self.steps += 1
        accounts = [Account(scope, name, window) for scope, name, window in NAMES]
        for balance in self.runner.run(self.ledger.balances(accounts)):
            spent, reserved, overrun = self.model.sums(balance.account)
            assert balance.spent == Limit(*spent)
            assert balance.reserved == Limit(*reserved)
            assert balance.overrun_nano == overrun
        totals = self.runner.run(self.ledger.totals())
        assert totals.wrong_counters == 0
        assert totals.rows == len(self.model.lines)
        assert totals.open_rows == self.runner.run(self.ledger.open_rows())

    def teardown(self) -> None:
        with self.runner:
            self.runner.run(self.ledger.close())
        self.remove()


class PostgresMachine(Machine):
    """The same on PostgreSQL."""

    def __init__(self, server: Server, done: list[int]) -> None:
        self.server = server
        self.done = done
        super().__init__()

    def make(self) -> None:
        self.url = self.server.new_database()

    def remove(self) -> None:
        self.done.append(self.steps - 1)  # at first nothing was done

    def open(self) -> None:
        self.ledger = self.runner.run(PostgresLedger.open(self.url, clock=self.clock))

    def set_writable(self, writable: bool) -> None:
        name = self.url.rpartition("/")[2]
        self.server.run(f"ALTER DATABASE {name} SET default_transaction_read_only = {not writable}")
        # It holds for new connections.
        self.server.run(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        )

    @rule()
    def be_taken_for_dead(self) -> None:
        """Its lease has run out while it was silent: another one ends its rows, and it goes on."""
        self.runner.run(self._outlive())
        self.model.opening += 1
        assert self.taken == self.model.recover()

    async def _outlive(self) -> None:
        other = await PostgresLedger.open(self.url, clock=self.clock)
        ((epoch,),) = await execute(self.url, "SELECT min(epoch) FROM samplewise.writers")
        await let_run_out(self.url, int(str(epoch)))
        self.taken = await self.recovered(other)
        await other.close()


class LongMachine(Machine):
    """The same for as long as it takes."""


TestShort = Machine.TestCase
TestShort.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
TestLong = pytest.mark.slow(LongMachine.TestCase)
TestLong.settings = settings(max_examples=250, stateful_step_count=50, deadline=None)


@pytest.mark.parametrize(
    ("examples", "steps", "least"),
    [(5, 12, 20), pytest.param(260, 50, 10_000, marks=pytest.mark.slow)],
)
def test_the_model_and_postgresql_agree(
    postgres: Server, examples: int, steps: int, least: int
) -> None:
    done: list[int] = []
    run_state_machine_as_test(
        lambda: PostgresMachine(postgres, done),  # type: ignore[arg-type] # any factory will do
        settings=settings(max_examples=examples, stateful_step_count=steps, deadline=None),
    )
    assert sum(done) >= least
