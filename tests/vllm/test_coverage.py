"""Coverage through vLLM and through the numpy sampler: the same within the error of sampling."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
import pytest_asyncio

from samplewise.models.countdown import Puzzle, held_out_puzzles, replay
from samplewise.models.evaluate import pass_at
from tests.vllm.serving import Stack

pytestmark = pytest.mark.vllm
PUZZLES, SAMPLES = 40, 64
# Six in a hundred thousand by chance.
MOST_Z = 4.0


async def right(
    served: Stack, route: str, puzzles: Sequence[Puzzle], **fields: object
) -> list[int]:
    """Return how many of 64 samples solve each puzzle."""
    room = asyncio.Semaphore(4)

    async def solve(number: int, puzzle: Puzzle) -> int:
        async with room:
            reply = await served.chat(
                route,
                puzzle.prompt,
                seed=1_000 * number,
                samplewise={"return": ["candidates"]},
                **fields,
            )
        said = reply.said["candidates"]
        assert len(said) == SAMPLES, reply.body
        return sum(replay(puzzle, candidate["text"]).correct for candidate in said)

    return await asyncio.gather(*(solve(i, puzzle) for i, puzzle in enumerate(puzzles)))


def z_of(k: int, ours: Sequence[int], theirs: Sequence[int]) -> tuple[float, float, float]:
    """Return pass@k of both, and how many standard errors their paired difference is from zero."""
    a = np.array([pass_at(k, SAMPLES, n) for n in ours])
    b = np.array([pass_at(k, SAMPLES, n) for n in theirs])
    error = (a - b).std(ddof=1) / np.sqrt(len(a))
    return float(a.mean()), float(b.mean()), float((a - b).mean() / error)


@pytest_asyncio.fixture
async def numpy_right(served: Stack) -> list[int]:
    """Return what the numpy sampler solves at temperature 1."""
    return await right(served, "cover-numpy", held_out_puzzles(PUZZLES), temperature=1.0)


async def test_coverage_agrees_with_the_numpy_sampler(
    served: Stack, numpy_right: list[int]
) -> None:
    ours = await right(served, "cover", held_out_puzzles(PUZZLES), temperature=1.0)
    for k in (1, 4, 16):
        through, numpy, z = z_of(k, ours, numpy_right)
        print(f"pass@{k}: {through:.3f} through vLLM, {numpy:.3f} by numpy, z {z:+.2f}")
        assert abs(z) < MOST_Z


async def test_the_comparison_notices_another_distribution(
    served: Stack, numpy_right: list[int]
) -> None:
    ours = await right(served, "cover", held_out_puzzles(PUZZLES), temperature=0.1)
    assert abs(z_of(16, ours, numpy_right)[2]) > MOST_Z


async def test_sampling_defaults_are_sent_and_not_left_to_the_models_folder(served: Stack) -> None:
    # Without a temperature of the client, the distribution is that of temperature 1.
    puzzles = held_out_puzzles(8)
    ours = await right(served, "cover", puzzles)
    stated = await right(served, "cover", puzzles, temperature=1.0, top_p=1.0, top_k=0)
    assert ours == stated
