"""From the settings of the store to the ledger."""

from __future__ import annotations

import asyncio

from samplewise.policies.price import nano_from_usd
from samplewise.proxy.config_store import is_postgres, postgres_extra, store_path
from samplewise.proxy.ledger.chunks import Chunks
from samplewise.proxy.ledger.orphans import RecoverableLedger
from samplewise.proxy.ledger.sqlite import SqliteLedger
from samplewise.proxy.threads import InThread

__all__ = ["open_ledger"]


async def open_ledger(
    url: str, chunk_usd: float | None = None, in_thread: InThread = asyncio.to_thread
) -> RecoverableLedger:
    """Open the ledger of a checked URL, with chunks of so many dollars at most in PostgreSQL.

    What blocks beside the ledger's own thread is done by `in_thread`.

    Raises:
        ConfigError: it is PostgreSQL and the extra is not installed.
        StoreError: it cannot be opened.
    """
    if not is_postgres(url):
        return await SqliteLedger.open(store_path(url), in_thread=in_thread)
    with postgres_extra():
        from samplewise.proxy.ledger.postgres import PostgresLedger
    chunks = None if chunk_usd is None else Chunks(nano_from_usd(chunk_usd))
    return await PostgresLedger.open(url, chunks=chunks)
