"""Passes a request on as it is, one call and no samples: embeddings. Billed like any other call."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from samplewise.policies.evidence import Money
from samplewise.proxy.answers import named_limit
from samplewise.proxy.backends.base import Broken, Call
from samplewise.proxy.billing import CallFacts
from samplewise.proxy.calls import CLIENT_FAULTS, Slot, Trip
from samplewise.proxy.errors import AnswerError, BudgetExceeded, RequestError, UpstreamFailed
from samplewise.proxy.job import Job
from samplewise.proxy.jsontext import encode, members, object_text
from samplewise.proxy.ledger.base import Hold
from samplewise.proxy.purse import Purse
from samplewise.proxy.service import Service
from samplewise.proxy.serving import Client, open_job, placed
from samplewise.proxy.texts import check_relays
from samplewise.proxy.upstreams import Upstream
from samplewise.proxy.wire import ChatRequest, parse_chat, prompt_bound

__all__ = ["Relayed", "parse_embeddings", "serve_embeddings"]

_PATH = "/embeddings"
_NO_MESSAGE = b'[{"role":"user","content":""}]'


@dataclass(frozen=True, slots=True)
class Relayed:
    """What the upstream answered, byte by byte, and what that cost in nano-dollars."""

    body: bytes
    nano: int


def parse_embeddings(body: bytes, headers: Mapping[str, str]) -> ChatRequest:
    """Read a request for embeddings; `input` is the upstream's to judge.

    Raises:
        RequestError: names the field and what is wrong with it.
    """
    fields = members(body)
    if fields.get("input", b"null") == b"null":
        raise RequestError("input: missing", param="input")
    read: dict[str, bytes] = {
        name: fields[name] for name in ("model", "samplewise") if name in fields
    }
    chat = parse_chat(object_text({**read, "messages": _NO_MESSAGE}.items()), headers)
    return replace(chat, fields=fields)


async def serve_embeddings(service: Service, request: ChatRequest, client: Client) -> Relayed:
    """Pass a request for embeddings on to its route's first backend that answers.

    Raises:
        AnswerError: there is no answer; it was counted and logged.
    """
    route = "other"
    try:
        job = open_job(service, request, client)
        route = job.route.name
        check_relays(service, route, "embed texts")
        found = await placed(service, job, lambda: _bought(service, job))
    except AnswerError as error:
        service.refused(route, error, client.request_id, client.key, "embeddings")
        raise
    service.relayed(job, found.nano)
    return found


async def _bought(service: Service, job: Job) -> Relayed:
    purse = Purse(
        ledger=service.engine.ledger,
        request_id=job.request_id,
        route=job.route.name,
        accounts=job.accounts,
        key="" if job.key is None else job.key.id,
        limit=job.limit,
        told=_unheard,
        posted=service.engine.metrics.posted_to(job.route.name),
    )
    try:
        return await _first_answer(service, job, purse)
    except AnswerError as error:
        error.cost_nano = purse.spent
        raise
    finally:
        await purse.close()


async def _first_answer(service: Service, job: Job, purse: Purse) -> Relayed:
    """Ask the backends of the route in turn until one answers, or calls the request wrong."""
    broken = Broken("status", "the route has no backend", sent=False)
    for attempt, upstream in enumerate(job.route.upstreams.values()):
        trip = await _reserved(job, purse, upstream, attempt)
        metrics = service.engine.metrics
        metrics.call_started(trip)
        try:
            await trip.run()
        finally:
            metrics.call_ended(trip)
        totals = trip.facts.totals
        if totals is not None:
            return Relayed(totals.head, purse.spent)
        broken = trip.facts.broken or broken
        if broken.status in CLIENT_FAULTS:
            raise RequestError(broken.detail, status=broken.status, code="upstream_refused")
    raise _failed(broken, upstream.name)


async def _reserved(job: Job, purse: Purse, upstream: Upstream, attempt: int) -> Trip:
    id_, request = f"{job.request_id}-0.{attempt}", job.request
    prompt = prompt_bound(request)
    hold = Hold(
        id=id_,
        call_id=id_,
        index=0,
        backend=upstream.name,
        model=upstream.model,
        purpose="embedding",
        nano=upstream.price.worst_nano(prompt, 0),
        tokens=prompt,
        price_version=upstream.price.version,
        sample=False,
    )
    at_once = upstream.slots is None and not upstream.pool.wait_s()
    if not await purse.reserve([(hold,)], dispatched=at_once):
        raise BudgetExceeded(
            f"the embeddings of route {job.route.name!r} do not fit into "
            f"{named_limit(purse.blocked)}",
            headers={"x-should-retry": "false"},
        )
    facts = CallFacts(stream=False, max_tokens=0, prompt_bound=prompt)
    call = Call(
        id=id_,
        body=_body(request, upstream),
        timeout_s=_timeout_s(job, upstream),
        sending=facts.note_sent,
        path=_PATH,
        whole=True,
    )
    return Trip(
        upstream=upstream,
        slots=(Slot(id_, 0, _PATH),),
        holds=(hold,),
        call=call,
        facts=facts,
        purse=purse,
        emit=_unheard,
        known_prompt=_unknown,
        choose=lambda: upstream.pool.pick(None, frozenset()),
        ends_at=job.ends_at,
        dispatched=at_once,
    )


def _body(request: ChatRequest, upstream: Upstream) -> bytes:
    kept = {name: value for name, value in request.fields.items() if name != "samplewise"}
    return object_text({**kept, "model": encode(upstream.model)}.items())


def _timeout_s(job: Job, upstream: Upstream) -> float:
    if job.ends_at is None:
        return upstream.timeout_s
    left = job.ends_at - asyncio.get_running_loop().time()
    return max(0.001, min(upstream.timeout_s, left))


def _failed(broken: Broken, backend: str) -> AnswerError:
    """Return what a client is told when no backend has answered, by what the last one did."""
    why = f"{backend}: {broken.reason}{f' {broken.status}' if broken.status else ''}"
    if broken.status == 429:
        error = UpstreamFailed(f"every upstream call was rate limited ({why})", status=429)
        error.type, error.code = "rate_limit_error", "rate_limit_exceeded"
        error.headers["retry-after"] = str(max(1, math.ceil(broken.retry_after_s or 1.0)))
        return error
    status = 504 if broken.reason == "timeout" else 502
    return UpstreamFailed(f"no backend has answered ({why})", status=status)


def _unheard(event: Money | object) -> None:
    """Nobody decides anything by it."""


def _unknown() -> None:
    """No prompt is asked twice."""
