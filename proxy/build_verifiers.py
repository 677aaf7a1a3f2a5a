"""The verifiers that settings describe. Nothing is started here.

Those with compiled libraries of their own are imported where one is built: four megabytes less for
servers without them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import ip_network
from typing import TYPE_CHECKING, assert_never

from samplewise.models.arithmetic import Expression
from samplewise.models.countdown import Puzzle
from samplewise.models.noise import Corruption
from samplewise.proxy.asking import Models
from samplewise.proxy.build_code import build_code_tests, build_patch_tests
from samplewise.proxy.build_judges import build_judge
from samplewise.proxy.build_tools import build_tool
from samplewise.proxy.config_judges import ModelSettings
from samplewise.proxy.config_tools import ToolSettings
from samplewise.proxy.config_verifiers import (
    ArithmeticSettings,
    CodeTestsSettings,
    CountdownSettings,
    FinalAnswerSettings,
    JsonSchemaSettings,
    MathSettings,
    MultiSettings,
    NumberSettings,
    PatchTestsSettings,
    PooledSettings,
    PythonSettings,
    RegexSettings,
    StringCheckSettings,
    ToolCallSettings,
    VerifierSettings,
    WebhookSettings,
)
from samplewise.verifiers.asking import Metered
from samplewise.verifiers.base import Assurance, Verifier, VerifierSetupError
from samplewise.verifiers.final_answer import FinalAnswer
from samplewise.verifiers.math import MATH_TARGET, Math
from samplewise.verifiers.multi import MeteredMulti, Multi
from samplewise.verifiers.number import Number
from samplewise.verifiers.plugin_runner import PLUGIN_TARGET, LoopRunner, ProcessRunner, Runner
from samplewise.verifiers.pool import WorkerPool
from samplewise.verifiers.puzzle import PuzzleCheck
from samplewise.verifiers.python_plugin import PythonComparator, PythonPlugin
from samplewise.verifiers.string_check import StringCheck
from samplewise.verifiers.templates import Template
from samplewise.verifiers.webhook import Webhook

if TYPE_CHECKING:
    from samplewise.verifiers.schema_check import SchemaChecker

__all__ = ["build_verifier"]


def build_verifier(
    name: str,
    settings: VerifierSettings,
    build_child: Callable[[str, VerifierSettings], Verifier],
    models: Models,
) -> Verifier:
    """Build a verifier; nothing is started. `build_child` builds the graders of a `multi`.

    `models` are what those verifiers ask that are models themselves.

    Raises:
        VerifierSetupError: it cannot be built; the message names it and says what to change.
    """
    try:
        return _build(name, settings, build_child, models)
    except VerifierSetupError as error:
        raise VerifierSetupError(f"{name}: {error}") from error


def _build(
    name: str,
    settings: VerifierSettings,
    build_child: Callable[[str, VerifierSettings], Verifier],
    models: Models,
) -> Verifier:
    if isinstance(settings, ToolSettings):
        return build_tool(name, settings)
    match settings:
        case FinalAnswerSettings():
            return FinalAnswer(
                name=name,
                check_reference=settings.check_reference,
                max_chars=settings.max_chars,
                ignore_case=settings.ignore_case,
            )
        case StringCheckSettings():
            return _string_check(name, settings)
        case RegexSettings():
            return _regex(name, settings)
        case NumberSettings():
            return _number(name, settings)
        case JsonSchemaSettings():
            return _json_schema(name, settings)
        case ToolCallSettings():
            return _tool_call(name, settings)
        case MathSettings():
            return _math(name, settings)
        case PythonSettings():
            return _python(name, settings)
        case WebhookSettings():
            return _webhook(name, settings)
        case CountdownSettings() | ArithmeticSettings():
            return _puzzle(name, settings)
        case MultiSettings():
            graders = {n: build_child(n, s) for n, s in settings.graders.items()}
            metered = any(isinstance(grader, Metered) for grader in graders.values())
            return (MeteredMulti if metered else Multi)(
                name=name,
                graders=graders,
                calculate_output=settings.calculate_output,
                pass_threshold=settings.pass_threshold,
            )
        case CodeTestsSettings():
            return build_code_tests(name, settings, models)
        case PatchTestsSettings():
            return build_patch_tests(name, settings)
        case ModelSettings():
            return build_judge(name, settings, models)
        case _:
            assert_never(settings)


def _string_check(name: str, settings: StringCheckSettings) -> Verifier:
    return StringCheck(
        name=name,
        operation=settings.operation,
        input=Template.parse(settings.input),
        reference=Template.parse(settings.reference),
    )


def _json_schema(name: str, settings: JsonSchemaSettings) -> Verifier:
    from samplewise.verifiers.json_schema import JsonSchema

    checker, schema = _checker(settings), settings.schema_
    return JsonSchema(name=name, checker=checker, schema=schema, fences=settings.fences)


def _tool_call(name: str, settings: ToolCallSettings) -> Verifier:
    from samplewise.verifiers.tool_call import ToolCalls

    return ToolCalls(name=name, checker=_checker(settings), require=settings.require)


def _regex(name: str, settings: RegexSettings) -> Verifier:
    from samplewise.verifiers.regex import Regex

    return Regex(
        name=name,
        pattern=settings.pattern,
        mode=settings.mode,
        group=settings.group,
        reference=settings.reference,
        max_chars=settings.max_chars,
    )


def _number(name: str, settings: NumberSettings) -> Verifier:
    return Number(
        name=name,
        reference=_as_text(settings.reference),
        tolerance_abs=settings.tolerance_abs,
        tolerance_rel=settings.tolerance_rel,
        percent_as_fraction=settings.percent_as_fraction,
    )


def _math(name: str, settings: MathSettings) -> Verifier:
    return Math(
        name=name,
        pool=_pool(MATH_TARGET, settings),
        reference=_as_text(settings.reference),
        max_chars=settings.max_chars,
    )


def _python(name: str, settings: PythonSettings) -> Verifier:
    functions = [
        function
        for function in (settings.function, settings.compare, settings.equivalent)
        if function is not None
    ]
    runner: Runner
    if settings.isolation == "async":
        runner = LoopRunner.load(functions, settings.timeout_s)
    else:
        runner = ProcessRunner(_pool(PLUGIN_TARGET, settings, functions, settings.env))
    plugin = PythonPlugin(
        name=name,
        runner=runner,
        function=settings.function,
        equivalent_function=settings.equivalent,
        style=settings.style,
        pass_threshold=settings.pass_threshold,
        assurance=Assurance(settings.assurance),
        tool_calls=settings.tool_calls,
    )
    if settings.compare is None:
        return plugin
    return PythonComparator.extending(plugin, settings.compare)


def _webhook(name: str, settings: WebhookSettings) -> Verifier:
    return Webhook(
        name=name,
        url=settings.url,
        networks=tuple(map(ip_network, settings.networks)),
        timeout_s=settings.timeout_s,
        secret=None if settings.secret is None else settings.secret.get_secret_value(),
        pass_threshold=settings.pass_threshold,
        assurance=Assurance(settings.assurance),
        tool_calls=settings.tool_calls,
        max_response_bytes=int(settings.max_response_mb * 2**20),
    )


def _puzzle(name: str, settings: CountdownSettings | ArithmeticSettings) -> Verifier:
    return PuzzleCheck(
        name=name,
        family=Puzzle if isinstance(settings, CountdownSettings) else Expression,
        judge=settings.judge,
        corruption=Corruption(
            false_pass=settings.false_pass,
            false_fail=settings.false_fail,
            false_hope=settings.false_hope,
            false_despair=settings.false_despair,
            spread=settings.spread,
            seed=settings.seed,
        ),
    )


def _checker(settings: JsonSchemaSettings | ToolCallSettings) -> SchemaChecker:
    from samplewise.verifiers.schema_check import SCHEMA_TARGET, SchemaChecker

    return SchemaChecker(pool=_pool(SCHEMA_TARGET, settings), max_chars=settings.max_chars)


def _pool(
    target: str,
    settings: PooledSettings,
    preload: list[str] | None = None,
    env: Mapping[str, str] | None = None,
) -> WorkerPool:
    return WorkerPool(
        target,
        size=settings.workers,
        timeout_s=settings.timeout_s,
        memory_mb=settings.memory_mb,
        env=env,
        preload=preload or (),
    )


def _as_text(reference: str | int | float | None) -> str | None:
    return None if reference is None else str(reference)
