"""Settings of verifiers that ask a tool: provers, solvers, compilers, parsers, comparisons."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from samplewise.proxy.config_types import Count, Many, Seconds, Secret, Settings, Text, Url
from samplewise.proxy.config_verifier_base import (
    Megabytes,
    PooledSettings,
    Workers,
    _VerifierSettings,
)
from samplewise.verifiers.proofs.kimina import ANSWER_S

__all__ = [
    "CitationsSettings",
    "CompileSettings",
    "CoqSettings",
    "HtmlSettings",
    "LeanSettings",
    "LintSettings",
    "MarkupSettings",
    "ReplaySettings",
    "SandboxedSettings",
    "SmtSettings",
    "TextSimilaritySettings",
    "ToolSettings",
    "XmlSettings",
    "YamlSettings",
]

Share = Annotated[float, Field(ge=0, le=1)]


def _folder(value: str) -> str:
    if not value.startswith("/") or value == "/":
        raise ValueError("must be the full path of a folder, and not / itself")
    return value


def _options(value: tuple[str, ...]) -> tuple[str, ...]:
    for option in value:
        if not option.startswith("-"):
            raise ValueError(f"{option!r} is no option: write --name=value")
    return value


class SandboxedSettings(PooledSettings):
    """A tool in sandboxes: `workers` run at once, `spare` wait; `memory_mb` bounds one run.

    `cgroup` is a folder of control groups that the server may use.
    """

    memory_mb: Megabytes = 1024
    spare: Annotated[int, Field(ge=0, le=64)] = 1
    cgroup: Text | None = None


class CoqSettings(SandboxedSettings):
    """Proofs of `statement` in Coq; `preamble` is for both sides, `definitions` for the statement.

    `axioms` are full names that a proof may rest on, `timeout_s` is for the whole check.
    """

    type: Literal["coq"]
    statement: Text = "{{reference}}"
    theorem: Text = "answer"
    preamble: str = ""
    definitions: str = ""
    axioms: Many[Text] = ()
    timeout_s: Seconds = 30.0


class ReplaySettings(Settings):
    """The operator's second check of a Lean proof, in a sandbox that shows `folders`."""

    command: Annotated[Many[Text], Field(min_length=1)]
    folders: Many[Annotated[str, AfterValidator(_folder)]] = ()
    memory_mb: Megabytes = 8192
    timeout_s: Seconds = 300.0
    cgroup: Text | None = None


class LeanSettings(_VerifierSettings):
    """Proofs of `statement` in Lean 4, by a Kimina server at `url`."""

    type: Literal["lean"]
    url: Url
    api: Literal["auto", "check", "verify"] = "auto"
    api_key: Secret | None = None
    statement: Text = "{{reference}}"
    preamble: str = "import Mathlib"
    axioms: Many[Text] = Field(
        default_factory=lambda: ("propext", "Classical.choice", "Quot.sound"), strict=False
    )
    replay: ReplaySettings | None = None
    timeout_s: Seconds = 60.0

    @property
    def beyond_s(self) -> float:
        """What a verdict may take over `timeout_s`: the way to the server and back, the replay."""
        return ANSWER_S + (0.0 if self.replay is None else self.replay.timeout_s)


class SmtSettings(SandboxedSettings):
    """A term of SMT-LIB 2 in a script of the operator, for z3."""

    type: Literal["smt"]
    script: Text
    expect: Literal["sat", "unsat"] = "unsat"
    timeout_s: Seconds = 10.0


class CompileSettings(SandboxedSettings):
    """Programs that compile; nothing of them is run."""

    type: Literal["compile"]
    language: Literal["python", "javascript", "c", "cpp", "bash"] = "python"
    timeout_s: Seconds = 10.0


class LintSettings(SandboxedSettings):
    """Python programs without findings of `tool`, which `python` has installed."""

    type: Literal["lint"]
    tool: Literal["ruff", "mypy"] = "ruff"
    options: Annotated[Many[Text], AfterValidator(_options)] = ()
    max_findings: Annotated[int, Field(ge=0)] = 0
    python: Text | None = None
    timeout_s: Seconds = 30.0


class MarkupSettings(PooledSettings):
    """A text of some form: nested at most `max_depth` deep, of at most `max_nodes` elements."""

    max_chars: Count = 1_000_000
    max_depth: Annotated[int, Field(ge=1, le=500)] = 100
    max_nodes: Count = 100_000
    fences: bool = True
    workers: Workers = 1


class XmlSettings(MarkupSettings):
    """Well-formed XML without a document type."""

    type: Literal["xml"]


class YamlSettings(MarkupSettings):
    """One YAML document, its aliases counted written out."""

    type: Literal["yaml"]


class HtmlSettings(MarkupSettings):
    """HTML whose tags match."""

    type: Literal["html"]


class CitationsSettings(_VerifierSettings):
    """Quotes that stand in what the request gave."""

    type: Literal["citations"]
    context: Text | None = None
    min_words: Count = 3
    min_quotes: Annotated[int, Field(ge=0)] = 1
    pass_threshold: Share = 1.0
    max_chars: Count = 1_000_000


class TextSimilaritySettings(_VerifierSettings):
    """How alike a text and a reference are, as OpenAI's grader of that name."""

    type: Literal["text_similarity"]
    evaluation_metric: Literal["fuzzy_match", "rouge_1", "rouge_2", "rouge_3", "rouge_l"] = (
        "rouge_l"
    )
    input: Text = "{{sample.output_text}}"
    reference: Text = "{{reference}}"
    pass_threshold: Share | None = None
    max_chars: Annotated[int, Field(ge=1, le=200_000)] = 20_000


ToolSettings = (
    CoqSettings
    | LeanSettings
    | SmtSettings
    | CompileSettings
    | LintSettings
    | XmlSettings
    | YamlSettings
    | HtmlSettings
    | CitationsSettings
    | TextSimilaritySettings
)
