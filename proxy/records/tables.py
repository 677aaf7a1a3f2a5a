"""The table of records in both stores. Part of the ledger's schema, changed with its versions."""

from __future__ import annotations

__all__ = ["POSTGRES", "SQLITE"]

_COLUMNS = """
    request_id TEXT PRIMARY KEY NOT NULL,
    given_id TEXT NOT NULL, -- the x-request-id that came with it, or empty
    "key" TEXT NOT NULL,    -- the id of the client key, or empty
    route TEXT NOT NULL,
    at {whole} NOT NULL,    -- when it ended, UTC ms
    content TEXT NOT NULL   -- JSON
"""

SQLITE: tuple[str, ...] = (
    f"CREATE TABLE records ({_COLUMNS.format(whole='INTEGER')}) STRICT",
    "CREATE INDEX records_at ON records (at)",
    "CREATE INDEX records_given ON records (given_id) WHERE given_id <> ''",
)

POSTGRES = f"""
CREATE TABLE samplewise.records ({_COLUMNS.format(whole="BIGINT")});
CREATE INDEX records_at ON samplewise.records (at);
CREATE INDEX records_given ON samplewise.records (given_id) WHERE given_id <> '';
"""
