"""Verifiers that are models, from their settings and the models of the backends. Nothing starts."""

from __future__ import annotations

from functools import partial
from typing import Any

from samplewise.proxy.asking import Models
from samplewise.proxy.config_judges import (
    GenerativeSettings,
    JudgeSettings,
    LabelModelSettings,
    ModelSettings,
    PairwiseSettings,
    ProcessRewardSettings,
    RewardModelSettings,
    ScoreModelSettings,
)
from samplewise.proxy.judge_prompts import JudgePrompt, judge_prompt, object_schema
from samplewise.verifiers.base import Verifier
from samplewise.verifiers.generative import Generative
from samplewise.verifiers.judges import Asking, LabelModel, ScoreModel
from samplewise.verifiers.pairwise import Pairwise
from samplewise.verifiers.process_reward import ProcessReward, process_variants
from samplewise.verifiers.reward_model import RewardModel, reward_variants
from samplewise.verifiers.reward_server import RewardServer

__all__ = ["build_judge"]

_JSON_ONLY = "Reply with one JSON object and nothing else, in this form: "
_SURE = {"temperature": 0}
_VARIED = {"temperature": 0.8}
_MOST_TOP = 20
# As the models were trained: paragraphs, and lines.
_SEPARATORS = {"qwen": "\n\n", "shepherd": "\n"}


def build_judge(name: str, settings: ModelSettings, models: Models) -> Verifier:
    """Build a verifier that asks a model.

    Raises:
        VerifierSetupError: a template names what cannot be filled in.
    """
    match settings:
        case ScoreModelSettings():
            return _score(name, settings, models)
        case LabelModelSettings():
            return _label(name, settings, models)
        case PairwiseSettings():
            return _pairwise(name, settings, models)
        case GenerativeSettings():
            return _generative(name, settings, models)
        case RewardModelSettings():
            return RewardModel(
                name=name,
                server=_server(settings, models, partial(reward_variants, settings.endpoint)),
                midpoint=settings.midpoint,
                spread=settings.spread,
                label=settings.label,
                min_chars=settings.min_chars,
                pass_threshold=settings.pass_threshold,
            )
        case ProcessRewardSettings():
            return ProcessReward(
                name=name,
                server=_server(settings, models, process_variants),
                layout=settings.layout,
                aggregation=settings.aggregate,
                separator=settings.separator or _SEPARATORS[settings.layout],
                min_chars=settings.min_chars,
                pass_threshold=settings.pass_threshold,
            )
        case _:
            raise AssertionError(f"no verifier for {type(settings).__name__}")


def _score(name: str, settings: ScoreModelSettings, models: Models) -> Verifier:
    low, high = settings.range
    reply = (
        f"Give a score from {low:g} to {high:g}: {high:g} for an answer that is right and "
        f"complete, {low:g} for one that is wrong or no answer. {_JSON_ONLY}"
        f'{{"reason": "one or two sentences", "score": number}}'
    )
    schema = object_schema("score", {"type": "number"})
    return ScoreModel(
        name=name,
        asking=_asking(settings, models, _grader_prompt(settings, reply), schema),
        min_chars=settings.min_chars,
        low=low,
        high=high,
        pass_threshold=settings.pass_threshold,
    )


def _label(name: str, settings: LabelModelSettings, models: Models) -> Verifier:
    listed = ", ".join(f'"{label}"' for label in settings.labels)
    reply = (
        f"Give the answer one of these labels: {listed}. {_JSON_ONLY}"
        '{"reason": "one or two sentences", "label": "one of them"}'
    )
    schema = object_schema("label", {"type": "string", "enum": list(settings.labels)})
    return LabelModel(
        name=name,
        asking=_asking(settings, models, _grader_prompt(settings, reply), schema),
        min_chars=settings.min_chars,
        labels=settings.labels,
        passing_labels=frozenset(settings.passing_labels),
    )


def _pairwise(name: str, settings: PairwiseSettings, models: Models) -> Verifier:
    reply = (
        "Say which of the two answers is better, by content alone: neither the order nor the "
        f"length counts. {_JSON_ONLY}"
        '{"reason": "one or two sentences", "better": "first" or "second" or "tie"}'
    )
    schema = object_schema("better", {"type": "string", "enum": ["first", "second", "tie"]})
    prompt = judge_prompt(reply, settings.instructions, pair=True)
    asking = _asking(settings, models, prompt, schema)
    return Pairwise(name=name, asking=asking, min_chars=settings.min_chars)


def _generative(name: str, settings: GenerativeSettings, models: Models) -> Verifier:
    question = "Is the answer right and complete? "
    word = judge_prompt(f"{question}Reply with one word: Yes or No.", settings.instructions)
    chain = judge_prompt(
        f"{question}Think step by step, then end with a JSON object on a line of its own: "
        '{"correct": "yes"} or {"correct": "no"}',
        settings.instructions,
    )
    top = {"logprobs": True, "top_logprobs": _MOST_TOP}
    return Generative(
        name=name,
        word=_asking(settings, models, word, None, extra=top, max_tokens=1),
        chain=_asking(settings, models, chain, None, defaults=_VARIED),
        mode=settings.mode,
        chains=settings.chains,
        min_chars=settings.min_chars,
        pass_threshold=settings.pass_threshold,
    )


def _grader_prompt(settings: ScoreModelSettings | LabelModelSettings, reply: str) -> JudgePrompt:
    messages = [(message.role, message.content) for message in settings.input or ()]
    return judge_prompt(reply, settings.instructions, messages)


def _asking(
    settings: JudgeSettings,
    models: Models,
    prompt: JudgePrompt,
    schema: dict[str, Any] | None,
    *,
    defaults: dict[str, Any] = _SURE,
    extra: dict[str, Any] | None = None,
    max_tokens: int | None = None,
) -> Asking:
    sampling = defaults if settings.sampling_params is None else settings.sampling_params
    return Asking(
        model=models.chat(settings.model, settings.timeout_s),
        writer=prompt,
        schema=schema,
        max_tokens=max_tokens or settings.max_tokens,
        max_answer_bytes=settings.max_answer_bytes,
        params={**sampling, **(extra or {})},
    )


def _server(settings: ModelSettings, models: Models, variants: Any) -> RewardServer:
    return RewardServer(
        model=models.scores(settings.model, settings.timeout_s),
        variants=variants,
        max_answer_bytes=settings.max_answer_bytes,
    )
