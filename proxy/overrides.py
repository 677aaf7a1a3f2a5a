"""The policy of one request: the route's own, or what the request asks for within its ceiling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from samplewise.policies.base import Needs, Policy, PolicyError
from samplewise.proxy.backends.abilities import lacking
from samplewise.proxy.config_policies import PolicySettings, is_policy_type, number_field
from samplewise.proxy.errors import RequestError
from samplewise.proxy.job import ChosenPolicy
from samplewise.proxy.upstreams import Upstream

__all__ = ["Offer", "PolicyChoice"]

_settings: TypeAdapter[Any] = TypeAdapter(PolicySettings)
# What any request may name: policies that need no settings beyond a number of samples.
_BY_NAME = (
    "single",
    "majority_vote",
    "best_of_n",
    "adaptive_vote",
    "first_pass",
    "medoid",
    "deepconf",
    "self_certainty",
    "cisc",
)


@dataclass(frozen=True, slots=True)
class Offer:
    """A policy of the configuration, and the most samples that requests may have of it."""

    settings: Any
    chosen: ChosenPolicy
    ceiling: int


@dataclass(frozen=True, slots=True)
class PolicyChoice:
    """Builds a request's policy: the route's `own`, one of its `named` ones, or a built-in one.

    `judged` says that the route has verifiers that judge, `upstreams` are those it draws from.
    """

    route: str
    own: Offer
    judged: bool
    upstreams: tuple[Upstream, ...] = ()
    named: Mapping[str, Offer] = field(default_factory=dict)

    def __call__(self, name: str | None, samples: int | None) -> ChosenPolicy:
        """Return the policy for what a request asks.

        Raises:
            RequestError: it asks for more samples than the route allows, or for a policy that the
                route cannot run.
        """
        offer = self.named.get(name or "", self.own)
        if samples is None and (name is None or name in self.named):
            return offer.chosen
        if samples is not None and samples > offer.ceiling:
            which = f"policy {name!r} of route" if name in self.named else "route"
            raise RequestError(
                f"samplewise.samples: {which} {self.route!r} allows at most {offer.ceiling}, "
                f"got {str(samples)[:60]}",
                param="samplewise.samples",
            )
        fields = self._fields(name, offer)
        most = min(samples or offer.ceiling, offer.ceiling)
        number = number_field(fields["type"])
        most_of_own = offer.chosen.policy.needs.max_samples
        if number is not None and number in fields and most <= most_of_own:
            # Searches may draw several times their number: it must not grow by asking for less.
            most = min(most, fields[number])
        policy = self._built(_with_samples(fields, most))
        self._check(fields["type"], policy.needs, offer.ceiling)
        return replace(offer.chosen, type=fields["type"], policy=policy)

    def _fields(self, name: str | None, offer: Offer) -> dict[str, Any]:
        fields = dict(offer.settings.model_dump(by_alias=True))
        if name is None or name in self.named or name == fields["type"]:
            return fields
        if name not in _BY_NAME:
            own = f"route {self.route!r} has {', '.join(self.named)}; " if self.named else ""
            short, colon, _ = name.partition(":")
            number = colon and (short in self.named or is_policy_type(short))
            hint = "; a number of samples belongs into samplewise.samples" if number else ""
            raise RequestError(
                f"samplewise.policy: {own}a request can ask for {', '.join(_BY_NAME)}, or "
                f"{fields['type']} as route {self.route!r} has it; got {name[:60]!r}{hint}",
                param="samplewise.policy",
            )
        return {"type": name}

    def _built(self, fields: Mapping[str, Any]) -> Policy:
        try:
            settings = _settings.validate_python(dict(fields))
            policy: Policy = settings.build()
        except (ValidationError, PolicyError) as error:
            text = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            raise RequestError(f"samplewise.policy: {text}", param="samplewise.policy") from None
        return policy

    def _check(self, name: str, needs: Needs, ceiling: int) -> None:
        if needs.max_samples > ceiling:
            raise RequestError(
                f"samplewise.policy: {name} draws up to {needs.max_samples} samples, route "
                f"{self.route!r} allows {ceiling}",
                param="samplewise.policy",
            )
        for upstream in self.upstreams:
            able, most = upstream.abilities, upstream.max_top_logprobs
            for what in lacking(needs, upstream.name, able, most):
                raise RequestError(
                    f"samplewise.policy: {name} needs {what}, which route {self.route!r} does not "
                    "have",
                    param="samplewise.policy",
                )
        if needs.verdicts and not self.judged:
            raise RequestError(
                f"samplewise.policy: {name} needs a verifier, route {self.route!r} has none",
                param="samplewise.policy",
            )


def _with_samples(fields: dict[str, Any], samples: int) -> dict[str, Any]:
    """Return policy fields for at most so many samples; waves that no longer fit are cut."""
    name = number_field(fields["type"])
    if name is None:
        # It has no number of its own; the limit of the request cuts it short.
        return fields
    changed = {**fields, name: samples}
    if fields.get("waves"):
        changed["waves"] = _cut_waves(fields["waves"], samples)
    if fields.get("min_ok", 1) > samples:
        changed["min_ok"] = samples
    if (fields.get("warmup") or 0) > samples:
        changed["warmup"] = samples
    if fields.get("quorum") and fields["quorum"]["min"] > samples:
        changed["quorum"] = None
    return changed


def _cut_waves(waves: tuple[int, ...], samples: int) -> list[int]:
    kept: list[int] = []
    for wave in waves:
        if sum(kept) + wave > samples:
            break
        kept.append(wave)
    return kept or [samples]
