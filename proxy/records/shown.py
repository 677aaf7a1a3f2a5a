"""A request as it is shown: its record, and its rows in the ledger. For HTTP and the command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from samplewise.policies.price import usd
from samplewise.proxy.keys.text import shown_time
from samplewise.proxy.ledger.bill import Entry
from samplewise.proxy.records.store import Record

__all__ = ["shown"]


def shown(request_id: str, record: Record | None, rows: Sequence[Entry]) -> dict[str, Any]:
    """Return what is known of a request; there is a record, or a row, or both."""
    open_rows = [row for row in rows if row.settled_at is None]
    return {
        "object": "samplewise.request",
        "id": request_id,
        "given_id": (record.given_id or None) if record else None,
        "route": record.route if record else rows[0].route,
        "key": (record.key if record else rows[0].key) or None,
        "ended_at": shown_time(record.at) if record else None,
        "settled": not open_rows,
        "cost_usd": usd(sum(row.settled_nano for row in rows)),
        "held_usd": usd(sum(row.held_nano for row in open_rows)),
        "record": record.said if record else None,
        "rows": [_row(row) for row in rows],
    }


def _row(row: Entry) -> dict[str, Any]:
    return {
        "id": row.id,
        "sample_index": row.index,
        "purpose": row.purpose,
        "backend": row.backend,
        "model": row.model,
        "state": row.state,
        "held_usd": usd(row.held_nano),
        "cost_usd": usd(row.settled_nano),
        "overrun_usd": usd(row.overrun_nano),
        "prompt_tokens": row.prompt_tokens,
        "cached_tokens": row.cached_tokens,
        "completion_tokens": row.completion_tokens,
        "reasoning_tokens": row.reasoning_tokens,
        "usage_source": row.usage_source,
        "price": row.price,
        "held_at": shown_time(row.held_at),
        "settled_at": shown_time(row.settled_at),
    }
