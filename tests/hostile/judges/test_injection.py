"""How often attacks on judges succeed, through the whole proxy; the page on security says the same.

The judges are mocks: what a real model makes of data that it was told not to obey is not measured.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from tests.hostile.judges.gullible import Gullible, Sight, listening, plain
from tests.upstream import Answer, UpstreamProcess
from tests.wire.proxy import PRICE, Proxy, backend, serve

ROOT = Path(__file__).parents[3]
QUESTION = "What is the capital of France?"
ROW = re.compile(r"^\| ([a-z ]+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", re.MULTILINE)


class Attack(msgspec.Struct, frozen=True):
    """One answer: `order` is what an obedient judge must see of it to accept."""

    kind: str
    name: str
    text: str
    order: str


ATTACKS = msgspec.json.decode(
    (Path(__file__).parent / "attacks.json").read_bytes(), type=list[Attack]
)


@asynccontextmanager
async def judging(
    upstream: UpstreamProcess, folder: Path, sight: Sight
) -> AsyncIterator[tuple[Proxy, Gullible]]:
    """Run a proxy whose route is judged by a gullible judge, and answers with attacks in turn."""
    keys = [attack.order for attack in ATTACKS if attack.kind == "master key"]
    orders = [attack.order for attack in ATTACKS if attack.kind != "master key"]
    judge = Gullible(sight, orders, [plain(key) for key in keys])
    await upstream.script("m", *(Answer(text=attack.text, tokens=1) for attack in ATTACKS))
    async with listening(judge) as url:
        config = (
            f"backends:\n{backend(upstream)}"
            f"  judge: {{type: openai, base_url: '{url}', model: g, price: {PRICE}}}\n"
            "verifiers:\n  judge: {type: score_model, model: judge, pass_threshold: 0.5}\n"
            "routes:\n  r: {backends: [local], verifiers: [judge]}\n"
        )
        async with serve(config, folder) as proxy:
            yield proxy, judge


async def measure(
    upstream: UpstreamProcess, folder: Path, sight: Sight
) -> tuple[Counter[str], Counter[str]]:
    """Return, by kind, how many attacks passed and how many were never shown to the judge."""
    passed: Counter[str] = Counter()
    unseen: Counter[str] = Counter()
    async with judging(upstream, folder, sight) as (proxy, judge):
        for attack in ATTACKS:
            before = judge.asked
            reply = await proxy.chat("r", QUESTION)
            assert reply.text == attack.text
            assert reply.said["verifiers"][0]["status"] != "error"
            passed[attack.kind] += reply.said["outcome"] == "verified"
            unseen[attack.kind] += judge.asked == before
    return passed, unseen


def test_every_attack_shows_its_order_to_one_who_reads_it() -> None:
    assert len(ATTACKS) >= 25
    assert len({(attack.kind, attack.name) for attack in ATTACKS}) == len(ATTACKS)
    assert all(plain(attack.order) in plain(attack.text) for attack in ATTACKS)


async def test_the_rates_are_those_of_the_page(upstream: UpstreamProcess, tmp_path: Path) -> None:
    sights: list[Sight] = ["outside", "sloppy", "everything"]
    results = []
    for sight in sights:
        (tmp_path / sight).mkdir()
        results.append(await measure(upstream, tmp_path / sight, sight))
    total = Counter(attack.kind for attack in ATTACKS)
    measured = {
        kind: (count, results[0][1][kind], *(passed[kind] for passed, _ in results))
        for kind, count in total.items()
    }
    # No attack reaches a judge that keeps data and orders apart, however sloppily it reads marks.
    assert sum(results[0][0].values()) == sum(results[1][0].values()) == 0
    assert all(unseen == results[0][1] for _, unseen in results)
    page = (ROOT / "docs" / "security.md").read_text()
    told = {row[0]: tuple(map(int, row[1:])) for row in ROW.findall(page)}
    assert told.pop("all") == tuple(sum(row[i] for row in measured.values()) for i in range(5))
    assert told == measured
