"""All rows of a ledger file added up, and every counter compared with its rows."""

from __future__ import annotations

from pathlib import Path

from samplewise.proxy.ledger.accounts import Totals
from samplewise.proxy.ledger.reading import reading_file

__all__ = ["add_up"]

# Rows on one side, counters on the other: every counter must be the exact sum of its rows.
_TOTALS = """
SELECT count(*), coalesce(sum(nano_settled), 0), coalesce(sum(overrun_nano), 0),
    coalesce(sum(iif(state IN ('held', 'dispatched'), 1, 0)), 0),
    coalesce(sum(iif(state IN ('held', 'dispatched', 'recovering'), nano_held, 0)), 0)
FROM reservations"""
_WRONG_COUNTERS = """
WITH posts AS (
    SELECT json_extract(a.value, '$[0]') AS scope, json_extract(a.value, '$[1]') AS name,
        json_extract(a.value, '$[2]') AS "window", json_extract(a.value, '$[3]') AS window_start,
        nano_settled, prompt_tokens + completion_tokens AS tokens,
        iif(state IN ('settled', 'recovered'), is_sample, 0) AS samples,
        iif(settled_at IS NULL, nano_held, 0) AS nano_left,
        iif(settled_at IS NULL, tokens_held, 0) AS tokens_left,
        iif(settled_at IS NULL, is_sample, 0) AS samples_left, overrun_nano
    FROM reservations, json_each(accounts) AS a
    UNION ALL
    SELECT scope, name, "window", window_start, -spent_nano, -spent_tokens, -spent_samples,
        -reserved_nano, -reserved_tokens, -reserved_samples, -overrun_nano
    FROM counters)
SELECT count(*) FROM (
    SELECT 1 FROM posts GROUP BY scope, name, "window", window_start
    HAVING sum(nano_settled) OR sum(tokens) OR sum(samples) OR sum(nano_left) OR sum(tokens_left)
        OR sum(samples_left) OR sum(overrun_nano))"""


def add_up(path: Path) -> Totals:
    """Add up all rows of a file and compare every counter with its rows.

    Raises:
        StoreError: the file cannot be read as a ledger.
    """
    with reading_file(path) as db:
        sums = db.execute(_TOTALS).fetchall()[0]
        return Totals(*(*sums, db.execute(_WRONG_COUNTERS).fetchall()[0][0]))
