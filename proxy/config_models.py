"""Checks of verifiers that are models, which need more than their own section."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from samplewise.proxy.config_backends import BackendSettings, HttpBackendSettings
from samplewise.proxy.config_code import CodeTestsSettings, GeneratorSettings
from samplewise.proxy.config_judges import (
    GenerativeSettings,
    ModelSettings,
    PairwiseSettings,
    ProcessRewardSettings,
    RewardModelSettings,
    ScoreModelSettings,
)
from samplewise.proxy.config_routes import RouteSettings
from samplewise.proxy.config_verifiers import MultiSettings, VerifierSettings
from samplewise.proxy.config_yaml import Path, Problem, near, quoted

__all__ = [
    "asked_backends",
    "model_problems",
    "model_warnings",
    "never_passing",
    "route_problems",
]

_SCORERS = (RewardModelSettings, ProcessRewardSettings)
_THRESHOLDS = (ScoreModelSettings, GenerativeSettings, *_SCORERS)


def asked_backends(verifiers: Mapping[str, VerifierSettings]) -> set[str]:
    """Return the names of the backends that verifiers may ask."""
    return {name for _, settings in _asked_models(verifiers) for name in _names(settings)}


def _asked_models(
    verifiers: Mapping[str, VerifierSettings], path: Path = ("verifiers",)
) -> Iterator[tuple[Path, ModelSettings | GeneratorSettings]]:
    """Yield every verifier that asks a model, graders of a `multi` too, with where it stands."""
    for name, settings in verifiers.items():
        here = (*path, name)
        if isinstance(settings, ModelSettings):
            yield here, settings
        elif isinstance(settings, CodeTestsSettings) and settings.generator is not None:
            yield (*here, "generator"), settings.generator
        elif isinstance(settings, MultiSettings):
            yield from _asked_models(settings.graders, (*here, "graders"))


def _names(settings: ModelSettings | GeneratorSettings) -> tuple[str, ...]:
    """Return the backends that may be asked, the first choice first."""
    spares = settings.fallback if isinstance(settings, ModelSettings) else ()
    return (settings.model, *spares)


def model_problems(
    verifiers: Mapping[str, VerifierSettings],
    backends: Mapping[str, BackendSettings],
    known: list[str],
) -> Iterator[Problem]:
    """Yield what is wrong with the models that verifiers name; `known` are all backends' names."""
    for path, settings in _asked_models(verifiers):
        names = _names(settings)
        for place, name in enumerate(names):
            field = (*path, "fallback" if place else "model")
            if name not in known:
                yield Problem(field, f"no backend {quoted(name)}{near(name, known)}")
            elif isinstance(settings, _SCORERS) and not isinstance(
                backends.get(name), HttpBackendSettings | None
            ):
                wrong = f"backend {quoted(name)} gives no scores: its type must be openai or vllm"
                yield Problem(field, wrong)
            if name in names[:place]:
                yield Problem(field, f"backend {quoted(name)} is named twice: name each once")
        if isinstance(settings, PairwiseSettings) and len(path) > 2:
            yield Problem(path, "pairwise compares samples: it cannot be a grader")
        if len(names) > 1 and (isinstance(settings, PairwiseSettings) or len(path) > 2):
            wrong = "comparators and graders of a multi have no fallback: remove it"
            yield Problem((*path, "fallback"), wrong)
    for name, verifier in verifiers.items():
        asked = {settings.model for _, settings in _asked_models({name: verifier})}
        if len(asked) > 1:
            wrong = "its graders ask several backends: a verdict is paid to one; make two verifiers"
            yield Problem(("verifiers", name), wrong)


def model_warnings(
    verifiers: Mapping[str, VerifierSettings], backends: Mapping[str, BackendSettings]
) -> Iterator[Problem]:
    """Yield what is allowed but costs nothing by the prices given."""
    for path, settings in _asked_models(verifiers):
        asked = [backends[name] for name in _names(settings) if name in backends]
        by_hour = any(b.price is not None and b.price.gpu_hour_usd is not None for b in asked)
        if by_hour and isinstance(settings, _SCORERS) and settings.price is None:
            said = (
                "costs nothing: its backend is priced by the hour, which counts completion tokens, "
                "and a reward model writes none; set price: {usd_per_call: ...}"
            )
            yield Problem(path, said)


def route_problems(
    route: RouteSettings, verifiers: Mapping[str, VerifierSettings], path: Path
) -> Iterator[Problem]:
    """Yield what a route's models cannot do for it, whatever its policy."""
    for field, names in (("verifiers", route.verifiers), ("answers", (route.answers,))):
        for name in names:
            if isinstance(verifiers.get(name or ""), PairwiseSettings):
                wrong = f"{quoted(name or '')} compares samples: name it under `comparator`"
                yield Problem((*path, field), wrong)


def never_passing(route: RouteSettings, verifiers: Mapping[str, VerifierSettings]) -> Iterator[str]:
    """Yield what is wrong with verifiers that pass nothing: `first_pass` waits for one in vain.

    A score without a threshold never passes: it would draw all it may, every time.
    """
    for name in route.verifiers:
        settings = verifiers.get(name)
        if isinstance(settings, CodeTestsSettings) and settings.sources == ("generated",):
            yield f"{quoted(name)} passes nothing by generated tests: take the policy agreement"
        if not isinstance(settings, _THRESHOLDS) or not settings.required:
            continue
        if settings.pass_threshold is None:
            yield (
                f"{quoted(name)} gives a score and passes nothing: set its pass_threshold, or "
                "required: false, because first_pass waits for a pass"
            )
