"""Too little memory is said before numpy is loaded, which would end the process its own way."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest


@pytest.mark.parametrize("command", ["upstream", "demo"])
def test_too_little_memory_is_said(command: str) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (220 * 2**20, 220 * 2**20))

    done = subprocess.run(
        [sys.executable, "-m", "samplewise", command, "--port", "0"],
        preexec_fn=limit, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "samplewise: not enough memory for the embedded model: it needs 200 MB\n"
    )
