"""After a crash: what the rows of a process that died really cost.

Held rows were never sent and are released by the ledger. The others may have cost anything up to
what they hold: exactly what the upstream's own record says, where it keeps one; else what the last
checkpoint says, where the backend is set so; else all of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import groupby

import structlog

from samplewise.policies.price import Usage
from samplewise.proxy.backends.records import Records, Unknown
from samplewise.proxy.background import beside
from samplewise.proxy.billing import split
from samplewise.proxy.errors import StoreError
from samplewise.proxy.ledger.base import Settlement, State, UsageSource
from samplewise.proxy.ledger.orphans import Orphan, RecoverableLedger
from samplewise.proxy.upstreams import Upstream

__all__ = ["Sources", "keep_recovering", "recover", "recovering"]

_log = structlog.get_logger("samplewise.recovery")
_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Sources:
    """Backends by name, whose prices tell what a call cost, and the records of those with some."""

    upstreams: Mapping[str, Upstream]
    records: Mapping[str, Records]


@asynccontextmanager
async def recovering(
    ledger: RecoverableLedger, sources: Callable[[], Sources]
) -> AsyncIterator[None]:
    """Settle what processes that died have left beside the body: now, and again and again.

    `sources` is asked each time, since a reload changes them. What is not done at the body's end
    stays open for whoever looks next.
    """
    async with beside(keep_recovering(ledger, sources), "recovery of calls"):
        yield


async def keep_recovering(
    ledger: RecoverableLedger,
    sources: Callable[[], Sources],
    pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> None:
    """Look for orphans and settle them until cancelled, also when the store fails meanwhile."""
    reachable = True
    while True:
        try:
            orphans = await ledger.orphans()
            reachable = True
        except StoreError as error:
            orphans = ()
            if reachable:
                _log.warning("cannot look for calls of processes that died", error=str(error))
            reachable = False
        if orphans:
            await recover(ledger, orphans, sources())
        await pause(ledger.orphans_every_s)


async def recover(
    ledger: RecoverableLedger,
    orphans: Sequence[Orphan],
    sources: Sources,
) -> None:
    """Settle every orphan as `recovered`, call by call. Errors of the store are logged."""
    _log.warning("found calls of a process that died", rows=len(orphans))
    turn = asyncio.Semaphore(_AT_ONCE)

    async def settle(rows: Sequence[Orphan]) -> None:
        async with turn:
            name = rows[0].backend
            found = await _ends(rows, sources.upstreams.get(name), sources.records.get(name))
        await ledger.settle(found)

    try:
        async with asyncio.TaskGroup() as group:
            for _, rows in groupby(orphans, key=lambda row: row.call_id):
                group.create_task(settle(list(rows)))
    except* StoreError as errors:
        # Their rows stay reserved, the safe side: the ledger keeps settlements, or finds the rows.
        _log.error("recovery is not finished", error=str(errors.exceptions[0]))
    else:
        _log.warning("recovered calls of a process that died", rows=len(orphans))


async def _ends(
    rows: Sequence[Orphan], upstream: Upstream | None, records: Records | None
) -> list[Settlement]:
    """Return the end of every row of one call."""
    if upstream is None:
        return [_worst(row) for row in rows]
    if upstream.price.version != rows[0].price_version:
        _log.warning(
            "recovered at the worst case: the price has changed since", backend=upstream.name
        )
        return [_worst(row) for row in rows]
    if records is None or upstream.price.image_pico:
        # Neither rows nor records say how many images there were.
        return [_as_seen(row, upstream) for row in rows]
    try:
        usage = await records.usage(rows[0].call_id, rows[0].held_at)
    except Unknown as error:
        how = "the worst case" if upstream.checkpoints is None else "the last checkpoint"
        _log.warning(f"recovered at {how}", backend=upstream.name, error=str(error))
        return [_as_seen(row, upstream) for row in rows]
    source = UsageSource.RECONCILED
    if usage is None:
        return [Settlement(row.id, 0, source=source, state=State.RELEASED) for row in rows]
    # As any other call's, its prompt is paid by the first row.
    prompts = [usage.prompt] + [0] * (len(rows) - 1)
    parts = zip(rows, prompts, split(usage.completion, [1] * len(rows)), strict=True)
    return [
        Settlement(row.id, upstream.price.most_nano(used), used, source, State.RECOVERED)
        for row, used in ((row, Usage(prompt, 0, tokens)) for row, prompt, tokens in parts)
    ]


def _as_seen(row: Orphan, upstream: Upstream) -> Settlement:
    """Return a row as it was last seen where its backend is set so, else as it was held."""
    if upstream.checkpoints is None or not row.seen:
        return _worst(row)
    nano = row.nano - upstream.price.unused_nano(row.tokens - row.seen)
    usage = Usage(0, 0, row.seen)
    return Settlement(row.id, nano, usage, UsageSource.COUNTED, State.RECOVERED)


def _worst(row: Orphan) -> Settlement:
    # Tokens as well as dollars: limits in tokens must hold too.
    usage = Usage(0, 0, row.tokens)
    return Settlement(row.id, row.nano, usage, UsageSource.WORST_CASE, State.RECOVERED)
