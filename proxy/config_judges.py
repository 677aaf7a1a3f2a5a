"""Settings of verifiers that are models: judges, and reward models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from samplewise.proxy.config_types import Many, Name, Seconds, Settings, Text
from samplewise.proxy.config_verifier_base import _VerifierSettings

__all__ = [
    "GenerativeSettings",
    "InputMessageSettings",
    "JudgeSettings",
    "LabelModelSettings",
    "ModelSettings",
    "PairwiseSettings",
    "ProcessRewardSettings",
    "RewardModelSettings",
    "Sampling",
    "ScoreModelSettings",
]

_OWN = (
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "model",
    "n",
    "response_format",
    "stream",
    "stream_options",
    "top_logprobs",
)
Probability = Annotated[float, Field(ge=0, le=1)]


def _sampling(value: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in value:
        if name in ("max_tokens", "max_completion_tokens"):
            raise ValueError(f"{name} is the worst case of a call: set max_tokens of the verifier")
        if name in _OWN:
            raise ValueError(f"{name} is set by Samplewise itself: remove it")
    return value


Sampling = Annotated[Mapping[str, Any], AfterValidator(_sampling)]


class ModelSettings(_VerifierSettings):
    """A verifier that asks the model of a backend, and is billed at the backend's price.

    An answer with fewer than `min_chars` letters and digits is not shown to the model; one with
    more than `max_answer_bytes` is an error. The backends of `fallback` are asked in their order
    where the one before could not be had and has cost nothing.
    """

    model: Name
    fallback: Many[Name] = ()
    min_chars: Annotated[int, Field(ge=0, le=10_000)] = 1
    max_answer_bytes: Annotated[int, Field(ge=1, le=16_777_216)] = 32_768
    timeout_s: Seconds = 60.0


class InputMessageSettings(Settings):
    """One message of a judge's own prompt; templates are filled with marked data."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text


class JudgeSettings(ModelSettings):
    """A chat model as judge. `instructions` add to our prompt, `input` replaces its middle."""

    instructions: Text | None = Field(None, repr=False)
    sampling_params: Sampling | None = Field(None, repr=False)
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 512


class _GraderSettings(JudgeSettings):
    """A judge of one sample in the shape of OpenAI's graders."""

    input: Many[InputMessageSettings] | None = Field(None, repr=False)

    @model_validator(mode="after")
    def _one_prompt(self) -> _GraderSettings:
        if self.input is None:
            return self
        if self.instructions is not None:
            raise ValueError("give either instructions or input, not both")
        if not any("sample.output_text" in message.content for message in self.input):
            raise ValueError("input must hold {{sample.output_text}}: the judge sees nothing else")
        return self


class ScoreModelSettings(_GraderSettings):
    """A judge that gives a number; `pass_threshold` is on the scale of `range`."""

    type: Literal["score_model"]
    range: Many[float] = Field(default_factory=lambda: (0.0, 1.0))
    pass_threshold: float | None = None

    @model_validator(mode="after")
    def _in_order(self) -> ScoreModelSettings:
        if len(self.range) != 2 or self.range[0] >= self.range[1]:
            raise ValueError("range must be two numbers, the lower one first")
        threshold = self.pass_threshold
        if threshold is not None and not self.range[0] <= threshold <= self.range[1]:
            raise ValueError("pass_threshold must lie in range")
        return self


class LabelModelSettings(_GraderSettings):
    """A judge that gives one of `labels`; a sample passes with one of `passing_labels`."""

    type: Literal["label_model"]
    labels: Many[Text]
    passing_labels: Many[Text]

    @model_validator(mode="after")
    def _known(self) -> LabelModelSettings:
        folded = {label.strip().casefold() for label in self.labels}
        if len(self.labels) < 2 or len(folded) < len(self.labels):
            raise ValueError("labels must be at least two, different in more than case")
        unknown = [label for label in self.passing_labels if label not in self.labels]
        if unknown or not 0 < len(set(self.passing_labels)) < len(self.labels):
            raise ValueError("passing_labels must be some of labels, neither none nor all of them")
        return self


class PairwiseSettings(JudgeSettings):
    """A judge that says which of two samples is better, for `comparator` of a route."""

    type: Literal["pairwise"]


class GenerativeSettings(JudgeSettings):
    """The probability that a model says Yes to the question whether an answer is right."""

    type: Literal["generative"]
    mode: Literal["auto", "logprobs", "chains"] = "auto"
    chains: Annotated[int, Field(ge=1, le=64)] = 5
    pass_threshold: Probability | None = None


class RewardModelSettings(ModelSettings):
    """A reward model or cross-encoder on vLLM; `midpoint` and `spread` turn its number to a score.

    `label` is the index of the good label where there are several.
    """

    type: Literal["reward_model"]
    endpoint: Literal["auto", "classify", "pooling", "score", "rerank"] = "auto"
    midpoint: float = 0.0
    spread: Annotated[float, Field(gt=0)] = 1.0
    label: Annotated[int, Field(ge=0, lt=10_000)] | None = None
    pass_threshold: float | None = None


class ProcessRewardSettings(ModelSettings):
    """A process reward model on vLLM's step pooler."""

    type: Literal["process_reward"]
    layout: Literal["qwen", "shepherd"] = "qwen"
    aggregate: Literal["last", "min", "prod"] = "last"
    separator: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    pass_threshold: Probability | None = None
