"""`routes:` the models that clients see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from samplewise.policies.base import Needs
from samplewise.proxy.config_backends import BackendSettings, LiteLLMBackendSettings
from samplewise.proxy.config_budgets import RouteBudgetSettings
from samplewise.proxy.config_mirror import MirrorSettings
from samplewise.proxy.config_policies import (
    AdaptiveVoteSettings,
    Names,
    PolicySettings,
    SinglePolicySettings,
    filled,
)
from samplewise.proxy.config_side import SideSettings
from samplewise.proxy.config_types import Count, Name, Params, Settings, Text

__all__ = ["RouteSettings", "raw_warning"]


def _default_policy(data: dict[str, Any]) -> Any:
    if data.get("answers") is None:
        return SinglePolicySettings(type="single")
    return AdaptiveVoteSettings(type="adaptive_vote", margin=3, max_samples=24, window=3)


class RouteSettings(Settings):
    """One model name that clients can ask for.

    `answers` names the verifier whose canonical answers vote, `verifiers` those that judge.
    `max_tokens` is the cap written into every upstream call; `params` are request defaults;
    `policies` are further policies by name, for requests to choose. `prompts` are variants of the
    system prompt by name. `prior` is a file that `samplewise calibrate` wrote.
    """

    backends: Annotated[Names, AfterValidator(filled)]
    answers: Name | None = None
    verifiers: Names = ()
    comparator: Name | None = None
    policy: PolicySettings = Field(default_factory=_default_policy)
    policies: Mapping[Name, PolicySettings] = {}
    budget: RouteBudgetSettings = RouteBudgetSettings()
    tags: Names = ()
    max_tokens: Count = 4096
    params: Params = Field(default_factory=dict)
    on_unverified: Literal["return", "vote", "error"] = "return"
    on_tools: Literal["passthrough", "vote", "verify"] = "passthrough"
    on_disconnect: Literal["cancel", "finish"] = "cancel"
    side_requests: SideSettings | None = None
    mirror: MirrorSettings | None = None
    stream: Literal["chunks", "whole", "raw"] = "chunks"
    progress: Literal["none", "reasoning"] = "none"
    usage: Literal["billed", "chosen"] = "billed"
    prompts: Annotated[Mapping[Name, Text], Field(repr=False)] = {}
    prior: Text | None = None
    description: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None


def raw_warning(
    route: RouteSettings, needs: Needs, backends: Mapping[str, BackendSettings]
) -> str | None:
    """Say why the upstream's own stream cannot be passed on, where the route asks for that."""
    if route.stream != "raw":
        return None
    if route.on_unverified == "error":
        why = "with on_unverified: error an answer is known only when it is judged"
    elif needs.max_samples > 1:
        why = f"{route.policy.type} may draw {needs.max_samples} samples, and chooses at the end"
    elif mute := [n for n in route.backends if isinstance(backends.get(n), LiteLLMBackendSettings)]:
        why = f"{mute[0]} does not stream: its type is litellm"
    else:
        return None
    return f"raw passes an upstream's own stream on, but {why}: streams will come as with chunks"
