"""A server that is asked for five times what it can do still does nearly as much as it can."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from bench.load import request_bytes
from bench.overload import ANSWER_S, PLACES, flood, peak, upstream_calls
from bench.targets import Fleet

from tests.wire import books

ROOT = Path(__file__).parents[2]
SECONDS = 4.0


@pytest.mark.slow
async def test_five_times_the_load_leaves_four_fifths_of_the_peak_and_sheds_before_reserving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'src'}:{ROOT}")
    fields = {"model": "one", "messages": [{"role": "user", "content": "How many apples?"}]}
    request = request_bytes(msgspec.json.encode(fields))
    async with Fleet.open(tmp_path, ANSWER_S) as fleet:
        server = f", max_in_flight: {PLACES}, max_queue: {PLACES}"
        await fleet.start("samplewise", server=server)
        target = fleet.targets["samplewise"]
        best = await peak(target, request, SECONDS)
        found = await flood(target, request, 5 * best, SECONDS)
        calls = await upstream_calls(fleet.upstream.port)
        fleet.stop("samplewise")
    assert found.rate(200) >= 0.8 * best
    assert set(found.latencies) <= {200, 503}
    assert len(found.latencies[503]) >= found.offered / 3
    # Who is turned away hears of it before those who are answered.
    assert found.quantile_ms(503, 0.5) < found.quantile_ms(200, 0.5)
    # One row a call, so none for those who were turned away.
    assert len(books.rows(tmp_path / "samplewise.db")) == calls
