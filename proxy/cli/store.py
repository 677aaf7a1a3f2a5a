"""What commands that read a ledger share: which it is, and how to say that it is none."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from samplewise.proxy.config import load_config
from samplewise.proxy.config_store import check_store, is_postgres, store_path
from samplewise.proxy.errors import ConfigError

__all__ = ["DEFAULT_LEDGER", "WRONG_LEDGER", "named_ledger", "store_options"]

# What is no ledger is a wrong argument; 1 is left for what goes wrong with a right one.
WRONG_LEDGER = 2
# What a server makes in its folder where nothing names a ledger.
DEFAULT_LEDGER = Path("samplewise.db")


def store_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that name a ledger to a command."""
    command = click.option(
        "--store",
        metavar="URL",
        help="The ledger's URL; no configuration is read then. Without either: samplewise.db here.",
    )(command)
    return click.option(
        "--config", "config_file", metavar="FILE", help="The configuration that names the ledger."
    )(command)


def named_ledger(config_file: str | None, store: str | None) -> Path | str:
    """Return the SQLite file or the database URL that the options name, or end the program."""
    if store is not None:
        try:
            return _where(check_store(store))
        except ValueError as error:
            raise click.UsageError(f"--store: {error}") from None
    if config_file is None:
        if not DEFAULT_LEDGER.exists():
            raise click.UsageError(
                f"give --config FILE or --store URL: there is no {DEFAULT_LEDGER} here"
            )
        return DEFAULT_LEDGER
    try:
        return _where(load_config(config_file).store)
    except ConfigError as error:
        click.echo(f"samplewise: {error}", err=True)
        sys.exit(1)


def _where(url: str) -> Path | str:
    return url if is_postgres(url) else store_path(url)
