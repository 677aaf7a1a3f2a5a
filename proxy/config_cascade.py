"""`policy:` what chooses between backends: cascades with their gates, and a model with a number."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field

from samplewise.policies.base import Policy
from samplewise.policies.cascade import Cascade
from samplewise.policies.model_choice import Model, ModelChoice
from samplewise.policies.tiers import Beside, Tier
from samplewise.proxy.config_types import Count, Many, Name, Settings

__all__ = [
    "BesideSettings",
    "CascadeSettings",
    "ChoiceSettings",
    "ModelChoiceSettings",
    "TierSettings",
]

T = TypeVar("T")


def _two(value: tuple[T, ...]) -> tuple[T, ...]:
    if len(value) < 2:
        raise ValueError("must list at least two")
    return value


_Samples = Annotated[int, Field(ge=1, le=100_000)]
_Share = Annotated[float, Field(gt=0, le=1)]


class BesideSettings(Settings):
    """A second panel of a tier, by another model or another prompt."""

    backend: Name | None = None
    samples: _Samples = 1
    prompt: Name | None = None

    def build(self) -> Beside:
        """Return the panel."""
        return Beside(self.backend or "", self.samples, self.prompt or "")


class TierSettings(Settings):
    """One step of a cascade; it is good enough when all gates hold that are set.

    Without any, only a verified sample is.
    """

    backend: Name
    samples: _Samples = 1
    prompt: Name | None = None
    agreement: _Share | None = None
    beside: BesideSettings | None = None
    score: Name | None = None
    min_score: Annotated[float, Field(ge=0, le=1)] | None = None
    escalate: Annotated[float, Field(gt=0, lt=1)] | None = None

    def build(self) -> Tier:
        """Return the tier."""
        return Tier(
            backend=self.backend,
            samples=self.samples,
            agreement=self.agreement,
            prompt=self.prompt or "",
            beside=None if self.beside is None else self.beside.build(),
            score=self.score or "",
            min_score=self.min_score,
            escalate=self.escalate,
        )


class CascadeSettings(Settings):
    """Backend after backend until one is good enough."""

    type: Literal["cascade"]
    tiers: Annotated[Many[TierSettings], AfterValidator(_two)]
    min_ok: _Samples = 1

    def build(self) -> Policy:
        """Return the policy."""
        return Cascade(tuple(tier.build() for tier in self.tiers), self.min_ok)


class ChoiceSettings(Settings):
    """A backend that may be chosen; `alpha` and `beta` as `samplewise curve` fits them."""

    backend: Name
    samples: _Samples
    alpha: Annotated[float, Field(gt=0, le=1_000_000)]
    beta: Annotated[float, Field(gt=0, le=1_000_000)]
    tokens: Count = 500

    def build(self) -> Model:
        """Return the model."""
        return Model(self.backend, self.samples, self.alpha, self.beta, self.tokens)


class ModelChoiceSettings(Settings):
    """The cheapest model and number of samples that are likely enough to pass."""

    type: Literal["model_choice"]
    models: Annotated[Many[ChoiceSettings], AfterValidator(_two)]
    chance: Annotated[float, Field(gt=0, lt=1)] = 0.9
    min_ok: _Samples = 1

    def build(self) -> Policy:
        """Return the policy."""
        return ModelChoice(tuple(model.build() for model in self.models), self.chance, self.min_ok)
