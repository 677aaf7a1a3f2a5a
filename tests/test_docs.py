"""The documentation against the code: settings, configurations, JSON, links and examples."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import re
import shlex
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import pytest
from pydantic.fields import FieldInfo

from samplewise.proxy.cli import main
from samplewise.proxy.config import load_config, load_text
from samplewise.proxy.config_types import Settings
from samplewise.verifiers.base import Ended, Sample, Status, Task, VerifierError
from samplewise.verifiers.webhook import Webhook
from tests.upstream import Answer, Rule, UpstreamProcess
from tests.wire.proxy import Proxy, backend, serve

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
SECRETS = {
    "ADMIN_KEY": "admin-0123456789",
    "CHEAP_API_KEY": "abc-123",
    "CI_KEY": "ci-key-0123456789",
    "WEBHOOK_SECRET": "abc-123",
}
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FIELDS = re.compile(r"<!-- fields: (\w+) -->\n((?:\|.*\n)+)")


def blocks(language: str) -> list[Any]:
    """Return every fenced block of a language, named by page and place."""
    return [
        pytest.param(match[2], id=f"{page.name}:{page.read_text()[: match.start()].count(chr(10))}")
        for page in PAGES
        for match in FENCE.finditer(page.read_text())
        if match[1] == language
    ]


def models(base: type[Settings] = Settings) -> Iterator[type[Settings]]:
    """Yield every settings model that has fields of its own."""
    for model in base.__subclasses__():
        if own(model) and model.__name__ != "_PolicyOnly":
            yield model
        yield from models(model)


def own(model: type[Settings]) -> dict[str, FieldInfo]:
    """Return the fields that a model itself defines, by the name that stands in a file."""
    declared = inspect.get_annotations(model)
    fields = {name: field for name, field in model.model_fields.items() if name in declared}
    return {field.alias or name: field for name, field in fields.items()}


def documented() -> dict[str, dict[str, str]]:
    """Return, by model, the fields of its table in the configuration page and their defaults."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    tables = {}
    for name, table in FIELDS.findall(text):
        rows = [[cell.strip() for cell in row.split("|")] for row in table.splitlines()[2:]]
        tables[name] = {row[1].strip("`"): row[3].strip("`") for row in rows}
    return tables


def shown(field: FieldInfo) -> str | None:
    """Return a default as the page writes it; None for one that has to be said in words."""
    if field.is_required():
        return "required"
    value = field.default
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float | Decimal):
        return f"{value:.12g}"
    if field.default_factory is not None:
        return None
    if value is None:
        return "none"
    return value if isinstance(value, str) and value else "empty"


def test_every_settings_model_has_a_table() -> None:
    assert set(documented()) == {model.__name__ for model in models()}


@pytest.mark.parametrize("model", list(models()), ids=lambda model: model.__name__)
def test_a_table_has_every_field_with_its_default(model: type[Settings]) -> None:
    table, fields = documented()[model.__name__], own(model)
    assert sorted(table) == sorted(fields)
    defaults = {name: shown(field) for name, field in fields.items()}
    assert {n: table[n] for n, text in defaults.items() if text} == {
        n: text for n, text in defaults.items() if text
    }


@pytest.mark.parametrize("text", blocks("yaml"))
def test_a_yaml_block_is_a_whole_correct_configuration(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT))  # for the example policy
    load_text(text, "block.yaml", SECRETS)


@pytest.mark.parametrize("text", blocks("json"))
def test_a_json_block_is_json(text: str) -> None:
    json.loads(text)


@pytest.mark.parametrize("text", blocks("python"))
def test_a_python_block_compiles(text: str) -> None:
    compile(text, "block.py", "exec")


