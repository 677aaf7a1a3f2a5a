"""What a request with several samples can ask for: refused before it costs, or warned of."""

from __future__ import annotations

from samplewise.policies.base import Policy
from samplewise.proxy.errors import RequestError
from samplewise.proxy.job import Route
from samplewise.proxy.wire import ChatRequest

__all__ = ["check_fan_out", "warnings_of"]


def check_fan_out(request: ChatRequest, route: Route, most: int) -> None:
    """Refuse more answers than can be drawn, and images whose price several times is unbounded.

    Raises:
        RequestError: names the field, and what the operator can set.
    """
    if request.n > most:
        raise RequestError(
            f"n: route {route.name!r} draws {'only one' if most == 1 else f'at most {most}'} here, "
            f"so it cannot return {request.n} answers",
            param="n",
        )
    unbounded = [u.name for u in route.upstreams.values() if u.max_tokens_per_image is None]
    if request.images and most > 1 and unbounded:
        raise RequestError(
            f"messages: images cannot be sent {most} times without a bound on their tokens; set "
            f"max_tokens_per_image for {', '.join(unbounded)}, or use a route with one sample",
            param="messages",
        )


def warnings_of(
    request: ChatRequest, route: Route, policy: Policy, most_samples: int | None
) -> list[str]:
    """Return what a request asks for and does not get, or gets for little, one sentence each."""
    found = []
    samples = request.options.samples
    if samples is not None and most_samples is not None and samples > most_samples:
        found.append(f"samples {samples} exceeds the key's cap; {most_samples} used")
    if request.max_tokens is not None and request.max_tokens > route.max_tokens:
        found.append(
            f"max_tokens {request.max_tokens} exceeds the route's cap; {route.max_tokens} used"
        )
    temperature = request.temperature
    if temperature is None:
        temperature = route.params.get("temperature")
    if temperature == 0 and policy.needs.max_samples > 1:
        found.append("temperature 0: samples will be nearly alike, so drawing several gains little")
    return found
