"""An answer as an ordinary chat completion: one JSON object, or the pieces of a stream."""

from __future__ import annotations

from collections.abc import Mapping
from time import time
from typing import Any

from samplewise.policies.evidence import Judgement
from samplewise.policies.price import usd
from samplewise.proxy.job import Answer
from samplewise.proxy.jsontext import encode, members_of, object_text
from samplewise.verifiers.base import Ended, Sample

__all__ = ["choice_object", "completion", "finish_reason", "headers", "report", "usage_object"]

_LEFT = "x-samplewise-budget-remaining-usd"
_FINISH = frozenset(
    encode(reason) for reason in ("stop", "length", "tool_calls", "content_filter", "function_call")
)


def completion(answer: Answer) -> bytes:
    """Return the chat completion: the upstream's fields, our choices, bill and report."""
    head = {**members_of(answer.head), "object": b'"chat.completion"'}
    head.setdefault("id", encode(f"chatcmpl-{answer.job.request_id}"))
    head.setdefault("created", encode(int(time())))
    head["model"] = encode(answer.job.request.model)
    choices = [choice_object(answer, sample, i) for i, sample in enumerate(answer.chosen)]
    head["choices"] = b"[" + b",".join(choices) + b"]"
    head["usage"] = encode(usage_object(answer))
    head["samplewise"] = encode(report(answer))
    return object_text(head.items())


def choice_object(answer: Answer, sample: Sample, index: int) -> bytes:
    """Return a choice as the upstream sent it, with our index and the text of its whole path."""
    fields = members_of(sample.choice)
    fields["index"] = encode(index)
    fields["finish_reason"] = finish_reason(fields.get("finish_reason"), sample)
    if answer.job.request.top_logprobs is None:
        # Asked for by the policy, not by the client.
        fields.pop("logprobs", None)
    message = {**members_of(fields["message"]), "role": b'"assistant"'}
    if sample.path_text != sample.text:
        message["content"] = encode(sample.path_text)
    fields["message"] = object_text(message.items())
    return object_text(fields.items())


def finish_reason(reason: bytes | None, sample: Sample) -> bytes:
    """Return a sample's finish reason as JSON text: clients know few, and wait for one of them."""
    if sample.step and not sample.complete:
        return b'"length"'  # a path that was left before its end
    if reason is not None and reason in _FINISH:
        return reason
    return b'"length"' if sample.ended is Ended.LENGTH else b'"stop"'


def usage_object(answer: Answer) -> dict[str, Any]:
    """Return `usage`: the prompt once, and every completion token bought (or only the chosen's).

    Prompt tokens are those of one call: clients trim their history by that number. What was billed
    in all stands in the report.
    """
    whole = [s for s in answer.evidence.samples.values() if s.ended is not Ended.CUT]
    # Prompts that hold other samples are longer than the client's own.
    whole = [s for s in whole if not s.parents] or whole
    # The row that carries a call's prompt carries what was cached of it.
    paid = max(whole, key=lambda sample: sample.prompt_tokens)
    prompt = paid.prompt_tokens
    if answer.job.route.usage == "chosen":
        completion_tokens = sum(s.completion_tokens for s in answer.chosen)
        reasoning = sum(s.reasoning_tokens for s in answer.chosen)
    else:
        completion_tokens, reasoning = answer.usage.completion, answer.usage.reasoning
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": paid.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
        "cost": usd(answer.cost_nano),
    }


