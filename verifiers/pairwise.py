"""Comparator `pairwise`: a chat model says which of two samples is better, in both orders.

Judges prefer a place: asked in one order alone they flip in a fifth of the cases and more. So a
win counts only when both orders give it, and all else is a tie.
Source: Zheng et al. 2023, arXiv:2306.05685, sec. 3.4 (swapping positions, conservative).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Self

from samplewise.verifiers.asking import Biller, Cost, Tab
from samplewise.verifiers.base import Comparison, Sample, Task, Verdict
from samplewise.verifiers.judge_reading import read_word
from samplewise.verifiers.judges import Asking
from samplewise.verifiers.screening import screened
from samplewise.verifiers.verdicts import undecided

__all__ = ["Pairwise"]

_WORDS = ("first", "second", "tie")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairwise:
    """Compares two samples; which one is shown first at first comes from the request's seed.

    A tie in the first order is a tie, and spares the second. A sample that is not shown to a judge
    (see `screened`) loses against one that is.
    """

    name: str
    asking: Asking
    min_chars: int = 1
    tab: Tab = field(default_factory=lambda: Tab(""), repr=False, compare=False)

    @property
    def biller(self) -> Biller:
        """Who is paid."""
        return self.asking.model.biller

    def answer_bytes(self, sample: Sample) -> int:
        """Return how many bytes the sample takes in a prompt."""
        return self.asking.writer.answer_bytes(sample)

    def worst(self, task: Task, answer_bytes: int) -> Cost:
        """Return the most that one comparison can cost: both orders."""
        return self.asking.worst(task, answer_bytes) * 2

    def on(self, tab: Tab) -> Self:
        """Return this comparator with its costs going to a tab."""
        return replace(self, tab=tab)

    async def verify(self, task: Task, sample: Sample) -> Verdict:
        """Give no judgement: one sample alone cannot be compared."""
        return undecided(self.name, None, "compares")

    async def compare(self, task: Task, a: Sample, b: Sample) -> Comparison:
        """Compare; raises `VerifierError` when an order has no readable reply."""
        shown = [screened(self.name, sample, self.min_chars) is None for sample in (a, b)]
        if not all(shown):
            winner = a.id if shown[0] else b.id if shown[1] else None
            return Comparison(a.id, b.id, winner)
        swapped = random.Random(f"{task.seed}:{a.id}:{b.id}").random() < 0.5
        first, second = (b, a) if swapped else (a, b)
        winner = await self._better(task, first, second)
        if winner is not None and winner != await self._better(task, second, first):
            winner = None
        return Comparison(a.id, b.id, winner, order="ba" if swapped else "ab")

    async def _better(self, task: Task, first: Sample, second: Sample) -> str | None:
        reply = await self.asking.ask(task, (first, second), self.tab)
        word = read_word(reply.text, "better", _WORDS)
        return {"first": first.id, "second": second.id}.get(word)
