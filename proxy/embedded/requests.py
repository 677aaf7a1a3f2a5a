"""Requests to the embedded model, in OpenAI's words: what is read, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from samplewise.models.sampler import Sampling
from samplewise.proxy.embedded import MODEL
from samplewise.proxy.embedded.batcher import Ask
from samplewise.proxy.errors import RequestError

__all__ = ["Wanted", "read_chat", "read_completion"]


class _Message(msgspec.Struct):
    role: str
    content: str | list[dict[str, Any]] | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool = False
    continuous_usage_stats: bool = False


class _Body(msgspec.Struct, kw_only=True):
    model: str = ""
    n: int | None = 1
    temperature: float | None = 1.0
    top_p: float | None = 1.0
    top_k: int | None = 0
    seed: int | None = None
    stop: str | list[str] | None = None
    max_tokens: int | None = None
    stream: bool | None = False
    stream_options: _StreamOptions | None = None


class _ChatBody(_Body, kw_only=True):
    """A chat request; fields that are not named here are ignored."""

    messages: list[_Message]
    max_completion_tokens: int | None = None
    logprobs: bool | None = False
    top_logprobs: int | None = None
    continue_final_message: bool = False


class _CompletionBody(_Body, kw_only=True):
    prompt: str | list[str]
    logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request, read: what to decode and how to say it."""

    model: str
    ask: Ask
    stream: bool
    include_usage: bool
    continuous_usage: bool
    chat: bool


def read_chat(body: bytes) -> Wanted:
    """Read a chat request. The last user message is the problem, an assistant's last the prefix.

    Raises:
        RequestError: what is wrong, and with which field.
    """
    found = _decode(body, msgspec.json.Decoder(_ChatBody))
    messages, prefix = found.messages, ""
    if found.continue_final_message:
        if not messages or messages[-1].role != "assistant":
            raise RequestError(
                "continue_final_message: the last message must be the assistant's", param="messages"
            )
        prefix = _text(messages[-1])
    problems = [_text(message) for message in messages if message.role == "user"]
    if not problems:
        raise RequestError("messages: needs a message of the user", param="messages")
    cap = found.max_tokens if found.max_completion_tokens is None else found.max_completion_tokens
    logprobs = (found.top_logprobs or 0) if found.logprobs else None
    return _wanted(found, problems[-1], prefix, _sampling(found, cap, logprobs), chat=True)


def read_completion(body: bytes) -> Wanted:
    """Read a completions request; a list of one prompt is a prompt.

    Raises:
        RequestError: what is wrong, and with which field.
    """
    found = _decode(body, msgspec.json.Decoder(_CompletionBody))
    prompts = [found.prompt] if isinstance(found.prompt, str) else found.prompt
    if len(prompts) != 1:
        raise RequestError("prompt: exactly one is supported", param="prompt")
    sampling = _sampling(found, found.max_tokens, found.logprobs)
    return _wanted(found, prompts[0], "", sampling, chat=False)


def _wanted(found: Any, prompt: str, prefix: str, sampling: Sampling, *, chat: bool) -> Wanted:
    n = 1 if found.n is None else found.n
    if n < 1:
        raise RequestError(f"n: must be at least 1, got {n}", param="n")
    options = found.stream_options or _StreamOptions()
    return Wanted(
        model=found.model or MODEL,
        ask=Ask(prompt, n, sampling, prefix),
        stream=bool(found.stream),
        include_usage=options.include_usage,
        continuous_usage=options.continuous_usage_stats,
        chat=chat,
    )


def _sampling(found: Any, max_tokens: int | None, logprobs: int | None) -> Sampling:
    stop = (found.stop,) if isinstance(found.stop, str) else tuple(found.stop or ())
    try:
        return Sampling(
            temperature=1.0 if found.temperature is None else found.temperature,
            top_p=1.0 if found.top_p is None else found.top_p,
            top_k=found.top_k or 0,
            seed=found.seed,
            stop=stop,
            max_tokens=max_tokens,
            logprobs=logprobs,
        )
    except ValueError as error:
        # The message begins with the field, but for that of stop strings.
        field = str(error).split(" ", 1)[0]
        known = field if field in _Body.__struct_fields__ or "logprobs" in field else "stop"
        raise RequestError(f"{known}: {error}", param=known) from None


def _decode(body: bytes, decoder: Any) -> Any:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        # The error ends with the place, as in: Expected `int`, got `str` - at `$.n`.
        text, _, place = str(error).partition(" - at `$")
        path = place.strip("`.")
        if not path and "required field" in text:
            path = text.split("`")[-2]
        raise RequestError(f"{path or 'body'}: {text}", param=path or None) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise RequestError(f"body: {error}") from None


def _text(message: _Message) -> str:
    if isinstance(message.content, list):
        return "".join(str(part.get("text", "")) for part in message.content)
    return message.content or ""
