"""`samplewise backup`: a checked copy of the ledger, also while a server runs."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import NoReturn

import click

from samplewise.proxy.batches.backup import batches_copied
from samplewise.proxy.cli.store import WRONG_LEDGER, named_ledger, store_options
from samplewise.proxy.errors import ConfigError, StoreError
from samplewise.proxy.ledger.accounts import Totals
from samplewise.proxy.ledger.backup import back_up
from samplewise.proxy.ledger.reading import reading

__all__ = ["backup"]


@click.command(epilog="Example: samplewise backup --config config.yaml ledger-2026-11-21.db")
@click.argument("file", type=click.Path(path_type=Path))
@store_options
def backup(file: Path, config_file: str | None, store: str | None) -> None:
    """Copy the ledger to a new FILE as of one moment; a server may run meanwhile.

    It is checked: every counter is the sum of its rows, and the copy is whole. Files and batches
    of the server come along: beside it, with `.batches` in the name. Of PostgreSQL, pg_dump makes
    one copy of all, for pg_restore. Exits with 1 when that fails or FILE cannot be written, with 2
    when FILE exists or there is no such ledger.
    """
    source = named_ledger(config_file, store)
    try:
        with reading(source):
            pass
    except ConfigError as error:
        _end(str(error), 1)
    except StoreError as error:
        _end(str(error), WRONG_LEDGER)
    try:
        totals, batches = _copied(source, file)
    except FileExistsError as error:
        _end(f"{error.filename} exists and is not overwritten: name another FILE", WRONG_LEDGER)
    except OSError as error:
        _end(f"cannot write {error.filename}: {error.strerror}", 1)
    except StoreError as error:
        _end(str(error), 1)
    click.echo(f"{file}: correct, {totals.rows:,} rows, {totals.open_rows:,} of them open")
    if batches is not None:
        click.echo(f"{batches}: correct, files and batches")


def _copied(source: Path | str, file: Path) -> tuple[Totals, Path | None]:
    if isinstance(source, Path):
        with batches_copied(source, file) as batches:
            return back_up(source, file), batches
    # Only here, because it imports the extra, which is there: the ledger was read.
    from samplewise.proxy.ledger import postgres_backup

    return asyncio.run(postgres_backup.back_up(source, file)), None


def _end(message: str, code: int) -> NoReturn:
    click.echo(f"samplewise: {message}", err=True)
    sys.exit(code)
