"""Verifiers that ask a tool, from their settings. Nothing is started here."""

from __future__ import annotations

import sys
from typing import assert_never

from samplewise.proxy.config_tools import (
    CitationsSettings,
    CompileSettings,
    CoqSettings,
    HtmlSettings,
    LeanSettings,
    LintSettings,
    MarkupSettings,
    ReplaySettings,
    SandboxedSettings,
    SmtSettings,
    TextSimilaritySettings,
    ToolSettings,
    XmlSettings,
    YamlSettings,
)
from samplewise.verifiers.base import Verifier
from samplewise.verifiers.citations import Citations
from samplewise.verifiers.code.languages import LANGUAGES
from samplewise.verifiers.compiling import Compile, Lint
from samplewise.verifiers.coq import Coq
from samplewise.verifiers.lean import Lean, Replay
from samplewise.verifiers.markup import Markup
from samplewise.verifiers.markup_check import MARKUP_TARGET, Bounds
from samplewise.verifiers.pool import WorkerPool
from samplewise.verifiers.proofs.kimina import Kimina
from samplewise.verifiers.sandbox.pool import SandboxPool
from samplewise.verifiers.smt import Script, Smt
from samplewise.verifiers.templates import Template
from samplewise.verifiers.text_similarity import TextSimilarity

__all__ = ["build_tool"]

_REPORTS = 4 * 2**20  # what all steps of a run print


def build_tool(name: str, settings: ToolSettings) -> Verifier:
    """Build a verifier that asks a tool.

    Raises:
        VerifierSetupError: a template or script cannot be used.
    """
    match settings:
        case CoqSettings():
            return Coq(
                name=name,
                sandbox=_sandbox(settings),
                statement=Template.parse(settings.statement),
                theorem=Template.parse(settings.theorem),
                preamble=settings.preamble,
                definitions=settings.definitions,
                axioms=frozenset(settings.axioms),
                timeout_s=settings.timeout_s,
            )
        case LeanSettings():
            return _lean(name, settings)
        case SmtSettings():
            return Smt(
                name=name,
                sandbox=_sandbox(settings),
                script=Script.parse(settings.script),
                expect=settings.expect,
                timeout_s=settings.timeout_s,
            )
        case CompileSettings():
            return Compile(
                name=name,
                sandbox=_sandbox(settings),
                language=LANGUAGES[settings.language],
                timeout_s=settings.timeout_s,
            )
        case LintSettings():
            return Lint(
                name=name,
                sandbox=_sandbox(settings, settings.python or sys.executable),
                tool=settings.tool,
                options=settings.options,
                max_findings=settings.max_findings,
                timeout_s=settings.timeout_s,
            )
        case XmlSettings() | YamlSettings() | HtmlSettings():
            bounds = Bounds(settings.max_depth, settings.max_nodes)
            return Markup(
                name=name,
                kind=settings.type,
                pool=_pool(settings),
                bounds=bounds,
                max_chars=settings.max_chars,
                fences=settings.fences,
            )
        case CitationsSettings():
            return Citations(
                name=name,
                context=None if settings.context is None else Template.parse(settings.context),
                min_words=settings.min_words,
                min_quotes=settings.min_quotes,
                pass_threshold=settings.pass_threshold,
                max_chars=settings.max_chars,
            )
        case TextSimilaritySettings():
            return TextSimilarity(
                name=name,
                input=Template.parse(settings.input),
                reference=Template.parse(settings.reference),
                metric=settings.evaluation_metric,
                pass_threshold=settings.pass_threshold,
                max_chars=settings.max_chars,
            )
        case _:
            assert_never(settings)


def _lean(name: str, settings: LeanSettings) -> Verifier:
    key = settings.api_key
    server = Kimina(
        url=settings.url,
        api=settings.api,
        api_key=None if key is None else key.get_secret_value(),
        timeout_s=settings.timeout_s,
    )
    return Lean(
        name=name,
        server=server,
        statement=Template.parse(settings.statement),
        preamble=settings.preamble,
        axioms=frozenset(settings.axioms),
        replay=None if settings.replay is None else _replay(settings.replay),
    )


def _replay(settings: ReplaySettings) -> Replay:
    sandbox = SandboxPool(
        workers=1,
        spare=0,
        memory_mb=settings.memory_mb,
        output_bytes=_REPORTS,
        cgroup=settings.cgroup,
        folders=settings.folders,
    )
    return Replay(sandbox=sandbox, command=settings.command, timeout_s=settings.timeout_s)


def _sandbox(settings: SandboxedSettings, python: str | None = None) -> SandboxPool:
    return SandboxPool(
        workers=settings.workers,
        spare=settings.spare,
        memory_mb=settings.memory_mb,
        output_bytes=_REPORTS,
        python=python,
        cgroup=settings.cgroup,
    )


def _pool(settings: MarkupSettings) -> WorkerPool:
    return WorkerPool(
        MARKUP_TARGET,
        size=settings.workers,
        timeout_s=settings.timeout_s,
        memory_mb=settings.memory_mb,
    )
