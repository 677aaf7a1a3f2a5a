"""Settings of verifiers that run what a model wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from samplewise.proxy.config_judges import Sampling
from samplewise.proxy.config_types import Many, Name, Seconds, Secret, Settings, Text, Url
from samplewise.proxy.config_verifier_base import Megabytes, PooledSettings
from samplewise.verifiers.base import TestsError
from samplewise.verifiers.code.grade_sql import check_databases
from samplewise.verifiers.code.languages import LANGUAGES
from samplewise.verifiers.code.suite import check_language, read_suite
from samplewise.verifiers.sandbox import Kind

__all__ = ["CodeTestsSettings", "ExecutorSettings", "GeneratorSettings"]


def _tests(value: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        suite = read_suite(value)
    except TestsError as error:
        raise ValueError(str(error)) from None
    if suite.ref is not None:
        raise ValueError("ref is for requests: write the tests themselves")
    return value


Tests = Annotated[Mapping[str, Any], AfterValidator(_tests)]


class GeneratorSettings(Settings):
    """The model that writes tests, for requests that bring none.

    `sets` calls are made for each request, and the first `per_set` tests of each reply are run.
    """

    model: Name
    sets: Annotated[int, Field(ge=1, le=64)] = 4
    per_set: Annotated[int, Field(ge=1, le=100)] = 5
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 1024
    sampling_params: Sampling | None = Field(None, repr=False)
    timeout_s: Seconds = 60.0


class ExecutorSettings(Settings):
    """A server elsewhere that runs programs; `version` is Piston's name for the Python to take."""

    url: Url
    api: Literal["sandbox_fusion", "piston"]
    api_key: Secret | None = None
    version: Text = "*"


class CodeTestsSettings(PooledSettings):
    """Programs against tests, in a sandbox.

    `timeout_s` is for one program with all its tests. `workers` programs run at once, `spare`
    sandboxes wait for the next ones, and `memory_mb` bounds one. `python` is the interpreter
    inside; `cgroup` a folder of control groups that the server may use. `sandbox` says how
    sandboxes are made.
    """

    type: Literal["code_tests"]
    language: Literal["python", "javascript", "c", "cpp", "bash", "sql"] = "python"
    sources: Many[Literal["request", "config", "prompt", "generated"]] = Field(
        default_factory=lambda: ("request", "config", "prompt"), min_length=1, strict=False
    )
    tests: Tests | None = None
    suites: Mapping[Name, Tests] = {}
    databases: Mapping[Name, Text] = {}
    generator: GeneratorSettings | None = None
    extract: Literal["last_block", "all_blocks", "whole"] = "last_block"
    spare: Annotated[int, Field(ge=0, le=64)] = 2
    memory_mb: Megabytes = 512
    sandbox: Kind = "single_use"
    python: Text | None = None
    cgroup: Text | None = None
    executor: ExecutorSettings | None = None

    @model_validator(mode="after")
    def _tests_fit(self) -> CodeTestsSettings:
        named = {f"suites.{name}": suite for name, suite in self.suites.items()}
        given = named if self.tests is None else {"tests": self.tests, **named}
        for place, value in given.items():
            try:
                suite = read_suite(value)
                check_language(suite, LANGUAGES[self.language])
                check_databases(suite, self.databases)
            except TestsError as error:
                raise ValueError(f"{place}: {error}") from None
        if self.sources == ("config",) and self.tests is None:
            raise ValueError("sources: config needs tests")
        self._generator_fits()
        self._executor_fits()
        if self.sandbox == "landlock" and self.language != "python":
            raise ValueError("sandbox: landlock has no place to write, so it runs Python alone")
        return self

    def _executor_fits(self) -> None:
        if self.executor is None:
            return
        if self.language != "python":
            raise ValueError("executor: runs Python alone; other languages need the sandbox here")
        if self.python is not None or self.cgroup is not None or self.sandbox != "single_use":
            raise ValueError(
                "executor: python, cgroup and sandbox are of the sandbox here: remove them"
            )

    def _generator_fits(self) -> None:
        if ("generated" in self.sources) is (self.generator is None):
            raise ValueError("sources: generated goes with a generator, and a generator with it")
        if self.generator is not None and self.sources[-1] != "generated":
            raise ValueError("sources: generated must be the last, because it always has tests")
        if self.generator is not None and self.language != "python":
            raise ValueError("sources: generated is for Python, whose tests can be asserts")
