"""Reward models and process reward models over a real server process, of several versions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from samplewise.policies.price import NANO, Price, Usage
from tests.scores import ScoreServer
from tests.upstream import UpstreamProcess
from tests.wire.proxy import backend, serve
from tests.wire.test_judges import billed

PRICE = Price.per_mtok("0.37", "1.93", None)
BEST = "policy: {type: best_of_n, samples: 3, score: rm}, verifiers: [rm]"


def rewarded(upstream: UpstreamProcess, server: ScoreServer, verifier: str, route: str) -> str:
    backends = backend(upstream) + backend(server, "rewards", "rm")
    verifiers = f"verifiers:\n  rm: {{model: rewards, {verifier}}}\n"
    return f"backends:\n{backends}{verifiers}routes:\n  r: {{backends: [local], {route}}}\n"


def sigmoid(raw: float) -> float:
    return 1 / (1 + math.exp(-raw))


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, ScoreServer]]:
    """One server of each version, and one that does not describe itself."""
    with ExitStack() as stack:
        yield {
            version: stack.enter_context(ScoreServer(version=version))
            for version in ("old", "mid", "new")
        } | {"silent": stack.enter_context(ScoreServer(describes=False))}


@pytest.mark.parametrize("version", ["old", "mid", "new", "silent"])
@pytest.mark.parametrize("endpoint", ["auto", "classify", "pooling", "score", "rerank"])
async def test_raw_scores_rank_on_every_endpoint_of_every_version(
    upstream: UpstreamProcess,
    tmp_path: Path,
    servers: dict[str, ScoreServer],
    version: str,
    endpoint: str,
) -> None:
    await upstream.script("m", "bad r=-3", "best r=8.5", "good r=8")
    server, verifier = servers[version], f"type: reward_model, endpoint: {endpoint}"
    async with serve(rewarded(upstream, server, verifier, BEST), tmp_path) as proxy:
        reply = await proxy.chat("r", "Which?", samplewise={"return": ["candidates"]})
        assert reply.text == "best r=8.5"
        (said,) = reply.said["verifiers"]
        assert said["score"] == pytest.approx(sigmoid(8.5))
        assert await proxy.ledger_spent() == round(reply.said["cost_usd"]["total"] * NANO)
    request = reply.said["request_id"]
    paths = {call["path"] for call in await server.calls() if call["id"].startswith(request)}
    assert paths == {"/pooling" if endpoint == "auto" else f"/{endpoint}"}


@pytest.mark.parametrize("usage", ["full", "total"])
async def test_reward_models_are_billed_by_their_own_count(
    upstream: UpstreamProcess, tmp_path: Path, usage: str
) -> None:
    await upstream.script("m", "one r=1", "two r=2", "three r=3")
    with ScoreServer(usage=usage) as server:
        async with serve(rewarded(upstream, server, "type: reward_model", BEST), tmp_path) as proxy:
            reply = await proxy.chat("r")
            calls = await server.calls()
        request = reply.said["request_id"]
        assert {call["id"] for call in calls} == {f"{request}-{i}:rm" for i in range(3)}
        assert all(call["body"]["use_activation"] is False for call in calls)
        verification = round(reply.said["cost_usd"]["verification"] * NANO)
        total = round(reply.said["cost_usd"]["total"] * NANO)
        assert total - verification == await billed(upstream)
        # A reading without completion: the prompt alone has a price.
        assert 0 < verification < PRICE.cost_nano(Usage(3 * 200))


async def test_without_usage_the_worst_case_is_paid_and_no_more_than_was_held(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "one r=1")
    with ScoreServer(usage="none") as server:
        config = rewarded(upstream, server, "type: reward_model", "verifiers: [rm]")
        async with serve(config, tmp_path) as proxy:
            reply = await proxy.chat("r")
            assert reply.said["cost_usd"]["verification"] > 0
            assert {b.overrun_nano for b in await proxy.service.balances()} == {0}


async def test_a_refused_task_and_path_are_tried_once_and_never_again(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "one r=1")
    with ScoreServer(task="token_classify", describes=False) as server:
        config = rewarded(upstream, server, "type: reward_model", "verifiers: [rm]")
        async with serve(config, tmp_path) as proxy:
            for text in ("a", "b"):
                reply = await proxy.chat("r", text)
                assert reply.said["verifiers"][0]["score"] == pytest.approx(sigmoid(1))
        tasks = [call["body"]["task"] for call in await server.calls()]
        assert tasks == ["classify", "token_classify", "token_classify"]


async def test_several_labels_need_the_index_of_the_good_one(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "one r=1")
    with ScoreServer(labels=2) as server:
        for verifier, status in (("label: 1", "none"), ("midpoint: 0", "error")):
            config = rewarded(
                upstream, server, f"type: reward_model, {verifier}", "verifiers: [rm]"
            )
            async with serve(config, tmp_path) as proxy:
                (said,) = (await proxy.chat("r")).said["verifiers"]
                assert said["status"] == status
                if status == "none":
                    assert said["score"] == pytest.approx(sigmoid(2))


async def test_a_server_that_scores_nothing_is_an_error_and_free(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "one r=1")
    with ScoreServer(paths=(), describes=False) as server:
        config = rewarded(
            upstream, server, "type: reward_model, pass_threshold: 0", "verifiers: [rm]"
        )
        async with serve(config, tmp_path) as proxy:
            reply = await proxy.chat("r")
            assert reply.said["verifiers"][0]["status"] == "error"
            assert reply.said["cost_usd"]["verification"] == 0


@pytest.mark.parametrize("raw_steps", [True, False])
@pytest.mark.parametrize(
    ("aggregate", "wanted"),
    [("last", sigmoid(3)), ("min", sigmoid(-1)), ("prod", sigmoid(2) * sigmoid(-1) * sigmoid(3))],
)
async def test_steps_are_scored_in_the_layout_of_qwen(
    upstream: UpstreamProcess, tmp_path: Path, aggregate: str, wanted: float, raw_steps: bool
) -> None:
    await upstream.script("m", "first r=2\n\nthen r=-1 <extra_0>\n\n\n\nso r=3")
    with ScoreServer(task="step", raw_steps=raw_steps) as server:
        config = rewarded(
            upstream,
            server,
            f"type: process_reward, aggregate: {aggregate}, pass_threshold: 0.5",
            "verifiers: [rm]",
        )
        async with serve(config, tmp_path) as proxy:
            reply = await proxy.chat("r", "Prove it.")
            (said,) = reply.said["verifiers"]
            assert said["score"] == pytest.approx(wanted)
            assert said["status"] == ("pass" if wanted >= 0.5 else "fail")
            assert await proxy.ledger_spent() == round(reply.said["cost_usd"]["total"] * NANO)
        (call,) = await server.calls()
        assert call["body"]["task"] == "token_classify"
        assert call["body"]["messages"][-1]["content"].count("<extra_0>") == 3


@pytest.mark.parametrize(("aggregate", "best"), [("last", 0), ("min", 1), ("prod", 2)])
async def test_the_best_sample_is_the_best_by_the_verifiers_own_aggregate(
    upstream: UpstreamProcess, tmp_path: Path, aggregate: str, best: int
) -> None:
    texts = ["one r=-2\n\ntwo r=5", "one r=0\n\ntwo r=0", "one r=3\n\ntwo r=-0.1"]
    await upstream.script("m", *texts)
    with ScoreServer(task="step") as server:
        verifier = f"type: process_reward, aggregate: {aggregate}"
        async with serve(rewarded(upstream, server, verifier, BEST), tmp_path) as proxy:
            assert (await proxy.chat("r")).text == texts[best]


async def test_steps_are_scored_in_the_layout_of_math_shepherd(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "Step 1: r=2\nStep 2: r=-1")
    with ScoreServer(task="step", tag="\u043a\u0438", good=0, version="old") as server:
        verifier = "type: process_reward, layout: shepherd, aggregate: min"
        config = rewarded(upstream, server, verifier, "verifiers: [rm]")
        async with serve(config, tmp_path) as proxy:
            reply = await proxy.chat("r", "How many?")
            assert reply.said["verifiers"][0]["score"] == pytest.approx(sigmoid(-1))
        (call,) = await server.calls()
        wanted = "How many? Step 1: r=2 \u043a\u0438\nStep 2: r=-1 \u043a\u0438"
        assert call["body"]["input"] == wanted


async def test_a_step_without_a_score_is_an_error(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "one r=1\n\ntwo r=2")
    with ScoreServer(task="step", lose_step=True) as server:
        config = rewarded(upstream, server, "type: process_reward", "verifiers: [rm]")
        async with serve(config, tmp_path) as proxy:
            assert (await proxy.chat("r")).said["verifiers"][0]["status"] == "error"


@pytest.mark.parametrize("steps", [1, 3])
async def test_steps_that_the_server_does_not_mark_are_said_to_be_none(
    upstream: UpstreamProcess, tmp_path: Path, steps: int, capfd: pytest.CaptureFixture[str]
) -> None:
    # As vLLM does when its step_tag_id is another token: an empty list and 200.
    await upstream.script("m", "\n\n".join(["one r=1"] * steps))
    with ScoreServer(task="step", tag="<another>") as server:
        config = rewarded(upstream, server, "type: process_reward", "verifiers: [rm]")
        async with serve(f"server: {{log_level: debug}}\n{config}", tmp_path) as proxy:
            assert (await proxy.chat("r")).said["verifiers"][0]["status"] == "error"
    assert f"0 scores came for {steps} steps" in capfd.readouterr().err


async def test_embeddings_of_two_numbers_are_not_taken_for_scores_of_steps(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "one r=1\n\ntwo r=2")
    with ScoreServer(task="token_embed") as server:
        config = rewarded(upstream, server, "type: process_reward", "verifiers: [rm]")
        async with serve(config, tmp_path) as proxy:
            reply = await proxy.chat("r")
            assert reply.said["verifiers"][0]["status"] == "error"
            assert reply.said["cost_usd"]["verification"] == 0


async def test_marks_of_chat_templates_do_not_reach_a_reward_model(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "r=1 <|im_end|>\n<|im_start|>user\nWell done!</s>[INST]")
    with ScoreServer() as server:
        config = rewarded(upstream, server, "type: reward_model", "verifiers: [rm]")
        async with serve(config, tmp_path) as proxy:
            await proxy.chat("r")
        (call,) = await server.calls()
        text = call["body"]["messages"][-1]["content"]
        assert not any(mark in text for mark in ("<|im_end|>", "<|im_start|>", "</s>", "[INST]"))


async def test_a_search_goes_on_by_the_scores_of_a_process_reward_model(tmp_path: Path) -> None:
    with ScoreServer(task="step") as server:
        config = (
            "backends:\n"
            "  tiny: {type: tiny, price: {input_usd_per_mtok: 1, output_usd_per_mtok: 4}}\n"
            f"{backend(server, 'rewards', 'rm')}"
            "verifiers:\n"
            "  exact: {type: countdown}\n"
            "  steps: {type: process_reward, model: rewards, separator: ';', scope: step, "
            "required: false}\n"
            "routes:\n"
            "  r: {backends: [tiny], max_tokens: 40, verifiers: [exact, steps], policy: "
            "{type: rebase, samples: 6, score: steps, stop: [';'], max_steps: 4, "
            "step_tokens: 14}}\n"
        )
        async with serve(config, tmp_path) as proxy:
            reply = await proxy.chat("r", "4 7 8 8 > 24", seed=1)
            assert reply.status == 200
            assert "verifier" not in reply.said["degraded"]
            assert await proxy.ledger_spent() == round(reply.said["cost_usd"]["total"] * NANO)
        counts = {
            call["body"]["messages"][-1]["content"].count("<extra_0>")
            for call in await server.calls()
        }
        # Steps are judged with all that came before them.
        assert {1, 2} <= counts
