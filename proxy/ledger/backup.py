"""A copy of a ledger that a server may be writing to meanwhile."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from samplewise.proxy.errors import StoreError
from samplewise.proxy.ledger import schema
from samplewise.proxy.ledger.accounts import Totals
from samplewise.proxy.ledger.reading import reading_file
from samplewise.proxy.ledger.totals import add_up

__all__ = ["back_up", "check_whole", "copy_all", "new_file"]


def back_up(source: Path, target: Path) -> Totals:
    """Copy the ledger `source` as of one commit to a new file, check it, and return its sums.

    The copy is made as `target` with `.part` behind it and gets its name when it is whole, checked
    and on the disk. It is one file, without a log beside it, and may be read by whom `source` may.

    Raises:
        FileExistsError: `target` or its `.part` is there already; neither is touched.
        StoreError: `source` is no ledger, or the copy is not right. No copy is left.
        OSError: the copy cannot be written. No copy is left.
    """
    mode = source.stat().st_mode & 0o777 | 0o600
    with reading_file(source) as db, new_file(target, mode) as part:
        copy_all(db, part)
        return _checked(part)


@contextmanager
def new_file(target: Path, mode: int) -> Iterator[Path]:
    """Give an empty file beside `target`, which gets its name when the body has ended well.

    Raises:
        FileExistsError: `target` or its `.part` is there already; neither is touched.
        OSError: it cannot be written. No file is left, as with any other error.
    """
    part = target.with_name(target.name + ".part")
    with ExitStack() as undo:
        _create(target, mode)
        undo.callback(target.unlink)
        _create(part, mode)
        undo.callback(part.unlink, missing_ok=True)
        yield part
        os.replace(part, target)
        undo.pop_all()
    _sync_folder(target.absolute().parent)


def _create(path: Path, mode: int) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))


def copy_all(db: sqlite3.Connection, part: Path) -> None:
    """Copy a database as of one commit into an empty file, which needs no other beside it.

    Raises:
        StoreError: one of them cannot be read or written.
    """
    try:
        with closing(schema.connect(f"{part.absolute().as_uri()}?mode=rw")) as copy:
            # All pages in one step: in several, a server that writes would make it start again.
            db.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        raise StoreError(f"The copy {part} cannot be written: {error}.") from error


def _checked(part: Path) -> Totals:
    with reading_file(part) as copy:
        check_whole(copy)
    totals = add_up(part)
    if totals.wrong_counters:
        raise StoreError(
            f"In the copy {totals.wrong_counters} counters are not the sum of their rows, so it was"
            " removed. The ledger itself is wrong: stop the server and keep its file with -wal and"
            " -shm."
        )
    return totals


def check_whole(copy: sqlite3.Connection) -> None:
    """Raise StoreError when a copy is damaged."""
    found = [row[0] for row in copy.execute("PRAGMA integrity_check(3)")]
    if found != ["ok"]:
        raise StoreError(f"The copy is damaged, so it was removed: {'; '.join(found)}")


def _sync_folder(folder: Path) -> None:
    # Else a power cut may take the new name away again.
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
