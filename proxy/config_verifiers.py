"""Settings of verifiers, one model per `type`."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from samplewise.proxy.config_code import CodeTestsSettings
from samplewise.proxy.config_judges import (
    GenerativeSettings,
    LabelModelSettings,
    PairwiseSettings,
    ProcessRewardSettings,
    RewardModelSettings,
    ScoreModelSettings,
)
from samplewise.proxy.config_patch import PatchTestsSettings
from samplewise.proxy.config_tools import ToolSettings
from samplewise.proxy.config_types import Count, Many, Name, Seconds, Secret, Text
from samplewise.proxy.config_verifier_base import (
    Megabytes,
    PooledSettings,
    VerifierPriceSettings,
    Workers,
    _VerifierSettings,
)

__all__ = [
    "ArithmeticSettings",
    "CodeTestsSettings",
    "CountdownSettings",
    "FinalAnswerSettings",
    "JsonSchemaSettings",
    "MathSettings",
    "MultiSettings",
    "NumberSettings",
    "PatchTestsSettings",
    "PooledSettings",
    "PythonSettings",
    "RegexSettings",
    "StringCheckSettings",
    "ToolCallSettings",
    "VerifierPriceSettings",
    "VerifierSettings",
    "WebhookSettings",
]

_USE = ("scope", "when", "gate", "required")


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known or not value.isprintable() or " " in value or len(value) > 2000:
        raise ValueError("must be a URL such as http://127.0.0.1:9000/grade")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise ValueError("must hold no user, no password and no #")
    return value


def _network(value: str) -> str:
    try:
        ip_network(value)
    except ValueError:
        raise ValueError("must be a network such as 10.1.0.0/16, or one address") from None
    return value


Function = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
Number_ = Annotated[float, Field(ge=0)]


class FinalAnswerSettings(_VerifierSettings):
    """The final answer of a text, for votes."""

    type: Literal["final_answer"]
    check_reference: bool = False
    max_chars: Count = 200
    ignore_case: bool = True


class StringCheckSettings(_VerifierSettings):
    """A comparison of two texts, as OpenAI's grader of that name."""

    type: Literal["string_check"]
    operation: Literal["eq", "ne", "like", "ilike"] = "eq"
    input: Text = "{{sample.output_text}}"
    reference: Text = "{{reference}}"


class RegexSettings(_VerifierSettings):
    """A pattern in RE2 syntax; `group` is the answer, and with `reference` must equal it."""

    type: Literal["regex"]
    pattern: Text
    mode: Literal["search", "fullmatch"] = "search"
    group: Annotated[int, Field(ge=0)] | str | None = None
    reference: bool = False
    max_chars: Count = 1_000_000


class NumberSettings(_VerifierSettings):
    """A number, compared exactly or within a tolerance."""

    type: Literal["number"]
    reference: str | int | float | None = None
    tolerance_abs: Number_ = 0.0
    tolerance_rel: Number_ = 0.0
    percent_as_fraction: bool = True


class JsonSchemaSettings(PooledSettings):
    """JSON that satisfies `schema`, or the `response_format` of the request."""

    type: Literal["json_schema"]
    schema_: Mapping[str, Any] | bool | None = Field(None, alias="schema")
    fences: bool = False
    max_chars: Count = 1_000_000
    workers: Workers = 1


class ToolCallSettings(PooledSettings):
    """Tool calls that fit the tools of the request."""

    type: Literal["tool_call"]
    require: bool = False
    max_chars: Count = 1_000_000
    workers: Workers = 1


class MathSettings(PooledSettings):
    """Answers compared as mathematics; `timeout_s` is for one comparison."""

    type: Literal["math"]
    reference: str | int | float | None = None
    max_chars: Count = 10_000
    timeout_s: Seconds = 1.0


class PythonSettings(PooledSettings):
    """The operator's functions; `env` is all that their processes see of the environment."""

    type: Literal["python"]
    function: Function | None = None
    compare: Function | None = None
    equivalent: Function | None = None
    style: Literal["grader", "completion"] = "grader"
    isolation: Literal["process", "async"] = "process"
    pass_threshold: float | None = None
    assurance: Literal["tests-external", "symbolic", "heuristic", "model"] = "heuristic"
    tool_calls: bool = False
    timeout_s: Seconds = 10.0
    memory_mb: Megabytes | None = 2048
    env: Annotated[Mapping[str, str], Field(repr=False)] = {}

    @model_validator(mode="after")
    def _something_to_call(self) -> PythonSettings:
        if self.function is None and self.compare is None:
            raise ValueError("needs function or compare")
        return self


Rate = Annotated[float, Field(ge=0, le=1)]


class _PuzzleSettings(_VerifierSettings):
    """A problem of the embedded model; the rates make verdicts and step scores wrong, for tests."""

    judge: bool = True
    false_pass: Rate = 0.0
    false_fail: Rate = 0.0
    false_hope: Rate = 0.0
    false_despair: Rate = 0.0
    spread: Annotated[float, Field(ge=0)] = 0.0
    seed: int = 0


class CountdownSettings(_PuzzleSettings):
    """A Countdown puzzle: the steps are replayed."""

    type: Literal["countdown"]


class ArithmeticSettings(_PuzzleSettings):
    """An expression of the embedded model: its value is compared."""

    type: Literal["arithmetic"]


class WebhookSettings(_VerifierSettings):
    """The operator's own service; with `secret` every request is signed.

    Names that stand for no address in `networks` are not asked.
    """

    type: Literal["webhook"]
    url: Annotated[str, AfterValidator(_url)]
    networks: Many[Annotated[str, AfterValidator(_network)]] = ()
    secret: Secret | None = None
    pass_threshold: float | None = None
    assurance: Literal["tests-external", "symbolic", "heuristic", "model"] = "heuristic"
    tool_calls: bool = False
    timeout_s: Seconds = 10.0
    max_response_mb: Annotated[float, Field(gt=0, le=64)] = 1.0


class MultiSettings(_VerifierSettings):
    """Several graders and a formula over their scores, or `all`, or `any`.

    Without a `timeout_s` of its own, the slowest grader's limit holds.
    """

    type: Literal["multi"]
    graders: Annotated[Mapping[Name, VerifierSettings], Field(min_length=1)]
    calculate_output: Text
    pass_threshold: float | None = None

    @model_validator(mode="after")
    def _use_is_set_outside(self) -> MultiSettings:
        for name, grader in self.graders.items():
            for field in _USE:
                if field in grader.model_fields_set:
                    raise ValueError(f"{name}: {field} belongs to the whole, not to a grader")
        return self


VerifierSettings = Annotated[
    FinalAnswerSettings
    | StringCheckSettings
    | RegexSettings
    | NumberSettings
    | JsonSchemaSettings
    | ToolCallSettings
    | MathSettings
    | PythonSettings
    | WebhookSettings
    | CountdownSettings
    | ArithmeticSettings
    | ScoreModelSettings
    | LabelModelSettings
    | PairwiseSettings
    | GenerativeSettings
    | RewardModelSettings
    | ProcessRewardSettings
    | MultiSettings
    | CodeTestsSettings
    | PatchTestsSettings
    | ToolSettings,
    Field(discriminator="type"),
]
MultiSettings.model_rebuild()
