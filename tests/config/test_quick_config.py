from __future__ import annotations

import pytest

from samplewise.policies.majority_vote import MajorityVote
from samplewise.policies.price import Price
from samplewise.proxy.config_backends import OpenAIBackendSettings
from samplewise.proxy.config_quick import quick_config
from samplewise.proxy.errors import ConfigError


def test_quick_config_routes_the_model_to_the_upstream() -> None:
    config = quick_config("http://up/v1", "org/model-8b", "majority_vote:8", price={
        "input_usd_per_mtok": "0.1", "output_usd_per_mtok": 0.2,
    })  # fmt: skip
    route = config.routes["org/model-8b"]
    assert route.policy.build() == MajorityVote(8)
    assert route.answers == "final_answer"
    assert config.verifiers["final_answer"].type == "final_answer"
    (backend,) = (config.backends[name] for name in route.backends)
    assert isinstance(backend, OpenAIBackendSettings)
    assert (backend.base_urls, backend.model) == (("http://up/v1",), "org/model-8b")
    assert backend.price.build() == Price.per_mtok("0.1", "0.2", None)
    assert config.warnings == ()


def test_quick_config_without_a_price_warns_that_costs_are_not_counted() -> None:
    (warning,) = quick_config("http://up/v1", "m", "single").warnings
    assert "costs are not counted" in warning
    assert "--input-usd-per-mtok" in warning


def test_quick_config_names_the_option_that_is_wrong() -> None:
    with pytest.raises(ConfigError, match=r"^--upstream: must be a URL"):
        quick_config("127.0.0.1:9/v1", "m", "single")


def test_quick_config_gives_no_answers_to_a_policy_that_does_not_vote() -> None:
    config = quick_config("http://up/v1", "m", "single")
    assert config.routes["m"].answers is None
    assert not config.verifiers


def test_quick_config_takes_the_type_of_the_answers() -> None:
    config = quick_config("http://up/v1", "m", "adaptive_vote:12", answers="math")
    assert config.verifiers["math"].type == "math"


def test_quick_config_lets_the_answers_judge_where_verdicts_are_needed() -> None:
    config = quick_config("http://up/v1", "m", "first_pass:8", answers="math")
    assert config.routes["m"].verifiers == ("math",)


def test_quick_config_names_a_route_without_the_colon_of_its_model() -> None:
    config = quick_config("http://up/v1", "qwen:7b", "single")
    assert list(config.routes) == ["qwen-7b"]
    assert any("'qwen-7b'" in warning for warning in config.warnings)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("up", "m", "single"), "--upstream: must be a URL"),
        (("http://up", "m", "majorty_vote:8"), "policy: unknown type 'majorty_vote:8'; did you"),
        (("http://up", "m", "first_pass:8"), "routes.m.policy: first_pass needs a verifier"),
        (("http://up", "m", "single", "nope"), "verifiers.nope: unknown type 'nope'"),
        (("http://up", "", "single"), "backends.upstream.model: must not be empty"),
    ],
)
def test_quick_config_refuses_what_is_wrong(arguments: tuple[str, ...], reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        quick_config(*arguments)  # type: ignore[arg-type]
    assert str(caught.value).startswith(reason)
