"""What a route has learnt, from its file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from samplewise.policies.base import PolicyError
from samplewise.policies.first_pass import FirstPass
from samplewise.policies.prior import PRIOR_KEY
from samplewise.proxy.calibration import load_prior
from samplewise.proxy.config_routes import RouteSettings
from samplewise.proxy.errors import ConfigError

__all__ = ["read_prior"]


def read_prior(name: str, settings: RouteSettings) -> Mapping[str, Any]:
    """Read what was measured of the route's verifiers, and see whether its policies can use it.

    Raises:
        ConfigError: the file cannot be used, or says that a policy cannot gain anything.
    """
    if settings.prior is None:
        return {}
    prior = load_prior(settings.prior, settings.verifiers, f"routes.{name}.prior")
    named = {f"policies.{called}": policy for called, policy in settings.policies.items()}
    for place, its in {"policy": settings.policy, **named}.items():
        policy = its.build()
        if isinstance(policy, FirstPass):
            try:
                policy.check(prior)
            except PolicyError as error:
                raise ConfigError(f"routes.{name}.{place}: {error}") from error
    return {PRIOR_KEY: prior}
