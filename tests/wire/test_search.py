"""Searches over steps through the whole proxy, with the embedded model and its exact step score."""

from __future__ import annotations

from pathlib import Path

import pytest

from samplewise.policies.price import NANO
from samplewise.proxy.replay.files import load
from tests.wire.proxy import serve

PUZZLE = "4 7 8 8 > 24"
SEARCHES = {
    "beam": "samples: 12, width: 3",
    "lookahead": "samples: 12, width: 3",
    "dvts": "samples: 12, width: 3",
    "rebase": "samples: 12",
    "particle_filter": "samples: 12",
    "best_first": "width: 4, expansions: 24",
    "mcts": "width: 4, expansions: 24",
}
PLAN = 'score: steps, stop: [";"], max_steps: 4, step_tokens: 14'


def _config(policy: str, more: str = "") -> str:
    return (
        "backends:\n"
        "  tiny: {type: tiny, price: {input_usd_per_mtok: 1, output_usd_per_mtok: 4}}\n"
        "verifiers:\n"
        "  exact: {type: countdown}\n"
        "  steps: {type: countdown, scope: step, required: false}\n"
        "routes:\n"
        f"  r: {{backends: [tiny], max_tokens: 40, verifiers: [exact, steps]{more},\n"
        f"    policy: {policy}}}\n"
    )


@pytest.mark.parametrize("kind", SEARCHES)
async def test_a_search_finds_a_verified_answer_and_returns_its_whole_path(
    kind: str, tmp_path: Path
) -> None:
    policy = f"{{type: {kind}, {SEARCHES[kind]}, {PLAN}}}"
    async with serve(_config(policy), tmp_path) as proxy:
        estimate = await proxy.chat("r", PUZZLE, samplewise={"dry_run": True})
        reply = await proxy.chat("r", PUZZLE, seed=1)
        assert (reply.status, reply.said["outcome"]) == (200, "verified")
        assert reply.said["cost_usd"]["total"] <= estimate.said["cost_usd"]["worst"]
        assert reply.said["policy"] == kind
        steps = reply.text.split(" ; ")
        assert len(steps) == 3
        assert steps[-1].endswith("= 24")
        assert reply.said["samples"]["drawn"] > 3
        assert await proxy.ledger_spent() == round(reply.said["cost_usd"]["total"] * NANO)
        streamed = await proxy.chat("r", PUZZLE, seed=1, stream=True)
        assert streamed.streamed == reply.text


@pytest.mark.parametrize("kind", ["rebase", "lookahead", "mcts"])
async def test_a_recorded_search_has_the_log_probabilities_of_every_step(
    kind: str, tmp_path: Path
) -> None:
    policy = f"{{type: {kind}, {SEARCHES[kind]}, {PLAN}}}"
    folder = tmp_path / "recorded"
    recording = f"recording: {{folder: '{folder}', routes: [r]}}\n"
    config = recording + _config(policy, ", params: {logprobs: true}")
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("r", PUZZLE, seed=1)
        assert "logprobs" not in reply.json["choices"][0]
    (path,) = folder.iterdir()
    (problem,) = load(path).problems
    assert len(problem.samples) == reply.said["samples"]["drawn"]
    assert {sample.source for sample in problem.samples} == {"fresh", "continue"}
    for sample in problem.samples:
        assert sample.logprobs is not None
        assert sample.logprobs.tokens == sample.tokens
        assert sample.logprobs.lowest <= sample.logprobs.mean <= 0


async def test_a_search_that_runs_out_of_money_says_that_its_answer_is_not_whole(
    tmp_path: Path,
) -> None:
    policy = f"{{type: rebase, samples: 12, {PLAN}}}"
    async with serve(_config(policy), tmp_path) as proxy:
        whole = await proxy.chat("r", PUZZLE, seed=1)
        cost = whole.said["cost_usd"]["total"]
        # Enough for the first steps at their worst case, and not for all that follow.
        reply = await proxy.chat("r", PUZZLE, seed=1, samplewise={"max_cost_usd": 2 * cost / 3})
        assert (reply.status, reply.said["degraded"]) == (200, ["budget"])
        assert reply.said["outcome"] == "best_effort"
        assert reply.json["choices"][0]["finish_reason"] == "length"
        assert len(reply.text.split(";")) < 3
        assert reply.said["cost_usd"]["total"] <= 2 * cost / 3
