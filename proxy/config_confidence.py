"""`policy:` votes that weigh samples by the model's own confidence."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from samplewise.policies.base import Policy
from samplewise.policies.cisc import Cisc
from samplewise.policies.deepconf import DeepConf
from samplewise.policies.self_certainty import SelfCertainty
from samplewise.policies.weighing import Measure
from samplewise.proxy.config_types import Name, Settings

__all__ = ["CiscSettings", "DeepConfSettings", "SelfCertaintySettings"]

_Samples = Annotated[int, Field(ge=1, le=100_000)]
_Votes = Annotated[int, Field(ge=2, le=100_000)]


class DeepConfSettings(Settings):
    """A vote of the samples that the model was surest of; with `warmup` others are cut early."""

    type: Literal["deepconf"]
    samples: _Votes = 32
    keep: Annotated[float, Field(gt=0, le=1)] = 0.9
    measure: Measure = "lowest"
    group_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 2048
    warmup: _Votes | None = None
    share: Annotated[float, Field(gt=0.5, le=1)] = 0.95
    window: _Samples = 8
    min_ok: _Samples = 1

    def build(self) -> Policy:
        """Return the policy."""
        return DeepConf(
            samples=self.samples,
            keep=self.keep,
            measure=self.measure,
            group_tokens=self.group_tokens,
            warmup=self.warmup,
            share=self.share,
            window=self.window,
            min_ok=self.min_ok,
        )


class SelfCertaintySettings(Settings):
    """A vote that weighs samples by their rank in certainty."""

    type: Literal["self_certainty"]
    samples: _Votes = 8
    power: Annotated[float, Field(ge=0, le=100)] = 0.5
    min_ok: _Samples = 1

    def build(self) -> Policy:
        """Return the policy."""
        return SelfCertainty(self.samples, self.power, self.min_ok)


class CiscSettings(Settings):
    """A vote that weighs samples by the softmax of a score, or of their own probability."""

    type: Literal["cisc"]
    score: Name | None = None
    samples: _Votes = 8
    temperature: Annotated[float, Field(gt=0, le=1_000)] = 0.1
    min_ok: _Samples = 1

    def build(self) -> Policy:
        """Return the policy."""
        return Cisc(self.score or "", self.samples, self.temperature, self.min_ok)
