"""Verifier `multi`: several graders and a formula over their scores, as OpenAI's grader `multi`."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Self

from samplewise.verifiers.asking import Biller, Cost, Metered, Tab
from samplewise.verifiers.base import (
    Assurance,
    Sample,
    Status,
    TakesTests,
    Task,
    Verdict,
    Verifier,
    VerifierError,
    VerifierSetupError,
)
from samplewise.verifiers.formula import Formula
from samplewise.verifiers.keys import own_key
from samplewise.verifiers.lifecycle import close_all, open_all
from samplewise.verifiers.strict_json import canonical

__all__ = ["MeteredMulti", "Multi"]

_ROUNDING = 1e-9  # 0.1 + 0.2 + 0.7 reaches a threshold of 1
_STRENGTH = tuple(Assurance)  # strongest first


@dataclass(frozen=True, slots=True, kw_only=True)
class Multi:
    """Runs all `graders` at once and joins them by `calculate_output`.

    `all`: fails when one fails, passes when all pass. `any`: passes when one passes, fails when all
    fail. Else a formula over the graders' names (see `Formula`): a grader counts as its score, or
    as 1 or 0 for a pass or a fail; the status is `none` unless `pass_threshold` says what passes.
    An error of a grader is an error unless the result does not depend on it. The canonical answer
    is that of the first grader, in their order, that gives one.

    Raises:
        VerifierSetupError: there is no grader, or the formula cannot be read.
    """

    name: str
    graders: Mapping[str, Verifier]
    calculate_output: str
    pass_threshold: float | None = None
    _rule: Literal["all", "any"] | Formula = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.graders:
            raise VerifierSetupError("graders: at least one is needed")
        text = self.calculate_output.strip()
        words: Mapping[str, Literal["all", "any"]] = {"all": "all", "any": "any"}
        rule = words.get(text) or Formula.parse(text, self.graders)
        object.__setattr__(self, "_rule", rule)

    @property
    def tool_calls(self) -> bool:
        """Whether turns which end in a tool call are for all graders."""
        return all(getattr(grader, "tool_calls", False) for grader in self.graders.values())

    async def open(self) -> None:
        """Open the graders."""
        await open_all(self.graders.values())

    async def close(self) -> None:
        """Close the graders."""
        await close_all(self.graders.values())

    def key(self, sample: Sample) -> str:
        """Return what decides the verdicts of all graders."""
        return canonical([own_key(grader, sample) for grader in self.graders.values()])

    def check_tests(self, tests: bytes) -> bool:
        """Return whether a grader would run these tests; raises `TestsError` for wrong ones."""
        takers = [grader for grader in self.graders.values() if isinstance(grader, TakesTests)]
        return any([grader.check_tests(tests) for grader in takers])

    async def verify(self, task: Task, sample: Sample) -> Verdict:
        """Judge; raises `VerifierError` when a grader that matters could not tell."""
        async with asyncio.TaskGroup() as group:
            tasks = {
                name: group.create_task(_outcome(grader, task, sample))
                for name, grader in self.graders.items()
            }
        outcomes = {name: done.result() for name, done in tasks.items()}
        verdicts = {n: v for n, v in outcomes.items() if isinstance(v, Verdict)}
        errors = {n: v for n, v in outcomes.items() if isinstance(v, VerifierError)}
        if isinstance(self._rule, Formula):
            status, score = self._calculate(self._rule, verdicts, errors)
            used: Collection[str] = self._rule.names
        else:
            status, used = _combine(self._rule, verdicts, errors)
            score = {Status.PASS: 1.0, Status.FAIL: 0.0}.get(status)
        return self._verdict(status, score, verdicts, used)

    def _calculate(
        self,
        formula: Formula,
        verdicts: Mapping[str, Verdict],
        errors: Mapping[str, VerifierError],
    ) -> tuple[Status, float | None]:
        _raise_first(errors, formula.names)
        scores = {name: _score(verdicts[name]) for name in formula.names}
        known = {name: score for name, score in scores.items() if score is not None}
        if len(known) < len(scores):
            return Status.NONE, None
        try:
            value = formula.evaluate(known)
        except (ArithmeticError, ValueError) as error:
            raise VerifierError(f"{formula.text}: {error}", reason="protocol") from None
        if self.pass_threshold is None:
            return Status.NONE, value
        enough = value >= self.pass_threshold - _ROUNDING
        return (Status.PASS if enough else Status.FAIL), value

    def _verdict(
        self,
        status: Status,
        value: float | None,
        verdicts: Mapping[str, Verdict],
        used: Collection[str],
    ) -> Verdict:
        inner = [verdicts[name] for name in self.graders if name in verdicts]
        failing = [v for name, v in verdicts.items() if name in used and v.status is Status.FAIL]
        shown = status is not Status.PASS
        return Verdict(
            self.name,
            status,
            score=None if value is None else min(1.0, max(0.0, value)),
            raw_score=value,
            answer=next((v.answer for v in inner if v.answer is not None), None),
            reason=next((v.reason for v in failing), "") if shown else "",
            feedback=" ".join(v.feedback for v in failing if v.feedback) if shown else "",
            assurance=max(
                (verdicts[name].assurance for name in used if name in verdicts),
                key=_STRENGTH.index,
                default=Assurance.HEURISTIC,
            ),
            cost_nano=sum(verdict.cost_nano for verdict in inner),
            details={name: {"status": v.status, "score": v.score} for name, v in verdicts.items()},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MeteredMulti(Multi):
    """Graders of which at least one asks a model."""

    @property
    def biller(self) -> Biller:
        """Who is paid."""
        return next(g.biller for g in self.graders.values() if isinstance(g, Metered))

    def answer_bytes(self, sample: Sample) -> int:
        """Return the most bytes that the sample takes in any grader's prompt."""
        asking = [g for g in self.graders.values() if isinstance(g, Metered)]
        return max((grader.answer_bytes(sample) for grader in asking), default=0)

    def worst(self, task: Task, answer_bytes: int) -> Cost:
        """Return the most that the graders can cost which ask models."""
        asking = [g for g in self.graders.values() if isinstance(g, Metered)]
        return sum((grader.worst(task, answer_bytes) for grader in asking), Cost())

    def on(self, tab: Tab) -> Self:
        """Return this verifier with what its graders cost going to a tab."""
        graders = {n: g.on(tab) if isinstance(g, Metered) else g for n, g in self.graders.items()}
        return replace(self, graders=graders)


