"""What is shipped: one import package that lives beside others of its folders' names, and locks."""

import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
FOLDERS = ("models", "policies", "proxy", "verifiers")
LOCKS = sorted(path.name for path in ROOT.glob("requirements*.lock"))
LOCKED = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+)(?: ; [^\\]+?)?(?: --hash=sha256:[0-9a-f]{64})+"
)
# The two published packages that a plain install of these folders would overwrite.
NEIGHBOURS = {"verifiers": "verifiers==0.4.0", "proxy": "proxy.py==2.4.10"}
# Model data of every kind that is shipped, in a folder that is no package.
PROBES = ("weights.safetensors", "config.json", "vocabulary.txt", "card.md")


@dataclass(frozen=True, slots=True)
class Built:
    """A copy of the checkout, and what was built from it; the wheel was built from the sdist."""

    source: Path
    sdist: Path
    wheel: Path


@dataclass(frozen=True, slots=True)
class Environment:
    """An environment apart from this one, with the locked runtime packages in it."""

    path: Path

    def run(self, command: str, *args: str) -> str:
        """Run a command of this environment outside the checkout."""
        return run(str(self.path / "bin" / command), *args, cwd=self.path)

    def pip(self, *args: str) -> None:
        self.run("python", "-m", "pip", "--quiet", "--disable-pip-version-check", *args)

    @property
    def site(self) -> Path:
        return Path(
            self.run("python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
        )


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=outside(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def outside() -> dict[str, str]:
    """This process's variables without those that change what Python can import."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def lines(lock: str) -> list[str]:
    """One string per requirement: continued lines are joined, comments dropped."""
    text = re.sub(r"\s*\\\n\s*", " ", (ROOT / lock).read_text())
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def versions(lock: str) -> dict[str, set[str]]:
    """The locked versions of each package; more than one where they depend on a marker."""
    found: dict[str, set[str]] = {}
    for line in lines(lock):
        match = LOCKED.fullmatch(line)
        assert match, line
        found.setdefault(canonicalize_name(match["name"]), set()).add(match["version"])
    return found


def wanted(lock: str) -> list[Requirement]:
    """What pyproject.toml asks of this lock, less what it includes from other groups."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups, extras = settings["dependency-groups"], settings["project"]["optional-dependencies"]
    runtime = settings["project"]["dependencies"]
    texts = {
        "requirements.lock": runtime,
        "requirements-build.lock": groups["build"],
        "requirements-test.lock": groups["test"],
        "requirements-litellm.lock": runtime + extras["litellm"],
        "requirements-dev.lock": runtime + groups["build"] + groups["test"] + groups["dev"],
    }[lock]
    return [Requirement(text) for text in texts if isinstance(text, str)]


def shipped(source: Path) -> set[str]:
    """Every file of the four folders, under the name it has when installed."""
    return {
        f"samplewise/{path.relative_to(source)}"
        for folder in FOLDERS
        for path in (source / folder).rglob("*")
        if path.is_file()
    }


def digests(folder: Path) -> dict[str, str]:
    """The content of every file, less the bytecode that importing writes."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    source = tmp_path_factory.mktemp("checkout") / "samplewise"
    ignored = shutil.ignore_patterns(
        ".*", "__pycache__", "build", "dist", "*.db", "*.egg-info", "*.pyc"
    )
    shutil.copytree(ROOT, source, symlinks=True, ignore=ignored)
    probes = source / "models" / "packaging_probe"
    probes.mkdir()
    for name in PROBES:
        (probes / name).write_text(name)
    # Not isolated: an isolated build would fetch a setuptools that no lock names.
    run(sys.executable, "-m", "build", "--no-isolation", ".", cwd=source)
    (sdist,) = (source / "dist").glob("*.tar.gz")
    (wheel,) = (source / "dist").glob("*.whl")
    return Built(source, sdist, wheel)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    path = tmp_path_factory.mktemp("environment")
    venv.create(path, with_pip=True)
    made = Environment(path)
    made.pip("install", "--require-hashes", "-r", str(ROOT / "requirements.lock"))
    return made


@pytest.mark.parametrize("folder", FOLDERS)
def test_importing_a_folder_from_the_checkout_root_says_what_to_import(folder: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {folder}"],
        cwd=ROOT,
        env=outside(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.endswith(f"ImportError: import samplewise.{folder}\n")


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_folder_is_linked_into_the_package_by_a_relative_link(folder: str) -> None:
    link = ROOT / "src" / "samplewise" / folder
    assert link.readlink() == Path("..", "..", folder)


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_name_no_host(lock: str) -> None:
    assert "://" not in (ROOT / lock).read_text()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_requirement_has_one_version_and_a_hash(lock: str) -> None:
    assert lines(lock)
    assert [line for line in lines(lock) if not LOCKED.fullmatch(line)] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_satisfy_pyproject(lock: str) -> None:
    locked = versions(lock)
    unmet = [
        str(requirement)
        for requirement in wanted(lock)
        if not (found := locked.get(canonicalize_name(requirement.name)))
        or not all(requirement.specifier.contains(version) for version in found)
    ]
    assert unmet == [], "run: make lock"


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "LICENSE"])
def test_the_checkout_tells_what_it_is_what_changed_and_on_which_terms(name: str) -> None:
    assert (ROOT / name).read_text().strip()


@pytest.mark.slow
def test_neither_sdist_nor_wheel_contains_a_link(built: Built) -> None:
    with tarfile.open(built.sdist) as sdist:
        links = [member.name for member in sdist if member.issym() or member.islnk()]
    with zipfile.ZipFile(built.wheel) as wheel:
        links += [
            member.filename
            for member in wheel.infolist()
            if stat.S_ISLNK(member.external_attr >> 16)
        ]
    assert links == []


@pytest.mark.slow
def test_the_wheel_contains_every_file_of_the_four_folders(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        names = {name for name in wheel.namelist() if name.startswith("samplewise/")}
    own = {f"samplewise/{name}" for name in ("__init__.py", "__main__.py", "py.typed")}
    assert {f"samplewise/models/packaging_probe/{name}" for name in PROBES} <= names
    assert names == own | shipped(built.source), "see tool.setuptools.package-data"


@pytest.mark.slow
def test_installing_and_removing_harms_neither_verifiers_nor_proxy_py(
    built: Built, environment: Environment
) -> None:
    environment.pip("install", "--no-deps", *NEIGHBOURS.values())
    before = {name: digests(environment.site / name) for name in NEIGHBOURS}
    assert all(before.values())

    environment.pip("install", "--no-deps", "--no-index", str(built.wheel))
    assert {name: digests(environment.site / name) for name in NEIGHBOURS} == before
    environment.run("python", "-c", "import proxy, verifiers, samplewise.verifiers")

    environment.pip("uninstall", "--yes", "samplewise")
    assert {name: digests(environment.site / name) for name in NEIGHBOURS} == before
    environment.run("python", "-c", "import proxy, verifiers")
    assert not (environment.site / "samplewise").exists()


@pytest.mark.slow
def test_the_installed_command_explains_itself(built: Built, environment: Environment) -> None:
    environment.pip("install", "--no-deps", "--no-index", "--force-reinstall", str(built.wheel))
    assert "Usage" in environment.run("samplewise", "--help")


@pytest.mark.slow
def test_the_demo_runs_from_the_installed_wheel(built: Built, environment: Environment) -> None:
    environment.pip("install", "--no-deps", "--no-index", "--force-reinstall", str(built.wheel))
    said = environment.run("samplewise", "demo", "--problems", "5", "--json", "figures.json")
    figures = json.loads((environment.path / "figures.json").read_text())
    assert {row["family"] for row in figures["rows"]} == {"countdown", "arithmetic"}
    assert not any(row["failed"] for row in figures["rows"])
    assert list(environment.path.glob("*.png")), said
