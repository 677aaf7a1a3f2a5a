"""Serving while the store fails never makes what was sent look as if it had not been."""

from __future__ import annotations

from pathlib import Path

from samplewise.proxy.ledger.base import State
from samplewise.proxy.ledger.sqlite import SqliteLedger
from samplewise.proxy.metrics import Metrics
from samplewise.proxy.unmetered import UnmeteredLedger
from tests.ledger.kit import Clock, Disk, account, nano_of, released, wave

DAILY = account("alice", nano=1_000)


def unmetered(below: SqliteLedger) -> UnmeteredLedger:
    return UnmeteredLedger(below, Metrics((), {}))


async def test_what_was_sent_while_the_store_failed_is_never_released_as_unsent_after_a_crash(
    ledger: SqliteLedger, disk: Disk, clock: Clock, path: Path
) -> None:
    serving = unmetered(ledger)
    await serving.reserve(wave(DAILY, ids=["a", "b"], dispatched=False))
    disk.freeze()
    await serving.dispatch(["a", "b"])
    disk.thaw()
    await ledger.close()  # nobody has settled them
    heir = await SqliteLedger.open(path, clock=clock)
    found = await heir.orphans()
    assert [(row.id, row.state) for row in found] == [
        ("a", State.DISPATCHED),
        ("b", State.DISPATCHED),
    ]
    assert await nano_of(heir, DAILY) == (0, 200)
    await heir.close()


async def test_what_was_not_sent_after_all_is_released_by_who_knows_it(
    ledger: SqliteLedger,
) -> None:
    serving = unmetered(ledger)
    await serving.reserve(wave(DAILY, ids=["a"], dispatched=False))
    await serving.settle([released("a")])
    assert await nano_of(ledger, DAILY) == (0, 0)
