"""What a replay is shown as: a table, JSON, CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Column
from rich.text import Text

from samplewise.policies.replay.summary import Summary
from samplewise.proxy.replay.tables import show_table

__all__ = ["as_csv", "as_json", "show"]

_COLUMNS = (
    "Accuracy", "95 %", "against\nfixed n", "Samples", "Tokens", "$ by\ncall", "$ by\nwave",
    "Share", "Wait", "Cover", "Gap", "$ per\nsolved", "Equal n",
)  # fmt: skip


def show(console: Console, summaries: Sequence[Summary], notes: Sequence[str]) -> None:
    """Print one row a policy and what has to be known to read it."""
    rows = [(summary.name, *_cells(summary)) for summary in summaries]
    show_table(console, Column("Policy", overflow="fold", max_width=34), _COLUMNS, rows)
    for note in notes:
        console.print(Text(note, style="dim"), soft_wrap=False)


def _cells(found: Summary) -> list[str]:
    accuracy, difference = found.accuracy, found.difference
    match = found.match
    return [
        f"{100 * accuracy.value:.2f}",
        f"{100 * accuracy.low:.1f}-{100 * accuracy.high:.1f}",
        f"{100 * difference.value:+.2f} "
        f"[{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]",
        f"{found.samples:.2f}",
        f"{found.tokens:,.0f}",
        f"{found.usd_by_call:.3g}",
        f"{found.usd_by_wave:.3g}",
        f"{found.share:.3f}",
        f"{found.seconds:.0f} s",
        f"{100 * found.coverage:.1f}",
        f"{round(100 * found.gap, 1) + 0.0:.1f}",
        "-" if found.usd_per_solved is None else f"{found.usd_per_solved:.3g}",
        f"> {found.baseline_n}" if match is None else f"{match.n}: ${match.usd:.3g}",
    ]


def as_json(summaries: Sequence[Summary], about: dict[str, Any]) -> str:
    """Return all figures, full length."""
    return json.dumps({**about, "policies": [_figures(s) for s in summaries]}, indent=1) + "\n"


def as_csv(summaries: Sequence[Summary]) -> str:
    """Return one line a policy, all figures in full length."""
    text = io.StringIO()
    rows = [_flat(_figures(summary)) for summary in summaries]
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _figures(summary: Summary) -> dict[str, Any]:
    return {**asdict(summary), "gap": summary.gap, "share_of_baseline": summary.share}


def _flat(figures: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in figures.items():
        if name == "match":
            flat["equal_n"] = value["n"] if value else None
            flat["equal_n_usd"] = value["usd"] if value else None
        elif isinstance(value, dict):
            flat |= {f"{name}_{part}" if part != "value" else name: v for part, v in value.items()}
        else:
            flat[name] = value
    return flat
