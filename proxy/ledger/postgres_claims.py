"""Claims in the PostgreSQL ledger, see `claims`. Who lives is told by the leases."""

from __future__ import annotations

from samplewise.proxy.ledger.postgres_leases import FENCED

__all__ = ["CLAIM", "CLAIMS", "LET_GO", "SWEEP_CLAIMS"]

CLAIM = "SELECT samplewise.claim_request($1, $2, $3, $4)"
LET_GO = "SELECT samplewise.let_go($1, $2, $3)"
# Locked ones are looked at by somebody else just now.
SWEEP_CLAIMS = """
DELETE FROM samplewise.claims WHERE name IN (
    SELECT name FROM samplewise.claims AS c WHERE until_ms <= samplewise.clock_ms()
        OR NOT EXISTS (SELECT 1 FROM samplewise.writers AS w WHERE w.epoch = c.owner_epoch)
    FOR UPDATE SKIP LOCKED)"""

_TABLE = """
CREATE TABLE samplewise.claims (
    name BYTEA PRIMARY KEY,     -- digest of client and idempotency key
    digest BYTEA NOT NULL,      -- of the whole request
    owner_epoch BIGINT NOT NULL,
    address TEXT NOT NULL,      -- where its process listens, on its machine
    until_ms BIGINT             -- how long its answer is kept; NULL while it runs
)
"""

# Answers null if the claim is the writer's now, else [digest as hex, address, ms or null].
_CLAIM = f"""
CREATE FUNCTION samplewise.claim_request(writer BIGINT, called BYTEA, said BYTEA, place TEXT)
RETURNS JSONB LANGUAGE plpgsql AS $$
DECLARE
    now_ms BIGINT := samplewise.clock_ms();
    other RECORD;
BEGIN
    PERFORM 1 FROM samplewise.writers WHERE epoch = writer;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'writer % is dead itself', writer USING ERRCODE = '{FENCED}';
    END IF;
    INSERT INTO samplewise.claims AS c VALUES (called, said, writer, place, NULL)
    ON CONFLICT (name) DO UPDATE
    SET digest = said, owner_epoch = writer, address = place, until_ms = NULL
    WHERE c.owner_epoch = writer OR c.until_ms <= now_ms
        OR NOT EXISTS (SELECT 1 FROM samplewise.writers AS w WHERE w.epoch = c.owner_epoch);
    IF FOUND THEN
        RETURN NULL;
    END IF;
    -- The statement above has locked it.
    SELECT * INTO other FROM samplewise.claims WHERE name = called;
    RETURN jsonb_build_array(encode(other.digest, 'hex'), other.address, other.until_ms - now_ms);
END
$$
"""

_LET_GO = """
CREATE FUNCTION samplewise.let_go(writer BIGINT, names BYTEA[], kept_ms BIGINT[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    now_ms BIGINT := samplewise.clock_ms();
BEGIN
    PERFORM 1 FROM samplewise.claims WHERE name = ANY (names) AND owner_epoch = writer
    ORDER BY name FOR UPDATE;
    UPDATE samplewise.claims AS c SET until_ms = now_ms + n.kept
    FROM unnest(names, kept_ms) AS n (name, kept)
    WHERE c.name = n.name AND c.owner_epoch = writer;
    DELETE FROM samplewise.claims WHERE name = ANY (names) AND owner_epoch = writer
        AND until_ms <= now_ms;
END
$$
"""

CLAIMS = (_TABLE, _CLAIM, _LET_GO)
