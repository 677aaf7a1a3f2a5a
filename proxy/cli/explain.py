"""`samplewise explain ID`: all samples of a request side by side, and why one was the answer."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from samplewise.proxy.cli.store import WRONG_LEDGER, named_ledger, store_options
from samplewise.proxy.errors import ConfigError, StoreError
from samplewise.proxy.ledger.bill import bill
from samplewise.proxy.records.shown import shown
from samplewise.proxy.records.store import find

__all__ = ["explain"]

_PIPE_WIDTH = 160
_DIGITS = 12  # of a hash: enough to see which samples are the same


@click.command(
    epilog="""
\b
Examples:
  samplewise explain req_6100355cb9e74d22860b44cac15cb359 --config config.yaml
  samplewise explain req_6100355cb9e74d22860b44cac15cb359 --store sqlite:///samplewise.db --json
"""
)
@click.argument("request_id", metavar="ID")
@store_options
@click.option("--json", "as_json", is_flag=True, help="Write all that is known as JSON.")
def explain(request_id: str, config_file: str | None, store: str | None, as_json: bool) -> None:
    """Show why the request ID got the answer it got: samples, verdicts, votes, rule and bill.

    ID is the x-request-id of an answer, or the one that came with the request. A server may run
    meanwhile. Exits with 1 when there is no such request, with 2 when there is no such ledger.
    """
    try:
        where = named_ledger(config_file, store)
        record = next(iter(find(where, request_id)), None)
        id_ = request_id if record is None else record.request_id
        rows = bill(where, id_)
    except ConfigError as error:
        click.echo(f"samplewise: {error}", err=True)
        sys.exit(1)
    except StoreError as error:
        click.echo(f"samplewise: {error}", err=True)
        sys.exit(WRONG_LEDGER)
    if record is None and not rows:
        click.echo(
            f"samplewise: there is no request {request_id[:128]!r} in this ledger; its record may "
            "be older than records.keep_days",
            err=True,
        )
        sys.exit(1)
    found = shown(id_, record, rows)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)).decode())
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPE_WIDTH)
    for part in _parts(found):
        console.print(part, soft_wrap=isinstance(part, Text))


def _parts(found: Mapping[str, Any]) -> Iterator[Text | Table]:
    record = found["record"]
    yield Text(f"Request {found['id']} on route {found['route']}, ${found['cost_usd']:.9f}")
    if record is None:
        yield Text("There is no record of its samples; these are its rows in the ledger.")
    else:
        yield from _ending(record)
        if record["candidates"]:
            yield _candidates(record)
        for lost in record["lost"]:
            status = f" {lost['status']}" if lost["status"] else ""
            yield Text(
                f"Sample {lost['index']} was lost: {lost['backend']}, {lost['reason']}{status}"
            )
        yield from _votes(record)
        for warning in record.get("warnings", ()):
            yield Text(f"Warning: {warning}")
    yield _bill(found)


def _ending(record: Mapping[str, Any]) -> Iterator[Text]:
    error = record["error"]
    if error is not None:
        said = f": {error['message']}" if error["message"] else ""
        yield Text(f"It ended with {error['status']} {error['code'] or ''}{said}")
        return
    decision = ", ".join(f"{name} {value}" for name, value in record["decision"].items())
    yield Text(
        f"Policy {_policy(record)} stopped because: {record['stop_reason']}"
        f"{f' ({decision})' if decision else ''}. Outcome: {record['outcome']}."
    )
    if record["degraded"]:
        yield Text(f"Degraded: {', '.join(record['degraded'])}")


def _policy(record: Mapping[str, Any]) -> str:
    kind, name = str(record["policy"]), record.get("policy_name")
    return kind if name is None else f"{name} ({kind})"


def _candidates(record: Mapping[str, Any]) -> Table:
    table = Table(title="Samples, in the order in which they were drawn", title_justify="left")
    for heading in ("", "Backend", "Ended", "Tokens", "Rank", "Verdict", "Votes", "Answer", "Text"):
        table.add_column(heading, overflow="fold")
    for one in record["candidates"]:
        verdicts = ", ".join(_verdict(verdict) for verdict in one["verdicts"])
        cells = (
            f"{'* ' if one['returned'] else ''}{one['index']}",
            one["backend"],
            one["ended"] if one["purpose"] == "answer" else f"{one['ended']} ({one['purpose']})",
            str(one["completion_tokens"]),
            str(one["rank"] or ""),
            verdicts or "none",
            "" if one["votes"] is None else str(one["votes"]),
            _words(one, "answer"),
            _words(one, "text") + (f" {_words(one, 'tool_calls')}" if _has_calls(one) else ""),
        )
        # As text, so that what a model wrote is not taken for markup.
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _has_calls(one: Mapping[str, Any]) -> bool:
    return "tool_calls_hmac" in one


def _verdict(verdict: Mapping[str, Any]) -> str:
    score = "" if verdict["score"] is None else f" {verdict['score']:g}"
    return f"{verdict['name']} {verdict['status']}{score}"


def _words(one: Mapping[str, Any], name: str) -> str:
    """Return words where they were kept, else how long they are and the beginning of their hash."""
    if name in one:
        return str(one[name])
    if f"{name}_hmac" not in one:
        return ""
    return f"{one[f'{name}_bytes']} B #{one[f'{name}_hmac'][:_DIGITS]}"


def _votes(record: Mapping[str, Any]) -> Iterator[Text]:
    for vote in record["votes"]:
        yield Text(f"{vote['votes']} votes: {_words(vote, 'answer')}")


def _bill(found: Mapping[str, Any]) -> Table:
    table = Table(title="Bill", title_justify="left")
    for heading in ("Row", "Purpose", "Backend", "State", "Prompt", "Completion", "Cost"):
        table.add_column(heading, overflow="fold")
    for row in found["rows"]:
        cells = (
            row["id"].removeprefix(found["id"]).lstrip("-:"),
            row["purpose"],
            row["backend"],
            row["state"],
            str(row["prompt_tokens"]),
            str(row["completion_tokens"]),
            f"${row['cost_usd']:.9f}",
        )
        table.add_row(*(Text(cell) for cell in cells))
    return table
