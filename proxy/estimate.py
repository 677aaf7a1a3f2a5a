"""What a request may cost, before anything is spent: at best, as usual, at worst. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from samplewise.policies.price import Usage, usd
from samplewise.proxy.job import Job
from samplewise.proxy.jsontext import encode
from samplewise.proxy.ledger.base import Recent
from samplewise.proxy.upstreams import Upstream
from samplewise.proxy.wire import prompt_bound
from samplewise.proxy.worst import worst_of

__all__ = ["RECENT_DAYS", "best_nano", "estimate", "most_samples", "worst_nano"]

RECENT_DAYS = 30
# Text of common languages has about four characters a token, so half as many tokens are few.
_CHARACTERS_PER_TOKEN = 8


def estimate(jobs: Sequence[Job], recent: Recent | None) -> bytes:
    """Return what a request could cost, as JSON text: one job, or one for each of its prompts.

    `recent` is what the route's requests have cost in the last `RECENT_DAYS` days; None when the
    ledger could not be read.
    """
    own = [_estimated(job, recent) for job in jobs]
    said = own[0] if len(own) == 1 else _together(own)
    return encode({"object": "samplewise.estimate", "samplewise": said})


def _together(own: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what several prompts could cost; limits of a request are those of each."""
    costs = [one["cost_usd"] for one in own]
    usual = [cost["expected"] for cost in costs]
    return {
        **{name: value for name, value in own[0].items() if name != "budget"},
        "samples_at_least": sum(one["samples_at_least"] for one in own),
        "samples_at_most": sum(one["samples_at_most"] for one in own),
        "cost_usd": {
            "best": math.fsum(cost["best"] for cost in costs),
            "expected": None if None in usual else math.fsum(usual),
            "worst": math.fsum(cost["worst"] for cost in costs),
        },
        "prompts": own,
    }


def _estimated(job: Job, recent: Recent | None) -> dict[str, Any]:
    limit, worst = job.limit.nano, worst_nano(job)
    best = best_nano(job)
    expected, reason = _expected(recent, best, worst)
    return {
        "request_id": job.request_id,
        "route": job.route.name,
        **job.policy_told,
        "dry_run": True,
        "samples_at_least": _least_samples(job),
        "samples_at_most": most_samples(job),
        "cost_usd": {
            "best": usd(best),
            "expected": None if expected is None else usd(expected),
            "worst": usd(worst),
        },
        "expected_from": {
            "days": RECENT_DAYS,
            "requests": 0 if recent is None else recent.requests,
            "reason": reason,
        },
        "budget": {"limit_usd": None if limit is None else usd(limit)},
        "warnings": job.warnings,
    }


def most_samples(job: Job) -> int:
    """Return the most samples that the request can be answered from."""
    return min(x for x in (job.policy.needs.max_samples, job.limit.samples) if x is not None)


def worst_nano(job: Job) -> int:
    """Return the most that samples drawn once can cost, in nano-dollars.

    Every sample at the dearest backend, with a token for every byte of the longest prompt that the
    policy makes, all the tokens it may have and all its verdicts in all their time, and every pair
    compared; never above the request's limit.
    """
    route, request, tokens = job.route, job.request, job.max_tokens
    judges = {c.name: c for c in (*route.checks, route.voter) if c is not None}
    own = max((len(encode(text)) for text in route.prompts.values()), default=0)
    own += job.policy.needs.params_bytes

    def sample(more: int) -> int:
        return max(
            u.price.worst_nano(_prompt(job, u) + own + more, tokens, request.images)
            for u in route.upstreams.values()
        )

    def verdicts(size: int) -> int:
        return sum(check.worst(job.task, size).nano for check in judges.values())

    def comparison(size: int) -> int:
        return 0 if route.comparator is None else route.comparator.worst(job.task, size).nano

    worst = worst_of(
        *(job.policy.needs, most_samples(job), tokens),
        sample=sample,
        verdicts=verdicts,
        comparison=comparison,
    )
    return worst if job.limit.nano is None else min(worst, job.limit.nano)


def _prompt(job: Job, upstream: Upstream) -> int:
    params = {**upstream.params, **job.route.params}
    return prompt_bound(job.request, None, upstream.max_tokens_per_image, params)


def best_nano(job: Job) -> int:
    """Return the least that the request can plausibly cost, in nano-dollars.

    The fewest samples after which the policy may stop, at the cheapest backend, one token each and
    their verdicts for nothing; the prompt once a call, a token for every 8 characters of text.
    """
    prompt = max(1, _characters(job.request.messages) // _CHARACTERS_PER_TOKEN)
    samples = _least_samples(job)
    best = min(_best_at(u, job, prompt, samples) for u in job.route.upstreams.values())
    return min(best, worst_nano(job))


def _best_at(upstream: Upstream, job: Job, prompt: int, samples: int) -> int:
    needs, price = job.policy.needs, upstream.price
    alone = upstream.streams and bool(needs.cancel or needs.progress_tokens)
    calls = samples if alone else -(-samples // upstream.largest_n(samples))
    # The upstream may have the prompt cached, at a price of its own.
    # One token may be reasoning or not, whichever costs less.
    first = min(
        price.cost_nano(Usage(prompt, cached, 1, reasoning), job.request.images)
        for cached in (0, prompt)
        for reasoning in (0, 1)
    )
    more = min(price.cost_nano(Usage(0, 0, 1, reasoning)) for reasoning in (0, 1))
    return calls * first + (samples - calls) * more


def _least_samples(job: Job) -> int:
    # A tool call is an answer by itself, however many were asked for.
    answers = job.request.n if job.request.tools is None else 1
    return min(max(job.policy.needs.min_samples, answers), most_samples(job))


def _expected(recent: Recent | None, best: int, worst: int) -> tuple[int | None, str | None]:
    if recent is None:
        return None, "the ledger cannot be read now"
    if not recent.requests:
        return None, f"no request of this route was billed in the last {RECENT_DAYS} days"
    return min(max(recent.nano // recent.requests, best), worst), None


def _characters(messages: bytes) -> int:
    """Return the length of all texts in the messages; 0 when they cannot be read."""
    try:
        found = msgspec.json.decode(messages, type=list[dict[str, Any]])
    except (msgspec.DecodeError, RecursionError):
        return 0
    return sum(len(text) for message in found for text in _texts(message.get("content")))


def _texts(content: object) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            text = part.get("text") if isinstance(part, dict) else None
            if isinstance(text, str):
                yield text
