"""Settings from a command line instead of a file: one upstream, one route."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from samplewise.proxy.config import Config, checked
from samplewise.proxy.config_explain import explain
from samplewise.proxy.config_policies import PolicySettings
from samplewise.proxy.config_types import Settings
from samplewise.proxy.config_yaml import Document, read
from samplewise.proxy.errors import ConfigError

__all__ = ["parse_policy", "quick_config"]

_NOT_COUNTED = (
    "no price is given: costs are not counted, and no limit in dollars can hold; give "
    "--input-usd-per-mtok and --output-usd-per-mtok"
)


class _PolicyOnly(Settings):
    policy: PolicySettings


def parse_policy(text: str) -> PolicySettings:
    """Read a policy: short as in `majority_vote:8`, or a mapping as in a file, in braces.

    Raises:
        ConfigError: there is no such policy, or its settings are wrong.
    """
    if text.lstrip().startswith("{"):
        document = read(f"policy: {text}", "policy", {})
    else:
        document = Document("policy", {"policy": text})
    if document.problems:
        raise document.error()
    try:
        return _PolicyOnly.model_validate(document.data).policy
    except ValidationError as error:
        raise document.error(explain(error, _PolicyOnly, document)) from None


def quick_config(
    upstream_url: str,
    model: str,
    policy: str,
    answers: str | None = None,
    price: Mapping[str, float | str] | None = None,
    api_key: str | None = None,
) -> Config:
    """Return settings for one upstream and one route, which is called like the model.

    `answers` is the type of the verifier that reads answers (`final_answer` for votes); a policy
    that needs verdicts has it judge too. Without `price` tokens cost nothing, with a warning.

    Raises:
        ConfigError: something given is wrong.
    """
    needs = parse_policy(policy).build().needs
    if answers is None and needs.answers:
        answers = "final_answer"
    backend: dict[str, Any] = {"type": "openai", "base_url": upstream_url, "model": model}
    backend["price"] = price or {"input_usd_per_mtok": 0, "output_usd_per_mtok": 0}
    route: dict[str, Any] = {"backends": ["upstream"], "policy": policy}
    document = Document("command line")
    if api_key is not None:
        backend["api_key"] = api_key
        document.templates[("backends", "upstream", "api_key")] = "${API_KEY}"
        document.resolved[api_key] = "${API_KEY}"
    if answers is not None:
        document.data["verifiers"] = {answers: {"type": answers}}
        route |= {"answers": answers, "verifiers": [answers] if needs.verdicts else []}
    name = model.replace(":", "-")
    document.data |= {"backends": {"upstream": backend}, "routes": {name: route}}
    try:
        config = checked(document)
    except ConfigError as error:
        # In the words of the command line, which has no such path.
        raise ConfigError(str(error).replace("backends.upstream.base_url", "--upstream")) from None
    said = [] if price else [_NOT_COUNTED]
    if name != model:
        said.append(f"the route is called {name!r}: a route's name has no colon")
    config._warnings = (*config.warnings, *said)
    return config
