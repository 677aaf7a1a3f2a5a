"""Answers as an ordinary text completion: one JSON object, or the pieces of a stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from time import time
from typing import Any

from samplewise.policies.price import usd
from samplewise.proxy.completion import finish_reason, report, usage_object
from samplewise.proxy.completion import headers as one_headers
from samplewise.proxy.job import Answer
from samplewise.proxy.jsontext import encode, members_of, object_text
from samplewise.proxy.sse import event
from samplewise.verifiers.base import Sample

__all__ = ["headers", "text_chunks", "text_completion", "text_report"]

_KIND = b'"text_completion"'


def text_completion(answers: Sequence[Answer]) -> bytes:
    """Return the completion of prompts, in their order; choices of one prompt stand together."""
    head = _head(answers)
    head["choices"] = b"[" + b",".join(_choices(answers)) + b"]"
    head["usage"] = encode(_usage(answers))
    head["samplewise"] = encode(text_report(answers))
    return object_text(head.items())


def text_chunks(answers: Sequence[Answer]) -> Iterator[bytes]:
    """Yield the completion as events, one a choice, without `[DONE]`.

    The `samplewise` object is on the last event: that of the usage where one is asked for.
    """
    head = _head(answers)
    with_usage = answers[0].job.include_usage
    if with_usage:
        head["usage"] = b"null"
    choices = _choices(answers)
    for number, choice in enumerate(choices):
        fields = {**head, "choices": b"[" + choice + b"]"}
        if number == len(choices) - 1 and not with_usage:
            fields["samplewise"] = encode(text_report(answers))
        yield event(object_text(fields.items()))
    if with_usage:
        said = {"usage": encode(_usage(answers)), "samplewise": encode(text_report(answers))}
        yield event(object_text({**head, "choices": b"[]", **said}.items()))


def _head(answers: Sequence[Answer]) -> dict[str, bytes]:
    job = answers[0].job
    head = {**members_of(answers[0].head), "object": _KIND}
    head.setdefault("id", encode(f"cmpl-{job.request_id}"))
    head.setdefault("created", encode(int(time())))
    head["model"] = encode(job.request.model)
    return head


def _choices(answers: Sequence[Answer]) -> list[bytes]:
    chosen = [(answer, sample) for answer in answers for sample in answer.chosen]
    return [_choice(answer, sample, i) for i, (answer, sample) in enumerate(chosen)]


def _choice(answer: Answer, sample: Sample, index: int) -> bytes:
    """Return a choice as the upstream sent it, with our index."""
    fields = members_of(sample.choice)
    fields["index"] = encode(index)
    fields["finish_reason"] = finish_reason(fields.get("finish_reason"), sample)
    if answer.job.request.fields.get("logprobs", b"null") == b"null":
        # Asked for by the policy, not by the client; the field itself is never missing.
        fields["logprobs"] = b"null"
    return object_text(fields.items())


def _usage(answers: Sequence[Answer]) -> dict[str, Any]:
    """Return `usage` of all prompts together."""
    whole, *others = [usage_object(answer) for answer in answers]
    for used in others:
        for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
            whole[name] += used[name]
        for name in ("prompt_tokens_details", "completion_tokens_details"):
            whole[name] = {key: whole[name][key] + count for key, count in used[name].items()}
    whole["cost"] = usd(_cost(answers))
    return whole


def text_report(answers: Sequence[Answer]) -> dict[str, Any]:
    """Return the `samplewise` object: of one prompt its own, of several all of theirs."""
    if len(answers) == 1:
        return report(answers[0])
    job, kinds = answers[0].job, ("generation", "verification")
    parts = {kind: usd(sum(answer.costs.get(kind, 0) for answer in answers)) for kind in kinds}
    return {
        "request_id": job.request_id,
        "route": job.route.name,
        "cost_usd": {"total": usd(_cost(answers)), **parts},
        "prompts": [report(answer) for answer in answers],
    }


def headers(answers: Sequence[Answer]) -> Mapping[str, str]:
    """Return the headers of a completion that is not streamed."""
    said = dict(one_headers(answers[0]))
    if len(answers) > 1:
        # What is left of a request's own limit is of one prompt.
        said.pop("x-samplewise-budget-remaining-usd", None)
        outcomes = {answer.outcome.value for answer in answers}
        said["x-samplewise-outcome"] = outcomes.pop() if len(outcomes) == 1 else "mixed"
    return {
        **said,
        "x-samplewise-cost-usd": f"{usd(_cost(answers)):.9f}",
        "x-samplewise-samples": str(sum(answer.evidence.drawn for answer in answers)),
    }


def _cost(answers: Sequence[Answer]) -> int:
    return sum(answer.cost_nano for answer in answers)
