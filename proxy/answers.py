"""The end of a run: which samples answer, how far they can be trusted, or which error it is."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Sequence

from samplewise.policies.base import Basis, Stop, StopReason
from samplewise.policies.evidence import Evidence, Failed
from samplewise.policies.price import Usage, shown_usd
from samplewise.policies.ranking import by_votes
from samplewise.proxy.draws import Draws
from samplewise.proxy.errors import (
    AnswerError,
    BudgetExceeded,
    NoVerifiedAnswer,
    Overloaded,
    RequestError,
    UpstreamFailed,
)
from samplewise.proxy.job import Answer, Degraded, Job, Outcome
from samplewise.proxy.ledger.base import Account, Scope
from samplewise.proxy.purse import Purse, Short
from samplewise.verifiers.base import Ended, Purpose, Sample, Status

__all__ = ["conclude", "named_limit", "pick"]


def conclude(job: Job, evidence: Evidence, stop: Stop, purse: Purse, draws: Draws) -> Answer:
    """Choose from the ranking and say what it is worth.

    Raises:
        AnswerError: nothing can be returned; its headers say what was spent.
    """
    try:
        stop = _judged(job, evidence, stop, purse)
    except AnswerError as error:
        error.cost_nano = purse.spent
        error.headers.setdefault("x-samplewise-samples", str(evidence.drawn))
        raise
    chosen = pick(evidence, stop.ranking, job.request.n)
    if len(chosen) < job.request.n:
        job.warnings.append(f"n={job.request.n} was asked, only {len(chosen)} samples came back")
    if purse.unmetered:
        job.warnings.append(
            "the ledger could not be reached: this answer counts in no limit but the request's own"
        )
    job.warnings += _shortfalls(evidence)
    first = chosen[0]
    usage = sum((row.usage for row in purse.rows.values()), Usage())
    verification = purse.cost_by_purpose.get("verify", 0)
    return Answer(
        job=job,
        evidence=evidence,
        stop=stop,
        chosen=chosen,
        outcome=_outcome(job, evidence, stop, first),
        degraded=_degraded(evidence, stop, draws),
        usage=usage,
        costs={"generation": purse.spent - verification, "verification": verification},
        seconds=asyncio.get_running_loop().time() - job.began,
        head=draws.heads.get(first.id, b"{}"),
        warnings=tuple(job.warnings),
    )


def _judged(job: Job, evidence: Evidence, stop: Stop, purse: Purse) -> Stop:
    """Return the stop with a ranking that can be answered from, or raise why there is none."""
    if evidence.client_gone:
        raise AnswerError("the client closed the connection", status=499, code="client_gone")
    ranking = tuple(id_ for id_ in stop.ranking if _usable(evidence, id_))
    if not ranking or evidence.good < job.policy.needs.min_ok:
        raise _nothing(job, evidence, purse)
    stop = Stop(ranking, stop.reason, stop.basis, stop.details)
    if _passed(evidence, ranking[0]) or not _judgeable(job, evidence.samples[ranking[0]]):
        return stop
    if job.route.on_unverified == "error":
        raise NoVerifiedAnswer(
            f"none of {evidence.drawn} samples passed its verifiers, and route "
            f"{job.route.name!r} returns no unverified answers"
        )
    if job.route.on_unverified == "vote":
        voted = [id_ for id_ in by_votes(evidence) if _usable(evidence, id_)]
        return Stop(tuple(voted), stop.reason, Basis.VOTES, stop.details)
    return stop


def _judgeable(job: Job, sample: Sample) -> bool:
    """Say whether a sample could have passed: whether a verifier that is required looks at it."""
    if sample.ended is Ended.TOOL_CALL:
        return job.route.on_tools == "verify"
    return any(check.required for check in job.route.checks)


def _usable(evidence: Evidence, id_: str) -> bool:
    sample = evidence.samples.get(id_)
    return sample is not None and sample.ended is not Ended.CUT and sample.purpose is Purpose.ANSWER


def _passed(evidence: Evidence, id_: str) -> bool:
    judgement = evidence.judgements.get(id_)
    return judgement is not None and judgement.status is Status.PASS


def pick(evidence: Evidence, ranking: Sequence[str], n: int) -> tuple[Sample, ...]:
    """Return the first n samples of a ranking, different answers before repeated ones."""
    distinct: list[Sample] = []
    repeated: list[Sample] = []
    seen: set[object] = set()
    for id_ in ranking:
        sample = evidence.samples[id_]
        judgement = evidence.judgements.get(id_)
        class_ = judgement.answer_class if judgement else None
        key = class_ if class_ is not None else (sample.path_text, sample.tool_calls)
        (repeated if key in seen else distinct).append(sample)
        seen.add(key)
    return tuple((distinct + repeated)[:n])


def _outcome(job: Job, evidence: Evidence, stop: Stop, first: Sample) -> Outcome:
    if _passed(evidence, first.id):
        return Outcome.VERIFIED
    passed_on = first.ended is Ended.TOOL_CALL and job.route.on_tools == "passthrough"
    if job.policy.needs.max_samples == 1 or passed_on:
        return Outcome.UNVERIFIED
    judgement = evidence.judgements.get(first.id)
    voted = evidence.votes.classes.get(judgement.answer_class or "") if judgement else None
    if stop.basis is Basis.VOTES and voted is not None and voted.count > 1:
        return Outcome.AGREED
    if stop.basis is Basis.TESTS:
        return Outcome.AGREED
    told = any(
        j.status is Status.FAIL or j.score() is not None or j.answer_class is not None
        for j in evidence.judgements.values()
    )
    return Outcome.BEST_EFFORT if told else Outcome.UNVERIFIED


def _degraded(evidence: Evidence, stop: Stop, draws: Draws) -> tuple[Degraded, ...]:
    rounds = evidence.rounds.values()
    errors = [
        verdict.reason
        for judgement in evidence.judgements.values()
        for verdict in judgement.verdicts
        if verdict.status is Status.ERROR and verdict.reason not in ("cut", "deadline")
    ]
    games = (game for games in evidence.comparisons.values() for game in games)
    errors += [game.reason for game in games if game.error]
    found = {
        Degraded.BUDGET: stop.reason is StopReason.BUDGET
        or any(round_.why == "budget" for round_ in rounds)
        or "budget" in errors,
        Degraded.DEADLINE: evidence.deadline_passed
        or any(round_.why == "deadline" for round_ in rounds),
        Degraded.QUORUM: bool(evidence.failed)
        or stop.reason is StopReason.QUORUM
        or (evidence.deadline_passed and evidence.good < evidence.drawn),
        Degraded.BACKEND: bool(evidence.failed or draws.moved)
        or any(round_.why == "backend" for round_ in rounds),
        Degraded.VERIFIER: bool(errors),
    }
    return tuple(name for name, held in found.items() if held)


def _shortfalls(evidence: Evidence) -> list[str]:
    """Return, in words, what an upstream did not give; `degraded` alone does not say why."""
    failed = list(evidence.failed.values())
    found = []
    if failed:
        found.append(f"{len(failed)} of {evidence.drawn} samples failed ({_reasons(failed)})")
    if any(round_.why == "backend" for round_ in evidence.rounds.values()):
        found.append("fewer samples were drawn than wanted: the backend has no room for more now")
    if any(round_.why == "refused" for round_ in evidence.rounds.values()):
        found.append("fewer samples were drawn than wanted: the backend has refused this prompt")
    return found


def _nothing(job: Job, evidence: Evidence, purse: Purse) -> AnswerError:
    """Return the error that explains best why too few samples came back."""
    failed = list(evidence.failed.values())
    drawn, least = evidence.drawn, job.policy.needs.min_ok
    if evidence.good == drawn and any(r.why == "budget" for r in evidence.rounds.values()):
        wave = f"a wave of {least} samples" if drawn else "the smallest wave"
        return BudgetExceeded(
            f"{wave} of route {job.route.name!r} does not fit into {named_limit(purse.blocked)}"
            f"{_missing(purse.short)}",
            headers={"x-should-retry": "false"},
        )
    if evidence.deadline_passed:
        return UpstreamFailed(
            f"the deadline of {job.bound_s:g} s passed before "
            f"{least} good samples were in ({evidence.good} came)",
            status=504,
            code="deadline_exceeded",
        )
    statuses = {f.status for f in failed}
    if failed and not evidence.good and statuses <= {400, 413, 422}:
        # Every upstream call said that the request itself is wrong: the client must see that.
        return RequestError(failed[0].detail, status=failed[0].status, code="upstream_refused")
    if not evidence.good and statuses == {429}:
        waits = [f.retry_after_s for f in failed if f.retry_after_s is not None]
        error = UpstreamFailed("every upstream call was rate limited", status=429)
        error.type, error.code = "rate_limit_error", "rate_limit_exceeded"
        error.headers["retry-after"] = str(max(1, math.ceil(max(waits, default=1.0))))
        return error
    if not evidence.good and {f.reason for f in failed} == {"busy"}:
        return Overloaded("no place at an upstream became free in time")
    timeouts = bool(failed) and all(f.reason == "timeout" for f in failed)
    return UpstreamFailed(
        f"{len(failed)} of {drawn} samples failed ({_reasons(failed)}); "
        f"{evidence.good} good ones came, {least} are needed",
        status=504 if timeouts else 502,
    )


def _reasons(failed: Sequence[Failed]) -> str:
    # Only our own bounded words: an upstream's text may hold what is not the client's to see.
    words = Counter(f"{f.backend}: {f.reason}{f' {f.status}' if f.status else ''}" for f in failed)
    return ", ".join(f"{word} x{count}" for word, count in words.most_common(5)) or "none sent"


def _missing(short: Short | None) -> str:
    """Say what the first sample may cost and what is left for it, where that is the trouble."""
    if short is None:
        return ""
    need, left = short.need, short.left
    said = [
        (need.nano, left.nano, shown_usd),
        (need.tokens, left.tokens, "{} tokens".format),
        (need.samples, left.samples, "{} samples".format),
    ]
    parts = [
        f"{show(wanted)}, {show(rest)} left"
        for wanted, rest, show in said
        if wanted is not None and rest is not None and wanted > rest
    ]
    return f": one sample and its verdicts may cost {' and '.join(parts)}" if parts else ""


def named_limit(account: Account | None) -> str:
    """Return whose limit of what it is, for messages."""
    if account is None:
        return "its limits"
    limit = account.limit
    parts = [
        shown_usd(limit.nano) if limit.nano is not None else "",
        f"{limit.tokens} tokens" if limit.tokens is not None else "",
        f"{limit.samples} samples" if limit.samples is not None else "",
    ]
    amounts = ", ".join(part for part in parts if part)
    window = "" if account.window.value == "total" else f" per {account.window.value}"
    named = account.scope in (Scope.BACKEND, Scope.TAG)
    whose = f"{account.scope.value} {account.name!r}" if named else account.scope.value
    return f"the {whose} limit of {amounts}{window}"