def report(answer: Answer) -> dict[str, Any]:
    """Return the `samplewise` object of an answer."""
    job, evidence, first = answer.job, answer.evidence, answer.chosen[0]
    judgement = evidence.judgements.get(first.id)
    limit = job.limit.nano
    said: dict[str, Any] = {
        "request_id": job.request_id,
        "route": job.route.name,
        **job.policy_told,
        "outcome": answer.outcome.value,
        "degraded": [word.value for word in answer.degraded],
        "stop_reason": answer.stop.reason.value,
        "samples": _counts(answer),
        "chosen": _chosen(answer, first, judgement),
        "decision": dict(answer.stop.details),
        "verifiers": _verdicts(judgement),
        "cost_usd": {
            "total": usd(answer.cost_nano),
            **{kind: usd(nano) for kind, nano in answer.costs.items()},
        },
        "tokens": {
            "prompt": answer.usage.prompt,
            "cached": answer.usage.cached,
            "completion": answer.usage.completion,
            "reasoning": answer.usage.reasoning,
        },
        "budget": {
            "limit_usd": None if limit is None else usd(limit),
            "remaining_usd": None if limit is None else usd(limit - answer.cost_nano),
        },
        "latency_ms": round(answer.seconds * 1000, 1),
        "warnings": list(answer.warnings),
    }
    if job.mirrored and job.route.mirror is not None:
        said["mirror"] = {"route": job.route.mirror.route, "request_id": job.mirrored}
    return said | _returned(answer)


def _counts(answer: Answer) -> dict[str, int]:
    evidence = answer.evidence
    return {
        "drawn": evidence.drawn,
        "ok": evidence.good,
        "errored": len(evidence.failed),
        "cancelled": len(evidence.samples) - evidence.good,
        "passed": evidence.passed,
        "rejected": evidence.rejected,
    }


def _chosen(answer: Answer, sample: Sample, judgement: Judgement | None) -> dict[str, Any]:
    classes = answer.evidence.votes.classes
    voted = classes.get(judgement.answer_class or "") if judgement else None
    return {
        "index": sample.index,
        "backend": sample.backend,
        "model": sample.model,
        "score": judgement.score() if judgement else None,
        "votes": voted.count if voted else None,
    }


def _verdicts(judgement: Judgement | None) -> list[dict[str, Any]]:
    return [
        {
            "name": verdict.verifier,
            "status": verdict.status.value,
            "score": verdict.score,
            "assurance": verdict.assurance.value,
            "ms": round(verdict.ms, 2),
        }
        for verdict in (judgement.verdicts if judgement else ())
    ]


def _whole(judgement: Judgement) -> list[dict[str, Any]]:
    """Return the verdicts with what led to them; why a verifier broke is for the operator's log."""
    return [
        {
            **said,
            "reason": verdict.reason,
            "details": {name: x for name, x in verdict.details.items() if name != "error"},
        }
        for said, verdict in zip(_verdicts(judgement), judgement.verdicts, strict=True)
    ]


def _returned(answer: Answer) -> dict[str, Any]:
    """Return what the request asked to see beside the answer."""
    evidence, wanted = answer.evidence, answer.job.request.options.returns
    extra: dict[str, Any] = {}
    if "candidates" in wanted:
        extra["candidates"] = [
            {
                "index": s.index,
                "backend": s.backend,
                "text": s.path_text,
                "ended": s.ended.value,
                "completion_tokens": s.completion_tokens,
            }
            for s in sorted(evidence.samples.values(), key=lambda s: s.index)
        ]
    if "verdicts" in wanted:
        extra["verdicts"] = [
            {"index": j.sample.index, "status": j.status.value, "verifiers": _whole(j)}
            for j in sorted(evidence.judgements.values(), key=lambda j: j.sample.index)
        ]
    if "votes" in wanted:
        classes = sorted(evidence.votes.classes.values(), key=lambda c: (-c.count, c.first_index))
        extra["votes"] = [{"answer": c.answer, "votes": c.count} for c in classes]
    return extra


def headers(answer: Answer) -> Mapping[str, str]:
    """Return the headers of an answer that is not streamed."""
    limit = answer.job.limit.nano
    left = {} if limit is None else {_LEFT: f"{usd(limit - answer.cost_nano):.9f}"}
    return {
        **left,
        "openai-version": "2020-10-01",
        "openai-processing-ms": str(round(answer.seconds * 1000)),
        "x-request-id": answer.job.request_id,
        "x-samplewise-cost-usd": f"{usd(answer.cost_nano):.9f}",
        "x-samplewise-samples": str(answer.evidence.drawn),
        "x-samplewise-outcome": answer.outcome.value,
    }
