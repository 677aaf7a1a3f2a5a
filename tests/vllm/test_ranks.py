"""One real vLLM with data-parallel ranks and a LoRA adapter, as a backend."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from samplewise.models.countdown import held_out_puzzles
from samplewise.models.sampler import TINY
from tests.vllm.server import Vllm, python, running
from tests.vllm.weights import adapter
from tests.wire.books import rows, series, total
from tests.wire.proxy import Proxy, Reply, backend, serve

pytestmark = pytest.mark.vllm

SAMPLES = 8
PUZZLES = held_out_puzzles(8)
ROUTES = """verifiers:
  right: {type: countdown}
routes:
  plain: {backends: [plain], policy: "majority_vote:8", answers: right, max_tokens: 56}
  sums: {backends: [sums], policy: "majority_vote:8", answers: right, max_tokens: 56}
  nobody: {backends: [nobody], policy: "majority_vote:8", answers: right, max_tokens: 56}
"""


def rank_count() -> int:
    """Return how many ranks this machine has room for: on GPUs one each."""
    if python()[1] == "cpu":
        return 2
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=True)
    return min(2, len(listed.stdout.splitlines()))


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vllm]:
    folder = tmp_path_factory.mktemp("ranks")
    module = f"sums={adapter(folder / 'adapter', seed=20)}"
    lora = ["--enable-lora", "--max-lora-rank", "8", "--lora-modules", module]
    with running(folder, TINY, "--data-parallel-size", str(rank_count()), *lora) as served:
        yield served


@pytest.fixture
def two(ranks: Vllm) -> Vllm:
    if rank_count() < 2:
        pytest.skip("needs two GPUs")
    return ranks


def config(served: Vllm, **fields: object) -> str:
    """Return backends for the model, for its adapter, and for one that nobody has."""
    more = {"data_parallel_ranks": rank_count(), "dispatch": "calls", "probe": "none", **fields}
    names = {"plain": "m", "sums": "sums", "nobody": "nobody"}
    lines = (backend(served, name, model, **more) for name, model in names.items())
    return f"backends:\n{''.join(lines)}{ROUTES}".replace("type: openai", "type: vllm")


async def asked(proxy: Proxy, route: str, puzzle: int = 0) -> Reply:
    """Ask for a puzzle; the seed of sample i is 100 and i more."""
    text, shown = PUZZLES[puzzle].prompt, {"return": ["candidates"]}
    return await proxy.chat(route, text, seed=100, temperature=1.0, samplewise=shown)


async def alone(served: Vllm, model: str) -> list[str]:
    """Return the texts that vLLM itself gives for these seeds."""
    asked = {"role": "user", "content": PUZZLES[0].prompt}
    body = {"model": model, "messages": [asked], "temperature": 1, "max_tokens": 56}
    calls = (served.post("/v1/chat/completions", {**body, "seed": 100 + i}) for i in range(SAMPLES))
    return [reply.text for reply in await asyncio.gather(*calls)]


def texts(reply: Reply) -> list[str]:
    return [candidate["text"] for candidate in reply.said["candidates"]]


async def finished(served: Vllm) -> list[int]:
    """Return how many requests each rank has finished, by its own count."""
    page = series((await served.get("/metrics")).body.decode())
    name = "vllm:request_success_total"
    return [round(total(page, name, engine=str(rank))) for rank in (0, 1)]


async def test_an_adapter_is_a_model_that_answers_otherwise(ranks: Vllm, tmp_path: Path) -> None:
    async with serve(config(ranks), tmp_path) as proxy:
        plain, sums = await asked(proxy, "plain"), await asked(proxy, "sums")
    assert texts(plain) == await alone(ranks, "m")
    assert texts(sums) == await alone(ranks, "sums")
    # The same seeds: what differs is the adapter's doing.
    assert sum(a != b for a, b in zip(texts(plain), texts(sums), strict=True)) > SAMPLES / 4
    assert {row["model"] for row in rows(tmp_path / "ledger.db")} == {"m", "sums"}


async def test_a_model_that_vllm_does_not_know_is_said_at_start_and_to_the_client(
    ranks: Vllm, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with serve(config(ranks, probe="free"), tmp_path) as proxy:
        logged = [line for line in capfd.readouterr().err.splitlines() if "unknown model" in line]
        assert [line for line in logged if '"nobody"' in line] == logged != []
        assert (await asked(proxy, "sums")).status == 200
        reply = await asked(proxy, "nobody")
        assert reply.status >= 400
        print(reply.status, reply.body)
        assert "nobody" in reply.error["message"]
        assert await proxy.ledger_spent() > 0


async def test_samples_of_a_prompt_stay_on_one_rank_and_prompts_use_both(
    two: Vllm, tmp_path: Path
) -> None:
    async with serve(config(two), tmp_path) as proxy:
        before, used = await finished(two), set()
        for puzzle in range(4):
            assert (await asked(proxy, "plain", puzzle)).status == 200
            after = await finished(two)
            made = [b - a for a, b in zip(before, after, strict=True)]
            assert sorted(made) == [0, SAMPLES]
            used.add(made.index(SAMPLES))
            before = after
        assert used == {0, 1}


async def test_prompts_at_once_are_spread_evenly_over_the_ranks(two: Vllm, tmp_path: Path) -> None:
    before = await finished(two)
    async with serve(config(two), tmp_path) as proxy:
        await asyncio.gather(*(asked(proxy, "plain", puzzle) for puzzle in range(8)))
    made = [b - a for a, b in zip(before, await finished(two), strict=True)]
    assert made == [4 * SAMPLES, 4 * SAMPLES]


async def test_each_answer_tells_how_many_requests_wait(ranks: Vllm, tmp_path: Path) -> None:
    async with serve(config(ranks, dispatch="n"), tmp_path) as proxy:
        await asked(proxy, "plain")
        pool = proxy.service.upstreams["plain"].pool
        assert [host.waiting for host in pool.hosts if host.told_at] == [0.0]
