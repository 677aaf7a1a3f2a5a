"""Run a route's verifiers over samples that are known to be right or wrong.

Each labelled sample goes through the engine as one that an earlier try of a request has bought, so
verifiers, their models, limits and the ledger are those of the running proxy.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from samplewise.policies.single import Single
from samplewise.proxy.calibration import Calibration, Counts, fit
from samplewise.proxy.engine import answer
from samplewise.proxy.errors import AnswerError, ConfigError, StoreError
from samplewise.proxy.jsontext import encode
from samplewise.proxy.service import Service
from samplewise.proxy.wire import parse_chat
from samplewise.verifiers.base import Ended, Sample, Status

__all__ = ["Labelled", "Measured", "Tried", "calibrate", "read_labelled"]

_MOST_SHOWN = 10


class Labelled(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One line of the file: a prompt or messages, an answer, and whether it is right."""

    answer: str
    label: bool
    # For the reader of the file, and because prompt files of `record` have it.
    id: str | None = None
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    reference: str | None = None
    item: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Refuse a line without a prompt, or with two."""
        if (self.prompt is None) == (not self.messages):
            raise ValueError("needs either `prompt` or `messages`")

    def body(self, route: str) -> bytes:
        """Return the request that this sample answers."""
        messages = self.messages or [{"role": "user", "content": self.prompt}]
        ours = {"reference": self.reference, "item": self.item}
        given = {name: value for name, value in ours.items() if value is not None}
        return encode({"model": route, "messages": messages, "samplewise": given})


@dataclass(frozen=True, slots=True)
class Tried:
    """What the verifiers said of one labelled sample; `reasons` are those of errors."""

    sample: Labelled
    status: Status
    nano: int = 0
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Measured:
    """The result: what goes into the file, what it cost, and why verdicts were errors."""

    calibration: Calibration
    nano: int
    reasons: Counter[str]


def read_labelled(lines: Iterable[bytes], name: str) -> list[Labelled]:
    """Read labelled samples, one JSON object a line; empty lines are left out.

    Raises:
        ConfigError: names every wrong line, the first ten in full.
    """
    found, wrong = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append(msgspec.json.decode(line, type=Labelled))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            wrong.append(f"{name}:{number}: {error}")
    if wrong:
        more = len(wrong) - _MOST_SHOWN
        rest = [f"{name}: {more} more lines are wrong"] if more > 0 else []
        raise ConfigError("\n".join([*wrong[:_MOST_SHOWN], *rest]))
    if not found:
        raise ConfigError(f"{name}: holds no samples")
    return found


async def calibrate(
    service: Service,
    route: str,
    samples: Sequence[Labelled],
    parallel: int,
    advance: Callable[[], None],
) -> Measured:
    """Judge all samples, so many at once, and count; `advance` is called after each.

    Raises:
        ConfigError: the route has no verifier that judges.
        StoreError: the ledger cannot be reached.
    """
    judges = [check.name for check in service.routes[route].checks if check.required]
    if not judges:
        raise ConfigError(f"routes.{route}: has no required verifier, so nothing passes or fails")
    places = asyncio.Semaphore(parallel)

    async def one(sample: Labelled) -> Tried:
        async with places:
            tried = await _try(service, route, sample)
        advance()
        return tried

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(sample)) for sample in samples]
    except* StoreError as errors:
        raise StoreError(str(errors.exceptions[0])) from errors
    tried = [task.result() for task in tasks]
    names = [check.name for check in service.routes[route].checks]
    return Measured(
        _counted(route, names, tried),
        sum(one.nano for one in tried),
        Counter(reason for one in tried for reason in one.reasons),
    )


async def _try(service: Service, route: str, labelled: Labelled) -> Tried:
    request_id = service.new_request_id()
    text = labelled.answer
    choice = encode({"index": 0, "message": {"role": "assistant", "content": text}})
    try:
        job = service.job(parse_chat(labelled.body(route), {}), request_id)
        job.policy, job.policy_name, job.chosen_name = Single(), "single", ""
        job.route = replace(job.route, on_unverified="return")
        backend = next(iter(job.route.upstreams))
        sample = Sample("", 0, text, text, Ended.EOS, choice=choice, backend=backend)
        job.pool = [sample]
        found = await answer(job, service.engine)
    except AnswerError as error:
        return Tried(labelled, Status.ERROR, reasons=(error.code or error.type,))
    judged = list(found.evidence.judgements.values())
    if not judged:
        return Tried(labelled, Status.NONE, found.cost_nano)
    errors = [v for v in judged[0].verdicts if v.status is Status.ERROR]
    reasons = tuple(f"{verdict.verifier}: {verdict.reason}" for verdict in errors)
    return Tried(labelled, judged[0].status, found.cost_nano, reasons)


def _counted(route: str, names: Sequence[str], tried: Sequence[Tried]) -> Calibration:
    prompts: dict[bytes, list[bool]] = {}
    for one in tried:
        prompts.setdefault(one.sample.body(""), []).append(one.sample.label)
    return Calibration(
        route=route,
        verifiers=sorted(names),
        prompts=len(prompts),
        right=_counts(one.status for one in tried if one.sample.label),
        wrong=_counts(one.status for one in tried if not one.sample.label),
        accuracy=fit([(sum(labels), len(labels)) for labels in prompts.values()]),
    )


def _counts(statuses: Iterable[Status]) -> Counts:
    said = Counter(statuses)
    return Counts(said[Status.PASS], said[Status.FAIL], said[Status.NONE], said[Status.ERROR])
