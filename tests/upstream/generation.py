"""Generates the planned tokens of a call at their scripted times, counting each as it comes."""

from __future__ import annotations

import asyncio
from typing import Protocol

from tests.upstream.job import Job

__all__ = ["Generation", "Sink", "Spoilt"]


class Spoilt(Exception):
    """As many tokens are out as the scripted fault waits for."""


class Sink(Protocol):
    """Where tokens go as they are generated."""

    def token(self, choice: int, at: int) -> None:
        """Take token `at` of a choice."""

    def push(self, choice: int) -> None:
        """Let go of what was kept back of a choice."""

    def close(self, choice: int) -> None:
        """Take note that a choice is complete."""

    async def flush(self) -> None:
        """Send what has come."""


class _Nowhere:
    """The sink of an answer that is sent as one."""

    def token(self, choice: int, at: int) -> None:
        """Drop it."""

    def push(self, choice: int) -> None:
        """Do nothing."""

    def close(self, choice: int) -> None:
        """Do nothing."""

    async def flush(self) -> None:
        """Do nothing."""


class Generation:
    """The generation of one call; Spoilt breaks it off after `after` tokens or at the end."""

    def __init__(self, job: Job, after: int | None, sink: Sink | None = None) -> None:
        self._job = job
        self._after = after
        self._sink = sink or _Nowhere()
        self._bulk = sink is None and after is None
        self._total = 0

    async def run(self) -> None:
        """Generate. Raise Spoilt if there is a fault to wait for."""
        if self._after == 0:
            raise Spoilt
        choices = self._job.choices
        if not any(choice.timing.paced for choice in choices):
            await self._at_once()
        elif len(choices) == 1:
            await self._paced(0)
        else:
            await self._all_paced()
        if self._after is not None:
            raise Spoilt

    async def _at_once(self) -> None:
        choices = self._job.choices
        if self._bulk:
            for index, choice in enumerate(choices):
                self._job.call.generated(index, len(choice.tokens))
            return
        for at in range(max((len(choice.tokens) for choice in choices), default=0) + 1):
            for index, choice in enumerate(choices):
                if at < len(choice.tokens):
                    self._token(index, at)
                elif at == len(choice.tokens):
                    self._sink.close(index)
            await self._sink.flush()

    async def _all_paced(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for index in range(len(self._job.choices)):
                    group.create_task(self._paced(index))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _paced(self, index: int) -> None:
        choice = self._job.choices[index]
        for at in range(len(choice.tokens)):
            await self._pause(index, at)
            self._token(index, at)
            await self._sink.flush()
        if choice.timing.hold_after >= len(choice.tokens):
            await self._hold(index)
        self._sink.close(index)
        await self._sink.flush()

    async def _pause(self, index: int, at: int) -> None:
        timing = self._job.choices[index].timing
        if at == timing.hold_after:
            await self._hold(index)
        pause_s = timing.token_delay_s if at else timing.delay_s
        if pause_s:
            await asyncio.sleep(pause_s)

    async def _hold(self, index: int) -> None:
        gate = self._job.choices[index].timing.hold
        if gate:
            self._sink.push(index)
            await self._sink.flush()
            await self._job.call.hold(gate)

    def _token(self, index: int, at: int) -> None:
        self._total += 1
        self._job.call.generated(index)
        self._sink.token(index, at)
        if self._total == self._after:
            raise Spoilt
