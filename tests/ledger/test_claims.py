"""One claim for one request, whatever the store; it dies with the opening that made it."""

from __future__ import annotations

import asyncio

import pytest

from samplewise.proxy.ledger.claims import Claim
from tests.ledger.conftest import PostgresStore, Store
from tests.ledger.kit import AnyLedger
from tests.ledger.pg import execute, let_run_out

NAME, BODY = b"n" * 16, b"b" * 16


async def both(store: Store) -> tuple[AnyLedger, AnyLedger]:
    return await store.open(), await store.open()


async def test_a_request_is_claimed_by_one_opening_until_it_lets_go(store: Store) -> None:
    one, other = await both(store)
    assert await one.claim(NAME, BODY, "/one") is None
    assert await one.claim(NAME, BODY, "/one") is None  # asked again it is still its own
    assert await other.claim(NAME, b"x", "/other") == Claim(BODY, "/one", None)
    await one.let_go({NAME: 0})
    assert await other.claim(NAME, BODY, "/other") is None
    assert await one.claim(NAME, BODY, "/one") == Claim(BODY, "/other", None)
    await one.let_go({NAME: 0})  # not its own any more
    assert await one.claim(NAME, BODY, "/one") == Claim(BODY, "/other", None)
    await one.close()
    await other.close()


async def test_of_many_claims_at_once_one_is_granted(store: Store) -> None:
    ledgers = [await store.open() for _ in range(4)]
    claims = await asyncio.gather(
        *(each.claim(NAME, BODY, str(i)) for i, each in enumerate(ledgers))
    )
    assert claims.count(None) == 1
    owner = str(claims.index(None))
    assert {claim.address for claim in claims if claim} == {owner}
    for each in ledgers:
        await each.close()


async def test_an_answer_that_is_kept_holds_its_claim_for_that_time(store: Store) -> None:
    one, other = await both(store)
    await one.claim(NAME, BODY, "/one")
    await one.let_go({NAME: 60_000})
    found = await other.claim(NAME, BODY, "/other")
    assert found is not None
    assert found.kept_ms is not None
    assert 0 < found.kept_ms <= 60_000
    await one.let_go({NAME: -1})  # its time is over
    assert await other.claim(NAME, BODY, "/other") is None
    await one.close()
    await other.close()


async def test_claims_of_an_opening_that_ended_are_free_and_swept(store: Store) -> None:
    one, other = await both(store)
    for number in range(3):
        await one.claim(bytes([number]) * 16, BODY, "/one")
    await one.close()
    assert await other.claim(bytes(16), BODY, "/other") is None
    await other.orphans()
    assert len(await store.claims()) == 1
    await other.close()


async def test_a_process_that_is_taken_for_dead_has_no_claims_left(database: str) -> None:
    store = PostgresStore(database)
    one, other = await both(store)
    await one.claim(NAME, BODY, "/one")
    ((epoch,),) = await execute(database, "SELECT min(epoch) FROM samplewise.writers")
    await let_run_out(database, int(str(epoch)))
    # Silence alone frees nothing: it may be on its way back.
    assert await other.claim(NAME, BODY, "/other") == Claim(BODY, "/one", None)
    await other.orphans()
    assert await other.claim(NAME, BODY, "/other") is None
    # It goes on under another number, and finds the claim of the other one.
    assert await one.claim(NAME, BODY, "/one") == Claim(BODY, "/other", None)
    await one.close()
    await other.close()


@pytest.mark.parametrize("kept_ms", [0, 1_000])
async def test_letting_go_of_what_nobody_claimed_changes_nothing(
    store: Store, kept_ms: int
) -> None:
    ledger = await store.open()
    await ledger.let_go({NAME: kept_ms})
    assert await store.claims() == []
    await ledger.close()
