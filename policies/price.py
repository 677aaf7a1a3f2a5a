"""Integer money: prices in pico-dollars per token, costs in nano-dollars, rounded up per sample."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

__all__ = ["NANO", "PICO_PER_NANO", "Price", "Usage", "nano_from_usd", "shown_usd", "usd"]

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
    """What one token costs, in whole pico-dollars. `version` goes into every ledger row.

    `reasoning_pico` is the price of completion tokens that are reasoning, None where they cost as
    much as others; `image_pico` that of an image in the prompt, beside its tokens.
    """

    prompt_pico: int
    cached_pico: int
    completion_pico: int
    version: str = ""
    reasoning_pico: int | None = None
    image_pico: int = 0

    @classmethod
    def per_mtok(
        cls,
        prompt_usd: float | str,
        completion_usd: float | str,
        cached_usd: float | str | None,
        *,
        reasoning_usd: float | str | None = None,
        image_usd: float | str | None = None,
    ) -> Price:
        """Build from dollars per million tokens, and per image; parts of a pico-dollar round up.

        Without a price for cached prompt tokens they cost as much as any other prompt token, and
        reasoning tokens as much as any other completion token.
        """
        prompt, completion = _pico(prompt_usd), _pico(completion_usd)
        cached = prompt if cached_usd is None else _pico(cached_usd)
        version = f"mtok:{prompt}/{cached}/{completion}"
        reasoning = None if reasoning_usd is None else _pico(reasoning_usd)
        if reasoning is not None:
            version += f"+reasoning:{reasoning}"
        image = 0 if image_usd is None else math.ceil(Fraction(str(image_usd)) * _PICO)
        if image:
            version += f"+image:{image}"
        return cls(prompt, cached, completion, version, reasoning, image)

    @classmethod
    def per_gpu_hour(cls, gpu_hour_usd: float | str, min_tokens_per_s: float | str) -> Price:
        """Build from the rent of a server and the completion tokens per second it always reaches.

        Every completion token costs rent / throughput; prompt tokens are inside that price. So the
        same figure serves the worst case and the bill, and a faster server bills no less.
        """
        rent = Fraction(str(gpu_hour_usd)) / 3600 / Fraction(str(min_tokens_per_s))
        completion = math.ceil(rent * _PICO)
        return cls(0, 0, completion, f"gpu:{completion}")

    def cost_nano(self, usage: Usage, images: int = 0) -> int:
        """Return what `usage` costs in nano-dollars, rounded up once."""
        reasoning = min(usage.reasoning, usage.completion)
        of_reasoning = self.completion_pico if self.reasoning_pico is None else self.reasoning_pico
        return self._nano(
            usage,
            (usage.completion - reasoning) * self.completion_pico + reasoning * of_reasoning,
            images,
        )

    def most_nano(self, usage: Usage, images: int = 0) -> int:
        """Return what `usage` costs at most where nobody says how much of it is reasoning."""
        return self._nano(usage, usage.completion * self._dearest, images)

    def worst_nano(self, prompt_tokens: int, completion_tokens: int, images: int = 0) -> int:
        """Return the most a call can cost: nothing cached, every allowed token generated."""
        cached = prompt_tokens if self.cached_pico > self.prompt_pico else 0
        return self.most_nano(Usage(prompt_tokens, cached, completion_tokens), images)

    def unused_nano(self, completion_tokens: int) -> int:
        """Return what a worst case holds for completion tokens that did not come, rounded down."""
        return completion_tokens * self._dearest // PICO_PER_NANO

    @property
    def _dearest(self) -> int:
        return max(self.completion_pico, self.reasoning_pico or 0)

    def _nano(self, usage: Usage, completion_pico: int, images: int) -> int:
        fresh = max(0, usage.prompt - usage.cached)
        pico = (
            fresh * self.prompt_pico
            + usage.cached * self.cached_pico
            + completion_pico
            + images * self.image_pico
        )
        return -(-pico // PICO_PER_NANO)


def _pico(usd_per_mtok: float | str) -> int:
    return math.ceil(Fraction(str(usd_per_mtok)) * _PICO / 1_000_000)


def nano_from_usd(amount: float | str) -> int:
    """Return whole nano-dollars of a limit, rounded down: a limit is never stretched."""
    return math.floor(Fraction(str(amount)) * NANO)


def usd(nano: int) -> float:
    """Return dollars for display. Sums are made in nano-dollars, never in this float."""
    return nano / NANO


def shown_usd(nano: int) -> str:
    """Return dollars as people write them: exact, at least two decimals, never an exponent."""
    whole, rest = divmod(nano, NANO)
    decimals = f"{rest:09d}".rstrip("0")
    return f"${whole:,}.{decimals:0<2}"
