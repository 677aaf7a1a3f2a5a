"""Source `generated` of `code_tests`: a model writes the tests, and samples agree on them or not.

Source: Chen et al. 2022, arXiv:2207.10397, section 3 (CodeT). Nothing passes by such tests, since
they are as often wrong as their writer: with Reflexion (arXiv:2303.11366) programs that were mended
by tests of their own fell from 80.1 to 77.1 % on MBPP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from samplewise.verifiers.answers import strip_thinking
from samplewise.verifiers.asking import Biller, ChatModel, Cost, Question, Tab, Writer
from samplewise.verifiers.base import (
    Assurance,
    Sample,
    Status,
    Task,
    Verdict,
    VerifierError,
)
from samplewise.verifiers.code.prompt_tests import asserts_in
from samplewise.verifiers.code.suite import Suite
from samplewise.verifiers.code_tests import CodeTests

__all__ = ["GeneratingTests", "Generator"]

_MOST_CHARS = 2000  # of one assert
_MOST_KEPT = 1024  # requests

Written = tuple[str, ...] | VerifierError


@dataclass(slots=True, kw_only=True)
class Generator:
    """Asks a model for `sets` sets of asserts and keeps the first `per_set` of each.

    `known` holds what was written for each request, for all its samples; the oldest are forgotten.
    """

    model: ChatModel
    writer: Writer
    sets: int = 4
    per_set: int = 5
    max_tokens: int = 1024
    params: Mapping[str, Any] = field(default_factory=dict)
    known: dict[str, asyncio.Future[Written]] = field(default_factory=dict)

    def worst(self, task: Task) -> Cost:
        """Return the most that the tests of one request cost."""
        return self.model.worst(self.writer.fixed_bytes(task), self.max_tokens) * self.sets

    async def asserts(self, task: Task, tab: Tab) -> tuple[str, ...]:
        """Return the tests of a request; who asks first pays for them.

        Raises:
            VerifierError: the model wrote none, or could not be asked.
        """
        while (found := self.known.get(task.request_id)) is not None:
            await asyncio.wait([found])
            if not found.cancelled():
                return _or_raise(found.result())
        mine: asyncio.Future[Written] = asyncio.get_running_loop().create_future()
        self.known[task.request_id] = mine
        while len(self.known) > _MOST_KEPT:
            del self.known[next(iter(self.known))]
        try:
            mine.set_result(await self._written(task, tab))
        finally:
            if not mine.done():  # cut: the next who asks begins anew
                self.known.pop(task.request_id, None)
                mine.cancel()
        return _or_raise(mine.result())

    async def _written(self, task: Task, tab: Tab) -> Written:
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self._set(task, tab)) for _ in range(self.sets)]
        sets = [done.result() for done in asked]
        written = tuple(line for each in sets if isinstance(each, tuple) for line in each)
        if written:
            return written
        errors = [each for each in sets if isinstance(each, VerifierError)]
        return errors[0] if errors else VerifierError("the model wrote no test", reason="protocol")

    async def _set(self, task: Task, tab: Tab) -> Written:
        question = Question(self.writer.write(task, ()), self.max_tokens, self.params)
        try:
            reply = await self.model.ask(question, tab)
        except VerifierError as error:
            return error
        lines = await asyncio.to_thread(_asserts, reply.text)
        return lines[: self.per_set]


def _or_raise(written: Written) -> tuple[str, ...]:
    if isinstance(written, VerifierError):
        raise written
    return written


def _asserts(text: str) -> tuple[str, ...]:
    lines = strip_thinking(text).splitlines()
    return tuple(line for line in asserts_in(lines) if len(line) <= _MOST_CHARS)


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratingTests:
    """`code_tests` that has tests written where no other source has some.

    By written tests a sample neither passes nor fails: its step scores say which it passed, 1 or 0
    each and the same for all samples of a request, for the policy `agreement`.
    """

    tests: CodeTests
    generator: Generator
    tab: Tab = field(default_factory=lambda: Tab(""), repr=False, compare=False)

    @property
    def name(self) -> str:
        """The name of the verifier."""
        return self.tests.name

    @property
    def biller(self) -> Biller:
        """Who is paid."""
        return self.generator.model.biller

    async def open(self) -> None:
        """Open the sandbox; raises `VerifierSetupError`."""
        await self.tests.open()

    async def close(self) -> None:
        """Close the sandbox."""
        await self.tests.close()

    def check_tests(self, tests: bytes) -> bool:
        """Check the tests of a request before it costs anything; raises `TestsError`."""
        return self.tests.check_tests(tests)

    def key(self, sample: Sample) -> str:
        """Return the program: samples that share it share the verdict."""
        return self.tests.key(sample)

    def answer_bytes(self, sample: Sample) -> int:
        """Return what a sample adds to a prompt: nothing."""
        return self.generator.writer.answer_bytes(sample)

    def worst(self, task: Task, answer_bytes: int) -> Cost:
        """Return the most that one verdict can cost: the first of a request pays for its tests."""
        given = task.tests is not None and "request" in self.tests.sources
        return Cost() if given or self.tests.tests is not None else self.generator.worst(task)

    def on(self, tab: Tab) -> Self:
        """Return this verifier with its costs going to a tab."""
        return replace(self, tab=tab)

    async def verify(self, task: Task, sample: Sample) -> Verdict:
        """Run the tests that there are, or those that are written for this request.

        Raises:
            VerifierError: as `code_tests`, or the model wrote no tests.
        """
        source, suite = await self.tests.suite(task)
        if suite is not None:
            return (await self.tests.judge(sample, source, suite))[0]
        written = await self.generator.asserts(task, self.tab)
        once = list(dict.fromkeys(written))
        verdict, results = await self.tests.judge(sample, "generated", Suite(asserts=once))
        if not results:
            return verdict  # no program at all
        held = {line: float(not r.reason) for line, r in zip(once, results, strict=True)}
        return replace(
            verdict,
            status=Status.NONE,
            # One that was written twice counts twice.
            step_scores=tuple(held[line] for line in written),
            assurance=Assurance.MODEL,
        )
