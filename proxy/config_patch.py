"""Settings of the verifier that runs a repository's tests on patches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from samplewise.proxy.config_types import Many, Name, Seconds, Settings, Text
from samplewise.proxy.config_verifier_base import Megabytes, PooledSettings
from samplewise.verifiers.patch.rules import TEST_PATHS

__all__ = ["InstanceSettings", "PatchTestsSettings"]


class InstanceSettings(Settings):
    """A repository at a commit, and the tests that a patch to it must pass.

    `test_patch` is a file with a patch of tests that the model does not see.
    """

    repository: Text
    commit: Text
    test_patch: Text | None = None
    command: Many[Text] = Field(min_length=1)
    results: Literal["pytest", "unittest"]
    fail_to_pass: Many[Text] = Field(min_length=1)
    pass_to_pass: Many[Text] = ()
    test_paths: Many[Text] = Field(default_factory=lambda: TEST_PATHS)
    allow_paths: Many[Text] = ()
    tests_in_patch: Literal["reject", "restore"] = "reject"
    env: Annotated[Mapping[str, str], Field(repr=False)] = {}

    @model_validator(mode="after")
    def _can_be_run(self) -> InstanceSettings:
        if self.commit.startswith("-"):
            raise ValueError("commit: must be a commit, not an option")
        twice = set(self.fail_to_pass) & set(self.pass_to_pass)
        if twice:
            raise ValueError(f"pass_to_pass: {min(twice)} is in fail_to_pass, too")
        return self


class PatchTestsSettings(PooledSettings):
    """Patches against the tests of a repository, in a sandbox.

    `timeout_s` is for one run of the tests, of which a patch that passes needs two. `memory_mb`
    and `disk_mb` bound one run; `folders` are shown inside, read-only.
    """

    type: Literal["patch_tests"]
    instances: Annotated[Mapping[Name, InstanceSettings], Field(min_length=1)]
    default: Name | None = None
    extract: Literal["last_block", "all_blocks", "whole"] = "last_block"
    canary: bool = True
    check_base: bool = True
    timeout_s: Seconds = 300.0
    queue_s: Seconds = 3600.0
    memory_mb: Megabytes = 2048
    disk_mb: Megabytes = 512
    spare: Annotated[int, Field(ge=0, le=64)] = 0
    python: Text | None = None
    folders: Many[Text] = ()
    cgroup: Text | None = None

    @model_validator(mode="after")
    def _names_fit(self) -> PatchTestsSettings:
        if self.default is not None and self.default not in self.instances:
            raise ValueError(f"default: there is no instance {self.default}")
        missing = [folder for folder in self.folders if not Path(folder).is_absolute()]
        if missing:
            raise ValueError(f"folders: {missing[0]} must be a path from the root")
        return self
