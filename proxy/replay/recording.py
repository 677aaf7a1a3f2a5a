"""The command `record`: oversample prompts through a configured route into a file."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from samplewise.policies.replay.oversample import Oversample
from samplewise.policies.replay.records import Header
from samplewise.proxy.build import open_service
from samplewise.proxy.config import Config
from samplewise.proxy.engine import answer
from samplewise.proxy.errors import AnswerError, BudgetExceeded, ConfigError
from samplewise.proxy.job import Job
from samplewise.proxy.ledger.base import Account, Limit, Scope, Window
from samplewise.proxy.progress import progress
from samplewise.proxy.replay.files import Writer
from samplewise.proxy.replay.prompts import Prompt
from samplewise.proxy.replay.recorded import price_of, recorded
from samplewise.proxy.service import Service
from samplewise.proxy.wire import parse_chat

__all__ = ["Order", "Outcome", "record"]


@dataclass(frozen=True, slots=True)
class Order:
    """What to record: `samples` of each backend (none named: the route's first) for each prompt.

    `nano` is the most that this run may spend, `truth` the verifier whose verdict is the truth.
    With `group_tokens` the confidence of samples is recorded, in groups of so many tokens.
    """

    route: str
    samples: int
    nano: int
    backends: tuple[str, ...] = ()
    truth: str | None = None
    timed: bool = False
    at_once: int = 4
    group_tokens: int = 0


@dataclass(slots=True)
class Outcome:
    """What a run came to. `failed` says why prompts were not recorded, by their ids.

    Of the prompts that were there before, `smaller` have fewer samples than are wanted now.
    """

    prompts: int
    before: int
    smaller: int = 0
    written: int = 0
    spent: int = 0
    out_of_budget: bool = False
    failed: dict[str, str] = field(default_factory=dict)


async def record(config: Config, order: Order, prompts: Sequence[Prompt], path: Path) -> Outcome:
    """Record every prompt that the file does not have yet; whole problems only.

    Raises:
        ConfigError: the route, a backend or the verifier of the truth is not there.
        RecordingError: the file cannot be written.
        StoreError: the ledger cannot be reached.
    """
    async with open_service(config) as service:
        order = _checked(order, service)
        upstreams = service.routes[order.route].upstreams
        prices = {name: price_of(upstreams[name].price) for name in order.backends}
        header = Header(source=f"samplewise record, route {order.route}", prices=prices)
        with Writer(path, header) as writer:
            missing = [prompt for prompt in prompts if prompt.id not in writer.done]
            wanted = order.samples * len(order.backends)
            smaller = sum(writer.done.get(prompt.id, wanted) < wanted for prompt in prompts)
            outcome = Outcome(len(prompts), len(prompts) - len(missing), smaller)
            with progress(len(missing), "prompts") as advance:
                run = _Run(service, order, writer, outcome, advance)
                await run.all(missing)
    return outcome


def _checked(order: Order, service: Service) -> Order:
    """Return the order with its backends named.

    Raises:
        ConfigError: something it names is not there.
    """
    route = service.routes.get(order.route)
    if route is None:
        known = ", ".join(sorted(service.routes))
        raise ConfigError(f"--route: there is no route {order.route!r}; there are: {known}")
    backends = order.backends or tuple(route.upstreams)[:1]
    for name in backends:
        if name not in route.upstreams:
            known = ", ".join(route.upstreams)
            raise ConfigError(f"--backend: route {order.route!r} has no {name!r}; it has: {known}")
    names = [check.name for check in route.automatic]
    if order.truth is not None and order.truth not in names:
        known = ", ".join(names) or "none"
        raise ConfigError(
            f"--truth: route {order.route!r} has no verifier {order.truth!r} that runs on every "
            f"sample; it has: {known}"
        )
    return replace(order, backends=backends)


@dataclass(slots=True)
class _Run:
    service: Service
    order: Order
    writer: Writer
    outcome: Outcome
    advance: Callable[[], None]
    account: Account = field(init=False)

    def __post_init__(self) -> None:
        # In the ledger, so that requests that run at once share the limit exactly.
        limit = Limit(nano=self.order.nano)
        self.account = Account(Scope.TAG, f"record-{uuid.uuid4().hex}", Window.TOTAL, limit)

    async def all(self, prompts: Sequence[Prompt]) -> None:
        """Ask so many prompts at once; after the money is used up, ask no more."""
        waiting = iter(prompts)

        async def work() -> None:
            for prompt in waiting:
                if self.outcome.out_of_budget:
                    return
                await self._one(prompt)
                self.advance()

        async with asyncio.TaskGroup() as group:
            for _ in range(self.order.at_once):
                group.create_task(work())

    async def _one(self, prompt: Prompt) -> None:
        order, outcome = self.order, self.outcome
        try:
            found = await answer(self._job(prompt), self.service.engine)
        except BudgetExceeded:
            outcome.out_of_budget = True
            return
        except AnswerError as error:
            outcome.failed[prompt.id] = error.message
            return
        outcome.spent += found.cost_nano
        problem = recorded(prompt, found.evidence, order.truth, timed=order.timed)
        wanted = order.samples * len(order.backends)
        if found.evidence.drawn < wanted:
            outcome.out_of_budget = True
        elif len(problem.samples) < wanted:
            outcome.failed[prompt.id] = f"{wanted - len(problem.samples)} of its samples were lost"
        else:
            await asyncio.to_thread(self.writer.add, problem)
            outcome.written += 1

    def _job(self, prompt: Prompt) -> Job:
        order = self.order
        request = parse_chat(prompt.body(order.route), {})
        job = self.service.job(request, self.service.new_request_id())
        job.policy = Oversample(order.samples, order.backends, order.timed, order.group_tokens)
        job.policy_name, job.chosen_name = "record", ""
        # The limits of one request are those of answering; the shared ones hold as always.
        job.limit = Limit()
        job.route = replace(
            job.route, on_unverified="return", accounts=(*job.route.accounts, self.account)
        )
        return job
