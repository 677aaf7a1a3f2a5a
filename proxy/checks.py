"""Verification of one request's samples: gates first, each key once, votes by equivalence class."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter
from typing import Any

import structlog

from samplewise.policies.base import Compare
from samplewise.policies.evidence import (
    Asked,
    Compared,
    Event,
    Evidence,
    Finished,
    Judged,
    Judgement,
)
from samplewise.proxy.boundary import boundary
from samplewise.proxy.calls import Slot
from samplewise.proxy.checks_base import Check
from samplewise.proxy.job import Job, likely_bytes
from samplewise.proxy.ledger.base import Hold, Settlement, State
from samplewise.proxy.metrics import Metrics
from samplewise.proxy.purse import Purse
from samplewise.proxy.spares import or_spares
from samplewise.proxy.verdict_rows import held_for, settled
from samplewise.proxy.verdicts import stamped, undecided
from samplewise.proxy.vote_classes import VoteClasses, verifier_crashed
from samplewise.verifiers.asking import Tab
from samplewise.verifiers.base import (
    Comparator,
    Comparison,
    Ended,
    Purpose,
    ReadsToolCalls,
    Sample,
    Status,
    Verdict,
    VerifierError,
)

__all__ = ["Checks", "combined_status"]

_log = structlog.get_logger("samplewise.checks")


def combined_status(checks: Iterable[Check], verdicts: Iterable[Verdict]) -> Status:
    """Say what required verifiers say together: any fail fails, any error is an error.

    Without a required verifier, or when one gave no judgement, the status is `none`.
    """
    required = {check.name for check in checks if check.required}
    said = {v.verifier: v.status for v in verdicts if v.verifier in required}
    if Status.FAIL in said.values():
        return Status.FAIL
    if Status.ERROR in said.values():
        return Status.ERROR
    passed = required and all(said.get(name) is Status.PASS for name in required)
    return Status.PASS if passed else Status.NONE


@dataclass(slots=True)
class Checks:
    """Runs the verifiers of one run. Every sample's verification is a task of `group`."""

    job: Job
    evidence: Evidence
    purse: Purse
    group: asyncio.TaskGroup
    emit: Callable[[Event], None]
    metrics: Metrics
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    closed: bool = False
    _verdicts: dict[tuple[str, str], asyncio.Future[Verdict]] = field(default_factory=dict)
    _classes: VoteClasses = field(default_factory=VoteClasses)
    _asked: set[tuple[str, str]] = field(default_factory=set)
    _latest: dict[str, Judgement] = field(default_factory=dict)
    _compared: set[str] = field(default_factory=set)

    def holds(self, slot: Slot) -> list[Hold]:
        """Return what verifying this sample may cost, one row per verifier that has a price.

        How long the sample will be is not known yet: see `likely_bytes`. Before a model is asked
        the row is made to cover what it is really asked (see `_afford`).
        """
        priced = [check for check in self.job.route.automatic if check.priced]
        if not priced:
            return []
        likely = likely_bytes(self.job.max_tokens) + len(slot.before.encode())
        return [
            held_for(
                f"{slot.id}:{check.name}", slot.index, check, check.worst(self.job.task, likely)
            )
            for check in priced
        ]

    def take(self, sample: Sample) -> None:
        """Tell that a sample has finished, and begin to verify it where a verifier fits it."""
        # What was drawn to judge or to test is no answer: nothing may pass or vote with it.
        automatic = self.job.route.automatic if sample.purpose is Purpose.ANSWER else ()
        checks = [check for check in automatic if self._fits(check, sample)]
        tools = self._tools(sample)
        if tools is not None and tools not in checks:
            checks.append(tools)
        if self.closed or self.evidence.deadline_passed or not checks:
            self.forgo(sample.id)
            self.emit(Finished(sample))
            return
        self.emit(Finished(sample, verifying=True))
        voter = tools or self.job.route.voter
        if all(check.immediate for check in checks) and (voter is None or voter.immediate):
            _at_once(self._judge(sample, checks))
        else:
            self._spawn(self._judge(sample, checks))

    def forgo(self, sample: str) -> None:
        """Release what is still held for verifying a sample: known, gated out, or never to run."""
        rows = (f"{sample}:{check.name}" for check in self.job.route.automatic if check.priced)
        unused = [
            Settlement(row, 0, state=State.RELEASED) for row in rows if row in self.purse.open
        ]
        if unused and not self.closed:
            self.purse.settle(unused)

    def ask(self, ids: Sequence[str], name: str) -> bool:
        """Run a verifier that is configured `when: asked`; False when that was done before."""
        check = next(c for c in self.job.route.checks if c.name == name)
        new = [i for i in ids if (i, name) not in self._asked and i in self.evidence.judgements]
        if not new:
            return False
        self._asked.update((i, name) for i in new)
        self.evidence.fold(Asked(name, tuple(new)))
        for id_ in new:
            self._spawn(self._judge_again(self.evidence.judgements[id_], check))
        return True

    def compare(self, action: Compare) -> bool:
        """Ask the route's comparator about pairs; False when that key was applied before."""
        if action.key in self._compared:
            return False
        self._compared.add(action.key)
        self._spawn(self._compare(action))
        return True

    @property
    def comparing(self) -> bool:
        """Whether a comparison is still on its way."""
        return len(self._compared) > len(self.evidence.comparisons)

    def _fits(self, check: Check, sample: Sample) -> bool:
        if sample.ended is Ended.TOOL_CALL and not _reads_tool_calls(check):
            return False
        if check.scope == "step":
            return sample.step and sample.ended in (Ended.STOP_STRING, Ended.EOS)
        return sample.complete

    def _fitting(self, sample: Sample) -> list[Check]:
        """Return the route's verifiers that have a say in this sample, asked for or not."""
        checks = [check for check in self.job.route.checks if self._fits(check, sample)]
        tools = self._tools(sample)
        return checks if tools is None or tools in checks else [*checks, tools]

    def _tools(self, sample: Sample) -> Check | None:
        """Return what reads the votes of a turn that calls tools."""
        return self.job.route.tool_check if sample.ended is Ended.TOOL_CALL else None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.group.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _judge(self, sample: Sample, checks: Sequence[Check]) -> None:
        verdicts: list[Verdict] = []
        try:
            for check in (c for c in checks if c.gate):
                verdicts.append(await self._verdict(check, sample))
                if verdicts[-1].status is Status.FAIL:
                    break
            else:
                verdicts += await self._ungated(sample, [c for c in checks if not c.gate], verdicts)
        except asyncio.CancelledError:
            verdicts = [self._stopped(check) for check in checks]
            self.emit(Judged(Judgement(sample, Status.ERROR, tuple(verdicts))))
            raise
        self.forgo(sample.id)
        status = combined_status(self._fitting(sample), verdicts)
        self.emit(Judged(await self._judgement(sample, status, tuple(verdicts))))

    def _stopped(self, check: Check) -> Verdict:
        """Return what is said of a sample whose verification was given up."""
        if self.evidence.deadline_passed:
            return undecided(check.name, "deadline", "the deadline passed before it could tell")
        return undecided(check.name, "cut", "stopped before it could tell")

    async def _ungated(
        self, sample: Sample, checks: Sequence[Check], before: Sequence[Verdict]
    ) -> Sequence[Verdict]:
        """Run what is no gate: models last, and only on what no other check has failed."""
        asking = [c for c in checks if c.metered is not None]
        if not asking:
            return await self._together(checks, sample)
        verdicts = [*await self._together([c for c in checks if c.metered is None], sample)]
        if combined_status(checks, (*before, *verdicts)) is Status.FAIL:
            return verdicts
        return [*verdicts, *await self._together(asking, sample)]

    async def _together(self, checks: Sequence[Check], sample: Sample) -> Sequence[Verdict]:
        if len(checks) == 1:
            # The usual case, without a task of its own.
            return [await self._verdict(checks[0], sample)]
        return await asyncio.gather(*(self._verdict(check, sample) for check in checks))

    async def _judge_again(self, before: Judgement, check: Check) -> None:
        try:
            verdict = await self._verdict(check, before.sample)
        except asyncio.CancelledError:
            self._say_more(before, self._stopped(check))
            raise
        self._say_more(before, verdict)

    def _say_more(self, before: Judgement, verdict: Verdict) -> None:
        """Add a verdict to what is known of a sample, which may be more than when it was asked."""
        known = self._latest.get(before.sample.id, before)
        verdicts = (*known.verdicts, verdict)
        status = combined_status(self._fitting(known.sample), verdicts)
        now = self._latest[known.sample.id] = replace(known, status=status, verdicts=verdicts)
        self.emit(Judged(now))

    async def _judgement(
        self, sample: Sample, status: Status, verdicts: tuple[Verdict, ...]
    ) -> Judgement:
        voter = self._tools(sample) or self.job.route.voter
        named = [v for v in verdicts if voter is not None and v.verifier == voter.name]
        answer = named[0].answer if named else None
        if answer is None or voter is None or status is Status.FAIL or not sample.complete:
            return Judgement(sample, status, verdicts, answer)
        class_ = await self._classes.of(voter, answer, sample.index)
        return Judgement(sample, status, verdicts, answer, class_)

    async def _verdict(self, check: Check, sample: Sample) -> Verdict:
        text = _text_key(sample) if check.keyed is None else check.keyed.key(sample)
        known = self._verdicts.get((check.name, text))
        if known is not None and not known.cancelled():
            verdict = await asyncio.shield(known)
            return replace(verdict, cost_nano=0, ms=0.0, details={**verdict.details, "seen": True})
        future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._verdicts[check.name, text] = future
        try:
            verdict = await self._run(sample, check, tab := Tab(f"{sample.id}:{check.name}"))
            if check.spares:
                verdict = await or_spares(check, tab, verdict, partial(self._run, sample))
            future.set_result(verdict)
            return verdict
        finally:
            if not future.done():
                future.cancel()

    async def _run(self, sample: Sample, check: Check, tab: Tab) -> Verdict:
        began = perf_counter()
        verdict: Verdict | None = None
        verifier = check.verifier if check.metered is None else check.metered.on(tab)
        try:
            with boundary(verifier_crashed, VerifierError, TimeoutError):
                if check.immediate:
                    verdict = await verifier.verify(self.job.task, sample)
                else:
                    await self._afford(tab, check, sample)
                    async with asyncio.timeout(check.timeout_s):
                        verdict = await verifier.verify(self.job.task, sample)
        except VerifierError as error:
            verdict = undecided(check.name, error.reason, str(error))
        except TimeoutError:
            verdict = undecided(check.name, "timeout", f"no verdict within {check.timeout_s:g} s")
        finally:
            ms = (perf_counter() - began) * 1000
            verdict = verdict or self._stopped(check)
            cost = verdict.cost_nano + check.cost_nano(ms) + tab.nano
            verdict = stamped(verdict, check.name, ms, cost)
            self._pay(tab, cost)
        if verdict.status is Status.ERROR:
            _log.warning(
                "verifier could not tell",
                request_id=self.job.request_id,
                verifier=check.name,
                reason=verdict.reason,
                detail=verdict.details.get("error", ""),
            )
        self.metrics.verdict(verdict)
        return verdict

    async def _afford(self, tab: Tab, check: Check, *samples: Sample) -> None:
        """Make sure that the tab's row covers the worst case of this verdict.

        Verifiers and pairs that are asked for have no row yet. The row of an answer that came out
        longer than was likely gives way to a larger one, which the tab names from then on.
        """
        if not check.priced:
            return
        size = 0 if check.metered is None else sum(map(check.metered.answer_bytes, samples))
        worst, held = check.worst(self.job.task, size), self.purse.open.get(tab.id)
        if held is not None and held.nano >= worst.nano and held.tokens >= worst.tokens:
            return
        before, row = tab.id, tab.id if held is None else f"{tab.id}.1"
        if not await self.purse.reserve([(held_for(row, samples[0].index, check, worst),)]):
            raise VerifierError("the budget has no room for it", reason="budget")
        tab.id = row
        if held is not None:
            self.purse.settle([Settlement(before, 0, state=State.RELEASED)])

    def _pay(self, tab: Tab, cost: int) -> None:
        if tab.id not in self.purse.open:
            return
        self.purse.settle([settled(tab, cost)])

    async def _compare(self, action: Compare) -> None:
        try:
            pairs = (self._pair(action.key, i, *pair) for i, pair in enumerate(action.pairs))
            comparisons = await asyncio.gather(*pairs)
        except asyncio.CancelledError:
            cut = (Comparison(a, b, error="stopped before it could tell") for a, b in action.pairs)
            self.emit(Compared(action.key, tuple(cut)))
            raise
        self.emit(Compared(action.key, tuple(comparisons)))

    async def _pair(self, key: str, number: int, a: str, b: str) -> Comparison:
        check, samples = self.job.route.comparator, self.evidence.samples
        if check is None or not isinstance(check.verifier, Comparator):
            return Comparison(a, b, error="the route has no comparator")
        failed = [self._failed(id_) for id_ in (a, b)]
        if failed[0] != failed[1]:
            # A judge ranks, but puts nothing that a check has failed before what none has.
            return Comparison(a, b, winner=b if failed[0] else a)
        tab = Tab(f"{self.job.request_id}:{key}:{number}:{check.name}")
        comparator = check.verifier if check.metered is None else check.metered.on(tab)
        assert isinstance(comparator, Comparator)
        began, cost = perf_counter(), 0
        try:
            with boundary(verifier_crashed, VerifierError, TimeoutError):
                await self._afford(tab, check, samples[a], samples[b])
                async with asyncio.timeout(check.timeout_s):
                    found = await comparator.compare(self.job.task, samples[a], samples[b])
            cost = found.cost_nano
        except TimeoutError:
            found = Comparison(a, b, error=f"no verdict within {check.timeout_s:g} s")
        except VerifierError as error:
            found = Comparison(a, b, error=str(error) or error.reason, reason=error.reason)
        finally:
            cost += check.cost_nano((perf_counter() - began) * 1000) + tab.nano
            self._pay(tab, cost)
        return replace(found, cost_nano=cost)

    def _failed(self, id_: str) -> bool:
        judgement = self.evidence.judgements.get(id_)
        return judgement is not None and judgement.status is Status.FAIL


def _at_once(work: Coroutine[Any, Any, None]) -> None:
    """Do work that never waits, here and now: a task costs more than a look at a text."""
    try:
        work.send(None)
    except StopIteration:
        return
    work.close()
    raise RuntimeError("a verifier that says it never waits has waited")


def _reads_tool_calls(check: Check) -> bool:
    # A text verifier must not judge a turn that has no text.
    return isinstance(check.verifier, ReadsToolCalls) and check.verifier.tool_calls


def _text_key(sample: Sample) -> str:
    if not sample.tool_calls:
        return sample.path_text
    calls = "".join(f"\0{call.name}\0{call.arguments}" for call in sample.tool_calls)
    return sample.path_text + calls
