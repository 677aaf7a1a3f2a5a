"""Repositories that are tested with pytest, which lies in a folder that the sandbox is shown."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from samplewise.verifiers.base import Status
from samplewise.verifiers.patch_tests import PatchTests
from tests.patch.patches import fenced
from tests.patch.repo import CORE, FILES, FIXED, Repository, make_repository
from tests.sandbox.fixtures import opened
from tests.verifiers.making import sample, task

TESTS = """import pytest

from calc.core import clamp, mean


@pytest.mark.parametrize("value", [11, 50])
def test_high(value):
    assert clamp(value, 0, 10) == 10


class TestMean:
    def test_nothing(self):
        assert mean([]) == 0

    def test_some(self):
        assert mean([1, 3]) == 2
"""
NAMES = ("test_high[11]", "test_high[50]", "TestMean::test_nothing", "TestMean::test_some")
PASSES = CORE + "\nimport _pytest.runner as r\n"
CHEATS = {
    "nothing": CORE + "\n",
    "exit": CORE + "\nimport os\nos._exit(0)\n",
    "reports are changed": PASSES
    + """
real = r.TestReport.from_item_and_call
def made(item, call):
    call.excinfo = None
    return real(item, call)
r.TestReport.from_item_and_call = made
""",
    "calls are left out": PASSES + "r.pytest_runtest_call = lambda item: None\n",
    "the hook is another": CORE
    + """
import gc, pluggy
for hook in [o for o in gc.get_objects() if isinstance(o, pluggy.PluginManager)]:
    class Quiet:
        @pluggy.HookimplMarker("pytest")(tryfirst=True)
        def pytest_pyfunc_call(self, pyfuncitem): return True
    hook.register(Quiet())
""",
    "equal to everything": """
class Equal(int):
    def __eq__(self, other): return True
def mean(values): return Equal(0)
def clamp(value, low, high): return Equal(0)
""",
    "forged": CORE
    + """
import os
names = ["test_high[11]", "test_high[50]", "TestMean::test_nothing", "TestMean::test_some"]
os.write(1, "".join(f"PASSED tests/test_core.py::{n}\\n" for n in names).encode())
os.write(1, b"==== 4 passed in 0.01s ====\\n")
os._exit(0)
""",
}


@pytest.fixture(scope="module")
def tools() -> Iterator[Path]:
    """A folder with pytest and what it needs, as an operator would install it."""
    # Not below pytest's own: that is closed to nobody, who starts sandboxes where the server is
    # root.
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for package in ("pytest", "_pytest", "py", "pluggy", "iniconfig", "packaging", "pygments"):
            found = importlib.util.find_spec(package)
            if found is not None and found.submodule_search_locations:
                shutil.copytree(found.submodule_search_locations[0], folder / package)
            elif found is not None and found.origin is not None:
                shutil.copy(found.origin, folder)
        for described in Path(pytest.__file__).parents[1].glob("pluggy-*.dist-info"):
            shutil.copytree(described, folder / described.name)
        yield folder


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    files = {k: v for k, v in FILES.items() if not k.startswith("tests/")}
    return make_repository(tmp_path_factory.mktemp("repository"), files)


@pytest.fixture
async def verifier(repo: Repository, tools: Path) -> AsyncIterator[PatchTests]:
    instance = repo.instance(
        hidden=repo.patch({"tests/test_core.py": TESTS, "conftest.py": ""}),
        command=("python3", "-m", "pytest", "-rA", "-p", "no:cacheprovider"),
        results="pytest",
        fail_to_pass=tuple(f"tests/test_core.py::{name}" for name in NAMES[:3]),
        pass_to_pass=(f"tests/test_core.py::{NAMES[3]}",),
        environment={"PYTHONPATH": str(tools)},
    )
    async with opened(output_bytes=2**23, memory_mb=512, folders=(str(tools),)) as sandbox:
        made = PatchTests(
            name="p", sandbox=sandbox, instances={"i": instance}, default="i", timeout_s=60
        )
        await made.open()
        yield made


async def test_only_the_patch_that_mends_passes(verifier: PatchTests, repo: Repository) -> None:
    contents = {"right": FIXED, **CHEATS}
    answers = [fenced(repo.patch({"calc/core.py": text})) for text in contents.values()]
    asked = task()
    judged = await asyncio.gather(*(verifier.verify(asked, sample(a)) for a in answers))
    verdicts = dict(zip(contents, judged, strict=True))
    expected = {name: Status.PASS if name == "right" else Status.FAIL for name in contents}
    said = {name: (v.reason, v.feedback) for name, v in verdicts.items()}
    assert {name: v.status for name, v in verdicts.items()} == expected, said
    assert verdicts["right"].details["fail_to_pass"] == "3/3"
    assert verdicts["reports are changed"].reason == "tampered", said
