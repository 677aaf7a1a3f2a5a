"""`samplewise backup`: a checked copy of the ledger, also while a server runs."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from samplewise.proxy.cli.store import WRONG_FILE, ledger_file, store_options
from samplewise.proxy.errors import StoreError
from samplewise.proxy.ledger.backup import back_up
from samplewise.proxy.ledger.reading import reading

__all__ = ["backup"]


@click.command(epilog="Example: samplewise backup --config config.yaml ledger-2026-11-21.db")
@click.argument("file", type=click.Path(path_type=Path))
@store_options
def backup(file: Path, config_file: str | None, store: str | None) -> None:
    """Copy the ledger to a new FILE as of one moment; a server may run meanwhile.

    The copy is checked: it is whole, and every counter is the sum of its rows. Exits with 1 when
    that fails or FILE cannot be written, with 2 when FILE exists or there is no such ledger.
    """
    source = ledger_file(config_file, store)
    try:
        with reading(source):
            pass
    except StoreError as error:
        _end(str(error), WRONG_FILE)
    try:
        totals = back_up(source, file)
    except FileExistsError as error:
        _end(f"{error.filename} exists and is not overwritten: name another FILE", WRONG_FILE)
    except OSError as error:
        _end(f"cannot write {error.filename}: {error.strerror}", 1)
    except StoreError as error:
        _end(str(error), 1)
    click.echo(f"{file}: correct, {totals.rows:,} rows, {totals.open_rows:,} of them open")


def _end(message: str, code: int) -> None:
    click.echo(f"samplewise: {message}", err=True)
    sys.exit(code)
