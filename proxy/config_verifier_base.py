"""Settings that all verifiers share."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field

from samplewise.proxy.config_types import Amount, Seconds, Settings

__all__ = ["Megabytes", "PooledSettings", "VerifierPriceSettings", "Workers", "_VerifierSettings"]

Workers = Annotated[int, Field(ge=1, le=64)]
Megabytes = Annotated[int, Field(ge=64, le=1_048_576)]


class VerifierPriceSettings(Settings):
    """What verdicts cost, in dollars: per call, and per hour that a processor is busy with them."""

    usd_per_call: Amount = Decimal(0)
    cpu_hour_usd: Amount = Decimal(0)


class _VerifierSettings(Settings):
    """What all verifiers share.

    `scope`: whole answers or single steps; `when: asked`: only when a policy asks; `gate`: runs
    first, and a fail ends the verification; `required`: a sample passes only if this one passes.
    """

    scope: Literal["final", "step"] = "final"
    when: Literal["always", "asked"] = "always"
    gate: bool = False
    required: bool = True
    timeout_s: Seconds = 5.0
    price: VerifierPriceSettings | None = None


class PooledSettings(_VerifierSettings):
    """A verifier in worker processes: `queue_s` is the longest wait for a free one."""

    workers: Workers = 2
    memory_mb: Megabytes | None = 1024
    queue_s: Seconds = 30.0
