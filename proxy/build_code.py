"""Verifiers that run what a model wrote, from their settings. Nothing is started here."""

from __future__ import annotations

from functools import partial

from samplewise.proxy.asking import Models
from samplewise.proxy.config_code import CodeTestsSettings
from samplewise.proxy.config_patch import InstanceSettings, PatchTestsSettings
from samplewise.proxy.tests_prompt import TestsPrompt
from samplewise.verifiers.base import Verifier
from samplewise.verifiers.code.languages import LANGUAGES
from samplewise.verifiers.code.suite import read_suite
from samplewise.verifiers.code_tests import CodeTests
from samplewise.verifiers.generated_tests import GeneratingTests, Generator
from samplewise.verifiers.patch.repository import Instance
from samplewise.verifiers.patch.rules import PathRules
from samplewise.verifiers.patch_tests import PatchTests
from samplewise.verifiers.sandbox.opening import OpenedSandbox
from samplewise.verifiers.sandbox.pool import FORK_PRELOAD, SandboxPool
from samplewise.verifiers.sandbox.remote import RemoteSandbox

__all__ = ["build_code_tests", "build_patch_tests"]

_VARIED = {"temperature": 0.8}  # as the source of the method
_PROGRAM_OUTPUT = 8 * 2**20  # results of all tests of one program


def build_code_tests(name: str, settings: CodeTestsSettings, models: Models) -> Verifier:
    """Build `code_tests`, with the model that writes tests for it where there is one."""
    tests = _code_tests(name, settings)
    generator = settings.generator
    if generator is None:
        return tests
    params = _VARIED if generator.sampling_params is None else generator.sampling_params
    return GeneratingTests(
        tests=tests,
        generator=Generator(
            model=models.chat(generator.model, generator.timeout_s),
            writer=TestsPrompt(generator.per_set),
            sets=generator.sets,
            per_set=generator.per_set,
            max_tokens=generator.max_tokens,
            params=params,
        ),
    )


def _sandbox(settings: CodeTestsSettings) -> OpenedSandbox:
    executor = settings.executor
    if executor is not None:
        key = executor.api_key
        return RemoteSandbox(
            executor.url,
            executor.api,
            key=None if key is None else key.get_secret_value(),
            version=executor.version,
            workers=settings.workers,
            memory_mb=settings.memory_mb,
            output_bytes=_PROGRAM_OUTPUT,
        )
    return _pool(settings)(
        # Results come as JSON.
        preload=("json",) if settings.sandbox == "single_use" else FORK_PRELOAD,
        kind=settings.sandbox,
    )


def _pool(settings: CodeTestsSettings | PatchTestsSettings) -> partial[SandboxPool]:
    """Return a pool of sandboxes here, but for what differs between the two verifiers."""
    return partial(
        SandboxPool,
        workers=settings.workers,
        spare=settings.spare,
        memory_mb=settings.memory_mb,
        output_bytes=_PROGRAM_OUTPUT,
        python=settings.python,
        cgroup=settings.cgroup,
    )


def _code_tests(name: str, settings: CodeTestsSettings) -> CodeTests:
    return CodeTests(
        name=name,
        sandbox=_sandbox(settings),
        language=LANGUAGES[settings.language],
        sources=tuple(source for source in settings.sources if source != "generated"),
        tests=None if settings.tests is None else read_suite(settings.tests),
        suites={name: read_suite(suite) for name, suite in settings.suites.items()},
        extract=settings.extract,
        timeout_s=settings.timeout_s,
        databases=settings.databases,
    )


def build_patch_tests(name: str, settings: PatchTestsSettings) -> Verifier:
    """Build `patch_tests`."""
    return PatchTests(
        name=name,
        sandbox=_pool(settings)(file_mb=settings.disk_mb, folders=settings.folders),
        instances={name: _instance(each) for name, each in settings.instances.items()},
        default=settings.default,
        extract=settings.extract,
        timeout_s=settings.timeout_s,
        canary=settings.canary,
        check_base=settings.check_base,
    )


def _instance(settings: InstanceSettings) -> Instance:
    return Instance(
        repository=settings.repository,
        commit=settings.commit,
        test_patch=settings.test_patch,
        command=settings.command,
        results=settings.results,
        fail_to_pass=settings.fail_to_pass,
        pass_to_pass=settings.pass_to_pass,
        rules=PathRules(
            tests=settings.test_paths,
            allow=settings.allow_paths,
            in_patch=settings.tests_in_patch,
        ),
        environment=settings.env,
    )
