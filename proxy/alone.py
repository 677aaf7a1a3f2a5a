"""Requests that one sample answers, whatever the policy of their route."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from samplewise.proxy.job import Route
from samplewise.proxy.wire import ChatRequest

__all__ = ["answered_alone"]


class _Part(msgspec.Struct):
    type: str = ""
    text: str = ""


class _Message(msgspec.Struct):
    role: str = ""
    content: str | list[_Part] | None = None

    @property
    def text(self) -> str:
        """The first text of it."""
        if isinstance(self.content, list):
            return next((part.text for part in self.content if part.type == "text"), "")
        return self.content or ""


_messages = msgspec.json.Decoder(list[msgspec.Raw])
_message = msgspec.json.Decoder(_Message)


def answered_alone(request: ChatRequest, route: Route) -> tuple[Route, str] | None:
    """Return the route to answer from and why, for a request that needs one sample; else None.

    Who asks for several answers, a policy or a number of samples gets what was asked for.
    """
    options = request.options
    if request.n > 1 or options.policy is not None or options.samples is not None:
        return None
    if route.side is not None and _begins(request, route.side.begins):
        return route.side.route, "taken for a side request (a title, tags): one sample"
    if request.scores or (request.text and request.max_tokens == 0):
        # There is no answer in it to verify either.
        scored = replace(route, checks=(), voter=None, on_unverified="return")
        return scored, "a request that scores its prompt: one sample"
    searches = request.fields.get("web_search_options", b"null") != b"null"
    if searches and route.policy.needs.max_samples > 1:
        return route, "web_search_options: one sample, because each would pay for its own search"
    return None


def _begins(request: ChatRequest, texts: tuple[str, ...]) -> bool:
    try:
        last = _message.decode(_messages.decode(request.messages)[-1])
    except (msgspec.DecodeError, RecursionError):
        return False  # a message of another form is the upstream's to judge
    return last.role == "user" and last.text.lstrip().startswith(texts)
