"""Samplewise in front of a real vLLM on the embedded weights, started by Samplewise itself."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter

import openai
import pytest

from samplewise.models.countdown import held_out_puzzles
from tests.vllm.serving import Stack, processes_on
from tests.wire.bodies import MESSAGES
from tests.wire.books import reserved, rows, soon

pytestmark = pytest.mark.vllm
PUZZLE = "4 7 8 8 > 24"
LONG = {"max_tokens": 56, "ignore_eos": True, "min_tokens": 56}


def texts(reply_said: dict[str, list[dict[str, str]]]) -> list[str]:
    return [candidate["text"] for candidate in reply_said["candidates"]]


async def test_the_probe_finds_what_vllm_does(served: Stack) -> None:
    [event] = [e for e in served.logs if e["event"] == "probed"]
    found = event["abilities"]
    # So small a model may be done before the probe has left it: then nothing is said of aborts.
    assert found.pop("aborts", True) is True
    assert found == dict.fromkeys(
        ("n", "logprobs", "seed", "stop", "continuation", "stream_usage", "structured"), True
    )
    probes = [row for row in rows(served.file) if row["route"] == "(probe)"]
    assert event["cost_usd"] > 0
    assert {row["state"] for row in probes} == {"settled"}


@pytest.mark.parametrize("route", ["sixteen", "sixteen-calls"])
async def test_one_call_and_single_calls_give_the_same_different_samples(
    served: Stack, route: str
) -> None:
    ask = {"seed": 100, "temperature": 1.0}
    reply = await served.chat(route, PUZZLE, samplewise={"return": ["candidates"]}, **ask)
    assert reply.said["samples"] | {"drawn": 16, "ok": 16} == reply.said["samples"]
    # Sample i has the seed 100 + i, whichever call it came in.
    alone = (served.direct(PUZZLE, seed=100 + i, temperature=1, max_tokens=56) for i in range(16))
    direct = await asyncio.gather(*alone)
    assert Counter(texts(reply.said)) == Counter(answer.text for answer in direct)
    assert len(set(texts(reply.said))) > 8
    calls = {
        row["call_id"] for row in rows(served.file) if row["request_id"] == reply.said["request_id"]
    }
    assert len(calls) == (1 if route == "sixteen" else 16)


async def test_the_bill_is_what_vllm_says_that_it_made(served: Stack) -> None:
    before = await served.idle()
    reply = await served.chat("sixteen", PUZZLE)
    made = (await served.idle()).made - before.made
    assert reply.json["usage"]["completion_tokens"] == made


async def test_vllm_counts_the_tokens_of_a_message_as_it_bills_them(served: Stack) -> None:
    asked = {"model": "sixteen", "messages": [{"role": "user", "content": PUZZLE}]}
    told = (await served.post(served.url, asked, f"{MESSAGES}/count_tokens")).json
    assert told["samplewise"]["estimate"] is False
    reply = (await served.post(served.url, {**asked, "max_tokens": 9}, MESSAGES)).json
    usage = reply["usage"]
    assert told["input_tokens"] == usage["input_tokens"] + usage["cache_read_input_tokens"]


async def test_logprobs_come_through_and_belong_to_the_tokens(served: Stack) -> None:
    reply = await served.chat("one", PUZZLE, logprobs=True, top_logprobs=2, temperature=0)
    tokens = reply.json["choices"][0]["logprobs"]["content"]
    assert len(tokens) == reply.json["usage"]["completion_tokens"]
    assert all(token["logprob"] == token["top_logprobs"][0]["logprob"] for token in tokens)


async def test_a_stop_string_ends_the_text(served: Stack) -> None:
    whole = await served.chat("one", PUZZLE, temperature=0)
    reply = await served.chat("one", PUZZLE, temperature=0, stop=[";"])
    assert reply.text.strip() == whole.text.partition(";")[0].strip()
    assert reply.json["choices"][0]["stop_reason"] == ";"


@pytest.mark.parametrize("route", ["one", "sixteen", "first-harvest"])
async def test_a_stream_joins_to_one_answer(served: Stack, route: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="x") as client:
        stream = await client.chat.completions.create(
            model=route,
            messages=[{"role": "user", "content": PUZZLE}],
            seed=3,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
    text = "".join(c.delta.content or "" for chunk in chunks for c in chunk.choices)
    whole = await served.chat(route, PUZZLE, seed=3)
    if route != "first-harvest":
        # Which of several samples passes first is a matter of time.
        assert text == whole.text
    assert text.count("=") == 3
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0


async def test_an_answer_goes_on_from_the_middle(served: Stack) -> None:
    whole = (await served.chat("one", PUZZLE, temperature=0)).text
    begun, _, rest = whole.partition(";")
    messages = [
        {"role": "user", "content": PUZZLE},
        {"role": "assistant", "content": f"{begun.strip()} ;"},
    ]
    more = {"continue_final_message": True, "add_generation_prompt": False, "temperature": 0}
    reply = await served.post(served.url, {"model": "one", "messages": messages, **more})
    assert reply.text.strip() == rest.strip()


async def test_a_search_by_steps_goes_on_from_its_own_steps(served: Stack) -> None:
    reply = await served.chat("steps", PUZZLE, seed=1, samplewise={"return": ["candidates"]})
    assert reply.status == 200, reply.body
    found = [row for row in rows(served.file) if row["request_id"] == reply.said["request_id"]]
    # Four particles, three steps for four numbers.
    assert len(found) == 12
    assert reply.text.count("=") == 3


async def test_structured_output_binds_every_sample(served: Stack) -> None:
    schema = {"name": "n", "schema": {"type": "integer"}}
    form = {"type": "json_schema", "json_schema": schema}
    reply = await served.chat(
        "sixteen", PUZZLE, response_format=form, max_tokens=4, samplewise={"return": ["candidates"]}
    )
    assert all(text.replace(" ", "").isdigit() for text in texts(reply.said))


@pytest.mark.parametrize("route", ["cover", "first", "first-harvest"])
async def test_vllm_stops_working_when_the_client_leaves(served: Stack, route: str) -> None:
    before = await served.idle()
    asked = [
        asyncio.create_task(served.chat(route, puzzle.prompt, **LONG))
        for puzzle in held_out_puzzles(8)
    ]

    async def works() -> bool:
        return (await served.work()).running > 32

    await soon(works, "vLLM works on the samples")
    left = time.monotonic()
    for task in asked:
        task.cancel()

    async def rests() -> bool:
        return (await served.work()).running == 0

    await soon(rests, "vLLM has nothing to do", 30)
    lag = time.monotonic() - left
    made = (await served.idle()).made - before.made
    print(f"{route}: idle {lag:.3f} s after the clients left; {made} of {8 * 64 * 56} tokens made")
    assert made < 8 * 64 * 56 * 0.8
    await soon(lambda: reserved(served.file) == 0, "all is settled", 30)


async def test_vllm_says_how_many_samples_wait(served: Stack) -> None:
    # More than the 64 that it runs at once; waves are sized by this count.
    await served.idle()
    asked = [
        asyncio.create_task(served.chat("cover", puzzle.prompt, **LONG))
        for puzzle in held_out_puzzles(4)
    ]

    async def waits() -> bool:
        work = await served.work()
        return work.waiting > 0 and work.running > 0

    await soon(waits, "samples wait at vLLM", 30)
    for task in asked:
        task.cancel()
    await asyncio.wait(asked)
    assert (await served.idle()).waiting == 0


@pytest.mark.parametrize("route", ["first", "first-harvest"])
async def test_samples_that_are_cut_are_billed_for_what_was_made(served: Stack, route: str) -> None:
    before = await served.idle()
    reply = await served.chat(route, PUZZLE, seed=5)
    assert reply.said["outcome"] == "verified"
    made = (await served.idle()).made - before.made
    billed = reply.json["usage"]["completion_tokens"]
    cut = reply.said["samples"]["cancelled"]
    print(f"{route}: {cut} cut, {billed} tokens billed, {made} made")
    # What was made and had not come when the connection was closed, a few steps for each.
    assert made - 8 * (cut + 1) <= billed <= made


async def test_a_vllm_that_dies_is_started_again(served: Stack) -> None:
    [server] = processes_on(served.port)
    os.kill(server, signal.SIGKILL)

    async def answers() -> bool:
        return (await served.chat("one", PUZZLE)).status == 200

    async def down() -> bool:
        return not await answers()

    await soon(down, "vLLM is down", 30)
    await soon(answers, "vLLM is back", 300)
    assert any(e["event"] == "model server ended" for e in served.logs)
