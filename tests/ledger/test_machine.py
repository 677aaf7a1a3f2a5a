"""Whatever is asked in whatever order, the ledger agrees with a small model of it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

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
    Settlement,
    State,
    Wave,
)
from samplewise.proxy.ledger.postgres import PostgresLedger
from samplewise.proxy.ledger.sqlite import SqliteLedger
from tests.ledger.kit import DAY, HOUR, AnyLedger, Clock, Disk, many_chunks, released
from tests.ledger.model import NAMES, Model, Op
from tests.ledger.pg import Server, execute, let_run_out

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


class ChunksMachine(PostgresMachine):
    """The same with room of every counter leased as soon as it is touched."""

    leased = 0

    def open(self) -> None:
        chunks = many_chunks()
        self.ledger = self.runner.run(
            PostgresLedger.open(self.url, clock=self.clock, chunks=chunks)
        )

    @invariant()
    def lease(self) -> None:
        count = "SELECT count(*) FROM samplewise.chunks"
        ((found,),) = self.runner.run(execute(self.url, count))
        self.leased += int(str(found))

    def remove(self) -> None:
        super().remove()
        self.done.append(1_000_000 * (self.leased > 0))


class LongMachine(Machine):
    """The same for as long as it takes."""


TestShort = Machine.TestCase
TestShort.settings = settings(max_examples=25, stateful_step_count=15)
TestLong = pytest.mark.slow(LongMachine.TestCase)
TestLong.settings = settings(max_examples=250, stateful_step_count=50)


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
        settings=settings(max_examples=examples, stateful_step_count=steps),
    )
    assert sum(done) >= least


@pytest.mark.parametrize(
    ("examples", "steps", "least"),
    [(5, 12, 20), pytest.param(130, 50, 5_000, marks=pytest.mark.slow)],
)
def test_the_model_and_chunks_agree(
    postgres: Server, examples: int, steps: int, least: int
) -> None:
    done: list[int] = []
    run_state_machine_as_test(
        lambda: ChunksMachine(postgres, done),  # type: ignore[arg-type] # any factory will do
        settings=settings(max_examples=examples, stateful_step_count=steps),
    )
    leased, steps_done = divmod(sum(done), 1_000_000)
    assert steps_done >= least
    assert leased or least < 1_000  # a few steps may not come to lease anything
