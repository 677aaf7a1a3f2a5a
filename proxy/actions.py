"""What a policy asks for, checked before it is carried out: an operator's own may ask anything.

What is wrong raises here, at once, and so is known for the policy's failure.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import structlog

from samplewise.policies.base import (
    WAIT,
    Action,
    Basis,
    Cancel,
    Combine,
    Compare,
    Continue,
    Draw,
    Fresh,
    Revise,
    Source,
    Stop,
    StopReason,
    Verify,
    Wait,
)
from samplewise.policies.evidence import Evidence
from samplewise.proxy.boundary import boundary
from samplewise.proxy.job import Job
from samplewise.proxy.jsontext import encode
from samplewise.proxy.prompts import TEMPLATES
from samplewise.verifiers.base import Purpose

__all__ = ["checked"]

_log = structlog.get_logger("samplewise.actions")


def checked(actions: Sequence[Action], job: Job, evidence: Evidence) -> Sequence[Action]:
    """Return the actions as they can be carried out.

    Raises:
        ValueError, TypeError: one of them cannot be; says why.
    """
    return actions if actions is WAIT else [_checked(action, job, evidence) for action in actions]


def _checked(action: Action, job: Job, evidence: Evidence) -> Action:
    match action:
        case Draw():
            _check_draw(action, job, evidence)
        case Verify():
            _known("verifier", [action.verifier], [check.name for check in job.route.checks])
        case Compare():
            _known("sample", [id_ for a, b in action.pairs for id_ in (a, b)], evidence.samples)
        case Wait():
            if action.until_s is not None:
                float(action.until_s)
        case Stop():
            return _written(action, job, evidence)
        case Cancel():
            pass
        case _:
            raise TypeError(f"{action!r} is no action")
    return action


def _check_draw(draw: Draw, job: Job, evidence: Evidence) -> None:
    if draw.backend:
        _known("backend", [draw.backend], job.route.upstreams)
    if not isinstance(draw.n, int):
        raise TypeError(f"draw {draw.key!r}: n must be a whole number, got {draw.n!r}")
    Purpose(draw.purpose)
    _check_source(draw.source, job, evidence)
    if draw.params:
        encode(dict(draw.params))
        if not isinstance(draw.params.get("max_tokens", 1), int):
            raise TypeError(f"draw {draw.key!r}: max_tokens must be a whole number")


def _check_source(source: Source, job: Job, evidence: Evidence) -> None:
    match source:
        case Fresh():
            if source.variant:
                _known("prompt", [source.variant], job.route.prompts)
        case Continue():
            _known("sample", [source.sample], evidence.samples)
        case Revise():
            _known("sample", source.samples, evidence.samples)
        case Combine():
            _known("sample", source.samples, evidence.samples)
            _known("template", [source.template], TEMPLATES)


def _known(what: str, names: Sequence[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"it names the {what} {name!r}, which is not there")


def _written(stop: Stop, job: Job, evidence: Evidence) -> Stop:
    """Return a stop that can be told: without the details that no JSON can hold."""
    _known("sample", stop.ranking, evidence.samples)
    reason, basis = StopReason(stop.reason), Basis(stop.basis)
    details = {name: value for name, value in stop.details.items() if _writable(name, value)}
    if len(details) < len(stop.details):
        lost = ", ".join(ascii(name) for name in stop.details if name not in details)
        _log.warning("policy's details left out", request_id=job.request_id, warning=lost)
        job.warnings.append(f"details of the route's policy cannot be written as JSON: {lost}")
    return Stop(tuple(stop.ranking), reason, basis, details)


def _writable(name: str, value: Any) -> bool:
    try:
        with boundary(_Unwritable):
            encode({name: value})
    except _Unwritable:
        return False
    return True


class _Unwritable(Exception):
    """JSON cannot hold this, or an operator's object broke while it was written."""
