"""Tables of figures, in several parts where the console is too narrow for one."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

__all__ = ["show_table"]

_ANY_WIDTH = 10_000


def show_table(
    console: Console,
    first: Column,
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    title: str | None = None,
) -> None:
    """Print rows of a name and a figure for each heading; no figure is ever cut.

    Each part has as many columns as fit, and `first` before them.
    """
    begin = 0
    while begin < len(headings):
        end = len(headings)
        while True:
            part = _part(console, first, headings[begin:end], rows, begin)
            if end == begin + 1 or _width(console, part) <= console.width:
                break
            end -= 1
        if not begin and title is not None:
            console.print(Text(title, style="italic"))
        console.print(part)
        begin = end


def _part(
    console: Console,
    first: Column,
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    begin: int,
) -> Table:
    lines = box.SIMPLE_HEAD if console.is_terminal else None
    table = Table(first.copy(), box=lines, pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, *figures in rows:
        # As text, so that a name with brackets is not taken for markup.
        shown = figures[begin : begin + len(headings)]
        table.add_row(*(Text(cell) for cell in (name, *shown)))
    return table


def _width(console: Console, table: Table) -> int:
    return Measurement.get(console, console.options.update_width(_ANY_WIDTH), table).maximum
