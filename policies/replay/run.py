"""What one replay of one problem came to."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Run"]


@dataclass(frozen=True, slots=True)
class Run:
    """One policy on one problem in one order.

    `chosen` is the place of the answer among the recorded samples, None without one. `tokens` are
    completion tokens of all samples, `nano_by_call` and `nano_by_wave` nano-dollars with the prompt
    paid for every sample and for every draw. `covered`: a right sample was among the finished ones.
    """

    chosen: int | None
    right: bool
    covered: bool
    samples: int
    waves: int
    tokens: int
    nano_by_call: int
    nano_by_wave: int
    seconds: float
    reason: str
