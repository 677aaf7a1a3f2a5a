"""curl, as somebody types it: no content type of JSON, no library that makes anything good."""

from __future__ import annotations

import json
import subprocess
from typing import Any


def _curl(ask: Any, path: str, body: Any, *options: str) -> tuple[int, str]:
    command = ["curl", "-sS", "-w", "\n%{http_code}", *options, ask["url"] + path]
    done = subprocess.run(
        [*command, "-d", json.dumps(body)], capture_output=True, text=True, check=True
    )
    text, _, status = done.stdout.rpartition("\n")
    return int(status), text


def _chat(ask: Any, *options: str, **fields: Any) -> tuple[int, str]:
    messages = [{"role": "user", "content": ask["text"]}]
    body = {"model": ask["model"], "messages": messages, **fields}
    return _curl(ask, "/chat/completions", body, *options)


def _events(text: str) -> list[Any]:
    *events, done, rest = text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def _seen(answer: Any) -> Any:
    usage = answer["usage"]
    return {
        "tokens": [usage["prompt_tokens"], usage["completion_tokens"]],
        "cost": usage["cost"],
        "report": answer["samplewise"],
    }


def _calls(calls: Any) -> Any:
    found = [[c["id"], c["function"]["name"], c["function"]["arguments"]] for c in calls]
    return {"calls": found}


def plain(ask: Any) -> Any:
    answer = json.loads(_chat(ask)[1])
    return {"text": answer["choices"][0]["message"]["content"], **_seen(answer)}


def stream(ask: Any) -> Any:
    _, text = _chat(ask, "-N", stream=True, stream_options={"include_usage": True})
    *chunks, last = _events(text)
    texts = [chunk["choices"][0]["delta"].get("content") for chunk in chunks]
    pieces = sum(map(bool, texts))
    return {"text": "".join(text or "" for text in texts), "pieces": pieces, **_seen(last)}


def tools(ask: Any) -> Any:
    return _calls(json.loads(_chat(ask)[1])["choices"][0]["message"]["tool_calls"])


def tools_stream(ask: Any) -> Any:
    calls: dict[int, Any] = {}
    for chunk in _events(_chat(ask, "-N", stream=True)[1]):
        for part in chunk["choices"][0]["delta"].get("tool_calls") or ():
            known = calls.setdefault(part["index"], part)
            if known is not part:
                known["function"]["arguments"] += part["function"]["arguments"]
    return _calls(calls.values())


def several(ask: Any) -> Any:
    choices = json.loads(_chat(ask, n=2)[1])["choices"]
    return {"texts": [choice["message"]["content"] for choice in choices]}


def refused(ask: Any) -> Any:
    status, text = _chat(ask)
    return {"status": status, "code": json.loads(text)["error"]["code"]}


def patient(ask: Any) -> Any:
    """Try again with the same key, as scripts do that must not pay twice."""
    key = ("-H", "idempotency-key: order-1", "--max-time", str(ask["timeout_s"]), "--retry", "2")
    _, text = _chat(ask, *key, "--retry-delay", "0", "--retry-max-time", "60")
    return {"text": json.loads(text)["choices"][0]["message"]["content"]}


def responses(ask: Any) -> Any:
    _, text = _curl(ask, "/responses", {"model": ask["model"], "input": ask["text"]})
    answer = json.loads(text)
    usage = answer["usage"]
    return {
        "text": answer["output"][0]["content"][0]["text"],
        "tokens": [usage["input_tokens"], usage["output_tokens"]],
        "report": answer["samplewise"],
    }
