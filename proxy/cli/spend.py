"""`samplewise spend`: what was spent, by key, route, backend and day."""

from __future__ import annotations

import sys

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from samplewise.proxy.cli.store import WRONG_LEDGER, named_ledger, store_options
from samplewise.proxy.errors import ConfigError, StoreError
from samplewise.proxy.keys.text import parse_time
from samplewise.proxy.ledger.spend import GROUPS, Line, Report
from samplewise.proxy.ledger.spend import spend as add_up
from samplewise.proxy.ledger.spend_csv import exact_usd, to_csv

__all__ = ["spend"]

_PIPE_WIDTH = 160


def _time(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Read a day or time, UTC unless it says otherwise; return UTC milliseconds."""
    if value is None:
        return None
    found = parse_time(value)
    if found is None:
        raise click.BadParameter(f"{value!r} is no time; write 2026-11-01 or 2026-11-01T12:00")
    return found


@click.command(
    epilog="""
\b
Examples:
  samplewise spend --config config.yaml --by route --by day
  samplewise spend --store sqlite:///samplewise.db --by key --since 2026-11-01 --csv
"""
)
@store_options
@click.option(
    "--by",
    "by",
    type=click.Choice(list(GROUPS)),
    multiple=True,
    help="Group by this; may be given several times, and the first groups first.",
)
@click.option("--since", callback=_time, metavar="TIME", help="From this day or time on, in UTC.")
@click.option("--until", callback=_time, metavar="TIME", help="Before this day or time, in UTC.")
@click.option("--csv", "as_csv", is_flag=True, help="Write exact numbers as CSV, without a total.")
def spend(
    config_file: str | None,
    store: str | None,
    by: tuple[str, ...],
    since: int | None,
    until: int | None,
    as_csv: bool,
) -> None:
    """Show what was spent, from the ledger; a server may run meanwhile.

    A row counts in the day in which it was reserved, as in limits. Exits with 2 when there is no
    such ledger.
    """
    if since is not None and until is not None and since >= until:
        raise click.UsageError("--until: must be after --since")
    groups = tuple(dict.fromkeys(by))
    try:
        report = add_up(named_ledger(config_file, store), groups, since, until)
    except ConfigError as error:
        click.echo(f"samplewise: {error}", err=True)
        sys.exit(1)
    except StoreError as error:
        click.echo(f"samplewise: {error}", err=True)
        sys.exit(WRONG_LEDGER)
    if as_csv:
        click.echo(to_csv(groups, report), nl=False)
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPE_WIDTH)
    console.print(_table(groups, report))


def _table(groups: tuple[str, ...], report: Report) -> Table:
    table = Table(show_footer=bool(groups), title=None)
    total = _cells(report.total)
    for number, name in enumerate(groups):
        table.add_column(name.capitalize(), Text("" if number else "Total"), overflow="fold")
    headings = ("Requests", "Samples", "Tokens", "Settled", "Held", "Overrun")
    for heading, cell in zip(headings, total, strict=True):
        table.add_column(heading, cell, justify="right", overflow="fold")
    for line in report.lines:
        # As text, so that a name with brackets is not taken for markup.
        table.add_row(*(Text(cell) for cell in (*line.group, *_cells(line))))
    return table


def _cells(line: Line) -> tuple[str, ...]:
    counts = (line.requests, line.samples, line.prompt_tokens + line.completion_tokens)
    money = (line.settled_nano, line.held_nano, line.overrun_nano)
    return (*(f"{count:,}" for count in counts), *(f"${exact_usd(nano)}" for nano in money))
