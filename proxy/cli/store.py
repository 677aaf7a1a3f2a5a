"""What commands that read a ledger share: which file it is, and how to say that it is not one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from samplewise.proxy.config import load_config
from samplewise.proxy.config_store import check_store, store_path
from samplewise.proxy.errors import ConfigError

__all__ = ["WRONG_FILE", "ledger_file", "store_options"]

# A file that is no ledger is a wrong argument; 1 is left for what goes wrong with a right one.
WRONG_FILE = 2


def store_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that name a ledger to a command."""
    command = click.option(
        "--store", metavar="URL", help="The ledger, sqlite:///FILE; no configuration is read then."
    )(command)
    return click.option(
        "--config", "config_file", metavar="FILE", help="The configuration that names the ledger."
    )(command)


def ledger_file(config_file: str | None, store: str | None) -> Path:
    """Return the file that the options name; ends the program when there is none to name."""
    if store is not None:
        try:
            return store_path(check_store(store))
        except ValueError as error:
            raise click.UsageError(f"--store: {error}") from None
    if config_file is None:
        raise click.UsageError("give --config FILE or --store URL")
    try:
        return store_path(load_config(config_file).store)
    except ConfigError as error:
        click.echo(f"samplewise: {error}", err=True)
        sys.exit(1)
