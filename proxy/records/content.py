"""What a record says of one request. Pure. Without its text it holds sizes and hashes, no words."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from samplewise.policies.base import Stop
from samplewise.policies.evidence import Evidence, Judgement
from samplewise.policies.price import usd
from samplewise.proxy.completion import report
from samplewise.proxy.errors import AnswerError
from samplewise.proxy.job import Answer, Job
from samplewise.proxy.jsontext import encode
from samplewise.verifiers.base import Sample, Verdict

__all__ = ["Words", "content"]

_FROM_REPORT = (
    "policy", "outcome", "degraded", "stop_reason", "samples", "cost_usd", "tokens", "latency_ms",
    "warnings",
)  # fmt: skip
# The only messages that hold an upstream's own words.
_UPSTREAMS_WORDS = "upstream_refused"


@dataclass(frozen=True, slots=True)
class Words:
    """How words stand in a record: in `text`, and as hashes that need the store's `secret`.

    With a plain hash, whoever reads a record could try short answers until one fits.
    """

    text: bool
    secret: bytes = field(repr=False)

    def said(self, name: str, words: str) -> dict[str, Any]:
        """Return words themselves where they may be kept, and what tells them apart in any case."""
        data = words.encode("utf-8", "surrogatepass")
        known = hmac.digest(self.secret, data, "sha256").hex()
        said = {f"{name}_bytes": len(data), f"{name}_hmac": known}
        return {name: data.decode(errors="replace"), **said} if self.text else said


def content(
    job: Job, evidence: Evidence, end: Answer | AnswerError, words: Words
) -> dict[str, Any]:
    """Return the record of a request that was answered, or ended with an error."""
    text = words.text
    answer = end if isinstance(end, Answer) else None
    said: dict[str, Any] = {**job.policy_told, "error": None}
    if answer is not None:
        told = report(answer)
        said |= {name: told[name] for name in _FROM_REPORT}
        said["decision"] = _decision(answer.stop, text)
        if text and job.also is not None:
            said |= job.also(answer)
    elif isinstance(end, AnswerError):
        hidden = end.code == _UPSTREAMS_WORDS and not text
        said["error"] = {
            "status": end.status,
            "code": end.code,
            "message": None if hidden else end.message,
        }
    classes = sorted(evidence.votes.classes.values(), key=lambda c: (-c.count, c.first_index))
    return {
        **said,
        "request": _request(job, words),
        "votes": [{**words.said("answer", c.answer), "votes": c.count} for c in classes],
        "rounds": [
            {"key": key, "asked": round_.asked, "granted": round_.granted, "why": round_.why}
            for key, round_ in evidence.rounds.items()
        ],
        "candidates": _candidates(evidence, answer, words),
        "lost": [
            {"index": f.index, "backend": f.backend, "reason": f.reason, "status": f.status}
            for f in sorted(evidence.failed.values(), key=lambda f: f.index)
        ],
        "comparisons": _comparisons(evidence),
    }


def _request(job: Job, words: Words) -> dict[str, Any]:
    request = job.request
    return {
        "model": request.model,
        "n": request.n,
        "stream": request.stream,
        "max_tokens": job.max_tokens,
        "tools": request.tools is not None,
        **words.said("messages", request.messages.decode()),
    }


def _candidates(evidence: Evidence, answer: Answer | None, words: Words) -> list[dict[str, Any]]:
    ranks = {id_: at for at, id_ in enumerate(answer.stop.ranking if answer else (), 1)}
    returned = {sample.id for sample in answer.chosen} if answer else set()
    return [
        {
            **_sample(sample, evidence, words),
            "rank": ranks.get(sample.id),
            "returned": sample.id in returned,
            **_judgement(evidence, evidence.judgements.get(sample.id), words),
        }
        for sample in sorted(evidence.samples.values(), key=lambda sample: sample.index)
    ]


def _sample(sample: Sample, evidence: Evidence, words: Words) -> dict[str, Any]:
    known = evidence.samples
    calls = [{"name": call.name, "arguments": call.arguments} for call in sample.tool_calls]
    return {
        "index": sample.index,
        "id": sample.id,
        "draw": sample.key,
        "purpose": sample.purpose.value,
        "parents": [known[id_].index for id_ in sample.parents if id_ in known],
        "backend": sample.backend,
        "model": sample.model,
        "ended": sample.ended.value,
        "prompt_tokens": sample.prompt_tokens,
        "completion_tokens": sample.completion_tokens,
        "reasoning_tokens": sample.reasoning_tokens,
        "cost_usd": usd(sample.cost_nano),
        "seconds": round(sample.seconds, 3),
        **words.said("text", sample.path_text),
        **(words.said("tool_calls", encode(calls).decode()) if calls else {}),
    }


def _judgement(evidence: Evidence, judgement: Judgement | None, words: Words) -> dict[str, Any]:
    if judgement is None:
        return {"status": None, "votes": None, "verdicts": []}
    voted = evidence.votes.classes.get(judgement.answer_class or "")
    answer = judgement.answer
    return {
        "status": judgement.status.value,
        **({} if answer is None else words.said("answer", answer)),
        "votes": None if voted is None else voted.count,
        "verdicts": [_verdict(verdict, words.text) for verdict in judgement.verdicts],
    }


def _verdict(verdict: Verdict, text: bool) -> dict[str, Any]:
    return {
        "name": verdict.verifier,
        "status": verdict.status.value,
        "score": verdict.score,
        "assurance": verdict.assurance.value,
        "ms": round(verdict.ms, 2),
        "cost_usd": usd(verdict.cost_nano),
        **({"reason": verdict.reason, "feedback": verdict.feedback} if text else {}),
    }


def _comparisons(evidence: Evidence) -> list[dict[str, Any]]:
    indexes = {id_: sample.index for id_, sample in evidence.samples.items()}
    return [
        {
            "a": indexes.get(game.a),
            "b": indexes.get(game.b),
            "winner": indexes.get(game.winner or ""),
            "error": bool(game.error),
        }
        for games in evidence.comparisons.values()
        for game in games
    ]


def _decision(stop: Stop, text: bool) -> Mapping[str, Any]:
    # A policy of the operator's own may put anything in, words of the samples too.
    return {
        name: value
        for name, value in stop.details.items()
        if text or name == "rule" or isinstance(value, int | float)
    }
