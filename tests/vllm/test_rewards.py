"""Verifier `reward_model` in front of a real vLLM: its scores are the model's own logits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from samplewise.models.countdown import held_out_puzzles
from samplewise.policies.price import NANO
from tests.upstream import UpstreamProcess
from tests.vllm.reference import ask
from tests.vllm.server import Vllm, python, running
from tests.vllm.weights import reward_model
from tests.wire.proxy import PRICE, backend, serve

pytestmark = pytest.mark.vllm

# Two implementations of the same sums in single precision; on a GPU in another order again.
NEAR = 2e-3
ENDPOINTS = ("auto", "classify", "pooling", "score", "rerank")
PUZZLE = held_out_puzzles(1)[0].prompt
# A context of 64 tokens is soon full.
LONG = "1 " * 80
TINY = f"  local: {{type: tiny, price: {PRICE}}}\n"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reward_model(tmp_path_factory.mktemp("weights") / "reward")


@pytest.fixture(scope="module")
def rewards(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vllm]:
    with running(tmp_path_factory.mktemp("log"), weights, "--runner", "pooling") as served:
        yield served


def config(served: Vllm, verifiers: dict[str, str], route: str, model: str = "m") -> str:
    """Return a route over the embedded model, judged by the served one."""
    lines = "".join(
        f"  {name}: {{type: reward_model, model: rewards{more}}}\n"
        for name, more in verifiers.items()
    )
    return (
        f"backends:\n{TINY}{backend(served, 'rewards', model)}"
        f"verifiers:\n{lines}routes:\n  r: {{backends: [local], {route}}}\n"
    )


def raw(score: float) -> float:
    """Undo the logistic of a score with a spread of 4."""
    return 4 * math.log(score / (1 - score))


async def test_scores_are_the_logits_that_transformers_finds_in_the_same_weights(
    rewards: Vllm, weights: Path, tmp_path: Path
) -> None:
    verifiers = {name: f", endpoint: {name}, spread: 4" for name in ENDPOINTS}
    route = f"policy: {{type: best_of_n, samples: 6, score: auto}}, verifiers: {[*ENDPOINTS]}"
    async with serve(config(rewards, verifiers, route.replace("'", "")), tmp_path) as proxy:
        shown = {"return": ["candidates", "verdicts"]}
        reply = await proxy.chat("r", PUZZLE, seed=3, samplewise=shown)
        assert reply.said["degraded"] == []
        texts = [candidate["text"] for candidate in reply.said["candidates"]]
        assert await proxy.ledger_spent() == round(reply.said["cost_usd"]["total"] * NANO)
    asked = {"role": "user", "content": PUZZLE}
    chats = [[asked, {"role": "assistant", "content": text}] for text in texts]
    pairs = [[PUZZLE, text] for text in texts]
    logits = ask(python()[0], weights, [*chats, *pairs])
    by_chat, by_pair = [x for (x,) in logits[:6]], [x for (x,) in logits[6:]]
    assert max(by_chat) - min(by_chat) > 100 * NEAR
    for number, verdict in enumerate(reply.said["verdicts"]):
        scores = {said["name"]: raw(said["score"]) for said in verdict["verifiers"]}
        for name in ("auto", "classify", "pooling"):
            assert scores[name] == pytest.approx(by_chat[number], abs=NEAR)
        for name in ("score", "rerank"):
            assert scores[name] == pytest.approx(by_pair[number], abs=NEAR)
    assert reply.text == texts[by_chat.index(max(by_chat))]
    # Numbers that a logistic had squeezed already would all lie between 0 and 1.
    assert any(not 0 <= x <= 1 for x in by_chat)


async def test_verdicts_are_billed_by_the_tokens_that_vllm_counts(
    rewards: Vllm, tmp_path: Path
) -> None:
    route = "verifiers: [rm]"
    async with serve(config(rewards, {"rm": ""}, route), tmp_path) as proxy:
        reply = await proxy.chat("r", PUZZLE, seed=3)
    text = {"role": "assistant", "content": reply.text}
    messages = [{"role": "user", "content": PUZZLE}, text]
    told = (await rewards.post("/classify", {"model": "m", "messages": messages})).json
    tokens = told["usage"]["prompt_tokens"]
    assert round(reply.said["cost_usd"]["verification"] * NANO) == tokens * 370


@pytest.mark.parametrize(("question", "model"), [(PUZZLE, "nobody"), (LONG, "m")])
@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_what_vllm_refuses_is_an_error_rejects_nothing_and_is_free(
    upstream: UpstreamProcess,
    rewards: Vllm,
    tmp_path: Path,
    question: str,
    model: str,
    endpoint: str,
) -> None:
    await upstream.script("m", "4 + 7 = 11")
    verifiers = {"rm": f", endpoint: {endpoint}, pass_threshold: 0"}
    text = config(rewards, verifiers, "verifiers: [rm]", model)
    async with serve(text.replace(TINY, backend(upstream)), tmp_path) as proxy:
        reply = await proxy.chat("r", question)
        assert (reply.status, reply.text) == (200, "4 + 7 = 11")
        assert [said["status"] for said in reply.said["verifiers"]] == ["error"]
        assert (reply.said["degraded"], reply.said["samples"]["rejected"]) == (["verifier"], 0)
        assert reply.said["cost_usd"]["verification"] == 0


async def test_a_refusal_of_one_answer_is_not_taken_for_a_server_that_cannot_score(
    upstream: UpstreamProcess, rewards: Vllm, tmp_path: Path
) -> None:
    await upstream.script("m", "4 + 7 = 11")
    text = config(rewards, {"rm": ""}, "verifiers: [rm]")
    async with serve(text.replace(TINY, backend(upstream)), tmp_path) as proxy:
        for question, status in ((LONG, "error"), (PUZZLE, "none"), (LONG, "error"), ("4", "none")):
            reply = await proxy.chat("r", question)
            assert [said["status"] for said in reply.said["verifiers"]] == [status]
