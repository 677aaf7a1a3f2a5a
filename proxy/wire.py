"""The fields of a chat request that Samplewise reads; every other one is forwarded untouched."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import msgspec

from samplewise.proxy.errors import RequestError
from samplewise.proxy.jsontext import encode, members, object_text
from samplewise.proxy.options import Options, parse_options

__all__ = [
    "MOST_TOKENS",
    "ChatRequest",
    "params_bytes",
    "parse_chat",
    "prompt_bound",
    "prompt_guess",
    "read_whole_number",
    "upstream_body",
]

_MOST_CHOICES = 128
MOST_TOKENS = 2**31 - 1
# Never forwarded as they came: we say ourselves how many samples, and whether they are streamed.
_OURS = frozenset({"model", "samplewise", "stream", "stream_options", "n"})
_TEMPLATE_TOKENS = 64
_BYTES_PER_TOKEN, _LIKELY_PER_IMAGE = 4, 1_000
_DATA_URL = re.compile(rb'"data:[^"]*"')
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_CAPS = ("max_tokens", "max_completion_tokens")
_MEDIA = ("image_url", "input_image", "video_url", "audio_url", "file")


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One chat request: its fields as JSON text, and the few that are read, decoded.

    `max_tokens` is the client's own cap or None, `cap_field` the name it used, `read_timeout_s` how
    long it waits for the next byte of an answer. `text` says that it continues a prompt
    (`/completions`): then `messages` are for verifiers alone.
    """

    fields: Mapping[str, bytes]
    model: str
    messages: bytes
    options: Options
    n: int = 1
    stream: bool = False
    include_usage: bool = False
    max_tokens: int | None = None
    cap_field: str = ""
    temperature: float | None = None
    seed: int | None = None
    images: int = 0
    read_timeout_s: float | None = None
    text: bool = False

    @property
    def path(self) -> str:
        """Where it goes below an upstream's base URL."""
        return "/completions" if self.text else "/chat/completions"

    @property
    def endpoint(self) -> str:
        """What metrics call the surface it goes to."""
        return "completions" if self.text else "chat"

    @property
    def scores(self) -> bool:
        """Whether what comes back holds the prompt itself, as it is asked for to score it."""
        return self.text and self.fields.get("echo") == b"true"

    @property
    def patience_s(self) -> float | None:
        """How long the client waits for the whole answer; None where it does not say.

        The timeout that clients announce is that of one read. A stream is never silent for long, so
        there it bounds nothing.
        """
        return None if self.stream else self.read_timeout_s

    @property
    def tools(self) -> bytes | None:
        """The request's tools as JSON text; None when it has none."""
        raw = self.fields.get("tools") or self.fields.get("functions")
        return raw if raw and raw not in (b"null", b"[]") else None

    @property
    def top_logprobs(self) -> int | None:
        """How many likeliest tokens a place the client wants; None: no log-probabilities."""
        if self.fields.get("logprobs") != b"true":
            return None
        raw = self.fields.get("top_logprobs", b"null")
        return int(raw) if raw.isdigit() else 0

    @property
    def response_format(self) -> bytes | None:
        """The response format as JSON text, or None."""
        raw = self.fields.get("response_format")
        return raw if raw and raw != b"null" else None


def parse_chat(body: bytes, headers: Mapping[str, str]) -> ChatRequest:
    """Read a chat request.

    Raises:
        RequestError: names the field and what is wrong with it. Nothing was sent or spent.
    """
    fields = members(body)
    model = _read(fields, "model", str, required=True)
    messages = fields.get("messages")
    if messages is None:
        raise RequestError("messages: missing", param="messages")
    _check_messages(messages)
    if fields.get("best_of", b"null") not in (b"null", b"1"):
        # An upstream that knows it would draw and bill more samples than were reserved.
        raise RequestError("best_of: ask for samplewise.samples instead", param="best_of")
    n = read_whole_number(fields, "n", 1, _MOST_CHOICES)
    caps = {name: read_whole_number(fields, name, 1, MOST_TOKENS) for name in _CAPS}
    given = [name for name in _CAPS if caps[name] is not None]
    options = _read(fields, "stream_options", dict[str, Any]) or {}
    return ChatRequest(
        fields=fields,
        model=model,
        messages=messages,
        options=parse_options(fields.get("samplewise"), headers),
        n=n or 1,
        stream=bool(_read(fields, "stream", bool)),
        include_usage=options.get("include_usage") is True,
        max_tokens=min((caps[name] or 0 for name in given), default=None),
        cap_field=given[-1] if given else "",
        temperature=_read(fields, "temperature", float),
        seed=_read(fields, "seed", int),
        images=_images(messages),
        read_timeout_s=_read_timeout(headers),
    )


def _read_timeout(headers: Mapping[str, str]) -> float | None:
    """Return the timeout in seconds that OpenAI's Python package announces; None without one."""
    try:
        found = float(headers.get("x-stainless-read-timeout", ""))
    except ValueError:
        return None
    return found if 0 < found < math.inf else None


def _read(fields: Mapping[str, bytes], name: str, kind: Any, *, required: bool = False) -> Any:
    raw = fields.get(name)
    if raw is None or (raw == b"null" and not required):
        if required:
            raise RequestError(f"{name}: missing", param=name)
        return None
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise RequestError(f"{name}: {error}", param=name) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise RequestError(f"{name}: cannot be read: {error}", param=name) from None


