"""What a request can ask for itself: less than its route gives, and to be told more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from samplewise.policies.price import NANO
from tests.upstream import Answer, UpstreamProcess
from tests.wire.proxy import Reply, backend, serve

ROUTES = """
  one: {backends: [local]}
  vote: {backends: [local], policy: 'majority_vote:6'}
  wide: {backends: [local], policy: 'majority_vote:2', budget: {samples: 6}}
  best: {backends: [local], policy: 'best_of_n:4', verifiers: [even]}
  waves:
    backends: [local]
    policy: {type: first_pass, max_samples: 8, waves: [4, 4]}
    verifiers: [even]
  tiers:
    backends: [local, other]
    policy: {type: cascade, tiers: [{backend: local, samples: 2}, {backend: other, samples: 2}]}
    verifiers: [even]
"""
VERIFIERS = """
  even: {type: regex, pattern: '[02468]$'}
  short: {type: regex, pattern: '[02468]$', max_chars: 5}
  answer: {type: final_answer}
"""


def _config(upstream: UpstreamProcess, routes: str = ROUTES, **extra: Any) -> str:
    backends = backend(upstream, **extra) + backend(upstream, "other", **extra)
    return f"backends:\n{backends}verifiers:\n{VERIFIERS}routes:\n{routes}"


def _drawn(reply: Reply) -> int:
    drawn: int = reply.said["samples"]["drawn"]
    return drawn


@pytest.mark.parametrize(
    ("route", "asked", "policy", "drawn"),
    [
        ("vote", {"samples": 2}, "majority_vote", 2),
        ("vote", {"samples": 6}, "majority_vote", 6),
        ("vote", {"policy": "single"}, "single", 1),
        ("vote", {"policy": "adaptive_vote", "samples": 4}, "adaptive_vote", 4),
        ("wide", {}, "majority_vote", 2),
        ("wide", {"samples": 5}, "majority_vote", 5),
        ("best", {"samples": 3}, "best_of_n", 3),
        ("best", {"policy": "majority_vote"}, "majority_vote", 4),
        ("best", {"policy": "first_pass"}, "first_pass", 4),
        ("best", {"policy": "medoid"}, "medoid", 4),
        ("waves", {"policy": "best_of_n", "samples": 5}, "best_of_n", 5),
        ("best", {"policy": "majority_vote", "samples": 3}, "majority_vote", 3),
        ("waves", {"samples": 3}, "first_pass", 3),
        ("waves", {"samples": 6}, "first_pass", 6),
        ("tiers", {}, "cascade", 4),
        ("tiers", {"samples": 3}, "cascade", 3),
        ("tiers", {"samples": 1}, "cascade", 1),
    ],
)
async def test_a_request_chooses_policy_and_samples_within_its_routes_ceiling(
    upstream: UpstreamProcess,
    tmp_path: Path,
    route: str,
    asked: dict[str, Any],
    policy: str,
    drawn: int,
) -> None:
    # Odd numbers, all different: no vote is decided early and nothing passes.
    await upstream.script("m", *(str(number) for number in range(1, 99, 2)))
    async with serve(_config(upstream), tmp_path) as proxy:
        headers = {f"x-samplewise-{name}": str(value) for name, value in asked.items()}
        for reply in (
            await proxy.chat(route, samplewise=asked),
            await proxy.chat(route, headers=headers),
        ):
            assert (reply.said["policy"], _drawn(reply)) == (policy, drawn)
        assert sum(record.n for record in await upstream.records()) == 2 * drawn


@pytest.mark.parametrize(
    ("route", "asked", "param"),
    [
        ("one", {"samples": 2}, "samples"),
        ("vote", {"samples": 7}, "samples"),
        ("wide", {"samples": 7}, "samples"),
        ("vote", {"policy": "first_pass"}, "policy"),
        ("vote", {"policy": "best_of_n"}, "policy"),
        ("vote", {"policy": "cascade"}, "policy"),
        ("vote", {"policy": "weighted_vote"}, "policy"),
        ("vote", {"policy": "majority_vote:3"}, "policy"),
    ],
)
async def test_a_request_for_more_than_its_route_can_do_is_refused(
    upstream: UpstreamProcess, tmp_path: Path, route: str, asked: dict[str, Any], param: str
) -> None:
    async with serve(_config(upstream), tmp_path) as proxy:
        reply = await proxy.chat(route, samplewise=asked)
        assert (reply.status, reply.error["param"]) == (400, f"samplewise.{param}")
        assert await upstream.records() == []


async def test_a_vote_that_a_request_asks_for_really_votes(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "8", "6", "6", "4")
    async with serve(_config(upstream), tmp_path) as proxy:
        asked = {"policy": "majority_vote", "return": ["votes"]}
        reply = await proxy.chat("best", samplewise=asked)
        assert (reply.text, reply.said["chosen"]["votes"]) == ("6", 2)
        assert reply.said["votes"][0] == {"answer": "6", "votes": 2}


async def test_as_many_answers_come_back_as_were_asked_for(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "a", "b", "a", "c")
    async with serve(_config(upstream), tmp_path) as proxy:
        reply = await proxy.chat("vote", n=3, samplewise={"samples": 4})
        texts = [choice["message"]["content"] for choice in reply.json["choices"]]
        assert [choice["index"] for choice in reply.json["choices"]] == [0, 1, 2]
        # Different answers before repeated ones, the voted one first.
        assert texts == ["a", "b", "c"]
        refused = await proxy.chat("vote", n=5, samplewise={"samples": 4})
        assert (refused.status, refused.error["param"]) == (400, "n")
        refused = await proxy.chat("tiers", n=2, samplewise={"samples": 1})
        assert (refused.status, refused.error["param"]) == (400, "n")


async def test_only_what_was_asked_for_is_returned_beside_the_answer(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "2", "3", "4", "3")
    async with serve(_config(upstream), tmp_path) as proxy:
        for names in ([], ["candidates"], ["verdicts"], ["votes"], ["votes", "candidates"]):
            said = (await proxy.chat("best", samplewise={"return": names})).said
            extra = {"candidates", "verdicts", "votes"} & set(said)
            assert extra == set(names)
        said = (await proxy.chat("best", samplewise={"return": ["candidates", "verdicts"]})).said
        assert [c["text"] for c in said["candidates"]] == ["2", "3", "4", "3"]
        assert [c["index"] for c in said["candidates"]] == [0, 1, 2, 3]
        assert [v["status"] for v in said["verdicts"]] == ["pass", "fail", "pass", "fail"]
        stream = await proxy.chat("best", stream=True, samplewise={"return": ["candidates"]})
        assert len(stream.events[-1]["samplewise"]["candidates"]) == 4


@pytest.mark.parametrize("policy", ["best_of_n, samples: 3", "first_pass, max_samples: 3"])
async def test_the_route_says_what_an_unverified_answer_does(
    upstream: UpstreamProcess, tmp_path: Path, policy: str
) -> None:
    # The verifier cannot tell of long texts and rejects odd numbers.
    unsure = ("it is five", "it is seven", "it is seven")
    routes = "".join(
        f"  {word}: {{on_unverified: {word}, backends: [local], policy: {{type: {policy}}}, "
        "answers: answer, verifiers: [short]}\n"
        for word in ("return", "vote", "error")
    )
    config = _config(upstream, routes)
    async with serve(config, tmp_path) as proxy:
        await upstream.script("m", *unsure)
        reply = await proxy.chat("return")
        assert (reply.text, reply.said["degraded"]) == ("it is five", ["verifier"])
        assert reply.said["outcome"] == "best_effort"
        reply = await proxy.chat("vote")
        assert (reply.text, reply.said["outcome"]) == ("it is seven", "agreed")
        for texts in (unsure, ("1", "3", "5")):
            await upstream.script("m", *texts)
            for stream in (False, True):
                before = await proxy.ledger_spent()
                refused = await proxy.chat("error", stream=stream)
                assert (refused.status, refused.error["code"]) == (422, "no_verified_answer")
                cost = round(float(refused.headers["x-samplewise-cost-usd"]) * NANO)
                assert cost == await proxy.ledger_spent() - before > 0
        await upstream.script("m", "1", "2")
        for word in ("return", "vote", "error"):
            reply = await proxy.chat(word)
            assert (reply.text, reply.said["outcome"]) == ("2", "verified")


@pytest.mark.parametrize("route", ["one", "vote", "best", "waves", "tiers"])
async def test_a_dry_run_says_the_most_it_can_cost_and_sends_nothing(
    upstream: UpstreamProcess, tmp_path: Path, route: str
) -> None:
    await upstream.script("m", Answer(text="1", tokens=9_999))
    async with serve(_config(upstream), tmp_path) as proxy:
        worst = []
        for asked, headers in (({"dry_run": True}, {}), ({}, {"x-samplewise-dry-run": "true"})):
            for stream in (False, True):
                reply = await proxy.chat(route, headers=headers, samplewise=asked, stream=stream)
                assert reply.json["object"] == "samplewise.estimate"
                assert reply.said["dry_run"] is True
                worst.append(reply.said["cost_usd"]["worst"])
        assert len(set(worst)) == 1
        assert await upstream.records() == []
        assert await proxy.ledger_spent() == 0
        real = await proxy.chat(route)
        assert real.said["samples"]["drawn"] <= reply.said["samples_at_most"]
        assert 0 < real.said["cost_usd"]["total"] <= worst[0]
        fewer = {"dry_run": True, "samples": 1, "max_cost_usd": 0.00001}
        tight = (await proxy.chat(route, samplewise=fewer)).said
        assert (tight["samples_at_most"], tight["cost_usd"]["worst"]) == (1, 0.00001)


async def test_nothing_of_a_clients_headers_goes_upstream(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine")
    secret = "canary-4711"
    names = ("authorization", "x-api-key", "api-key", "cookie", "x-request-id", "x-forwarded-for")
    sent = {name: secret for name in (*names, "user-agent", "openai-organization", "x-team")}
    async with serve(_config(upstream), tmp_path) as proxy:
        assert (await proxy.chat("vote", headers=sent)).status == 200
        record = await upstream.record()
        assert secret not in repr(record)
        known = {"host", "accept", "accept-encoding", "user-agent", "content-type", "x-request-id"}
        assert set(record.headers) - known == {"content-length"}


IMAGE = {"type": "image_url", "image_url": {"url": "http://localhost/cat.png"}}
PARTS: dict[str, Any] = {
    "image": IMAGE,
    "no type": {"image_url": {"url": "http://localhost/cat.png"}},
    "input_image": {"type": "input_image", "image_url": "http://localhost/cat.png"},
    "video": {"type": "video_url", "video_url": {"url": "http://localhost/cat.mp4"}},
    "file": {"type": "file", "file": {"file_id": "file-1"}},
}


@pytest.mark.parametrize("part", PARTS)
async def test_what_has_no_bound_on_its_tokens_is_not_sent_several_times(
    upstream: UpstreamProcess, tmp_path: Path, part: str
) -> None:
    content = [{"type": "text", "text": "what is it?"}, PARTS[part]]
    messages = [{"role": "user", "content": "hi"}, {"role": "user", "content": content}]
    await upstream.script("m", "a cat")
    async with serve(_config(upstream), tmp_path) as proxy:
        refused = await proxy.chat("vote", messages=messages)
        assert (refused.status, refused.error["param"]) == (400, "messages")
        assert "max_tokens_per_image" in refused.error["message"]
        assert await upstream.records() == []
        assert (await proxy.chat("one", messages=messages)).text == "a cat"
        assert (
            await proxy.chat("vote", messages=messages, samplewise={"samples": 1})
        ).status == 200


async def test_an_image_cannot_hide_behind_escapes(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    hidden = (
        b'{"model": "vote", "messages": [{"role": "user", "content": '
        b'[{"type": "image\\u005furl", "image_\\u0075rl": {"url": "http://localhost/cat.png"}}]}]}'
    )
    async with serve(_config(upstream), tmp_path) as proxy:
        refused = await proxy.post("/v1/chat/completions", hidden)
        assert (refused.status, refused.error["param"]) == (400, "messages")
        assert await upstream.records() == []


async def test_an_image_with_a_bound_is_held_at_its_bound(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    inline = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 40_000}}
    messages = [{"role": "user", "content": [IMAGE, inline]}]
    await upstream.script("m", "a cat")
    config = _config(upstream, max_tokens_per_image=10_000)
    async with serve(config, tmp_path) as proxy:
        asked = {"samples": 2, "dry_run": True}
        said = (await proxy.chat("vote", messages=messages, max_tokens=1, samplewise=asked)).said
        tokens = round(said["cost_usd"]["worst"] * NANO) / 370 / 2
        assert 20_000 < tokens < 20_500
        held = {"max_cost_usd": 20_000 * 370 / NANO}
        refused = await proxy.chat("vote", messages=messages, max_tokens=1, samplewise=held)
        assert refused.status == 402
        reply = await proxy.chat("vote", messages=messages)
        assert (reply.status, reply.text) == (200, "a cat")
