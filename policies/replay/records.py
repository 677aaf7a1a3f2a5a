"""Recorded samples: what one problem and its samples are, as values and as JSON.

The classes are the format: docs/replay.md describes them field by field.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from samplewise.policies.price import Price
from samplewise.verifiers.base import Ended, LogprobSummary, Status

__all__ = [
    "Header",
    "Problem",
    "RecordedPrice",
    "RecordedSample",
    "RecordedVerdict",
    "prompt_tokens",
    "right",
]

_Count = Annotated[int, msgspec.Meta(ge=0, le=10**9)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e7)]
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Usd = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class RecordedPrice(_Record, frozen=True):
    """What a backend's tokens cost, in dollars per million."""

    input_usd_per_mtok: _Usd
    output_usd_per_mtok: _Usd

    def build(self) -> Price:
        """Return the price in whole numbers."""
        return Price.per_mtok(self.input_usd_per_mtok, self.output_usd_per_mtok, None)


class Header(_Record, frozen=True, omit_defaults=False):
    """The first line of a file: what it is, where it comes from, what tokens cost by backend."""

    samplewise: Literal["samples"] = "samples"
    version: Literal[1] = 1
    source: str = ""
    prices: dict[str, RecordedPrice] = {}


class RecordedVerdict(_Record, frozen=True):
    """What one verifier said of a sample."""

    status: Status = Status.NONE
    score: _Share | None = None
    step_scores: tuple[_Share, ...] = ()


class RecordedSample(_Record, frozen=True):
    """One sample. `parents` are places in the list of its problem, earlier than its own.

    `correct` is the truth, for counting only: no policy sees it unless it stands in for a verifier.
    `prompt_tokens` is given where it differs from the problem's.
    """

    text: str = ""
    answer: str | None = None
    correct: bool | None = None
    tokens: _Count = 0
    seconds: _Seconds | None = None
    ended: Ended = Ended.EOS
    verdicts: dict[str, RecordedVerdict] = {}
    logprobs: LogprobSummary | None = None
    backend: str = ""
    variant: str = ""
    source: Literal["fresh", "continue", "revise", "combine"] = "fresh"
    parents: tuple[_Count, ...] = ()
    prompt_tokens: _Count | None = None


class Problem(_Record, frozen=True):
    """One line of a file: a problem with all its samples."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
    samples: tuple[RecordedSample, ...]
    prompt: str = ""
    prompt_tokens: _Count = 0
    reference: str | None = None
    data: dict[str, Any] = {}

    def __post_init__(self) -> None:
        """Refuse descent that cannot be: a sample before its parents, or without any."""
        for place, sample in enumerate(self.samples):
            if any(parent >= place for parent in sample.parents):
                raise ValueError(f"samples[{place}].parents: must name earlier samples")
            if bool(sample.parents) == (sample.source == "fresh"):
                said = "needs parents" if sample.source != "fresh" else "has no parents"
                raise ValueError(f"samples[{place}].source: {sample.source} {said}")


def prompt_tokens(problem: Problem, sample: RecordedSample) -> int:
    """Return the length of the prompt that a sample was drawn from."""
    return problem.prompt_tokens if sample.prompt_tokens is None else sample.prompt_tokens


def right(problem: Problem, sample: RecordedSample) -> bool | None:
    """Say whether a sample is right: as recorded, else by the reference; None if nothing tells."""
    if sample.correct is not None:
        return sample.correct
    if problem.reference is None:
        return None
    return sample.answer == problem.reference
