"""A Coq verifier for tests, or a skip that says why there is none."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from samplewise.verifiers.coq import COQ_LANGUAGE, Coq
from samplewise.verifiers.templates import Template
from tests.sandbox.fixtures import opened

STATEMENT = "forall n m : nat, n + m = m + n"


@asynccontextmanager
async def coq(statement: str = STATEMENT, **settings: Any) -> AsyncIterator[Coq]:
    """Yield a verifier of `statement` with an open sandbox."""
    missing = [path for path in COQ_LANGUAGE.tools if not os.access(path, os.X_OK)]
    if missing:
        pytest.skip("needs Coq: make test-slow installs the Debian package where it may")
    async with opened(output_bytes=2**22, memory_mb=1024) as sandbox:
        yield Coq(
            name="coq",
            sandbox=sandbox,
            statement=Template.parse(statement),
            theorem=Template.parse("answer"),
            **{"preamble": "From Coq Require Import Lia.", "timeout_s": 120.0, **settings},
        )
