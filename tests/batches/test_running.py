"""A runner that is told to stop begins nothing more, whatever it is doing at that moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec

from samplewise.proxy.batches.base import Batch
from samplewise.proxy.batches.running import Runner, Sizes
from samplewise.proxy.batches.schema import FilePlace
from samplewise.proxy.batches.store import BatchStore
from samplewise.proxy.build import open_service
from samplewise.proxy.config import load_text
from tests.upstream import UpstreamProcess
from tests.wire.proxy import backend

CHAT = "/v1/chat/completions"


class _Stopping(BatchStore):
    """A store whose server begins to stop as soon as a batch is taken up."""

    stop: Callable[[], None]

    def claim(self, runner: str, lease_s: float) -> Batch | None:
        """Take a batch, and tell the server to stop before it is there."""
        found = super().claim(runner, lease_s)
        if found is not None:
            self.stop()
        return found


async def test_a_batch_that_is_taken_up_while_the_server_begins_to_stop_is_left_to_the_next(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    store = _Stopping(FilePlace(tmp_path / "batches.db"), database=False)
    store.open()
    file = store.begin_file("", "in.jsonl", "batch", days=1)
    body = {"model": "one", "messages": [{"role": "user", "content": "hi"}]}
    line = msgspec.json.encode({"custom_id": "a", "method": "POST", "url": CHAT, "body": body})
    store.add_part(file.id, 0, line + b"\n")
    store.end_file(file, "in.jsonl", len(line) + 1)
    store.add(Batch("batch_1", "", 1, 2**40, file.id, CHAT, {}, None))
    text = f"backends:\n{backend(upstream)}routes:\n  one: {{backends: [local]}}\n"
    text += f'store: "sqlite:///{tmp_path}/ledger.db"\n'
    async with open_service(load_text(text, "test.yaml", {})) as service:
        runner = Runner(service, store, Sizes())
        loop = asyncio.get_running_loop()
        store.stop = lambda: asyncio.run_coroutine_threadsafe(_told(runner), loop).result()
        await runner.run()
    assert await upstream.records() == []
    assert (taken := BatchStore(store.place, database=False).claim("next", 5)) is not None
    assert taken.id == "batch_1"


async def _told(runner: Runner) -> None:
    runner.stop()
