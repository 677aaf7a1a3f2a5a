"""Votes on token confidence through the whole proxy: what is asked, read, cut, and left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from samplewise.policies.price import NANO
from samplewise.proxy.build import preflight
from samplewise.proxy.config import load_text
from samplewise.proxy.errors import ConfigError
from tests.upstream import Answer, UpstreamProcess
from tests.wire.proxy import Proxy, Reply, backend, serve
from tests.wire.test_generative import word

_TINY = (
    "backends:\n"
    "  tiny: {type: tiny, price: {input_usd_per_mtok: 1, output_usd_per_mtok: 1}}\n"
    "verifiers:\n  read: {type: arithmetic, judge: false}\n"
    "routes:\n  r: {backends: [tiny], max_tokens: 64, answers: read, policy: POLICY}\n"
)


def _config(upstream: UpstreamProcess, policy: str, **extra: Any) -> str:
    return (
        f"backends:\n{backend(upstream, **extra)}verifiers:\n  number: {{type: number}}\n"
        f"routes:\n  r: {{backends: [local], max_tokens: 50, answers: number, policy: {policy}}}\n"
    )


async def _billed(proxy: Proxy, reply: Reply) -> None:
    assert await proxy.ledger_spent() == round(reply.said["cost_usd"]["total"] * NANO)


@pytest.mark.parametrize(
    "policy", ["{type: deepconf, samples: 3}", "{type: self_certainty, samples: 3, power: 4}"]
)
async def test_the_surest_answer_wins_against_the_most_frequent_one(
    upstream: UpstreamProcess, tmp_path: Path, policy: str
) -> None:
    # Every other token is less likely by one unit each: the lower the first, the surer by ours.
    answers = [Answer(text="it is 4", logprobs=-0.1)] * 2 + [Answer(text="it is 7", logprobs=-50)]
    await upstream.script("m", *answers)
    async with serve(_config(upstream, policy), tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert reply.text == "it is 7"
        # It is the answer of one sample alone.
        assert reply.said["outcome"] == "best_effort"
        assert reply.said["decision"]["voters"] == 3
        await _billed(proxy, reply)
    (asked,) = [record.json for record in await upstream.records()]
    assert (asked["logprobs"], asked["top_logprobs"], asked["n"]) == (True, 20, 3)


@pytest.mark.parametrize("dispatch", ["n", "calls"])
@pytest.mark.parametrize("warmup", ["", ", warmup: 2"])
@pytest.mark.parametrize("wanted", [None, 0, 2])
async def test_the_client_gets_the_log_probabilities_it_asked_for_and_no_more(
    upstream: UpstreamProcess, tmp_path: Path, dispatch: str, warmup: str, wanted: int | None
) -> None:
    await upstream.script("m", Answer(text="it is 4"))
    asks: dict[str, Any] = {} if wanted is None else {"logprobs": True, "top_logprobs": wanted}
    policy = f"{{type: deepconf, samples: 2, group_tokens: 2{warmup}}}"
    config = _config(upstream, policy, dispatch=dispatch)
    plain = await _plain_logprobs(upstream, tmp_path, asks)
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("r", **asks)
        found = reply.json["choices"][0].get("logprobs")
        assert (found and found["content"]) == plain
        assert reply.said["decision"]["without_weight"] == 0
        streamed = await proxy.chat("r", stream=True, **asks)
        parts = [c.get("logprobs") for e in streamed.events for c in e["choices"]]
        assert [item for part in parts if part for item in part["content"]] == (plain or [])


async def _plain_logprobs(upstream: UpstreamProcess, tmp_path: Path, asks: dict[str, Any]) -> Any:
    """Return what a client gets from a route that reads none of it."""
    async with serve(_config(upstream, "single"), tmp_path) as proxy:
        found = (await proxy.chat("r", **asks)).json["choices"][0].get("logprobs")
    return found and found["content"]


async def test_no_more_likeliest_tokens_are_asked_for_than_the_upstream_tells(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="it is 4"))
    policy = "{type: self_certainty, samples: 2}"
    async with serve(_config(upstream, policy, max_top_logprobs=5), tmp_path) as proxy:
        assert (await proxy.chat("r")).said["decision"]["without_weight"] == 0
        await proxy.chat("r", logprobs=True, top_logprobs=7)
    assert [r.json["top_logprobs"] for r in await upstream.records()] == [5, 7]


async def test_an_upstream_that_tells_no_likeliest_tokens_is_refused_at_start(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    config = _config(upstream, "{type: deepconf}", max_top_logprobs=0)
    text = f'store: "sqlite:///{tmp_path}/ledger.db"\n{config}'
    with pytest.raises(ConfigError, match=r"routes\.r: deepconf needs the 2 likeliest tokens"):
        await preflight(load_text(text, "test.yaml", {}))


async def test_an_upstream_that_sends_none_all_the_same_makes_a_plain_vote(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "1", "4", "4", ignores=("logprobs",))
    async with serve(_config(upstream, "{type: deepconf, samples: 3}"), tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert (reply.text, reply.said["decision"]["without_weight"]) == ("4", 3)


async def test_an_unsure_sample_is_cut_while_it_streams_and_billed(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    sure = Answer(text="it is 4", logprobs=-5.0)
    # It would never end by itself: only the cut lets the request end.
    unsure = Answer(text="no it is 7 or so", logprobs=-0.1, hold="never", hold_after=4)
    await upstream.script("m", sure, Answer(text="it is 9", logprobs=-5.0), unsure, sure)
    policy = "{type: deepconf, samples: 4, warmup: 2, window: 1, group_tokens: 2, keep: 1.0}"
    async with serve(_config(upstream, policy, dispatch="calls"), tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert reply.text == "it is 4"
        assert (reply.said["samples"]["drawn"], reply.said["samples"]["cancelled"]) == (4, 1)
        await _billed(proxy, reply)
        # Three whole samples of three tokens, and what had come of the fourth when it was cut.
        made = sum(record.total_tokens for record in await upstream.records())
        assert 9 < reply.json["usage"]["completion_tokens"] <= made


async def test_p_true_of_a_generative_verifier_weighs_the_votes(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 4", "so it is 4", "it is 7")
    await upstream.script("j", word(No=0.9, Yes=0.1), word(No=0.9, Yes=0.1), word(Yes=0.95))
    config = (
        f"backends:\n{backend(upstream, max_n=1)}{backend(upstream, 'judge', 'j')}"
        "verifiers:\n  number: {type: number}\n"
        "  p_true: {type: generative, model: judge, required: false}\n"
        "routes:\n  r: {backends: [local], answers: number, verifiers: [p_true], max_tokens: 50,\n"
        "    policy: {type: cisc, samples: 3, score: p_true, temperature: 0.1}}\n"
    )
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("r")
        (score,) = [v["score"] for v in reply.said["verifiers"] if v["name"] == "p_true"]
        weights = reply.said["decision"]["weights"]
        # Which sample gets which verdict depends on who ends first; the surest answer wins.
        assert max(weights, key=weights.get) == reply.text.rsplit(" ", 1)[1]
        assert sum(weights.values()) == pytest.approx(1, abs=1e-5)
        assert score == pytest.approx(1.0)
        await _billed(proxy, reply)


async def test_the_embedded_model_votes_by_confidence(tmp_path: Path) -> None:
    for number, policy in enumerate(
        (
            "{type: deepconf, samples: 6, measure: tail, group_tokens: 8}",
            "{type: deepconf, samples: 12, warmup: 4, window: 3, group_tokens: 8, keep: 0.5}",
            "{type: self_certainty, samples: 6}",
            "{type: cisc, samples: 6}",
        )
    ):
        where = tmp_path / str(number)
        where.mkdir()
        async with serve(_TINY.replace("POLICY", policy), where) as proxy:
            reply = await proxy.chat("r", "eval ( 7 + 5 ) * 3 - 8", seed=3)
            assert reply.status == 200, reply.error
            assert reply.said["decision"]["without_weight"] < reply.said["decision"]["voters"]
            assert "logprobs" not in reply.json["choices"][0]
            await _billed(proxy, reply)


def test_weights_that_nobody_gives_are_refused_with_the_place() -> None:
    text = (
        'backends:\n  b: {type: openai, base_url: "http://127.0.0.1:1/v1", model: m, '
        "price: {input_usd_per_mtok: 1, output_usd_per_mtok: 1}}\n"
        "verifiers:\n  number: {type: number}\n"
        "routes:\n  r: {backends: [b], answers: number, policy: {type: cisc, score: missing}}\n"
    )
    with pytest.raises(ConfigError, match=r"routes\.r\.policy\.score: .*'missing'"):
        load_text(text, "test.yaml", {})


@pytest.mark.parametrize(
    ("policy", "most"),
    [
        ("{type: deepconf, samples: 12, warmup: 8, group_tokens: 8, share: 1.0}", 4),
        ("{type: cisc, samples: 12}", 4),
        ("{type: self_certainty, samples: 12}", 4),
    ],
)
async def test_a_request_may_ask_for_fewer_samples(tmp_path: Path, policy: str, most: int) -> None:
    async with serve(_TINY.replace("POLICY", policy), tmp_path) as proxy:
        asks: dict[str, Any] = {"samplewise": {"samples": most}}
        reply = await proxy.chat("r", "eval ( 7 + 5 ) * 3 - 8", seed=3, **asks)
        assert (reply.status, reply.said["samples"]["drawn"]) == (200, most)


async def test_a_request_can_ask_for_these_votes_where_the_upstream_tells_what_they_read(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="it is 4"))
    config = (
        f"backends:\n{backend(upstream)}{backend(upstream, 'mute', max_top_logprobs=0)}"
        "verifiers:\n  number: {type: number}\n"
        "routes:\n  r: {backends: [local], answers: number, policy: majority_vote:4}\n"
        "  mute: {backends: [mute], answers: number, policy: majority_vote:4}\n"
    )
    async with serve(config, tmp_path) as proxy:
        for policy in ("deepconf", "self_certainty", "cisc", "medoid"):
            reply = await proxy.chat("r", samplewise={"policy": policy})
            assert (reply.said["policy"], reply.said["samples"]["drawn"]) == (policy, 4)
        refused = await proxy.chat("mute", samplewise={"policy": "deepconf"})
        assert refused.status == 400
        assert "deepconf needs the 2 likeliest tokens" in refused.error["message"]
        # The model's own probability of a sample needs none.
        assert (await proxy.chat("mute", samplewise={"policy": "cisc"})).status == 200
