"""From what a run has drawn to a line of a recording."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from samplewise.policies.base import Combine, Continue, Fresh, Revise, Source
from samplewise.policies.evidence import Evidence, Judgement
from samplewise.policies.price import Price
from samplewise.policies.replay.records import (
    Problem,
    RecordedPrice,
    RecordedSample,
    RecordedVerdict,
)
from samplewise.proxy.replay.prompts import Prompt
from samplewise.verifiers.base import Ended, Sample, Status, Verdict

__all__ = ["price_of", "recorded"]


def recorded(
    prompt: Prompt,
    evidence: Evidence,
    truth: str | None,
    *,
    timed: bool,
    sources: Mapping[str, Source] | None = None,
) -> Problem:
    """Return the problem with all samples that were not cut, in draw order.

    The verdict of the verifier `truth` becomes `correct`. Without `timed` samples shared a call,
    and none has a time of its own. `sources` says what each draw went out from (none: the prompt);
    a sample that came from one that was cut is left out with it.
    """
    drawn = sorted(evidence.samples.values(), key=lambda sample: sample.index)
    places: dict[str, int] = {}
    kept: list[Sample] = []
    for sample in drawn:
        if sample.ended is not Ended.CUT and all(parent in places for parent in sample.parents):
            places[sample.id] = len(kept)
            kept.append(sample)
    # A call with several samples has its prompt on the first of them.
    tokens = {s.backend: s.prompt_tokens for s in reversed(kept) if s.prompt_tokens}
    usual = tokens[kept[0].backend] if kept and kept[0].backend in tokens else 0
    return Problem(
        id=prompt.id,
        prompt=prompt.text,
        prompt_tokens=usual,
        reference=prompt.reference,
        data=prompt.data,
        samples=tuple(
            replace(
                _sample(
                    s, evidence.judgements.get(s.id), truth, tokens.get(s.backend, 0), usual, timed
                ),
                parents=tuple(places[parent] for parent in s.parents),
                **_source((sources or {}).get(s.key)),
            )
            for s in kept
        ),
    )


def price_of(price: Price) -> RecordedPrice:
    """Return a price as recordings hold it."""
    return RecordedPrice(price.prompt_pico / 1e6, price.completion_pico / 1e6)


def _source(source: Source | None) -> dict[str, Any]:
    match source:
        case Fresh(variant):
            return {"variant": variant}
        case Continue():
            return {"source": "continue"}
        case Revise():
            return {"source": "revise"}
        case Combine():
            return {"source": "combine"}
        case None:
            return {}


def _sample(
    sample: Sample,
    judgement: Judgement | None,
    truth: str | None,
    prompt_tokens: int,
    usual: int,
    timed: bool,
) -> RecordedSample:
    verdicts = () if judgement is None else judgement.verdicts
    told = [v.status for v in verdicts if v.verifier == truth]
    return RecordedSample(
        text=sample.text,
        # What failed has no vote class, but in a replay its answer may vote.
        answer=None if judgement is None else judgement.answer_class or judgement.answer,
        correct=_correct(told[0]) if told else None,
        tokens=sample.completion_tokens,
        seconds=round(sample.seconds, 4) if timed else None,
        ended=sample.ended,
        verdicts={v.verifier: _verdict(v) for v in verdicts if v.verifier != truth and _says(v)},
        logprobs=sample.logprobs,
        backend=sample.backend,
        prompt_tokens=None if prompt_tokens == usual else prompt_tokens,
    )


def _correct(status: Status) -> bool | None:
    return status is Status.PASS if status in (Status.PASS, Status.FAIL) else None


def _says(verdict: Verdict) -> bool:
    """Say whether a verdict holds more than an answer, which is recorded anyway."""
    return verdict.status is not Status.NONE or verdict.score is not None


def _verdict(verdict: Verdict) -> RecordedVerdict:
    return RecordedVerdict(verdict.status, verdict.score, verdict.step_scores)
