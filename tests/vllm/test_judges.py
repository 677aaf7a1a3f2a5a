"""Chat models as judges on a real vLLM that says nothing sensible: what binds it is the form."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from samplewise.models.countdown import held_out_puzzles
from samplewise.policies.price import NANO
from tests.faults.proxy import FaultProxy, through
from tests.vllm.reference import ask
from tests.vllm.server import Vllm, python, running
from tests.vllm.weights import JUDGE_CONTEXT, byte_token, judge_model
from tests.wire.proxy import PRICE, Proxy, Reply, backend, serve

pytestmark = pytest.mark.vllm

# Two implementations of the same sums in single precision; on a GPU in another order again.
NEAR = 2e-4
PUZZLE = held_out_puzzles(1)[0].prompt
# It would write words without end: where the form allows one of these, it takes it.
LIKED = {'"': 100, "}": 60, ":": 50, ",": 50}
BIAS = {str(byte_token(sign)): bias for sign, bias in LIKED.items()}
PARAMS = f"sampling_params: {msgspec.json.encode({'temperature': 0, 'logit_bias': BIAS}).decode()}"
VERIFIERS = {
    "label": f"{{type: label_model, labels: [right, wrong], passing_labels: [right], {PARAMS}",
    "score": f"{{type: score_model, range: [0, 10], {PARAMS}",
    "sure": "{type: generative, mode: logprobs",
    "better": f"{{type: pairwise, {PARAMS}",
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return judge_model(tmp_path_factory.mktemp("weights") / "judge")


@pytest.fixture(scope="module")
def judge(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vllm]:
    folder = tmp_path_factory.mktemp("log")
    with running(folder, weights, context=JUDGE_CONTEXT) as served:
        yield served


def config(asked: FaultProxy, route: str) -> str:
    """Return a route over the embedded model with all judges, which are asked through a relay."""
    lines = "".join(f"  {name}: {more}, model: judge}}\n" for name, more in VERIFIERS.items())
    return (
        f"backends:\n  local: {{type: tiny, price: {PRICE}}}\n{backend(asked, 'judge')}"
        f"verifiers:\n{lines}"
        f"routes:\n  r: {{backends: [local], {route}}}\n"
    )


def bodies(asked: FaultProxy) -> list[dict[str, Any]]:
    """Return what the judge was sent."""
    return [msgspec.json.decode(request.partition(b"\r\n\r\n")[2]) for request in asked.requests]


async def judged(proxy: Proxy) -> Reply:
    shown = {"return": ["candidates", "verdicts"]}
    reply = await proxy.chat("r", PUZZLE, seed=3, samplewise=shown)
    assert reply.said["degraded"] == []
    assert await proxy.ledger_spent() == round(reply.said["cost_usd"]["total"] * NANO)
    return reply


@pytest.mark.parametrize("kind", ["label", "score"])
async def test_the_form_of_a_verdict_binds_vllm(judge: Vllm, tmp_path: Path, kind: str) -> None:
    route = f"policy: {{type: best_of_n, samples: 6, score: {kind}}}, verifiers: [{kind}]"
    async with through(judge.port) as asked, serve(config(asked, route), tmp_path) as proxy:
        reply = await judged(proxy)
    verdicts = [verdict["verifiers"][0] for verdict in reply.said["verdicts"]]
    assert "error" not in {said["status"] for said in verdicts}
    assert all(0 <= said["score"] <= 1 for said in verdicts)
    # Never without the schema: a refusal of it would have been followed by another form.
    sent = bodies(asked)
    assert len(sent) == len({candidate["text"] for candidate in reply.said["candidates"]})
    assert {body["response_format"]["type"] for body in sent} == {"json_schema"}
    free = dict(sent[0])
    del free["response_format"]
    loose = (await judge.post("/v1/chat/completions", free)).text
    bound = (await judge.post("/v1/chat/completions", sent[0])).text
    assert set(msgspec.json.decode(bound)) == {"reason", kind}
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(loose, type=dict[str, Any])


async def test_the_probability_of_yes_is_that_of_transformers(
    judge: Vllm, weights: Path, tmp_path: Path
) -> None:
    route = "policy: {type: best_of_n, samples: 4, score: sure}, verifiers: [sure]"
    async with through(judge.port) as asked, serve(config(asked, route), tmp_path) as proxy:
        reply = await judged(proxy)
    scores = sorted({v["verifiers"][0]["score"] for v in reply.said["verdicts"]})
    prompts = [body["messages"] for body in bodies(asked)]
    logits = ask(python()[0], weights, prompts, good="Yes No")
    wanted = sorted(1 / (1 + math.exp(no - yes)) for yes, no in logits)
    assert scores == pytest.approx(wanted, abs=NEAR)
    assert max(scores) - min(scores) > 10 * NEAR


async def test_pairs_are_compared_in_both_orders(judge: Vllm, tmp_path: Path) -> None:
    route = "policy: {type: tournament, samples: 2}, comparator: better"
    async with through(judge.port) as asked, serve(config(asked, route), tmp_path) as proxy:
        await judged(proxy)
    # A tie in the first order spares the second.
    assert len(bodies(asked)) in (1, 2)
    assert {body["response_format"]["type"] for body in bodies(asked)} == {"json_schema"}


async def test_a_chat_server_is_no_reward_model_and_says_so(judge: Vllm, tmp_path: Path) -> None:
    async with through(judge.port) as asked:
        rewards = "  rm: {type: reward_model, model: judge, pass_threshold: 0}\n"
        text = config(asked, "verifiers: [rm]").replace("routes:", f"{rewards}routes:")
        async with serve(text, tmp_path) as proxy:
            reply = await proxy.chat("r", PUZZLE, seed=3)
    assert [said["status"] for said in reply.said["verifiers"]] == ["error"]
    assert (reply.said["degraded"], reply.said["samples"]["rejected"]) == (["verifier"], 0)
    assert reply.said["cost_usd"]["verification"] == 0
