"""A verifier as a route uses it: when it runs, what it decides, its time limit, its price."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Literal

from samplewise.policies.price import NANO
from samplewise.proxy.asking import Models, Priced
from samplewise.proxy.build_verifiers import build_verifier
from samplewise.proxy.config_judges import ModelSettings
from samplewise.proxy.config_tools import LeanSettings
from samplewise.proxy.config_verifiers import (
    CodeTestsSettings,
    MultiSettings,
    PooledSettings,
    VerifierSettings,
)
from samplewise.verifiers.asking import Cost, Metered
from samplewise.verifiers.base import Equivalence, Immediate, Keyed, Selective, Task, Verifier
from samplewise.verifiers.final_answer import FinalAnswer

__all__ = ["Check", "make_check", "plain_voter"]

_MS_PER_HOUR = 3_600_000
_MARGIN_S = 1.0  # so that a verifier's own time limit strikes first, with its own words


@dataclass(frozen=True, slots=True)
class Check:
    """A verifier and its use. `timeout_s` includes the wait for a free worker.

    `usd_per_call_nano` is in nano-dollars per verdict, `cpu_hour_nano` in nano-dollars per hour.
    `spares` are the same verifier on other backends, for when the model of this one is not there.
    """

    name: str
    verifier: Verifier
    scope: Literal["final", "step"] = "final"
    when: Literal["always", "asked"] = "always"
    gate: bool = False
    required: bool = True
    timeout_s: float = 5.0
    usd_per_call_nano: int = 0
    cpu_hour_nano: int = 0
    spares: tuple[Check, ...] = ()
    # What the verifier can do beside `verify`. Asked once: to ask a protocol takes microseconds.
    keyed: Keyed | None = field(init=False)
    equivalence: Equivalence | None = field(init=False)
    immediate: bool = field(init=False)
    metered: Metered | None = field(init=False)
    selective: Selective | None = field(init=False)

    def __post_init__(self) -> None:
        """Look at what the verifier can do."""
        verifier: object = self.verifier
        object.__setattr__(self, "keyed", verifier if isinstance(verifier, Keyed) else None)
        equivalence = verifier if isinstance(verifier, Equivalence) else None
        object.__setattr__(self, "equivalence", equivalence)
        object.__setattr__(self, "metered", verifier if isinstance(verifier, Metered) else None)
        selective = verifier if isinstance(verifier, Selective) else None
        object.__setattr__(self, "selective", selective)
        # What is paid for may have to wait for its money.
        immediate = isinstance(verifier, Immediate) and verifier.immediate and not self.priced
        object.__setattr__(self, "immediate", immediate)

    @property
    def priced(self) -> bool:
        """Whether a verdict can cost anything."""
        return self.metered is not None or bool(self.usd_per_call_nano or self.cpu_hour_nano)

    def worst(self, task: Task, answer_bytes: int) -> Cost:
        """Return the most that a verdict can cost on answers of so many bytes, its models too.

        With spares: each attempt is paid as a verdict, and one of the models.
        """
        asked = Cost() if self.metered is None else self.metered.worst(task, answer_bytes)
        for spare in self.spares:
            if spare.metered is not None:
                other = spare.metered.worst(task, answer_bytes)
                asked = Cost(max(asked.nano, other.nano), max(asked.tokens, other.tokens))
        return asked + Cost(self.worst_nano() * (1 + len(self.spares)))

    def worst_nano(self) -> int:
        """Return the most that one verdict can cost beside models: one that takes all its time."""
        return self._at(math.ceil(self.timeout_s * 1000))

    def cost_nano(self, ms: float) -> int:
        """Return what a verdict costs that took so many milliseconds; never above the worst."""
        return self._at(min(math.ceil(max(ms, 0.0)), math.ceil(self.timeout_s * 1000)))

    def _at(self, ms: int) -> int:
        return self.usd_per_call_nano + -(-self.cpu_hour_nano * ms // _MS_PER_HOUR)


def make_check(name: str, settings: VerifierSettings, models: Models | None = None) -> Check:
    """Build a verifier with all its parts from its settings.

    Without `models`, verifiers that ask some can be looked at but not used.

    Raises:
        VerifierSetupError: it cannot be built; the message says what to change.
    """
    per_call, cpu_hour = _price(settings)
    others = settings.fallback if isinstance(settings, ModelSettings) else ()
    return Check(
        name=name,
        verifier=_build(name, settings, Priced() if models is None else models),
        scope=settings.scope,
        when=settings.when,
        gate=settings.gate,
        required=settings.required,
        timeout_s=_limit_s(settings),
        usd_per_call_nano=_nano(per_call),
        cpu_hour_nano=_nano(cpu_hour),
        spares=tuple(
            make_check(name, settings.model_copy(update={"model": other, "fallback": ()}), models)
            for other in others
        ),
    )


def plain_voter() -> Check:
    """Return what reads the votes where nothing is configured to: the final answer as text."""
    name = "final_answer"
    return Check(name=name, verifier=FinalAnswer(name=name), required=False)


def _build(name: str, settings: VerifierSettings, models: Models) -> Verifier:
    def child(name: str, settings: VerifierSettings) -> Verifier:
        return _build(name, settings, models)

    return build_verifier(name, settings, child, models)


def _limit_s(settings: VerifierSettings) -> float:
    if isinstance(settings, MultiSettings) and "timeout_s" not in settings.model_fields_set:
        return max(_limit_s(grader) for grader in settings.graders.values())
    wait_s = settings.queue_s if isinstance(settings, PooledSettings) else 0.0
    if isinstance(settings, LeanSettings):
        wait_s = settings.beyond_s
    if isinstance(settings, CodeTestsSettings) and settings.generator is not None:
        wait_s += settings.generator.timeout_s
    return settings.timeout_s + wait_s + _MARGIN_S


def _price(settings: VerifierSettings) -> tuple[Decimal, Decimal]:
    """Return dollars per call and per processor hour, with the parts of a `multi`."""
    price = settings.price
    per_call = Decimal(0) if price is None else price.usd_per_call
    cpu_hour = Decimal(0) if price is None else price.cpu_hour_usd
    if isinstance(settings, MultiSettings):
        for grader in settings.graders.values():
            inner = _price(grader)
            per_call, cpu_hour = per_call + inner[0], cpu_hour + inner[1]
    return per_call, cpu_hour


def _nano(amount: Decimal) -> int:
    return math.ceil(Fraction(amount) * NANO)
