"""Integer money: prices in pico-dollars per token, costs in nano-dollars, rounded up per sample."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

__all__ = ["NANO", "PICO_PER_NANO", "Price", "Usage", "nano_from_usd", "usd"]

NANO = 1_000_000_000
PICO_PER_NANO = 1_000
_PICO = 10**12


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one sample, as billed. `reasoning` is part of `completion`, never added to it."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    reasoning: int = 0

    def __add__(self, other: Usage) -> Usage:
        """Add two usages field by field."""
        return Usage(
            self.prompt + other.prompt,
            self.cached + other.cached,
            self.completion + other.completion,
            self.reasoning + other.reasoning,
        )


@dataclass(frozen=True, slots=True)
class Price:
    """What one token costs, in whole pico-dollars. `version` goes into every ledger row."""

    prompt_pico: int
    cached_pico: int
    completion_pico: int
    version: str = ""

    @classmethod
    def per_mtok(
        cls, prompt_usd: float | str, completion_usd: float | str, cached_usd: float | str | None
    ) -> Price:
        """Build from dollars per million tokens; parts of a pico-dollar round up.

        Without a price for cached prompt tokens they cost as much as any other prompt token.
        """
        prompt, completion = _pico(prompt_usd), _pico(completion_usd)
        cached = prompt if cached_usd is None else _pico(cached_usd)
        return cls(prompt, cached, completion, f"mtok:{prompt}/{cached}/{completion}")

    @classmethod
    def per_gpu_hour(cls, gpu_hour_usd: float | str, min_tokens_per_s: float | str) -> Price:
        """Build from the rent of a server and the completion tokens per second it always reaches.

        Every completion token costs rent / throughput; prompt tokens are inside that price. So the
        same figure serves the worst case and the bill, and a faster server bills no less.
        """
        rent = Fraction(str(gpu_hour_usd)) / 3600 / Fraction(str(min_tokens_per_s))
        completion = math.ceil(rent * _PICO)
        return cls(0, 0, completion, f"gpu:{completion}")

    def cost_nano(self, usage: Usage) -> int:
        """Return what `usage` costs in nano-dollars, rounded up once."""
        fresh = max(0, usage.prompt - usage.cached)
        pico = (
            fresh * self.prompt_pico
            + usage.cached * self.cached_pico
            + usage.completion * self.completion_pico
        )
        return -(-pico // PICO_PER_NANO)

    def worst_nano(self, prompt_tokens: int, completion_tokens: int) -> int:
        """Return the most a call can cost: nothing cached, every allowed token generated."""
        dearest = max(self.prompt_pico, self.cached_pico)
        pico = prompt_tokens * dearest + completion_tokens * self.completion_pico
        return -(-pico // PICO_PER_NANO)

    def unused_nano(self, completion_tokens: int) -> int:
        """Return what a worst case holds for completion tokens that did not come, rounded down."""
        return completion_tokens * self.completion_pico // PICO_PER_NANO


def _pico(usd_per_mtok: float | str) -> int:
    return math.ceil(Fraction(str(usd_per_mtok)) * _PICO / 1_000_000)


def nano_from_usd(amount: float | str) -> int:
    """Return whole nano-dollars of a limit, rounded down: a limit is never stretched."""
    return math.floor(Fraction(str(amount)) * NANO)


def usd(nano: int) -> float:
    """Return dollars for display. Sums are made in nano-dollars, never in this float."""
    return nano / NANO
