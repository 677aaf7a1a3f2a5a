"""What is asked of the tables of the PostgreSQL ledger, beside the functions that change them."""

from __future__ import annotations

__all__ = ["NOW_MS", "OPEN_ROWS", "RECENT", "TOTALS", "WRONG_COUNTERS"]

NOW_MS = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
# As of an SQLite ledger: requests that ended with a sample that was billed, among the newest rows.
RECENT = """
WITH newest AS (
    SELECT request_id, route, held_at FROM samplewise.reservations
    ORDER BY held_at DESC LIMIT 10000),
wanted AS (SELECT DISTINCT request_id FROM newest WHERE held_at >= $1 AND route = $2),
bills AS (
    SELECT sum(r.nano_settled) AS nano
    FROM wanted JOIN samplewise.reservations AS r USING (request_id)
    GROUP BY r.request_id
    HAVING bool_and(r.settled_at IS NOT NULL)
        AND bool_or(r.is_sample = 1 AND r.usage_source <> 'none'))
SELECT count(*), coalesce(sum(nano), 0) FROM bills"""
OPEN_ROWS = "SELECT count(*) FROM samplewise.reservations WHERE state IN ('held', 'dispatched')"

# Rows on one side, counters with their chunks on the other: every counter must be the exact sum of
# its rows.
TOTALS = """
SELECT count(*), coalesce(sum(nano_settled), 0)::bigint, coalesce(sum(overrun_nano), 0)::bigint,
    count(*) FILTER (WHERE state IN ('held', 'dispatched')),
    coalesce(sum(nano_held)
        FILTER (WHERE state IN ('held', 'dispatched', 'recovering')), 0)::bigint
FROM samplewise.reservations"""
WRONG_COUNTERS = """
WITH posts (scope, name, "window", start, nano, tokens, samples, nano_left, tokens_left,
    samples_left, overrun) AS (
    SELECT a ->> 0, a ->> 1, a ->> 2, (a ->> 3)::bigint, nano_settled,
        prompt_tokens + completion_tokens,
        CASE WHEN state IN ('settled', 'recovered') THEN is_sample ELSE 0 END,
        CASE WHEN settled_at IS NULL THEN nano_held ELSE 0 END,
        CASE WHEN settled_at IS NULL THEN tokens_held ELSE 0 END,
        CASE WHEN settled_at IS NULL THEN is_sample ELSE 0 END, overrun_nano
    FROM samplewise.reservations, jsonb_array_elements(accounts) AS a
    UNION ALL
    SELECT regexp_replace(scope, '^#[0-9]+:', ''), name, "window", window_start, -spent_nano,
        -spent_tokens, -spent_samples,
        -reserved_nano, -reserved_tokens, -reserved_samples, -overrun_nano
    FROM samplewise.counters)
SELECT count(*) FROM (
    SELECT 1 FROM posts GROUP BY scope, name, "window", start
    HAVING sum(nano) <> 0 OR sum(tokens) <> 0 OR sum(samples) <> 0 OR sum(nano_left) <> 0
        OR sum(tokens_left) <> 0 OR sum(samples_left) <> 0 OR sum(overrun) <> 0) AS wrong"""
