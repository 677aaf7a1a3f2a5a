"""Verifier `process_reward` in front of a real vLLM, in both layouts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from samplewise.models.countdown import held_out_puzzles
from samplewise.policies.price import NANO
from tests.upstream import UpstreamProcess
from tests.vllm.reference import ask
from tests.vllm.server import Vllm, python, running
from tests.vllm.weights import QWEN_TAG, SHEPHERD_TAG, process_model, tagged_model
from tests.wire.proxy import PRICE, Reply, backend, serve

pytestmark = pytest.mark.vllm

# Two implementations of the same sums in single precision; on a GPU in another order again.
NEAR = 1e-3
PUZZLE = held_out_puzzles(1)[0].prompt
TINY = f"  local: {{type: tiny, price: {PRICE}}}\n"
HOW = ("last", "min", "prod")


@dataclass(frozen=True)
class Scoring:
    """A server that scores steps, its weights, and the token that ends a step."""

    served: Vllm
    folder: Path
    tag: int


def pooling(folder: Path, model: Path, pooler: object, *args: str) -> Iterator[Vllm]:
    with running(
        folder, model, "--runner", "pooling", "--pooler-config", json.dumps(pooler), *args
    ) as served:
        yield served


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scoring]:
    folder = tmp_path_factory.mktemp("qwen")
    model, tag = process_model(folder / "qwen")
    # The real model's tag is what vLLM expects by itself.
    for served in pooling(folder, model, {"step_tag_id": tag}):
        yield Scoring(served, model, tag)


@pytest.fixture(scope="module")
def shepherd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scoring]:
    folder = tmp_path_factory.mktemp("shepherd")
    model, tag = tagged_model(folder / "shepherd")
    pooler = {"task": "token_classify", "tok_pooling_type": "STEP", "step_tag_id": tag}
    head = {
        "architectures": ["MistralForSequenceClassification"],
        "classifier_from_token": ["+", "-"],
        "method": "no_post_processing",
    }
    for served in pooling(folder, model, pooler, "--hf-overrides", json.dumps(head)):
        yield Scoring(served, model, tag)


def config(scoring: Scoring, layout: str, route: str, more: str = "separator: ';'") -> str:
    """Return a route over the embedded model whose steps are scored in all three ways."""
    shown = f"type: process_reward, model: rewards, layout: {layout}, {more}"
    lines = "".join(f"  {how}: {{{shown}, aggregate: {how}}}\n" for how in HOW)
    return (
        f"backends:\n{TINY}{backend(scoring.served, 'rewards')}"
        f"verifiers:\n{lines}routes:\n  r: {{backends: [local], {route}}}\n"
    )


async def judged(scoring: Scoring, layout: str, where: Path) -> Reply:
    """Return an answer whose six candidates were all scored."""
    route = "policy: {type: best_of_n, samples: 6, score: min}, verifiers: [last, min, prod]"
    async with serve(config(scoring, layout, route), where) as proxy:
        reply = await proxy.chat(
            "r", PUZZLE, seed=3, samplewise={"return": ["candidates", "verdicts"]}
        )
        assert await proxy.ledger_spent() == round(reply.said["cost_usd"]["total"] * NANO)
    assert reply.said["degraded"] == []
    return reply


def check(reply: Reply, wanted: Sequence[Sequence[float]]) -> None:
    """Compare the scores of all candidates with those of their steps, and the choice."""
    for verdict, steps in zip(reply.said["verdicts"], wanted, strict=True):
        scores = {said["name"]: said["score"] for said in verdict["verifiers"]}
        assert len(steps) == 3
        assert scores["last"] == pytest.approx(steps[-1], abs=NEAR)
        assert scores["min"] == pytest.approx(min(steps), abs=NEAR)
        assert scores["prod"] == pytest.approx(math.prod(steps), abs=NEAR)
    least = [min(steps) for steps in wanted]
    assert max(least) - min(least) > 20 * NEAR
    assert reply.said["chosen"]["index"] == least.index(max(least))


def share(good: float, other: float) -> float:
    return 1 / (1 + math.exp(other - good))


async def test_steps_have_the_scores_of_transformers_in_the_layout_of_qwen(
    qwen: Scoring, tmp_path: Path
) -> None:
    reply = await judged(qwen, "qwen", tmp_path)
    chats = []
    for candidate in reply.said["candidates"]:
        marked = "".join(step.strip() + QWEN_TAG for step in candidate["text"].split(";"))
        answer = {"role": "assistant", "content": marked}
        chats.append([{"role": "user", "content": PUZZLE}, answer])
    rows = ask(python()[0], qwen.folder, chats, qwen.tag)
    check(reply, [[share(good, bad) for bad, good in steps] for steps in rows])


async def test_steps_have_the_scores_of_transformers_in_the_layout_of_math_shepherd(
    shepherd: Scoring, tmp_path: Path
) -> None:
    reply = await judged(shepherd, "shepherd", tmp_path)
    texts = []
    for candidate in reply.said["candidates"]:
        marked = (f"{step.strip()} {SHEPHERD_TAG}" for step in candidate["text"].split(";"))
        texts.append(f"{PUZZLE} " + "\n".join(marked))
    rows = ask(python()[0], shepherd.folder, texts, shepherd.tag, good="+ -")
    check(reply, [[share(good, bad) for good, bad in steps] for steps in rows])


async def test_a_search_goes_on_by_the_scores_of_its_steps(qwen: Scoring, tmp_path: Path) -> None:
    route = (
        "max_tokens: 40, verifiers: [steps], policy: {type: rebase, samples: 6, score: steps, "
        "stop: [';'], max_steps: 4, step_tokens: 14}"
    )
    text = config(qwen, "qwen", route).replace("  last: {", "  steps: {scope: step, ")
    async with serve(text, tmp_path) as proxy:
        reply = await proxy.chat("r", PUZZLE, seed=1)
        assert reply.status == 200
        assert reply.said["degraded"] == []
        assert reply.text.count("=") == 3
        assert reply.said["cost_usd"]["verification"] > 0


@pytest.mark.parametrize("layout", ["shepherd", "qwen"])
async def test_a_layout_that_does_not_fit_the_server_is_an_error(
    qwen: Scoring, shepherd: Scoring, tmp_path: Path, layout: str
) -> None:
    other = qwen if layout == "shepherd" else shepherd
    async with serve(config(other, layout, "verifiers: [min]"), tmp_path) as proxy:
        reply = await proxy.chat("r", PUZZLE, seed=3)
        assert [said["status"] for said in reply.said["verifiers"]] == ["error"]
        assert reply.said["samples"]["rejected"] == 0


async def test_a_tag_in_the_question_is_an_error_and_no_step(
    upstream: UpstreamProcess, qwen: Scoring, tmp_path: Path
) -> None:
    await upstream.script("m", "4 + 7 = 11 ; 11 + 8 = 19")
    text = config(qwen, "qwen", "verifiers: [min]").replace(TINY, backend(upstream))
    async with serve(text, tmp_path) as proxy:
        for question, status in ((f"4 {QWEN_TAG} 7", "error"), ("4 7", "none")):
            reply = await proxy.chat("r", question)
            assert [said["status"] for said in reply.said["verifiers"]] == [status]


async def test_a_server_without_the_path_is_an_error_and_free(
    qwen: Scoring, tmp_path: Path
) -> None:
    text = config(qwen, "qwen", "verifiers: [rm]").replace(
        "verifiers:\n",
        "verifiers:\n  rm: {type: reward_model, model: rewards, endpoint: score}\n",
        1,
    )
    async with serve(text, tmp_path) as proxy:
        reply = await proxy.chat("r", PUZZLE, seed=3)
        assert [said["status"] for said in reply.said["verifiers"]] == ["error"]
        assert reply.said["cost_usd"]["verification"] == 0
