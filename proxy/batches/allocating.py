"""One number of samples for all lines of a batch, shared out round by round by an `Allocator`.

Each round asks the lines that got samples again, with what they have drawn before: those samples
are not bought twice. A line that is settled is written at once, all others at the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import msgspec

from samplewise.policies.base import Allocator, StopReason
from samplewise.policies.evidence import Evidence
from samplewise.policies.price import usd
from samplewise.proxy.batches.answering import answered_line, unread_line, whole
from samplewise.proxy.batches.base import Result
from samplewise.proxy.batches.lines import lines, read_line
from samplewise.proxy.batches.offline import (
    BatchError,
    Order,
    Outcome,
    limit_of,
    look_over,
    read_pieces,
    spent,
    writing,
)
from samplewise.proxy.build import open_service
from samplewise.proxy.completion import completion
from samplewise.proxy.config import Config
from samplewise.proxy.errors import AnswerError, BudgetExceeded, RequestError, error_bytes
from samplewise.proxy.job import Answer, Job
from samplewise.proxy.jsontext import encode
from samplewise.proxy.ledger.base import Account
from samplewise.proxy.progress import progress
from samplewise.proxy.retries import whole_samples
from samplewise.proxy.service import Service
from samplewise.proxy.serving import Client, answer_job, open_job
from samplewise.proxy.wire import ChatRequest, parse_chat
from samplewise.verifiers.base import Sample

__all__ = ["run_shared"]

_CHAT = ("/v1/chat/completions",)
# Reasons by which a policy has decided: more samples would change nothing.
_DECIDED = (StopReason.PASSED, StopReason.AGREED, StopReason.NOT_WORTH_IT)


@dataclass(slots=True)
class _Problem:
    """One line on its way. `most` is the most samples that it may have in all."""

    number: int
    custom_id: str
    request: ChatRequest
    evidence: Evidence
    most: int
    answer: Answer | None = None
    error: AnswerError | None = None
    pool: list[Sample] = field(default_factory=list)
    used: int = 0
    nano: int = 0
    rounds: int = 0
    settled: bool = False

    def result(self) -> Result:
        """Return what became of it; its whole cost stands beside the response of its last round."""
        told = encode({"cost_usd": usd(self.nano), "rounds": self.rounds})
        if self.answer is not None:
            id_, body = self.answer.job.request_id, completion(self.answer)
            data = answered_line(self.custom_id, id_, 200, body, samplewise=told)
            return Result(self.number, True, data)
        assert self.error is not None
        error, body = self.error, error_bytes(self.error)
        data = answered_line(self.custom_id, "", error.status, body, samplewise=told)
        return Result(self.number, False, data)


async def run_shared(config: Config, order: Order, samples: int, allocator: Allocator) -> Outcome:
    """Answer every line that the output does not have yet from so many samples in all.

    Raises:
        BatchError: a file cannot be used, the input is ambiguous, or verdicts have a price.
        StoreError: the ledger cannot be reached.
    """
    longest = config.server.max_body_bytes
    total, done = await asyncio.to_thread(look_over, order, longest)
    outcome = Outcome(total, len(done))
    async with open_service(config) as service:
        with writing(order) as put, progress(total - len(done), "lines") as advance:
            shared = _Shared(service, order, allocator, limit_of(order))
            found = lines(read_pieces(order.input), longest)
            for result in shared.read(item for item in found if item[0] not in done):
                put([result])
                outcome.failed += 1
                advance()
            async for results in shared.rounds(samples):
                await asyncio.to_thread(put, results)
                outcome.answered += sum(result.ok for result in results)
                outcome.failed += sum(not result.ok for result in results)
                for _ in results:
                    advance()
            outcome.out_of_budget = shared.poor
            outcome.spent = await spent(service, shared.account)
    return outcome


@dataclass(slots=True)
class _Shared:
    """The lines that are not settled, and the samples that they share."""

    service: Service
    order: Order
    allocator: Allocator
    account: Account
    problems: dict[str, _Problem] = field(default_factory=dict)
    poor: bool = False

    def read(self, found: Iterable[tuple[int, bytes | None]]) -> Iterator[Result]:
        """Take in lines; yield a result for each that cannot be asked at all.

        Raises:
            BatchError: verdicts of a line's route have a price.
        """
        for number, text in found:
            try:
                line = read_line(text or b"", _CHAT)
            except RequestError as error:
                said = unread_line(number, "invalid_line", error.message, error.param)
                yield Result(number, said.ok, said.data)
                continue
            try:
                request = whole(parse_chat(line.body, {}))
                job = self._job(request)
            except RequestError as error:
                body = error_bytes(error)
                yield Result(number, False, answered_line(line.custom_id, "", error.status, body))
                continue
            priced = [check.name for check in job.route.checks if check.priced]
            if priced:
                raise BatchError(
                    f"--samples: verifier {priced[0]} of route {job.route.name!r} has a price, and "
                    "every round would pay it again for samples of earlier ones; leave --samples "
                    "out, or use a route without it"
                )
            most = job.most_samples
            evidence = Evidence(job.task, seed=job.seed, left_samples=most)
            self.problems[line.custom_id] = _Problem(
                number, line.custom_id, request, evidence, most
            )

    async def rounds(self, left: int) -> AsyncIterator[list[Result]]:
        """Share out samples until there are none; yield what is settled after each round."""
        while not self.poor:
            grants = self.allocator.allocate(
                {name: problem.evidence for name, problem in self.problems.items()}, left
            )
            used = await self._round(grants)
            left -= used
            settled = [name for name, problem in self.problems.items() if problem.settled]
            yield [self.problems.pop(name).result() for name in settled]
            if not used:
                break
        asked = [p for p in self.problems.values() if p.answer is not None or p.error is not None]
        yield [problem.result() for problem in asked]

    async def _round(self, grants: Mapping[str, int]) -> int:
        """Give lines so many samples more; return how many were drawn."""
        places = asyncio.Semaphore(self.order.at_once)
        before = sum(problem.used for problem in self.problems.values())

        async def one(problem: _Problem, samples: int) -> None:
            async with places:
                await self._one(problem, samples)

        async with asyncio.TaskGroup() as group:
            for name, samples in grants.items():
                group.create_task(one(self.problems[name], samples))
        return sum(problem.used for problem in self.problems.values()) - before

    async def _one(self, problem: _Problem, samples: int) -> None:
        given = len(problem.pool) + samples
        options = msgspec.structs.replace(problem.request.options, samples=given)
        try:
            job = self._job(replace(problem.request, options=options))
        except RequestError as error:
            problem.error, problem.settled = error, True
            return
        job.pool = list(problem.pool)
        problem.rounds += 1
        try:
            problem.answer = await answer_job(self.service, job)
            problem.nano += problem.answer.cost_nano
        except BudgetExceeded as error:
            self.poor = True
            problem.nano += error.cost_nano
        except AnswerError as error:
            problem.error = error
            problem.nano += error.cost_nano
        self._learn(problem, job, given)

    def _learn(self, problem: _Problem, job: Job, given: int) -> None:
        evidence = job.evidence
        if evidence is None:
            return
        problem.used += evidence.drawn - (len(problem.pool) - len(job.pool))
        problem.pool = whole_samples(evidence)
        evidence.left_samples = problem.most - len(problem.pool)
        problem.evidence = evidence
        answer = problem.answer
        if answer is not None:
            early = evidence.drawn < given and answer.stop.reason in _DECIDED
            problem.settled = early or evidence.best_passed is not None

    def _job(self, request: ChatRequest) -> Job:
        client = Client(self.service.new_request_id(), accounts=(self.account,))
        return open_job(self.service, request, client)