def read_whole_number(fields: Mapping[str, bytes], name: str, least: int, most: int) -> int | None:
    """Return a member that is a whole number in a range; None without one.

    Raises:
        RequestError: it is something else.
    """
    value: int | None = _read(fields, name, int)
    if value is not None and not least <= value <= most:
        shown = str(value)[:60]
        raise RequestError(f"{name}: must be from {least} to {most}, got {shown}", param=name)
    return value


class _Object(msgspec.Struct):
    """Any JSON object: read without a look inside, which is fast even for millions of them."""


_objects = msgspec.json.Decoder(list[_Object])


def _check_messages(messages: bytes) -> None:
    try:
        found = _objects.decode(messages)
    except (msgspec.ValidationError, RecursionError) as error:
        item = re.search(r"at `\$\[(\d+)\]`", str(error))
        if item is None:
            raise RequestError("messages: must be an array of messages", param="messages") from None
        path = f"messages.{item[1]}"
        raise RequestError(f"{path}: must be an object", param=path) from None
    if not found:
        raise RequestError("messages: must not be empty", param="messages")


def _images(messages: bytes) -> int:
    """Count the parts that are not text, whose tokens are not bounded by their bytes."""
    # An escaped letter can hide a name, so escapes of ASCII letters are worth a look too.
    if b"\\u00" not in messages and not any(encode(name) in messages for name in _MEDIA):
        return 0
    return len(_media(messages))


def _media(messages: bytes) -> list[Mapping[str, Any]]:
    """Return the parts that are not text."""
    try:
        items = msgspec.json.decode(messages, type=list[dict[str, Any]])
    except (msgspec.DecodeError, RecursionError) as error:
        raise RequestError(f"messages: cannot be read: {error}", param="messages") from None
    lists = [item["content"] for item in items if isinstance(item.get("content"), list)]
    parts = [part for content in lists for part in content if isinstance(part, dict)]
    return [p for p in parts if any(p.get("type") == name or name in p for name in _MEDIA)]


def _inline(messages: bytes) -> int:
    """Return how many bytes of messages are images and the like, written out in their own place.

    Text that looks the same is text, which costs its tokens.
    """
    found = (part.get(name) for part in _media(messages) for name in _MEDIA)
    texts = (text for value in found for text in _texts(value))
    return sum(len(text) for text in texts if text.startswith("data:"))


def _texts(value: object) -> Iterable[str]:
    inner = value.values() if isinstance(value, dict) else (value,)
    return (text for text in inner if isinstance(text, str))


def prompt_bound(
    request: ChatRequest,
    messages: bytes | None = None,
    max_tokens_per_image: int | None = None,
    params: Mapping[str, Any] = _NOTHING,
) -> int:
    """Return the most tokens the prompt can have: one per byte of JSON text, and a template's own.

    Byte-level tokenizers never make more tokens than bytes. Images count as `max_tokens_per_image`
    each instead of their bytes, where that is known. Every other field that is forwarded counts,
    because a chat template may put it into the prompt: the client's, and `params` that are added.
    """
    text = request.messages if messages is None else messages
    size = len(text)
    if request.images and max_tokens_per_image is not None:
        size += request.images * max_tokens_per_image - _inline(text)
    prompt = "prompt" if request.text else "messages"
    for name, value in request.fields.items():
        if name not in _OURS and name != prompt:
            size += len(value)
    return size + params_bytes(params) + _TEMPLATE_TOKENS


def params_bytes(params: Mapping[str, Any]) -> int:
    """Return how long the values of request fields are as JSON text: as many tokens at most."""
    return sum(len(encode(value)) for value in params.values())


def prompt_guess(request: ChatRequest, max_tokens_per_image: int | None = None) -> int:
    """Return how many tokens the prompt may have: one for four bytes of messages and tools.

    Text of most languages has about that; images count as in `prompt_bound`, or as a thousand each.
    """
    size = len(_DATA_URL.sub(b"", request.messages)) + len(request.tools or b"")
    per_image = _LIKELY_PER_IMAGE if max_tokens_per_image is None else max_tokens_per_image
    return -(-size // _BYTES_PER_TOKEN) + request.images * per_image


def upstream_body(
    request: ChatRequest,
    *,
    model: str,
    params: Mapping[str, Any],
    messages: bytes | None = None,
    stream: bool,
    stream_options: Mapping[str, Any] | None,
    n: int,
    cap_field: str,
    max_tokens: int,
    seed: int | None,
    seed_field: str = "seed",
) -> bytes:
    """Encode the body of one upstream call: the client's fields with only ours spliced in.

    `params` are fields that Samplewise adds or overrides (route defaults that the client left open,
    a policy's own). The token cap is always written: a call without one has no worst case.
    """
    spliced: dict[str, bytes] = {"model": encode(model)}
    for name, value in request.fields.items():
        if name not in _OURS and name not in _CAPS:
            spliced[name] = value
    for name, value in params.items():
        spliced[name] = encode(value)
    if messages is not None:
        spliced["messages"] = messages
    if seed is not None:
        if seed_field != "seed":
            spliced.pop("seed", None)
        spliced[seed_field] = encode(seed)
    spliced[cap_field] = encode(max_tokens)
    if n > 1:
        spliced["n"] = encode(n)
    if stream:
        spliced["stream"] = b"true"
        if stream_options:
            spliced["stream_options"] = encode(stream_options)
    return object_text(spliced.items())
