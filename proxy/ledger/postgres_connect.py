"""How a PostgreSQL ledger is opened and migrated, and what to say when it cannot be used."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

import asyncpg
import msgspec

from samplewise.proxy.errors import StoreError
from samplewise.proxy.ledger.accounts import Totals
from samplewise.proxy.ledger.base import Recent
from samplewise.proxy.ledger.postgres_queries import NOW_MS, RECENT, TOTALS, WRONG_COUNTERS
from samplewise.proxy.ledger.postgres_schema import MIGRATIONS

__all__ = ["STORE_ERRORS", "connect", "label", "migrate", "store_error", "totals"]

STORE_ERRORS = (
    StoreError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    msgspec.MsgspecError,
)
"""Whatever a database that cannot be used raises; `store_error` says it in words."""

_ADVISORY = 0x5357_4C44  # "SWLD"
_CONNECT_S = 5.0
_CONFIGURE = """
SELECT set_config('lock_timeout', '10s', false),
    set_config('synchronous_commit', CASE current_setting('synchronous_commit')
        WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, false)"""


def label(url: str) -> str:
    """Return a store URL for messages, without password and options."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    return f"postgresql://{unquote(user.partition(':')[0])}{at}{host}{parts.path}"


async def connect(
    url: str,
    *,
    create: bool = False,
    update: bool = False,
    migrations: Sequence[Sequence[str]] = MIGRATIONS,
) -> Any:
    """Return a connection to the ledger in a database.

    Only `create` makes its tables; `update`, or `create`, brings them up to date.

    Raises:
        StoreError: the database holds no ledger, or one of a newer Samplewise.
        asyncpg.PostgresError, asyncpg.InterfaceError, OSError: it cannot be reached or used.
    """
    db = await asyncpg.connect(url, timeout=_CONNECT_S)
    with ExitStack() as undo:
        undo.callback(db.terminate)
        await db.execute(_CONFIGURE)
        version = await _version(db, url, len(migrations))
        if version < len(migrations):
            if not (create or (update and version)):
                gone = "is older than this process" if version else "is not there, or is gone"
                raise StoreError(f"The ledger {label(url)} {gone}. Start the server to make it.")
            await migrate(db, url, migrations)
        undo.pop_all()
    return db


async def migrate(db: Any, url: str, migrations: Sequence[Sequence[str]]) -> None:
    """Bring the tables up to date, in one transaction and one process at a time."""
    async with db.transaction():
        await db.execute("SELECT pg_advisory_xact_lock($1)", _ADVISORY)
        # Another process may have done it while this one waited for the lock.
        version = await _version(db, url, len(migrations))
        if not await db.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname = 'samplewise'"):
            await db.execute("CREATE SCHEMA samplewise")
        elif not version and await _tables(db):
            raise StoreError(
                f"The schema 'samplewise' in {label(url)} is not a Samplewise ledger."
                " Name another database in `store`."
            )
        for statement in itertools.chain.from_iterable(migrations[version:]):
            await db.execute(statement)
        await db.execute(
            "UPDATE samplewise.meta SET value = $1 WHERE name = 'schema'", len(migrations)
        )


async def _tables(db: Any) -> set[str]:
    # Not by to_regclass, which may remember that a table was not there.
    found = await db.fetch(
        "SELECT relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE n.nspname = 'samplewise'"
    )
    return {str(row[0]) for row in found}


async def _version(db: Any, url: str, newest: int) -> int:
    """Return the schema version; refuse a database that this program must not touch."""
    encoding = await db.fetchval("SHOW server_encoding")
    if encoding != "UTF8":
        raise StoreError(
            f"The database {label(url)} has the encoding {encoding}. Use one that has UTF8."
        )
    if "meta" not in await _tables(db):
        return 0
    version = int(await db.fetchval("SELECT value FROM samplewise.meta WHERE name = 'schema'") or 0)
    if version > newest:
        raise StoreError(
            f"The ledger {label(url)} has schema version {version}, this Samplewise knows {newest}."
            " Start the newer Samplewise, or name another database in `store`."
        )
    return version


async def totals(url: str) -> Totals:
    """Add up all rows and compare every counter with its rows, on a connection of its own."""
    async with reading(url) as db:
        return await add_up(db)


async def add_up(db: Any) -> Totals:
    """Add up all rows and compare every counter with its rows, in a transaction that is open."""
    sums = await db.fetchrow(TOTALS)
    return Totals(*(*sums, await db.fetchval(WRONG_COUNTERS)))


@asynccontextmanager
async def reading(url: str) -> AsyncIterator[Any]:
    """Give a connection in a transaction, in which all that is read is of one commit.

    Raises:
        StoreError: the database cannot be reached and used.
    """
    try:
        db = await connect(url)
        try:
            async with db.transaction(isolation="repeatable_read", readonly=True):
                yield db
        finally:
            db.terminate()
    except STORE_ERRORS as error:
        raise store_error(url, error) from error


async def recent(url: str, now_ms: int | None, route: str, days: int) -> Recent:
    """Return what requests of a route have cost of late; the server's clock counts without one."""
    async with reading(url) as db:
        now = await db.fetchval(NOW_MS) if now_ms is None else now_ms
        requests, nano = await db.fetchrow(RECENT, now - days * 86_400_000, route)
        return Recent(int(requests), int(nano))


def store_error(url: str, error: Exception) -> StoreError:
    """Say what is wrong with the database, and what to do about it."""
    if isinstance(error, StoreError):
        return error
    advice = next((text for kind, text in _ADVICE if isinstance(error, kind)), "")
    said = str(error) or type(error).__name__
    if isinstance(error, asyncpg.ClientConfigurationError):
        said = "the URL or the PG... variables cannot be used"  # it may quote what is secret
    wrong = StoreError(f"The ledger {label(url)} cannot be used: {said}.{advice}")
    wrong.__cause__ = None if isinstance(error, asyncpg.ClientConfigurationError) else error
    return wrong


_ADVICE: tuple[tuple[type[Exception], str], ...] = (
    (
        asyncpg.InvalidAuthorizationSpecificationError,
        " Check the user in `store`, and PGPASSWORD or the password file.",
    ),
    (asyncpg.InvalidCatalogNameError, " Create the database first."),
    (
        asyncpg.InsufficientPrivilegeError,
        " The first start needs CREATE on the database; later ones the rights on its tables.",
    ),
    (asyncpg.ReadOnlySQLTransactionError, " Name the primary in `store`, not a standby."),
    (asyncpg.LockNotAvailableError, " Another session holds its rows for too long: see which one."),
    (asyncpg.DiskFullError, " Free space on the database server."),
    (
        asyncpg.TooManyConnectionsError,
        " Raise max_connections of the server, or run fewer workers.",
    ),
    (OSError, " Check that the server runs and can be reached from here."),
)
