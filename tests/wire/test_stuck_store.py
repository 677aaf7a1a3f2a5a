"""A store whose calls block for long holds nothing up but what waits for the store."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

from tests.upstream import UpstreamProcess
from tests.wire.books import soon
from tests.wire.proxy import backend, serve
from tests.wire.test_files import form, upload

LONG = " ".join(["word"] * 2_000) + " yes"  # such a text is matched in a thread
CONFIG = """
verifiers: {says_yes: {type: regex, pattern: 'yes$'}}
routes:
  checked: {backends: [local], policy: 'first_pass:2', verifiers: [says_yes], max_tokens: 3000}
"""


def threads_of_the_store() -> int:
    return sum(thread.name.startswith("samplewise-stores") for thread in threading.enumerate())


async def test_verification_goes_on_while_every_thread_of_the_store_is_stuck(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", LONG)
    async with serve(f"backends:\n{backend(upstream)}{CONFIG}", tmp_path) as proxy:
        assert (await upload(proxy, form())).status == 200  # makes the file
        with closing(sqlite3.connect(tmp_path / "ledger.batches.db")) as db:
            db.execute("BEGIN IMMEDIATE")  # from now on who writes waits, up to 30 seconds
            uploads = [asyncio.create_task(upload(proxy, form())) for _ in range(40)]
            await soon(lambda: threads_of_the_store() == 16, "all threads are stuck")
            reply = await proxy.chat("checked")
            assert not any(task.done() for task in uploads)
            db.execute("ROLLBACK")
        assert (reply.status, reply.text) == (200, LONG)
        assert reply.said["outcome"] == "verified"
        assert {(await task).status for task in uploads} == {200}
