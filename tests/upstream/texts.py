"""Prompts and texts to embed: the same scripted answers, in the form of `/completions`."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from tests.upstream import wire
from tests.upstream.request import Message, Refusal, Request, StreamOptions
from tests.upstream.wire import JSON

if TYPE_CHECKING:
    from tests.upstream.job import Job

__all__ = ["choice", "delta", "embed", "parse_input", "parse_text"]


class _Text(msgspec.Struct):
    """The fields of a completions request that are read."""

    model: str
    prompt: str | list[int]
    n: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    temperature: float | None = None
    max_tokens: int | None = 16
    logprobs: int | None = None
    echo: bool | None = None


class _Embed(msgspec.Struct):
    model: str
    input: str | list[str]


def parse_text(body: bytes) -> Request:
    """Read a prompt as a chat of one message."""
    try:
        text = msgspec.json.decode(body, type=_Text)
    except msgspec.DecodeError as error:
        raise Refusal(str(error)) from None
    prompt = text.prompt
    words = prompt if isinstance(prompt, str) else " ".join(f"<{token}>" for token in prompt)
    limit = text.max_tokens
    return Request(
        model=text.model,
        messages=[Message("user", words)],
        n=text.n,
        stream=text.stream,
        stream_options=text.stream_options,
        stop=text.stop,
        seed=text.seed,
        temperature=text.temperature,
        max_tokens=limit,
        logprobs=text.logprobs is not None,
        top_logprobs=text.logprobs,
        echo=bool(text.echo),
    )


def parse_input(body: bytes) -> Request:
    """Read texts to embed."""
    try:
        asked = msgspec.json.decode(body, type=_Embed)
    except msgspec.DecodeError as error:
        raise Refusal(str(error)) from None
    texts = (asked.input,) if isinstance(asked.input, str) else tuple(asked.input)
    if not texts:
        raise Refusal("input must not be empty", "input")
    messages = [Message("user", text) for text in texts]
    return Request(model=asked.model, messages=messages, max_tokens=0, embeds=texts)


def choice(request: Request, made: JSON) -> JSON:
    """Return a choice of a chat as one of a completed text, behind the prompt if that is echoed."""
    rest = {name: value for name, value in made.items() if name != "message"}
    text, logprobs = made["message"]["content"] or "", _logprobs(made["logprobs"])
    if request.echo:
        prompt = request.messages[0].text
        text = prompt + text
        if request.logprobs:
            logprobs = _joined(_of_prompt(prompt), logprobs)
    return rest | {"text": text, "logprobs": logprobs}


def delta(made: JSON) -> JSON:
    """Return a choice of a chat's chunk as one of a completed text's."""
    rest = {name: value for name, value in made.items() if name != "delta"}
    text = made["delta"].get("content") or ""
    return rest | {"text": text, "logprobs": _logprobs(made.get("logprobs"))}


def _logprobs(of_chat: JSON | None) -> JSON | None:
    if of_chat is None:
        return None
    entries: list[JSON] = of_chat["content"]
    return {
        "tokens": [entry["token"] for entry in entries],
        "token_logprobs": [entry["logprob"] for entry in entries],
        "top_logprobs": [
            {each["token"]: each["logprob"] for each in entry["top_logprobs"]} for entry in entries
        ],
        "text_offset": [],
    }


def _of_prompt(prompt: str) -> JSON:
    """Score a prompt: each word by its length, the first not at all."""
    words = prompt.split()
    scores: list[float | None] = [None, *(-len(word) / 8 for word in words[1:])]
    top: list[JSON | None] = [None, *({word: -len(word) / 8} for word in words[1:])]
    return {"tokens": words, "token_logprobs": scores, "top_logprobs": top, "text_offset": []}


def _joined(before: JSON, after: JSON | None) -> JSON:
    return before if after is None else {name: before[name] + after[name] for name in before}


async def embed(job: Job) -> web.Response:
    """Answer with a vector for each text, made of its digest."""
    job.call.record.status = 200
    data: list[Any] = [
        {"object": "embedding", "index": i, "embedding": _vector(text)}
        for i, text in enumerate(job.request.embeds)
    ]
    tokens = job.request.prompt_tokens
    body: JSON = {"object": "list", "data": data, "model": job.request.model}
    if not job.script.no_usage:
        body["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens} | job.script.usage
    job.end()
    return web.Response(
        body=wire.encode(body | job.script.extra), headers=job.headers,
        content_type="application/json",
    )  # fmt: skip


def _vector(text: str) -> list[float]:
    return [byte / 256 for byte in hashlib.sha256(text.encode()).digest()[:4]]
