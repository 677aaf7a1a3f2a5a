"""Who still lives, in the PostgreSQL ledger: leases, and rows taken over from those that died.

Every opening of the ledger has a lease, by the clock of the database alone, and renews it. Who lets
it run out is dead for good: in one transaction another one takes its row out of `writers`, so that
what it still sends is refused, and makes its open rows its own.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import msgspec

__all__ = ["FENCED", "LEASES", "NOTE_SEEN", "TAKE_OVER", "TAKING_OVER", "Lease"]

FENCED = "SW001"  # the SQLSTATE of what came too late
TAKE_OVER = "SELECT samplewise.take_over($1)"
NOTE_SEEN = """
UPDATE samplewise.reservations AS r SET seen_tokens = new.value::bigint
FROM jsonb_each_text($1::jsonb) AS new WHERE r.id = new.key AND r.state = 'dispatched'"""
_TAKING = 0x5357_4C45  # one of them at a time takes over

_CLOCK = """
CREATE FUNCTION samplewise.clock_ms() RETURNS BIGINT LANGUAGE sql VOLATILE AS $$
    SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint
$$
"""

# Answers a number that no other opening has, and for how many ms its lease holds.
_CLAIM = """
CREATE FUNCTION samplewise.claim() RETURNS JSONB LANGUAGE plpgsql AS $$
DECLARE
    now_ms BIGINT := samplewise.clock_ms();
    lease_ms BIGINT := value FROM samplewise.meta WHERE name = 'lease_ms';
    mine BIGINT;
BEGIN
    UPDATE samplewise.meta SET value = value + 1 WHERE name = 'epoch' RETURNING value INTO mine;
    INSERT INTO samplewise.writers (epoch, batch, since, lease_until)
    VALUES (mine, 0, now_ms, now_ms + lease_ms);
    RETURN jsonb_build_array(mine, lease_ms);
END
$$
"""

# Answers for how many ms the lease holds from now on; null for one that is dead.
_RENEW = """
CREATE FUNCTION samplewise.renew(writer BIGINT) RETURNS BIGINT LANGUAGE plpgsql AS $$
DECLARE
    now_ms BIGINT := samplewise.clock_ms();
    lease_ms BIGINT := value FROM samplewise.meta WHERE name = 'lease_ms';
BEGIN
    UPDATE samplewise.writers SET lease_until = now_ms + lease_ms,
        since = CASE WHEN lease_until < now_ms THEN now_ms ELSE since END
    WHERE epoch = writer;
    RETURN CASE WHEN FOUND THEN lease_ms END;
END
$$
"""

# Answers all open rows that `writer` has taken over and not yet ended, as orphans are read: an
# answer that is lost is asked for again. Who has just come, or come back, waits for one lease
# before it calls others dead: after an outage they may be on their way back as well.
TAKING_OVER = f"""
CREATE FUNCTION samplewise.take_over(writer BIGINT) RETURNS JSONB LANGUAGE plpgsql AS $$
DECLARE
    now_ms BIGINT := samplewise.clock_ms();
    lease_ms BIGINT := value FROM samplewise.meta WHERE name = 'lease_ms';
    came BIGINT;
    orphans JSONB;
BEGIN
    IF NOT pg_try_advisory_xact_lock({_TAKING}) THEN
        RETURN '[]';
    END IF;
    SELECT since INTO came FROM samplewise.writers WHERE epoch = writer FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'writer % is dead itself', writer USING ERRCODE = '{FENCED}';
    END IF;
    IF came + lease_ms <= now_ms THEN
        DELETE FROM samplewise.writers WHERE epoch IN (
            SELECT epoch FROM samplewise.writers WHERE lease_until < now_ms AND epoch <> writer
            ORDER BY epoch FOR UPDATE SKIP LOCKED); -- locked: it is at work
    END IF;
    PERFORM 1 FROM samplewise.reservations AS r
    WHERE state IN ('held', 'dispatched')
        AND NOT EXISTS (SELECT 1 FROM samplewise.writers AS w WHERE w.epoch = r.owner_epoch)
    ORDER BY id FOR UPDATE OF r;
    UPDATE samplewise.reservations AS r SET owner_epoch = writer, taken_at = now_ms
    WHERE state IN ('held', 'dispatched')
        AND NOT EXISTS (SELECT 1 FROM samplewise.writers AS w WHERE w.epoch = r.owner_epoch);
    SELECT coalesce(jsonb_agg(jsonb_build_array(id, call_id, sample_index, purpose, backend,
        nano_held, tokens_held, state, price_version, held_at, seen_tokens)), '[]') INTO orphans
    FROM samplewise.reservations
    WHERE owner_epoch = writer AND taken_at IS NOT NULL AND state IN ('held', 'dispatched');
    RETURN orphans;
END
$$
"""

LEASES = (_CLOCK, _CLAIM, _RENEW, TAKING_OVER)


@dataclass(slots=True)
class Lease:
    """The lease of this opening, as this process may count on it.

    Counted from before the database was asked, so it ends here first. Seconds of a monotonic clock.
    """

    epoch: int = 0
    lasts_s: float = 0.0
    ends_s: float = 0.0
    renew_s: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether nobody can have taken over what is ours."""
        return time.monotonic() < self.ends_s

    @property
    def due_in_s(self) -> float:
        """Seconds until it should be renewed; 0 if that is now."""
        return max(0.0, self.renew_s - time.monotonic())

    @property
    def third_s(self) -> float:
        """How often to renew it, in seconds; not as fast as can be, however short it is."""
        return max(self.lasts_s / 3, 0.1)

    def doubt(self) -> None:
        """Renew it before anything else is done."""
        self.renew_s = 0.0

    async def claim(self, db: Any) -> None:
        """Begin a new epoch; the rows of the one before are no longer ours."""
        asked_s = time.monotonic()
        self.epoch, lease_ms = msgspec.json.decode(await db.fetchval("SELECT samplewise.claim()"))
        self._begin(asked_s, lease_ms)

    async def renew(self, db: Any) -> bool:
        """Renew it; return False if somebody has taken over what was ours."""
        asked_s = time.monotonic()
        lease_ms = await db.fetchval("SELECT samplewise.renew($1)", self.epoch)
        if lease_ms is None:
            return False
        self._begin(asked_s, lease_ms)
        return True

    def _begin(self, asked_s: float, lease_ms: int) -> None:
        self.lasts_s = lease_ms / 1000
        self.ends_s = asked_s + self.lasts_s
        self.renew_s = asked_s + self.third_s
