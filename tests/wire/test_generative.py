"""The probability of Yes as a score: from the first token, or from sampled chains."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests.upstream import Answer, UpstreamProcess
from tests.wire.proxy import serve
from tests.wire.test_judges import asked, check_books, judged


def word(**probabilities: float) -> Answer:
    """Return a one-word answer with these words among the likeliest first tokens."""
    top = [
        {"token": token.replace("_", " "), "logprob": math.log(share), "bytes": None}
        for token, share in probabilities.items()
    ]
    content: list[dict[str, Any]] = [{**top[0], "top_logprobs": top}]
    return Answer(text=str(top[0]["token"]), extra={"logprobs": {"content": content}})


async def test_the_score_is_yes_against_no_over_all_spellings(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine")
    await upstream.script("j", word(Yes=0.4, _yes=0.2, No=0.2, Maybe=0.1))
    config = judged(upstream, "type: generative, model: judge", "verifiers: [judge]")
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("r")
        (said,) = reply.said["verifiers"]
        assert said["score"] == pytest.approx(0.75)
        assert said["status"] == "none"
        await check_books(proxy, upstream, reply)
    (body,) = await asked(upstream)
    assert (body["max_tokens"], body["logprobs"], body["top_logprobs"]) == (1, True, 20)


async def test_a_threshold_judges_the_probability(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine")
    await upstream.script("j", word(No=0.8, Yes=0.2))
    verifier = "type: generative, model: judge, pass_threshold: 0.5"
    async with serve(judged(upstream, verifier, "verifiers: [judge]"), tmp_path) as proxy:
        assert (await proxy.chat("r")).said["samples"]["rejected"] == 1


async def test_a_model_that_says_neither_word_gives_an_error(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine")
    await upstream.script("j", word(The=0.95, Yes=0.01))
    config = judged(upstream, "type: generative, model: judge", "verifiers: [judge]")
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert reply.said["verifiers"][0]["status"] == "error"
        await check_books(proxy, upstream, reply)


@pytest.mark.parametrize("lack", [{"ignores": ("logprobs",)}, {"refuses": ("logprobs",)}])
async def test_without_log_probabilities_chains_are_sampled_from_then_on(
    upstream: UpstreamProcess, tmp_path: Path, lack: dict[str, Any]
) -> None:
    await upstream.script("m", "fine")
    said = ['{"correct": "yes"}', "so it is.\n{'no'}", 'then\n{"correct": "no"}', "Correct: yes"]
    ignoring = [] if "refuses" in lack else ["Yes"]
    await upstream.script("j", *ignoring, *said, **lack)
    verifier = "type: generative, model: judge, chains: 4"
    async with serve(judged(upstream, verifier, "verifiers: [judge]"), tmp_path) as proxy:
        first = await proxy.chat("r")
        assert first.said["verifiers"][0]["score"] == pytest.approx(2 / 3)
        await check_books(proxy, upstream, first)
        before = len(await asked(upstream))
        await proxy.chat("r", "again")
        later = (await asked(upstream))[before:]
        assert len(later) == 4
        assert all("logprobs" not in body and body["temperature"] == 0.8 for body in later)


async def test_chains_of_which_half_say_nothing_are_an_error(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine")
    await upstream.script("j", '{"correct": "yes"}', "hm")
    verifier = "type: generative, model: judge, mode: chains, chains: 4"
    async with serve(judged(upstream, verifier, "verifiers: [judge]"), tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert reply.said["verifiers"][0]["status"] == "error"
        await check_books(proxy, upstream, reply)
