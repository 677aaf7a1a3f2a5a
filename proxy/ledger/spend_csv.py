"""What was spent as CSV, exact to the nano-dollar."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from samplewise.policies.price import NANO
from samplewise.proxy.ledger.spend import Report

__all__ = ["exact_usd", "to_csv"]

_COLUMNS = (
    "requests", "samples", "prompt_tokens", "cached_tokens", "completion_tokens",
    "reasoning_tokens", "settled_usd", "held_usd", "overrun_usd",
)  # fmt: skip


def to_csv(groups: Sequence[str], report: Report) -> str:
    """Return a report as CSV with a heading, a line a group, without the total."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*groups, *_COLUMNS])
    for line in report.lines:
        writer.writerow([
            *line.group, line.requests, line.samples, line.prompt_tokens, line.cached_tokens,
            line.completion_tokens, line.reasoning_tokens, exact_usd(line.settled_nano),
            exact_usd(line.held_nano), exact_usd(line.overrun_nano),
        ])  # fmt: skip
    return text.getvalue()


def exact_usd(nano: int) -> str:
    """Write whole nano-dollars as dollars; in a float, large sums would lose digits."""
    return f"{nano // NANO}.{nano % NANO:09d}"
