"""A copy of a PostgreSQL ledger that servers may be writing to meanwhile, made by `pg_dump`."""

from __future__ import annotations

import asyncio
import shlex
import shutil
from pathlib import Path

from samplewise.proxy.errors import StoreError
from samplewise.proxy.ledger import postgres_connect as server
from samplewise.proxy.ledger.accounts import Totals
from samplewise.proxy.ledger.backup import new_file

__all__ = ["back_up"]


async def back_up(url: str, target: Path) -> Totals:
    """Check a ledger as of one commit, dump that commit to a new file, and return its sums.

    The file is what `pg_restore` reads, for its owner alone.

    Raises:
        FileExistsError: `target` or its `.part` is there already; neither is touched.
        StoreError: the ledger is not right, `pg_dump` is not there or fails. No copy is left.
        OSError: the copy cannot be written. No copy is left.
    """
    dump = ["--schema=samplewise", "--format=custom", "--no-password", f"--dbname={url}"]
    program = shutil.which("pg_dump")
    if program is None:
        said = shlex.join(["pg_dump", *dump, f"--file={target}"])
        raise StoreError(
            "pg_dump is not installed here (on Debian: apt-get install postgresql-client). Where it"
            f" is installed, run: {said}"
        )
    with new_file(target, 0o600) as part:
        async with server.reading(url) as db:
            totals = await server.add_up(db)
            if totals.wrong_counters:
                raise StoreError(
                    f"In the ledger {server.label(url)} {totals.wrong_counters} counters are not"
                    " the sum of their rows: stop the servers and keep the database as it is."
                )
            snapshot = await db.fetchval("SELECT pg_export_snapshot()")
            await _run(program, *dump, f"--snapshot={snapshot}", f"--file={part}")
    return totals


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    if process.returncode:
        reason = said.decode(errors="replace").strip() or f"exit code {process.returncode}"
        raise StoreError(f"The copy cannot be made, so it was removed: {reason}")
