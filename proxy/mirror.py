"""Mirrored traffic: a share of a route's requests is answered a second time, by another route.

The client never waits for it and never sees it. What it costs is in the books of the other route;
whether its answer would have been another one is counted and logged.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import structlog

from samplewise.policies.price import usd
from samplewise.proxy.boundary import boundary, internal_error
from samplewise.proxy.engine import Engine, answer
from samplewise.proxy.errors import AnswerError, BudgetExceeded, StoreError
from samplewise.proxy.job import Answer, Job, Mirror, Route
from samplewise.proxy.options import Options
from samplewise.proxy.wire import ChatRequest
from samplewise.verifiers.asking import Metered
from samplewise.verifiers.base import VerifierError

__all__ = ["Mirrors"]

_log = structlog.get_logger("samplewise.mirror")


@dataclass(slots=True)
class Mirrors:
    """The runs of mirrors in this process; `close` cuts them."""

    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    running: Counter[str] = field(default_factory=Counter)
    closed: bool = False

    def offer(
        self,
        served: Answer,
        engine: Engine,
        new_id: Callable[[], str],
        open_: Callable[[ChatRequest, str], Job],
    ) -> None:
        """Answer a request again if its turn has come; returns at once.

        `open_` makes the job of the second run, by the id that it gets of `new_id`.
        """
        name, mirror = served.job.route.name, served.job.route.mirror
        if mirror is None or self.closed or not _chosen(served.job.request_id, mirror.share):
            return
        if self.running[name] >= mirror.at_once:
            engine.metrics.mirrored(name, mirror.route, "busy", 0)
            return
        request_id = served.job.mirrored = new_id()
        task = asyncio.create_task(self._run(served, mirror, engine, request_id, open_))
        self.running[name] += 1
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _run(
        self,
        served: Answer,
        mirror: Mirror,
        engine: Engine,
        request_id: str,
        open_: Callable[[ChatRequest, str], Job],
    ) -> None:
        name, other, nano = served.job.route.name, None, 0
        try:
            with boundary(internal_error, AnswerError, StoreError):
                job = open_(_again(served.job.request, mirror.route), request_id)
                other = await answer(job, engine)
                nano = other.cost_nano
                result = "same" if await _same(job.route, served, other) else "changed"
        except BudgetExceeded as error:
            result, nano = "budget", error.cost_nano
        except AnswerError as error:
            result, nano = "failed", error.cost_nano
        except StoreError:
            result = "failed"
        finally:
            self.running[name] -= 1
        engine.metrics.mirrored(name, mirror.route, result, nano)
        _log.info(
            "mirrored",
            request_id=served.job.request_id,
            mirror_request_id=request_id,
            route=name,
            mirror=mirror.route,
            result=result,
            served_outcome=served.outcome.value,
            outcome=None if other is None else other.outcome.value,
            served_cost_usd=usd(served.cost_nano),
            cost_usd=usd(nano),
        )

    async def close(self) -> None:
        """Cut what runs and wait until it is settled."""
        self.closed = True
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await asyncio.wait(list(self.tasks))


def _chosen(request_id: str, share: float) -> bool:
    # Request ids are random already.
    return int(request_id[-8:], 16) < share * 2**32


def _again(request: ChatRequest, route: str) -> ChatRequest:
    """Return the request as the other route gets it: what it asks, not how it wants it answered."""
    said = request.options
    options = Options(reference=said.reference, tests=said.tests, item=said.item)
    return replace(request, model=route, n=1, stream=False, read_timeout_s=None, options=options)


async def _same(route: Route, served: Answer, other: Answer) -> bool:
    """Say whether two answers mean the same, by the route's vote; without one, whether they are."""
    ours, theirs = served.chosen[0], other.chosen[0]
    if (ours.text, ours.tool_calls) == (theirs.text, theirs.tool_calls):
        return True
    voter = route.voter
    if voter is None or isinstance(voter.verifier, Metered):
        return False
    judged = other.evidence.judgements.get(theirs.id)
    b = None if judged is None else judged.answer
    try:
        with boundary(_unread, VerifierError):
            async with asyncio.timeout(voter.timeout_s):
                a = (await voter.verifier.verify(other.job.task, ours)).answer
                if a is None or b is None or a == b or voter.equivalence is None:
                    return a is not None and a == b
                return await voter.equivalence.equivalent(a, b)
    except (VerifierError, TimeoutError):
        return False


def _unread(error: Exception) -> VerifierError:
    return VerifierError(f"{type(error).__name__}: {error}"[:300])