async def _outcome(grader: Verifier, task: Task, sample: Sample) -> Verdict | VerifierError:
    try:
        return await grader.verify(task, sample)
    except VerifierError as error:
        return error


def _score(verdict: Verdict) -> float | None:
    if verdict.score is not None:
        return verdict.score
    return {Status.PASS: 1.0, Status.FAIL: 0.0}.get(verdict.status)


def _combine(
    rule: Literal["all", "any"],
    verdicts: Mapping[str, Verdict],
    errors: Mapping[str, VerifierError],
) -> tuple[Status, Collection[str]]:
    """Join by three-valued logic: one decisive verdict is enough, else none may be in doubt."""
    decisive, otherwise = Status.FAIL, Status.PASS
    if rule == "any":
        decisive, otherwise = Status.PASS, Status.FAIL
    deciding = [name for name, verdict in verdicts.items() if verdict.status is decisive]
    if deciding:
        return decisive, deciding
    _raise_first(errors, errors)
    agreed = all(verdict.status is otherwise for verdict in verdicts.values())
    return (otherwise if agreed else Status.NONE), list(verdicts)


def _raise_first(errors: Mapping[str, VerifierError], used: Collection[str]) -> None:
    for name, error in errors.items():
        if name in used:
            raise VerifierError(f"{name}: {error}", reason=error.reason)
