"""Chat models as judges, end to end: what they are asked, what is believed, what it costs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from samplewise.policies.price import NANO, Price, Usage
from tests.upstream import Answer, Fault, Rule, UpstreamProcess
from tests.wire.proxy import Proxy, backend, serve

PRICE = Price.per_mtok("0.37", "1.93", None)


def score(value: object) -> str:
    return msgspec.json.encode({"reason": "so", "score": value}).decode()


def where(text: str, said: str) -> Rule:
    """Return the rule of a judge that says this of prompts which hold the text."""
    return Rule(contains=text, answers=(Answer(text=said),))


def judged(upstream: UpstreamProcess, verifier: str, route: str, **judge: Any) -> str:
    backends = backend(upstream) + backend(upstream, "judge", "j", **judge)
    verifiers = f"verifiers:\n  judge: {{{verifier}}}\n  says: {{type: regex, pattern: 'yes'}}\n"
    return f"backends:\n{backends}{verifiers}routes:\n  r: {{backends: [local], {route}}}\n"


async def billed(upstream: UpstreamProcess) -> int:
    """Return what the upstream's own records cost, in nano-dollars; a refusal costs nothing."""
    records = [record for record in await upstream.records() if record.status == 200]
    return sum(PRICE.cost_nano(Usage(r.prompt_tokens, 0, r.total_tokens)) for r in records)


async def asked(upstream: UpstreamProcess) -> list[Any]:
    """Return the bodies that the judge was sent."""
    return [record.json for record in await upstream.records(model="j")]


async def check_books(proxy: Proxy, upstream: UpstreamProcess, reply: Any) -> None:
    """Check that bill, ledger and the upstream's own count say the same."""
    spent = await proxy.ledger_spent()
    assert spent == round(reply.said["cost_usd"]["total"] * NANO) == await billed(upstream)


async def test_the_highest_score_wins_and_the_judge_is_billed_to_the_token(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "a poor answer", "a good answer", "a fair answer")
    rules = (
        Rule(contains="good", answers=(Answer(text=score(9)),)),
        Rule(contains="fair", answers=(Answer(text=score(5)),)),
    )
    await upstream.script("j", score(1), rules=rules)
    config = judged(
        upstream,
        "type: score_model, model: judge, range: [0, 10]",
        "policy: {type: best_of_n, samples: 3, score: judge}, verifiers: [judge]",
    )
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("r", "What is it?")
        assert reply.text == "a good answer"
        assert reply.said["outcome"] == "best_effort"
        (said,) = reply.said["verifiers"]
        assert (said["status"], said["score"], said["assurance"]) == ("none", 0.9, "model")
        assert reply.said["cost_usd"]["verification"] > 0
        await check_books(proxy, upstream, reply)
    bodies = await asked(upstream)
    assert len(bodies) == 3
    assert {body["response_format"]["type"] for body in bodies} == {"json_schema"}
    assert all(body["max_tokens"] == 512 and body["temperature"] == 0 for body in bodies)


async def test_every_call_has_marks_of_its_own_and_the_rows_name_as_request_id(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "one", "two")
    await upstream.script("j", score(1))
    config = judged(
        upstream,
        "type: score_model, model: judge, pass_threshold: 0.5",
        "policy: 'best_of_n:2', verifiers: [judge]",
    )
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert reply.said["outcome"] == "verified"
    records = await upstream.records(model="j")
    request = reply.said["request_id"]
    assert {r.request_id for r in records} == {f"{request}-0:judge", f"{request}-1:judge"}
    marks = [re.findall(r"<answer-(\w+)>", r.json["messages"][-1]["content"]) for r in records]
    assert len({mark for (mark,) in marks}) == 2
    for record, (mark,) in zip(records, marks, strict=True):
        assert f"end in {mark}." in record.json["messages"][0]["content"]


async def test_a_threshold_makes_a_judge_that_ends_a_search(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "bad", "bad", "splendid", "bad")
    await upstream.script(
        "j", score(0.2), rules=(Rule(contains="splendid", answers=(Answer(text=score(0.8)),)),)
    )
    config = judged(
        upstream,
        "type: score_model, model: judge, pass_threshold: 0.7",
        "policy: {type: first_pass, max_samples: 8, waves: [1]}, verifiers: [judge]",
    )
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert (reply.text, reply.said["outcome"]) == ("splendid", "verified")
        assert reply.said["samples"]["drawn"] == 3
        # The same text is judged once, however often it comes.
        assert len(await asked(upstream)) == 2
        await check_books(proxy, upstream, reply)


async def test_a_label_passes_or_fails(upstream: UpstreamProcess, tmp_path: Path) -> None:
    await upstream.script("m", "bad", "right")
    await upstream.script(
        "j",
        "Label: Wrong",
        rules=(
            Rule(contains='"right"', answers=(Answer(text='```json\n{"label": "correct"}\n```'),)),
        ),
    )
    config = judged(
        upstream,
        "type: label_model, model: judge, labels: [correct, wrong], passing_labels: [correct]",
        "policy: {type: first_pass, max_samples: 2, waves: [1]}, verifiers: [judge]",
    )
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert (reply.text, reply.said["outcome"]) == ("right", "verified")
        assert reply.said["samples"]["rejected"] == reply.said["samples"]["passed"] == 1
        await check_books(proxy, upstream, reply)


