"""A copy of the files and batches beside an SQLite ledger, for the copy of that ledger."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from samplewise.proxy.batches.schema import file_beside
from samplewise.proxy.ledger.advice import store_error
from samplewise.proxy.ledger.backup import check_whole, copy_all, new_file
from samplewise.proxy.ledger.schema import connect

__all__ = ["batches_copied"]


@contextmanager
def batches_copied(ledger: Path, copy: Path) -> Iterator[Path | None]:
    """Copy the files and batches of a ledger to where the ledger's `copy` has them; give that file.

    None where there are none. The copy gets its name when the body has ended well. The ledger is to
    be copied in the body, so that it has the cost of every line that has its answer here.

    Raises:
        FileExistsError: that file or its `.part` is there already; neither is touched.
        StoreError: they cannot be read, or the copy is not right. No copy is left.
        OSError: the copy cannot be written. No copy is left.
    """
    source, target = file_beside(ledger), file_beside(copy)
    if not source.exists():
        yield None
        return
    with new_file(target, source.stat().st_mode & 0o777 | 0o600) as part:
        try:
            with closing(connect(f"{source.absolute().as_uri()}?mode=ro")) as db:
                copy_all(db, part)
            with closing(connect(f"{part.absolute().as_uri()}?mode=ro")) as db:
                check_whole(db)
        except sqlite3.Error as error:
            raise store_error(source, error) from error
        yield target
