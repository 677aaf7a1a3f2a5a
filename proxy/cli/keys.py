"""`samplewise keys`: make, list, revoke and rotate the keys of clients."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from samplewise.policies.price import NANO, usd
from samplewise.proxy.config import Config, load_config
from samplewise.proxy.config_store import check_store, store_path
from samplewise.proxy.config_yaml import near
from samplewise.proxy.errors import ConfigError, StoreError
from samplewise.proxy.keys.base import ClientKey, KeyRefused, Terms, limit_name, parse_limits
from samplewise.proxy.keys.store import KeyStore, key_store
from samplewise.proxy.ledger.accounts import utc_ms

__all__ = ["keys"]

F = TypeVar("F", bound=Callable[..., Any])

_DEFAULT_STORE = "sqlite:///samplewise.db"
_DURATION = re.compile(r"([1-9]\d{0,4})([mhd])", re.ASCII)
_SECONDS = {"m": 60, "h": 3600, "d": 86_400}
_PIPE_WIDTH = 160


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def keys() -> None:
    """Make, list, revoke and rotate the keys of clients.

    Keys live in the ledger's file. A server that runs notices a change within a second.

    Example: samplewise keys create ci --config config.yaml --limit usd_per_day=5
    """


def _store_options(command: F) -> F:
    """Add the options that say where the keys are."""
    config = click.option(
        "--config", "file", metavar="FILE", help="The server's configuration, which names the file."
    )
    store = click.option("--store", metavar="URL", help="The ledger, instead of the file's.")
    return config(store(command))


@keys.command()
@click.argument("name")
@_store_options
@click.option("--route", "routes", multiple=True, metavar="ROUTE", help="May use this; repeat.")
@click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="NAME=AMOUNT",
    help="usd, tokens or samples, _per_hour, _per_day, _per_month or _total; repeat.",
)
@click.option("--requests-per-minute", type=int, metavar="N", help="Most requests a minute.")
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
    requests_per_minute: int | None,
    max_samples: int | None,
    expires: str | None,
    allow_tests: bool,
    tags: tuple[str, ...],
) -> None:
    """Make a key called NAME and write its secret to standard output, this once."""
    with _told():
        config = None if file is None else load_config(file)
        _check_routes(config, routes)
        terms = Terms(
            routes=tuple(dict.fromkeys(routes)),
            limits=parse_limits(limits),
            requests_per_minute=requests_per_minute,
            max_samples=max_samples,
            expires_at=None if expires is None else _expiry(expires),
            tests=allow_tests,
            tags=tuple(dict.fromkeys(tags)),
        )
        with _opened(config, store) as found:
            key, secret = found.create(name, terms)
    _show_secret(key, secret)


@keys.command("list")
@_store_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_(file: str | None, store: str | None, as_json: bool) -> None:
    """Show all keys, without their secrets, which nobody has."""
    with _told(), _existing(file, store) as found:
        ring = found.load()
    if as_json:
        for key in ring.keys:
            click.echo(msgspec.json.encode(_fields(key)))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPE_WIDTH)
    console.print(_table(ring.keys))


@keys.command()
@click.argument("name")
@_store_options
def revoke(name: str, file: str | None, store: str | None) -> None:
    """End the key NAME (or id) for good. Requests that run already come to their end."""
    with _told(), _existing(file, store) as found:
        key = found.revoke(name)
    click.echo(f"samplewise: key {key.name} ({key.id}) is revoked", err=True)


@keys.command()
@click.argument("name")
@_store_options
def rotate(name: str, file: str | None, store: str | None) -> None:
    """Give the key NAME (or id) a new secret; the old one ends. Limits and spend stay."""
    with _told(), _existing(file, store) as found:
        key, secret = found.rotate(name)
    _show_secret(key, secret)


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
    return closing(key_store(url))


@contextmanager
def _existing(file: str | None, store: str | None) -> Iterator[KeyStore]:
    """Give the keys of a store that is there already."""
    config = None if file is None else load_config(file)
    with _opened(config, store) as found:
        found.check()
        yield found


def _check_routes(config: Config | None, routes: tuple[str, ...]) -> None:
    """Refuse routes that the server does not have; without its file nothing is known of them."""
    for route in routes:
        if config is not None and route not in config.routes:
            raise KeyRefused(f"route: there is no route {route!r}{near(route, config.routes)}")


def _expiry(text: str) -> int:
    """Return a time as UTC milliseconds; without a zone it is UTC."""
    duration = _DURATION.fullmatch(text)
    if duration:
        return utc_ms() + int(duration[1]) * _SECONDS[duration[2]] * 1000
    try:
        when = datetime.fromisoformat(text)
        when = when.replace(tzinfo=when.tzinfo or UTC)
        expires = (when - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    except (ValueError, OverflowError):
        raise KeyRefused(
            f"expires: must be a date, a time or a duration such as 90d, got {text[:60]!r}"
        ) from None
    if expires <= utc_ms():
        raise KeyRefused(f"expires: is in the past, got {text[:60]!r}")
    return expires


def _show_secret(key: ClientKey, secret: str) -> None:
    click.echo(f"samplewise: key {key.name} ({key.id}); its secret is shown this once:", err=True)
    click.echo(secret)


def _shown_time(ms: int | None) -> str | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC).isoformat()[:19] + "Z"


def _limits(terms: Terms) -> dict[str, int | float]:
    found: dict[str, int | float] = {}
    for window, limit in terms.limits:
        amounts = {"usd": limit.nano, "tokens": limit.tokens, "samples": limit.samples}
        for unit, amount in amounts.items():
            if amount is not None:
                whole = unit != "usd" or amount % NANO == 0
                value = amount // NANO if unit == "usd" else amount
                found[limit_name(unit, window)] = value if whole else usd(amount)
    return found


def _fields(key: ClientKey) -> dict[str, Any]:
    terms = key.terms
    return {
        "id": key.id,
        "name": key.name,
        "state": key.state(utc_ms()),
        "routes": terms.routes,
        "limits": _limits(terms),
        "requests_per_minute": terms.requests_per_minute,
        "max_samples": terms.max_samples,
        "tests": terms.tests,
        "tags": terms.tags,
        "created_at": _shown_time(key.created_at),
        "expires_at": _shown_time(terms.expires_at),
        "revoked_at": _shown_time(key.revoked_at),
    }


def _table(found: tuple[ClientKey, ...]) -> Table:
    table = Table()
    for heading in ("Name", "Id", "State", "Routes", "Limits", "Expires", "Tags"):
        table.add_column(heading, overflow="fold")
    for key in found:
        terms = key.terms
        limits = [f"{name}={amount}" for name, amount in _limits(terms).items()]
        if terms.requests_per_minute is not None:
            limits.append(f"{terms.requests_per_minute} requests a minute")
        if terms.max_samples is not None:
            limits.append(f"{terms.max_samples} samples a request")
        cells = (
            key.name,
            key.id,
            key.state(utc_ms()),
            "\n".join(terms.routes) or "all",
            "\n".join(limits) or "none",
            _shown_time(terms.expires_at) or "never",
            ", ".join(terms.tags),
        )
        # As text, so that a name with brackets is not taken for markup.
        table.add_row(*(Text(cell) for cell in cells))
    return table