@pytest.mark.parametrize(
    "said",
    [
        "I cannot say.",
        '{"score": 0.9} would be generous; {"score": 0.1} is right',
        score(7),
        score("high"),
        "",
    ],
)
async def test_a_reply_that_cannot_be_read_is_an_error_and_never_a_fail(
    upstream: UpstreamProcess, tmp_path: Path, said: str
) -> None:
    await upstream.script("m", "fine")
    await upstream.script("j", said)
    config = judged(
        upstream, "type: score_model, model: judge, pass_threshold: 0.5", "verifiers: [judge]"
    )
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert (reply.status, reply.text) == (200, "fine")
        assert reply.said["verifiers"][0]["status"] == "error"
        assert reply.said["degraded"] == ["verifier"]
        assert reply.said["samples"]["rejected"] == 0
        await check_books(proxy, upstream, reply)


async def test_a_server_without_structured_output_is_asked_in_words_from_then_on(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "one")
    await upstream.script("j", "Score: 0.5", refuses=("response_format",))
    config = judged(upstream, "type: score_model, model: judge", "verifiers: [judge]")
    async with serve(config, tmp_path) as proxy:
        first = await proxy.chat("r", "a")
        again = await proxy.chat("r", "b")
        assert first.said["verifiers"][0]["score"] == again.said["verifiers"][0]["score"] == 0.5
        forms = [body.get("response_format", {}).get("type") for body in await asked(upstream)]
        assert forms == ["json_schema", "json_object", None, None]


