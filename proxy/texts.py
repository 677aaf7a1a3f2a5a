"""Requests that continue prompts (`/completions`): read into what the engine answers.

Each prompt is a request of its own, so that each gets the best of its own samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import msgspec

from samplewise.proxy.errors import RequestError
from samplewise.proxy.jsontext import encode, members, object_text
from samplewise.proxy.service import Service
from samplewise.proxy.wire import MOST_TOKENS, ChatRequest, parse_chat, read_whole_number

__all__ = ["check_relays", "check_route", "parse_texts"]

# What OpenAI's API generates where the client says nothing.
_USUAL_TOKENS = 16
_MOST_PROMPTS = 1_000
_MOST_CHOICES = 128
# Read here, or of another meaning than in a chat.
_APART = frozenset({"prompt", "best_of", "max_tokens", "logprobs", "messages"})
_HI = b'[{"role":"user","content":""}]'
# They write messages of their own, which a prompt has no place for.
_WRITING = frozenset({"revise", "fuse", "prefix_consistency"})


def parse_texts(body: bytes, headers: Mapping[str, str]) -> tuple[ChatRequest, ...]:
    """Read a completions request as one request for each of its prompts, in their order.

    Raises:
        RequestError: names the field and what is wrong with it. Nothing was sent or spent.
    """
    fields = members(body)
    prompts = _prompts(fields.get("prompt", b"null"))
    best_of = read_whole_number(fields, "best_of", 1, _MOST_CHOICES)
    cap = read_whole_number(fields, "max_tokens", 0, MOST_TOKENS)
    rest = {name: value for name, value in fields.items() if name not in _APART}
    chat = parse_chat(object_text({**rest, "messages": _HI}.items()), headers)
    if best_of is not None and best_of < chat.n:
        raise RequestError(
            f"best_of: must be at least n, which is {chat.n}, got {best_of}", param="best_of"
        )
    options = chat.options
    if best_of is not None and options.samples is None:
        options = msgspec.structs.replace(options, samples=best_of)
    kept = {name: value for name, value in fields.items() if name != "best_of"}
    return tuple(
        replace(
            chat,
            fields={**kept, "prompt": prompt},
            messages=_as_messages(prompt),
            options=options,
            max_tokens=_USUAL_TOKENS if cap is None else cap,
            cap_field="max_tokens",
            text=True,
        )
        for prompt in prompts
    )


def check_route(service: Service, request: ChatRequest, route: str) -> None:
    """Refuse a route that cannot continue a prompt.

    Raises:
        RequestError: an upstream takes chats alone, or the policy writes messages of its own.
    """
    found = service.routes.get(route)
    if found is None:
        return
    asked = request.options.policy
    chosen = found.policies.get(asked or "")
    policy = (asked or found.policy_name) if chosen is None else chosen.type
    needs = found.policy.needs if chosen is None else chosen.policy.needs
    if policy in _WRITING or needs.continuation:
        raise RequestError(
            f"model: policy {policy} of route {route!r} writes messages, and a prompt has none; "
            "use /v1/chat/completions, or a route with another policy",
            param="model",
        )
    if (asked is None or chosen is not None) and needs.top_logprobs:
        raise RequestError(
            f"model: policy {policy} of route {route!r} reads the likeliest tokens of a chat; "
            "use /v1/chat/completions, or a route with another policy",
            param="model",
        )
    check_relays(service, route, "continue a prompt")


def check_relays(service: Service, route: str, what: str) -> None:
    """Refuse a route with an upstream that takes nothing but chats.

    Raises:
        RequestError: names the upstream.
    """
    found = service.routes.get(route)
    chats = [] if found is None else [u.name for u in found.upstreams.values() if not u.relays]
    if chats:
        raise RequestError(
            f"model: route {route!r} cannot {what}: its backend {chats[0]!r} takes chats alone",
            param="model",
        )


_numbers = msgspec.json.Decoder(list[int])
_items = msgspec.json.Decoder(list[msgspec.Raw])


def _prompts(raw: bytes) -> list[bytes]:
    """Return every prompt as JSON text: a string, or an array of token numbers."""
    if raw == b"null":
        raise RequestError("prompt: missing", param="prompt")
    if raw.startswith(b'"'):
        return [_checked(raw, "prompt")]
    try:
        items = [bytes(item) for item in _items.decode(raw)]
    except (msgspec.DecodeError, RecursionError):
        raise _wrong("prompt") from None
    if not items:
        raise RequestError("prompt: must not be empty", param="prompt")
    if not items[0].startswith((b'"', b"[")):
        return [_checked(raw, "prompt")]
    if len(items) > _MOST_PROMPTS:
        raise RequestError(
            f"prompt: at most {_MOST_PROMPTS} prompts a request, got {len(items)}", param="prompt"
        )
    return [_checked(item, f"prompt.{i}") for i, item in enumerate(items)]


def _checked(raw: bytes, path: str) -> bytes:
    try:
        if raw.startswith(b'"'):
            msgspec.json.decode(raw, type=str)
        elif not _numbers.decode(raw):
            raise RequestError(f"{path}: must not be empty", param=path)
    except (msgspec.DecodeError, RecursionError):
        raise _wrong(path) from None
    return raw


def _wrong(path: str) -> RequestError:
    return RequestError(
        f"{path}: must be a string or an array of token numbers, or prompt an array of these",
        param=path,
    )


def _as_messages(prompt: bytes) -> bytes:
    """Return what verifiers see of a prompt; of token numbers they see the numbers."""
    text = prompt if prompt.startswith(b'"') else encode(prompt.decode())
    return b'[{"role":"user","content":' + text + b"}]"
