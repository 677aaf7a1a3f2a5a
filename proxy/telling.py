"""What a waiting client is told of its samples: one short line for each, no word of theirs."""

from __future__ import annotations

from samplewise.policies.evidence import Event, Evidence, Failed, Finished, Judged
from samplewise.verifiers.base import Purpose, Sample, Status

__all__ = ["told"]

_SAID = {
    Status.PASS: "passed",
    Status.FAIL: "did not pass",
    Status.NONE: "is in",
    Status.ERROR: "could not be checked",
}


def told(event: Event, evidence: Evidence, most: int) -> str:
    """Return a line about an event, such as `sample 3/8 passed`; empty for most events.

    `most` is how many samples the request may draw. Samples are counted from 1, in draw order.
    """
    match event:
        case Finished(sample, verifying=False):
            return _line(sample, "is in" if sample.complete else "was cut", most)
        case Judged(judgement):
            return _line(judgement.sample, _SAID[judgement.status], most)
        case Failed():
            return f"sample {event.index + 1}/{most} was lost\n"
    return ""


def _line(sample: Sample, what: str, most: int) -> str:
    return f"sample {sample.index + 1}/{most} {what}\n" if sample.purpose is Purpose.ANSWER else ""