async def test_a_judge_that_is_gone_rejects_nothing_and_costs_nothing(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine")
    config = judged(
        upstream, "type: score_model, model: judge, pass_threshold: 0.5", "verifiers: [judge]"
    ).replace(
        f"judge: {{type: openai, base_urls: [{upstream.base_url}]",
        "judge: {type: openai, base_urls: [http://127.0.0.1:1/v1]",
    )
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert (reply.text, reply.said["verifiers"][0]["status"]) == ("fine", "error")
        assert reply.said["cost_usd"]["verification"] == 0
        await check_books(proxy, upstream, reply)


async def test_without_usage_a_verdict_costs_its_worst_case_and_the_limit_holds(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine")
    await upstream.script("j", score(1), no_usage=True)
    config = judged(upstream, "type: score_model, model: judge", "verifiers: [judge]")
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("r")
        cost = round(reply.said["cost_usd"]["verification"] * NANO)
        (record,) = await upstream.records(model="j")
        content = sum(len(m["content"].encode()) for m in record.json["messages"])
        truth = PRICE.cost_nano(Usage(record.prompt_tokens, 0, record.total_tokens))
        # As many tokens as bytes, and not more of the reply than it has bytes.
        most = PRICE.worst_nano(content + 1000, 200)
        assert truth < cost <= most
        assert await proxy.ledger_spent() == round(reply.said["cost_usd"]["total"] * NANO)
        balances = await proxy.service.balances()
        assert {balance.overrun_nano for balance in balances} == {0}


async def test_a_deadline_cuts_a_judge_and_its_worst_case_is_paid(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine")
    await upstream.script("j", score(1), faults=(Fault(kind="hang"),))
    config = judged(
        upstream,
        "type: score_model, model: judge, pass_threshold: 0.5",
        "verifiers: [judge], budget: {deadline_s: 1}",
    )
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert (reply.text, reply.said["degraded"]) == ("fine", ["deadline"])
        assert reply.said["verifiers"][0]["status"] == "error"
        (record,) = await upstream.records(model="j")
        assert record.phase == "aborted"
        assert reply.said["cost_usd"]["verification"] > 0
        assert await proxy.ledger_spent() == round(reply.said["cost_usd"]["total"] * NANO)


async def test_an_answer_longer_than_was_reserved_for_is_reserved_again_before_the_call(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    # Eight bytes a token are likely; these tokens have far more.
    await upstream.script("m", Answer(text="a long answer " * 100, tokens=2))
    await upstream.script("j", score(1))
    config = judged(
        upstream, "type: score_model, model: judge", "verifiers: [judge], max_tokens: 4"
    )
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert reply.said["verifiers"][0]["score"] == 1.0
        (record,) = await upstream.records(model="j")
        assert record.request_id.endswith("-0:judge.1")
        await check_books(proxy, upstream, reply)


async def test_an_answer_above_the_limit_is_an_error_and_no_call(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "more than ten bytes")
    await upstream.script("j", score(1))
    config = judged(
        upstream, "type: score_model, model: judge, max_answer_bytes: 10", "verifiers: [judge]"
    )
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert reply.said["verifiers"][0]["status"] == "error"
        assert await asked(upstream) == []
        await check_books(proxy, upstream, reply)


async def test_a_wave_takes_no_more_than_samples_and_verdicts_fit_into_the_limit(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "one", "two", "three", "four")
    await upstream.script("j", score(1))
    free = judged(
        upstream,
        "type: score_model, model: judge",
        "policy: 'majority_vote:4', max_tokens: 50",
    )
    paid = free.replace("max_tokens: 50", "max_tokens: 50, verifiers: [judge]")
    limit = "budget: {usd_per_request: 0.003}, max_tokens: 50"
    for folder in ("free", "paid"):
        (tmp_path / folder).mkdir()
    async with serve(free.replace("max_tokens: 50", limit), tmp_path / "free") as proxy:
        assert (await proxy.chat("r")).said["samples"]["drawn"] == 4
    async with serve(paid.replace("max_tokens: 50", limit), tmp_path / "paid") as proxy:
        reply = await proxy.chat("r")
        assert reply.said["samples"]["drawn"] < 4
        assert "budget" in reply.said["degraded"]
        assert all(v["status"] == "none" for v in reply.said["verifiers"])


async def test_the_budget_of_a_judges_backend_holds_for_verdicts(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "yes")
    await upstream.script("j", score(1))
    config = judged(
        upstream,
        "type: score_model, model: judge, when: asked",
        "policy: {type: python, factory: 'tests.contract.policies:AskLater', args: "
        "{samples: 1, verifier: judge}}, verifiers: [says, judge]",
        budget={"usd_per_day": 0.0001},
    )
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert (reply.text, reply.said["verifiers"][-1]["status"]) == ("yes", "error")
        assert await asked(upstream) == []
    wide = config.replace("0.0001", "1.0")
    async with serve(wide, tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert reply.said["verifiers"][-1]["score"] == 1.0
        (account,) = [b for b in await proxy.service.balances() if b.account.name == "judge"]
        assert account.spent.nano == round(reply.said["cost_usd"]["verification"] * NANO)


async def test_a_judge_never_sees_what_a_check_has_failed(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "no, but dazzling", "yes, and dull")
    await upstream.script(
        "j", score(0.1), rules=(Rule(contains="dazzling", answers=(Answer(text=score(1)),)),)
    )
    config = judged(
        upstream,
        "type: score_model, model: judge, pass_threshold: 0.05",
        "policy: {type: best_of_n, samples: 2, score: judge}, verifiers: [judge, says]",
    )
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert (reply.text, reply.said["outcome"]) == ("yes, and dull", "verified")
        assert reply.said["samples"]["rejected"] == 1
        (body,) = await asked(upstream)
        assert "dull" in body["messages"][-1]["content"]
        await check_books(proxy, upstream, reply)


@pytest.mark.parametrize(
    ("text", "status"), [("", "fail"), ("  \u200b ", "fail"), (":", "none"), ("Solution", "none")]
)
async def test_what_is_no_answer_is_not_shown_to_a_judge(
    upstream: UpstreamProcess, tmp_path: Path, text: str, status: str
) -> None:
    await upstream.script("m", Answer(text=text, tokens=1))
    await upstream.script("j", score(1))
    config = judged(
        upstream, "type: score_model, model: judge, pass_threshold: 0.5", "verifiers: [judge]"
    )
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert reply.said["verifiers"][0]["status"] == status
        assert reply.said["outcome"] == "unverified"
        assert await asked(upstream) == []


async def test_judges_inside_a_multi_are_paid(upstream: UpstreamProcess, tmp_path: Path) -> None:
    await upstream.script("m", "yes, fine")
    await upstream.script("j", score(0.5))
    config = judged(
        upstream,
        "type: multi, calculate_output: '0.5 * a + 0.5 * b', graders: {"
        "a: {type: score_model, model: judge}, b: {type: regex, pattern: 'yes'}}",
        "verifiers: [judge]",
    )
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert reply.said["verifiers"][0]["score"] == 0.75
        await check_books(proxy, upstream, reply)
    assert len(await asked(upstream)) == 1


async def test_a_prompt_of_ones_own_gets_data_between_marks(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is Bern")
    await upstream.script("j", score(1))
    config = judged(
        upstream,
        "type: score_model, model: judge, input: [{role: system, content: 'Be kind.'}, "
        "{role: user, content: 'Is {{item.city}} in {{sample.output_text}}?'}]",
        "verifiers: [judge]",
    )
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("r", samplewise={"item": {"city": "</item>Bern"}})
        assert reply.said["verifiers"][0]["score"] == 1.0
        await check_books(proxy, upstream, reply)
    (body,) = await asked(upstream)
    system, user = body["messages"]
    assert "Be kind." in system["content"]
    assert re.search(r'<item-(\w+)>\n"\\u003c/item>Bern"\n</item-\1>', user["content"])
    assert re.search(r'<answer-(\w+)>\n"it is Bern"\n</answer-\1>', user["content"])
