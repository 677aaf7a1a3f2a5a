"""The verifiers `compile` and `lint` with real compilers and linters."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from samplewise.verifiers.base import Status, VerifierSetupError
from samplewise.verifiers.code.languages import LANGUAGES
from samplewise.verifiers.compiling import Compile, Lint
from samplewise.verifiers.sandbox.pool import SandboxPool
from tests.sandbox.fixtures import opened
from tests.verifiers.making import sample, task

PROGRAMS = {
    "python": ("x = 1", "x = (", "x = 1\nraise SystemExit(3)"),
    "javascript": ("let x = 1", "let = (", "process.exit(3)"),
    "c": ("int main(void) { return 0; }", "int main(", "int f(void) { return g(); }"),
    "cpp": ("int main() {}", "int main(", "template <class T> T f(T x) { return x; }"),
    "bash": ("echo 1", "if true", "exit 3"),
}


@pytest.mark.parametrize("language", PROGRAMS)
async def test_programs_are_compiled_and_not_run(language: str) -> None:
    missing = [tool for tool in LANGUAGES[language].tools if not os.access(tool, os.X_OK)]
    if missing:
        pytest.skip(f"needs {' '.join(missing)}")
    right, wrong, never_run = PROGRAMS[language]
    async with opened(output_bytes=2**20, memory_mb=512) as sandbox:
        verifier = Compile(name="c", sandbox=sandbox, language=LANGUAGES[language], timeout_s=60)
        verdicts = [
            await verifier.verify(task(), sample(f"```{language}\n{code}\n```"))
            for code in (right, wrong, never_run)
        ]
    assert [v.status for v in verdicts] == [Status.PASS, Status.FAIL, Status.PASS]
    assert verdicts[1].reason == "compile"
    assert "does not compile" in verdicts[1].feedback


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no_program"),
        ("```rust\nfn main() {}\n```", "no_program"),
        ("x = 1\n" * 2_000_000, "too_large"),
        ("x = " + "(" * 5000, "compile"),
        ("x = '\0'", "compile"),
    ],
)
async def test_bad_input_gets_a_verdict(text: str, reason: str) -> None:
    async with opened(output_bytes=2**20, memory_mb=512) as sandbox:
        verifier = Compile(name="c", sandbox=sandbox, language=LANGUAGES["python"], timeout_s=60)
        verdict = await verifier.verify(task(), sample(text))
    assert (verdict.status, verdict.reason) == (Status.FAIL, reason)


@pytest.fixture
def secret() -> Iterator[Path]:
    """A file of the server's machine that everyone may read."""
    with TemporaryDirectory(dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        file = Path(name, "secret.h")
        file.write_text("#error CANARY\n")
        yield file


async def test_the_compiler_cannot_read_the_server_for_a_program(secret: Path) -> None:
    if not os.access("/usr/bin/gcc", os.X_OK):
        pytest.skip("needs /usr/bin/gcc")
    async with opened(output_bytes=2**20, memory_mb=512) as sandbox:
        verifier = Compile(name="c", sandbox=sandbox, language=LANGUAGES["c"], timeout_s=60)
        verdict = await verifier.verify(task(), sample(f'```c\n#include "{secret}"\n```'))
    assert verdict.status is Status.FAIL
    assert "CANARY" not in verdict.feedback


@pytest.fixture(scope="module")
def linters() -> Iterator[str]:
    """An interpreter with the linters of this environment, for everyone to read."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    base = shutil.which(f"python{version}", path="/usr/local/bin:/usr/bin")
    if base is None:
        pytest.skip(f"needs a Python {version} below /usr")
    with TemporaryDirectory(dir="/var/tmp") as name:  # /tmp is its own inside
        Path(name).chmod(0o755)
        subprocess.run([base, "-m", "venv", "--without-pip", name], check=True, timeout=60)
        for package in ("ruff", "mypy", "typing_extensions", "mypy_extensions", "pathspec"):
            _copy(package, Path(name))
        for package in ("librt", "ast_serialize"):  # of newer mypy alone
            try:
                _copy(package, Path(name))
            except importlib.metadata.PackageNotFoundError:
                continue
        yield f"{name}/bin/python"


def _copy(package: str, to: Path) -> None:
    site = next((to / "lib").iterdir()) / "site-packages"
    for file in importlib.metadata.files(package) or ():
        place = to / "bin" / file.name if ".." in file.parts else site / file
        place.parent.mkdir(parents=True, exist_ok=True)
        if "__pycache__" not in file.parts:
            shutil.copy(str(file.locate()), place)


def _lint(sandbox: SandboxPool, tool: str, *options: str, most: int = 0) -> Lint:
    return Lint(
        name="lint", sandbox=sandbox, tool=tool, options=options, max_findings=most, timeout_s=120
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tool", "right", "wrong", "found"),
    [
        ("ruff", "x = 1\n", "import os\nx = 1\n", "line 1: F401"),
        ("ruff", "x = 1\n", "import os  # noqa\nx = 1\n", "line 1: F401"),
        ("ruff", "x = 1\n", "# ruff: noqa\nimport os\n", "line 2: F401"),
        ("ruff", "x = 1\n", "x = (\n", "line 2: invalid-syntax"),
        ("mypy", "x: int = 1\n", "x: int = 1\ny: str = x\n", "line 2: Incompatible types"),
        ("mypy", "x: int = 1\n", "def f():\n    return 1 + ''\n", "line 2: Unsupported operand"),
        ("mypy", "x: int = 1\n", "x = (\n", "line 2: "),
    ],
)
async def test_findings_of_a_linter_fail(
    tool: str, right: str, wrong: str, found: str, linters: str
) -> None:
    async with opened(output_bytes=2**20, memory_mb=1024, python=linters) as sandbox:
        verifier = _lint(sandbox, tool)
        assert (await verifier.verify(task(), sample(right))).status is Status.PASS
        verdict = await verifier.verify(task(), sample(f"```python\n{wrong}```"))
        lenient = await _lint(sandbox, tool, most=5).verify(task(), sample(wrong))
    assert (verdict.status, verdict.reason) == (Status.FAIL, "findings")
    assert found in verdict.feedback
    assert verdict.score is not None
    assert verdict.score < 1
    assert lenient.status is Status.PASS


@pytest.mark.slow
async def test_options_are_the_operators(linters: str) -> None:
    code = "def f(x):\n    return x\n"
    async with opened(output_bytes=2**20, memory_mb=1024, python=linters) as sandbox:
        plain = await _lint(sandbox, "mypy").verify(task(), sample(code))
        strict = await _lint(sandbox, "mypy", "--strict").verify(task(), sample(code))
        docs = await _lint(sandbox, "ruff", "--select=D").verify(task(), sample(code))
    assert [v.status for v in (plain, strict, docs)] == [Status.PASS, Status.FAIL, Status.FAIL]


@pytest.mark.parametrize(
    "code",
    ["x: int = ''  # type: ignore", "# mypy: ignore-errors", "@no_type_check\ndef f(): ..."],
)
async def test_a_program_that_tells_the_linter_to_look_away_fails(code: str) -> None:
    async with opened(output_bytes=2**20) as sandbox:
        verdict = await _lint(sandbox, "mypy").verify(task(), sample(code))
    assert (verdict.status, verdict.reason) == (Status.FAIL, "forbidden")


async def test_a_linter_that_is_not_installed_is_named_at_the_start() -> None:
    async with opened(output_bytes=2**20) as sandbox:
        verifier = Lint(name="lint", sandbox=sandbox, tool="ruff")
        with pytest.raises(VerifierSetupError, match="pip install ruff"):
            await verifier.open()