@pytest.mark.parametrize("text", blocks("sh"))
def test_a_command_has_the_options_that_a_block_gives_it(text: str) -> None:
    for line in text.replace("\\\n", " ").splitlines():
        program, *arguments = shlex.split(line, comments=True) if "samplewise" in line else [""]
        if program.endswith("samplewise"):
            command = main.get_command(click.Context(main), arguments[0])
            while isinstance(command, click.Group):
                arguments = arguments[1:]
                command = command.get_command(click.Context(command), arguments[0])
            assert command is not None, line
            command.make_context(arguments[0], arguments[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_inside_the_repository_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}
            assert anchor in anchors, target


@pytest.mark.parametrize("name", ["config.yaml", "cascade.yaml"])
def test_an_example_configuration_is_correct(name: str) -> None:
    assert load_config(EXAMPLES / name, SECRETS).warnings == ()


@asynccontextmanager
async def serving(upstream: UpstreamProcess, folder: Path) -> AsyncIterator[Proxy]:
    """Run the proxy with the example configuration, over the scripted upstream."""
    text = (EXAMPLES / "config.yaml").read_text()
    text = text.replace("http://127.0.0.1:8000/v1", upstream.base_url)
    text = re.sub(r"^store: .*$", "", text, flags=re.MULTILINE)
    async with serve(text, folder) as proxy:
        yield proxy


async def script(upstream: UpstreamProcess) -> None:
    """Let the model be right two times out of three."""
    person = (Answer(text="Ada, 36"), Answer(text='```json\n{"name": "Ada", "age": 36}\n```'))
    colours = (Answer(text="red"), Answer(text="red, blue and green"))
    await upstream.script(
        "qwen",
        "21 + 21 is 42. The answer is 42.",
        "The answer is 41.",
        "Twice 21, so the answer is 42.",
        rules=(Rule(contains="person", answers=person), Rule(contains="colours", answers=colours)),
    )


async def test_the_routes_of_the_example_configuration_answer(
    upstream: UpstreamProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)  # graders are looked for in the working directory
    await script(upstream)
    async with serving(upstream, tmp_path) as proxy:
        outcomes = {
            "plain": (await proxy.chat("plain", "What is 21 + 21?")).said["outcome"],
            "vote": (await proxy.chat("vote", "What is 21 + 21?")).said["outcome"],
            "person": (await proxy.chat("person", "A person as JSON, please")).said["outcome"],
        }
        options = {"reference": "42"}
        math = await proxy.chat("math", "What is 21 + 21?", samplewise=options)
        item = {"item": {"words": ["red", "blue", "green"]}}
        words = await proxy.chat("words", "Name some colours", samplewise=item)
        outcomes |= {"math": math.said["outcome"], "words": words.said["outcome"]}
        assert words.text == "red, blue and green"
    assert outcomes == {
        "plain": "unverified",
        "vote": "agreed",
        "person": "verified",
        "math": "verified",
        "words": "verified",
    }


async def test_the_client_scripts_print_answer_and_bill(
    upstream: UpstreamProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    await script(upstream)
    async with serving(upstream, tmp_path) as proxy:
        for name in ("chat.py", "stream.py"):
            async with running(name, "vote", OPENAI_BASE_URL=f"{proxy.url}/v1") as process:
                out, err = await process.communicate()
            assert process.returncode == 0, err.decode()
            assert "answer is 42" in out.decode()
            assert "agreed" in out.decode()
            assert "$0.0000" in out.decode()


@asynccontextmanager
async def running(name: str, *arguments: str, **env: str) -> AsyncIterator[Process]:
    """Run an example beside the test, without settings that a client library would read."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("OPENAI_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLES / name), *arguments,
        env={**kept, "NO_PROXY": "*", **env}, stdout=PIPE, stderr=PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_the_webhook_example_judges_what_is_signed() -> None:
    task = Task(request_id="r", route="short", messages=b"[]")
    samples = [Sample("s", 0, text, text, Ended.EOS) for text in ("a b c", "word " * 21)]
    async with running("webhook_grader.py", "0", WEBHOOK_SECRET="right") as process:
        assert process.stdout is not None
        port = (await process.stdout.readline()).split()[-1].decode()
        for secret in ("right", "wrong"):
            webhook = Webhook(name="short", url=f"http://127.0.0.1:{port}/grade", secret=secret)
            await webhook.open()
            try:
                if secret == "right":
                    verdicts = [await webhook.verify(task, sample) for sample in samples]
                    assert [v.status for v in verdicts] == [Status.PASS, Status.FAIL]
                else:
                    with pytest.raises(VerifierError, match="401"):
                        await webhook.verify(task, samples[0])
            finally:
                await webhook.close()


async def test_the_example_policy_draws_a_third_sample_only_for_a_tie(
    upstream: UpstreamProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    await upstream.script("same", "it is 42")
    await upstream.script("apart", "it is 42", "it is 41", "it is 42")
    routes = "".join(
        f"  {model}: {{backends: [{model}], "
        "policy: {type: python, factory: 'examples.policy:TieBreak', args: {first: 2}}}\n"
        for model in ("same", "apart")
    )
    backends = backend(upstream, "same", "same") + backend(upstream, "apart", "apart")
    async with serve(f"backends:\n{backends}routes:\n{routes}", tmp_path) as proxy:
        assert (await proxy.chat("same")).said["samples"]["drawn"] == 2
        apart = await proxy.chat("apart")
        assert (apart.text, apart.said["samples"]["drawn"]) == ("it is 42", 3)
