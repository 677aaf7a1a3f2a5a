"""`routes:` the models that clients see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

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

__all__ = ["RouteSettings"]


def _default_policy(data: dict[str, Any]) -> Any:
    if data.get("answers") is None:
        return SinglePolicySettings(type="single")
    return AdaptiveVoteSettings(type="adaptive_vote", margin=3, max_samples=24, window=3)


class RouteSettings(Settings):
    """One model name that clients can ask for.

    `answers` names the verifier whose canonical answers vote, `verifiers` those that judge.
    `max_tokens` is the cap written into every upstream call; `params` are request defaults;
    `prompts` are variants of the system prompt by name. `prior` is a file that `samplewise
    calibrate` wrote.
    """

    backends: Annotated[Names, AfterValidator(filled)]
    answers: Name | None = None
    verifiers: Names = ()
    comparator: Name | None = None
    policy: PolicySettings = Field(default_factory=_default_policy)
    budget: RouteBudgetSettings = RouteBudgetSettings()
    tags: Names = ()
    max_tokens: Count = 4096
    params: Params = Field(default_factory=dict)
    on_unverified: Literal["return", "vote", "error"] = "return"
    on_tools: Literal["passthrough", "vote", "verify"] = "passthrough"
    side_requests: SideSettings | None = None
    mirror: MirrorSettings | None = None
    stream: Literal["chunks", "whole", "raw"] = "chunks"
    progress: Literal["none", "reasoning"] = "none"
    usage: Literal["billed", "chosen"] = "billed"
    prompts: Annotated[Mapping[Name, Text], Field(repr=False)] = {}
    prior: Text | None = None
    description: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
