"""Verifiers `score_model` and `label_model`: a chat model as judge of one sample.

Source: OpenAI's graders of these names. Deviations: what a candidate says reaches the judge as data
(see `Writer`), and a reply that cannot be read is an error, not a score of 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import msgspec

from samplewise.verifiers.answers import strip_thinking
from samplewise.verifiers.asking import (
    Biller,
    ChatModel,
    Cost,
    Question,
    Refused,
    Reply,
    Tab,
    Writer,
)
from samplewise.verifiers.base import Assurance, Sample, Status, Task, Verdict, VerifierError
from samplewise.verifiers.judge_reading import read_number, read_word
from samplewise.verifiers.screening import screened

__all__ = ["Asking", "LabelModel", "ScoreModel", "status_of"]

_FORMS = ("json_schema", "json_object", "")


@dataclass(slots=True, kw_only=True)
class Asking:
    """How a judge asks its model: who writes the prompt, the limits, and the form of the reply.

    The reply is asked for as JSON of `schema` where the server can do that, else as any JSON, else
    in words alone. `form` is what the server was found to take; shared by all verdicts. Without a
    schema words are asked for.
    """

    model: ChatModel
    writer: Writer
    schema: Mapping[str, Any] | None = None
    max_tokens: int = 512
    max_answer_bytes: int = 32_768
    params: Mapping[str, Any] = field(default_factory=dict)
    form: int = 0

    def __post_init__(self) -> None:
        """Ask in words where there is no schema."""
        if self.schema is None:
            self.form = len(_FORMS) - 1

    def worst(self, task: Task, answer_bytes: int) -> Cost:
        """Return the most that one call costs about answers of so many bytes together."""
        # A server may write the form of the reply into the prompt.
        form = len(msgspec.json.encode(self._format(0))) if self.schema is not None else 0
        shown = min(answer_bytes, 2 * self.max_answer_bytes)
        size = self.writer.fixed_bytes(task) + shown + form
        return self.model.worst(size, self.max_tokens)

    async def ask(self, task: Task, samples: tuple[Sample, ...], tab: Tab) -> Reply:
        """Ask about samples, in this order.

        Raises:
            VerifierError: `too_long` when one is longer than the limit; else there is no reply.
        """
        for sample in samples:
            size = self.writer.answer_bytes(sample)
            if size > self.max_answer_bytes:
                raise VerifierError(
                    f"the answer has {size} bytes, more than max_answer_bytes: "
                    f"{self.max_answer_bytes}",
                    reason="too_long",
                )
        messages = self.writer.write(task, samples)
        for form in range(self.form, len(_FORMS)):
            params = {**self.params, **self._format(form)}
            try:
                reply = await self.model.ask(Question(messages, self.max_tokens, params), tab)
            except Refused:
                # Only what works without it was refused for its form: else the fault is another.
                if form + 1 == len(_FORMS):
                    raise
            else:
                self.form = max(self.form, form)
                return reply
        raise AssertionError("the last form either works or raises")

    def _format(self, form: int) -> dict[str, Any]:
        kind = _FORMS[form]
        if not kind:
            return {}
        if kind == "json_object":
            return {"response_format": {"type": kind}}
        wanted = {"name": "verdict", "strict": True, "schema": self.schema}
        return {"response_format": {"type": kind, kind: wanted}}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judge:
    """What judges of one sample share. `min_chars`: fewer letters and digits are not judged."""

    name: str
    asking: Asking
    min_chars: int = 1
    tab: Tab = field(default_factory=lambda: Tab(""), repr=False, compare=False)

    def key(self, sample: Sample) -> str:
        """Return what the judge is shown."""
        return strip_thinking(sample.path_text)

    @property
    def biller(self) -> Biller:
        """Who is paid."""
        return self.asking.model.biller

    def answer_bytes(self, sample: Sample) -> int:
        """Return how many bytes the sample takes in a prompt."""
        return self.asking.writer.answer_bytes(sample)

    def worst(self, task: Task, answer_bytes: int) -> Cost:
        """Return the most that one verdict can cost."""
        return self.asking.worst(task, answer_bytes)

    def on(self, tab: Tab) -> Self:
        """Return this judge with its costs going to a tab."""
        return replace(self, tab=tab)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreModel(_Judge):
    """Asks for a number from `low` to `high`; `score` is its place between them.

    With `pass_threshold`, on the judge's own scale, it judges; without it gives only the score.
    """

    low: float = 0.0
    high: float = 1.0
    pass_threshold: float | None = None

    async def verify(self, task: Task, sample: Sample) -> Verdict:
        """Ask; raises `VerifierError` without a number in the range."""
        verdict = screened(self.name, sample, self.min_chars)
        if verdict is not None:
            return verdict
        reply = await self.asking.ask(task, (sample,), self.tab)
        raw = read_number(reply.text, "score")
        if not self.low <= raw <= self.high:
            raise VerifierError(
                f"the judge's score {raw:g} is not from {self.low:g} to {self.high:g}",
                reason="protocol",
            )
        return Verdict(
            self.name,
            status_of(raw, self.pass_threshold),
            score=(raw - self.low) / (self.high - self.low),
            raw_score=raw,
            assurance=Assurance.MODEL,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelModel(_Judge):
    """Asks for one of `labels`; those in `passing_labels` pass, all others fail."""

    labels: tuple[str, ...]
    passing_labels: frozenset[str]

    async def verify(self, task: Task, sample: Sample) -> Verdict:
        """Ask; raises `VerifierError` without one of the labels."""
        verdict = screened(self.name, sample, self.min_chars)
        if verdict is not None:
            return verdict
        reply = await self.asking.ask(task, (sample,), self.tab)
        label = read_word(reply.text, "label", self.labels)
        passed = label in self.passing_labels
        return Verdict(
            self.name,
            Status.PASS if passed else Status.FAIL,
            score=float(passed),
            reason="" if passed else "label",
            assurance=Assurance.MODEL,
            details={"label": label},
        )


def status_of(score: float, threshold: float | None) -> Status:
    """Return what a score says: pass or fail by a threshold, no judgement without one."""
    if threshold is None:
        return Status.NONE
    return Status.PASS if score >= threshold else Status.FAIL
