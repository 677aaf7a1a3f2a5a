"""The demo's table and its JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from samplewise import __version__
from samplewise.proxy.demo.figures import Point, Row
from samplewise.proxy.demo.measuring import AT_ONCE, SAMPLES
from samplewise.proxy.demo.setup import PRICE

__all__ = ["Results"]

_COLUMNS = ("Solved", "95 %", "Samples", "Tokens", "$/1k", "$/1k\nsolved", "p50")


@dataclass(frozen=True, slots=True)
class Results:
    """All that the demo has measured. `random`: chance of random legal moves, by tries."""

    problems: int
    rows: Sequence[Row]
    coverage: Sequence[Point]
    random: Sequence[Point]
    billed_tokens: int
    decoded_tokens: int
    seconds: float

    @property
    def failed(self) -> list[str]:
        """What was said of requests that got no answer."""
        return [f"{row.family}, {row.policy}: {said}" for row in self.rows for said in row.failed]

    def row(self, family: str, policy: str) -> Row:
        """Return the row of a policy, by the beginning of its name."""
        return next(r for r in self.rows if r.family == family and r.policy.startswith(policy))

    def show(self, console: Console) -> None:
        """Print the table and what has to be known to read it."""
        console.print(Text(f"{self.problems} held-out problems of each family", style="bold"))
        lines = box.SIMPLE_HEAD if console.is_terminal else None
        table = Table(box=lines, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("Policy", no_wrap=True)
        for heading in _COLUMNS:
            table.add_column(heading, justify="right", no_wrap=True)
        for family in dict.fromkeys(row.family for row in self.rows):
            table.add_section()
            table.add_row(Text(family.capitalize(), style="bold"))
            for row in self.rows:
                if row.family == family:
                    control = row.policy == "single, greedy"
                    table.add_row(*_cells(row), style="dim" if control else "")
            if family == "countdown":
                for point in (self.random[0], self.random[-1]):
                    table.add_row(*_random(point), style="dim")
        console.print(table)
        for line in self._notes():
            console.print(Text(line, style="dim"), soft_wrap=False)

    def _notes(self) -> list[str]:
        price = PRICE["input_usd_per_mtok"], PRICE["output_usd_per_mtok"]
        gap = self.decoded_tokens - self.billed_tokens
        counted = (
            "exactly what" if not gap else f"{abs(gap):,} {'fewer' if gap > 0 else 'more'} than"
        )
        return [
            f"Controls: the greedy answer, and random legal moves (1 try, and {SAMPLES}; "
            "exact). In arithmetic every legal move is right, so that random ones say nothing.",
            "best_of_n and first_pass are judged by the exact verifier. Votes are not, but in "
            "Countdown only legal steps make an answer that can vote, which is half the check.",
            f"Cost at ${price[0]:.2f} and ${price[1]:.2f} per million prompt and completion "
            "tokens, a made-up price, for 1,000 answers and for 1,000 solved. "
            f"p50 with {AT_ONCE} requests at once.",
            f"Billed were {self.billed_tokens:,} tokens, {counted} the upstream counted "
            "(a token or so can be on its way when a vote is won and the rest is cut). "
            f"{self.seconds:.0f} s in all.",
            "Exhaustive search solves all of this at once: a demonstration of sampling and "
            "checking, no claim about Countdown.",
        ]

    def json(self) -> dict[str, Any]:
        """Return the figures for a file."""
        return {
            "version": __version__,
            "problems": self.problems,
            "requests_at_once": AT_ONCE,
            "price": PRICE,
            "rows": [_json(row) for row in self.rows],
            "coverage": [asdict(point) for point in self.coverage],
            "random_legal_moves": [
                {"samples": point.samples, "value": point.value} for point in self.random
            ],
            "billed_tokens": self.billed_tokens,
            "decoded_tokens": self.decoded_tokens,
            "seconds": round(self.seconds, 1),
        }


def _cells(row: Row) -> list[str]:
    accuracy, solved = row.accuracy, row.usd_per_solved
    return [
        f"  {row.policy}",
        _percent(accuracy.value),
        f"{100 * accuracy.low:.0f}-{100 * accuracy.high:.0f}",
        f"{row.samples:.1f}",
        f"{row.tokens:.0f}",
        f"{1000 * row.usd:.4f}",
        "-" if solved is None else f"{1000 * solved:.4f}",
        "-" if math.isnan(row.p50_s) else f"{row.p50_s:.2f} s",
    ]


def _random(point: Point) -> list[str]:
    name = f"  random moves, {point.samples:.0f}"
    return [name, _percent(point.value), "exact", f"{point.samples:.1f}", "-", "-", "-", "-"]


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.0f} %"


def _json(row: Row) -> dict[str, Any]:
    accuracy, solved = row.accuracy, row.usd_per_solved
    found = {
        "accuracy": accuracy.value,
        "accuracy_low": accuracy.low,
        "accuracy_high": accuracy.high,
        "samples": row.samples,
        "tokens": row.tokens,
        "usd": row.usd,
        "usd_per_solved": solved,
        "p50_s": row.p50_s,
    }
    shown = {k: None if v is None or math.isnan(v) else v for k, v in found.items()}
    return {"family": row.family, "policy": row.policy, **shown, "failed": len(row.failed)}
