"""`samplewise keys`: make, list, change, rotate and revoke the keys of clients."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from samplewise.proxy.config import Config, load_config
from samplewise.proxy.config_store import check_store, is_postgres, store_path
from samplewise.proxy.config_yaml import near
from samplewise.proxy.errors import ConfigError, StoreError
from samplewise.proxy.keys.base import ClientKey, KeyRefused, Terms
from samplewise.proxy.keys.guard import Guard
from samplewise.proxy.keys.limits import limits_of, parse_limits, plain, with_limits
from samplewise.proxy.keys.store import KeyStore, key_store
from samplewise.proxy.keys.text import fields, parse_duration, parse_expiry, shown_time
from samplewise.proxy.ledger.accounts import utc_ms

__all__ = ["keys"]

F = TypeVar("F", bound=Callable[..., Any])

_DEFAULT_STORE = "sqlite:///samplewise.db"
_PIPE_WIDTH = 160
_SAME = object()
_LONGEST_OVERLAP_MS = 30 * 86_400_000


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def keys() -> None:
    """Make, list, change, rotate and revoke the keys of clients.

    Keys live in the ledger's file. A server that runs notices a change within a second. Keys that
    stand in the configuration are listed too, and changed there.

    Example: samplewise keys create ci --config config.yaml --limit usd_per_day=5
    """


def _store_options(command: F) -> F:
    """Add the options that say where the keys are."""
    config = click.option(
        "--config", "file", metavar="FILE", help="The server's configuration, which names the file."
    )
    store = click.option("--store", metavar="URL", help="The ledger, instead of the file's.")
    return config(store(command))


_LIMIT_HELP = (
    "usd, tokens, samples or requests, _per_minute, _per_hour, _per_day, _per_month or _total; "
    "repeat."
)


@keys.command()
@click.argument("name")
@_store_options
@click.option("--route", "routes", multiple=True, metavar="ROUTE", help="May use this; repeat.")
@click.option("--limit", "limits", multiple=True, metavar="NAME=AMOUNT", help=_LIMIT_HELP)
@click.option("--max-samples", type=int, metavar="N", help="Most samples of one request.")
@click.option("--expires", metavar="WHEN", help="2027-01-31, 2027-01-31T12:00Z or 90d, 12h, 30m.")
@click.option("--allow-tests", is_flag=True, help="May send `samplewise.tests`.")
@click.option("--tag", "tags", multiple=True, metavar="TEXT", help="A word for lists; repeat.")
def create(
    name: str,
    file: str | None,
    store: str | None,
    routes: tuple[str, ...],
    limits: tuple[str, ...],
    max_samples: int | None,
    expires: str | None,
    allow_tests: bool,
    tags: tuple[str, ...],
) -> None:
    """Make a key called NAME and write its secret to standard output, this once."""
    with _told():
        config = None if file is None else load_config(file)
        _check_routes(config, routes)
        _check_stored(config, name)
        terms = Terms(
            routes=tuple(dict.fromkeys(routes)),
            max_samples=max_samples,
            expires_at=None if expires is None else parse_expiry(expires, utc_ms()),
            tests=allow_tests,
            tags=tuple(dict.fromkeys(tags)),
        )
        with_all = with_limits(terms, parse_limits(limits))
        made = _missing_file(config, store)
        with _opened(config, store) as found:
            key, secret = found.create(name, with_all)
    if made is not None:
        click.echo(
            f"samplewise: warning: there was no ledger {made}, so a new one was made. A server "
            "knows the key only if this file is its `store`",
            err=True,
        )
    _show_secret(key, secret)


@keys.command()
@click.argument("name")
@_store_options
@click.option("--route", "routes", multiple=True, metavar="ROUTE", help="These instead; repeat.")
@click.option("--all-routes", is_flag=True, help="May use all routes.")
@click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="NAME=AMOUNT",
    help="Set this limit, or take it away with NAME=none; the others stay. Repeat.",
)
@click.option("--max-samples", metavar="N", help="Most samples of one request, or none.")
@click.option("--expires", metavar="WHEN", help="As for create, or never.")
@click.option("--allow-tests/--forbid-tests", default=None, help="`samplewise.tests`.")
@click.option("--tag", "tags", multiple=True, metavar="TEXT", help="These instead; repeat.")
@click.option("--no-tags", is_flag=True, help="Take all tags away.")
def update(
    name: str,
    file: str | None,
    store: str | None,
    routes: tuple[str, ...],
    all_routes: bool,
    limits: tuple[str, ...],
    max_samples: str | None,
    expires: str | None,
    allow_tests: bool | None,
    tags: tuple[str, ...],
    no_tags: bool,
) -> None:
    """Change what the key NAME (or id) may do. What is not named stays, and so does its spend."""
    if (routes and all_routes) or (tags and no_tags):
        raise click.UsageError("give --route or --all-routes, --tag or --no-tags, not both")
    with _told(), _existing(file, store) as (config, found):
        _check_routes(config, routes)
        _check_stored(config, name)
        amounts = parse_limits(limits)
        changes = _replaced(
            routes=tuple(dict.fromkeys(routes)) if routes or all_routes else _SAME,
            tags=tuple(dict.fromkeys(tags)) if tags or no_tags else _SAME,
            max_samples=_SAME if max_samples is None else _number(max_samples),
            expires_at=_SAME if expires is None else _expiry(expires),
            tests=_SAME if allow_tests is None else allow_tests,
        )
        if not changes and not amounts:
            raise click.UsageError("say what to change, such as --limit usd_per_day=5")
        key = found.update(name, lambda terms: _changed(terms, changes, amounts))
    click.echo(f"samplewise: key {key.name} ({key.id}) is changed", err=True)


def _changed(
    terms: Terms, changes: Mapping[str, Any], amounts: Mapping[str, Decimal | None]
) -> Terms:
    return with_limits(replace(terms, **changes), amounts)


def _replaced(**fields: Any) -> dict[str, Any]:
    """Return the fields that are to change; None is a value."""
    return {name: value for name, value in fields.items() if value is not _SAME}


def _expiry(text: str) -> int | None:
    return None if text == "never" else parse_expiry(text, utc_ms())


def _number(text: str) -> int | None:
    if text == "none":
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise KeyRefused(f"max-samples: must be a whole number or none, got {text[:60]!r}")
    return int(text)


@keys.command("list")
@_store_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_(file: str | None, store: str | None, as_json: bool) -> None:
    """Show all keys, without their secrets, which nobody has."""
    guard = Guard()
    with _told(), _existing(file, store) as (config, found):
        guard.adopt(found.load())
        if config is not None:
            guard.configure(config.given_keys())
    if as_json:
        for key in guard.keys:
            click.echo(msgspec.json.encode(fields(key, utc_ms())))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPE_WIDTH)
    console.print(_table(guard.keys))


@keys.command()
@click.argument("name")
@_store_options
def revoke(name: str, file: str | None, store: str | None) -> None:
    """End the key NAME (or id) for good. Requests that run already come to their end."""
    with _told(), _existing(file, store) as (config, found):
        _check_stored(config, name)
        key = found.revoke(name)
    click.echo(f"samplewise: key {key.name} ({key.id}) is revoked", err=True)


@keys.command()
@click.argument("name")
@_store_options
@click.option("--overlap", metavar="TIME", help="How long the old one stays good: 1h, 30m, 2d.")
def rotate(name: str, file: str | None, store: str | None, overlap: str | None) -> None:
    """Give the key NAME (or id) a new secret; the old one ends. Limits and spend stay."""
    with _told(), _existing(file, store) as (config, found):
        _check_stored(config, name)
        key, secret = found.rotate(name, _overlap(overlap))
    if key.previous_until is not None:
        click.echo(
            f"samplewise: the old secret is good until {shown_time(key.previous_until)}", err=True
        )
    _show_secret(key, secret)


def _overlap(text: str | None) -> int:
    overlap = 0 if text is None else parse_duration(text)
    if overlap is None or overlap > _LONGEST_OVERLAP_MS:
        raise KeyRefused(f"overlap: must be a time up to 30d, such as 1h, got {str(text)[:60]!r}")
    return overlap


@contextmanager
def _told() -> Iterator[None]:
    """Say what went wrong, and exit with 1."""
    try:
        yield
    except (ConfigError, StoreError, KeyRefused) as error:
        click.echo(f"samplewise: {error}", err=True)
        sys.exit(1)


def _opened(config: Config | None, store: str | None) -> AbstractContextManager[KeyStore]:
    """Return the keys of the store that is named; closed at the end."""
    try:
        named = _DEFAULT_STORE if config is None else config.store
        url = named if store is None else check_store(store)
    except ValueError as error:
        raise click.UsageError(f"--store: {error}") from None
    if config is None and store is None and not store_path(url).exists():
        raise click.UsageError("say where the keys are: --config FILE or --store URL")
    return closing(key_store(url, actor=f"command: {_user()}"))


def _missing_file(config: Config | None, store: str | None) -> Path | None:
    """Return the file that would be made for a key, None if it is there or is none."""
    url = store or (_DEFAULT_STORE if config is None else config.store)
    if is_postgres(url) or not url.startswith("sqlite:///"):
        return None
    path = store_path(url)
    return None if path.exists() else path


@contextmanager
def _existing(file: str | None, store: str | None) -> Iterator[tuple[Config | None, KeyStore]]:
    """Give the configuration, and the keys of a store that is there already."""
    config = None if file is None else load_config(file)
    with _opened(config, store) as found:
        found.check()
        yield config, found


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "?"  # a user without a name


def _check_stored(config: Config | None, name: str) -> None:
    """Refuse the name or id of a key that stands in the configuration."""
    for key in () if config is None else config.keys.entries:
        if name in (key.name, key.id):
            raise KeyRefused(
                f"the key {key.name!r} stands in the configuration: change it there, and send "
                "SIGHUP to the server"
            )


def _check_routes(config: Config | None, routes: tuple[str, ...]) -> None:
    """Refuse routes that the server does not have; without its file nothing is known of them."""
    for route in routes:
        if config is not None and route not in config.routes:
            raise KeyRefused(f"route: there is no route {route!r}{near(route, config.routes)}")


def _show_secret(key: ClientKey, secret: str) -> None:
    click.echo(f"samplewise: key {key.name} ({key.id}); its secret is shown this once:", err=True)
    try:
        click.echo(secret)
    except OSError as error:
        click.echo(
            f"samplewise: the secret cannot be written: {error.strerror}. Nobody has it now, and "
            f"the key is there: make another secret with `samplewise keys rotate {key.id}`",
            err=True,
        )
        sys.exit(1)


def _table(found: tuple[ClientKey, ...]) -> Table:
    table = Table()
    for heading in ("Name", "Id", "State", "Routes", "Limits", "Expires", "Tags"):
        table.add_column(heading, overflow="fold")
    for key in found:
        terms = key.terms
        limits = [f"{name}={amount}" for name, amount in plain(limits_of(terms)).items()]
        if terms.max_samples is not None:
            limits.append(f"{terms.max_samples} samples a request")
        cells = (
            key.name,
            key.id,
            key.state(utc_ms()),
            "\n".join(terms.routes) or "all",
            "\n".join(limits) or "none",
            shown_time(terms.expires_at) or "never",
            ", ".join(terms.tags),
        )
        # As text, so that a name with brackets is not taken for markup.
        table.add_row(*(Text(cell) for cell in cells))
    return table
