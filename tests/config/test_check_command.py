from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from samplewise import __version__
from samplewise.proxy.cli import main
from samplewise.proxy.cli.check import worst_case_nano
from samplewise.proxy.config import Config
from tests.config.given import PRICE, given, loaded


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "samplewise.yaml"


def test_a_right_file_shows_its_routes(file: Path) -> None:
    budget = {"usd_per_request": 0.01, "usd_per_day": 20, "samples": 8, "tokens": 90_000}
    budget["deadline_s"] = 60
    file.write_text(
        given(route={"policy": "majority_vote:8", "answers": "boxed", "budget": budget})
    )
    result = run("check", str(file))
    assert result.exit_code == 0, result.output
    for shown in ("majority_vote", "up", "8", "$0.010000 (limit; else $0.065152)"):
        assert shown in result.stdout
    for shown in (
        "$0.01 per request",
        "$20.00 per day",
        "8 samples",
        "90,000 tokens",
        "60 s",
        "4,000 tokens",
    ):
        assert shown in result.stdout
    assert "Warning: verifiers.final: no route uses it" in result.stdout
    assert f"{file}: correct, 1 route\n" in result.stdout
    assert result.stderr == ""


def test_the_length_of_the_prompt_is_an_option(file: Path) -> None:
    file.write_text(given())
    assert "$0.008144" in run("check", str(file)).stdout
    assert "$0.006144" in run("check", str(file), "--prompt-tokens", "0").stdout


def test_a_wrong_file_exits_with_1_and_says_all_on_stderr(file: Path) -> None:
    file.write_text(given(route={"polcy": "x"}, stor="y"))
    result = run("check", str(file))
    assert result.exit_code == 1
    assert result.stdout == ""
    first, second = result.stderr.splitlines()
    assert first.startswith("routes.r.polcy: unknown field; did you mean 'policy'?")
    assert second.startswith("stor: unknown field; did you mean 'store'?")


@pytest.mark.parametrize(
    "arguments",
    [
        ("check",),
        ("check", "a", "b"),
        ("check", "--nope"),
        ("chekc",),
        ("",),
    ],
)
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


@pytest.mark.parametrize("file", ["no-such-file.yaml", "."])
@pytest.mark.parametrize("command", [("check",), ("serve", "--config"), ("spend", "--config")])
def test_a_configuration_that_cannot_be_read_exits_with_1_wherever_it_is_named(
    command: tuple[str, ...], file: str
) -> None:
    result = run(*command, file)
    assert result.exit_code == 1
    assert f"{file}: cannot be read" in result.stderr


def test_a_mistyped_command_has_a_near_match() -> None:
    assert "did you mean 'check'?" in run("chekc").stderr


def test_help_has_an_example() -> None:
    result = run("check", "--help")
    assert result.exit_code == 0
    assert "Example: samplewise check samplewise.yaml" in result.stdout


def test_the_list_of_commands_and_the_version() -> None:
    listed = run("--help").stdout
    assert "check" in listed
    assert "serve" in listed
    assert run("--version").stdout == f"samplewise, version {__version__}\n"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from samplewise.proxy.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "heavy = {'pydantic', 'fastapi', 'aiohttp', 'rich', 'yaml', 'uvicorn', 'structlog'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_pipe_gets_no_colours_and_whole_lines(file: Path) -> None:
    file.write_text(given(routes={"[bold]r[/bold]": {"backends": ["up"]}}))
    command = [sys.executable, "-m", "samplewise", "check", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "\x1b" not in done.stdout
    assert "[bold]r[/bold]" in done.stdout


def worst(**changes: Any) -> int | None:
    config: Config = loaded(given(**changes))
    return worst_case_nano(config, config.routes["r"], 1000)


def test_the_worst_case_is_every_sample_at_the_cap() -> None:
    # 4 x (1000 tokens at $0.5 + 100 tokens at $1.5 per million)
    route = {"policy": "majority_vote:4", "answers": "final", "max_tokens": 100}
    assert worst(route=route) == 4 * (500_000 + 150_000)


def test_the_worst_case_counts_verdicts() -> None:
    verifiers = {"v": {"type": "final_answer", "price": {"usd_per_call": 0.001}}}
    route = {"max_tokens": 100, "answers": "v", "policy": "majority_vote:4"}
    assert worst(verifiers=verifiers, route=route) == 4 * (650_000 + 1_000_000)


def test_the_worst_case_takes_the_dearest_backend() -> None:
    cheap = {"type": "litellm", "model": "m", "price": PRICE}
    dear = {**cheap, "price": {"input_usd_per_mtok": 10, "output_usd_per_mtok": 10}}
    route = {"r": {"backends": ["cheap", "dear"], "max_tokens": 100}}
    assert worst(backends={"cheap": cheap, "dear": dear}, routes=route) == 11_000_000


def test_the_worst_case_of_a_cascade_is_that_the_dearest_backend_stands_in_for_every_tier() -> None:
    cheap = {"type": "litellm", "model": "m", "price": PRICE}
    dear = {**cheap, "price": {"input_usd_per_mtok": 10, "output_usd_per_mtok": 10}}
    tiers = [{"backend": "cheap", "samples": 3}, {"backend": "dear"}]
    route = {
        "backends": ["cheap", "dear"],
        "max_tokens": 100,
        "verifiers": ["boxed"],
        "policy": {"type": "cascade", "tiers": tiers},
    }
    found = worst(backends={"cheap": cheap, "dear": dear}, routes={"r": route})
    assert found == (3 + 1) * 11_000_000


def test_the_worst_case_of_two_panels_adds_both() -> None:
    cheap = {"type": "litellm", "model": "m", "price": PRICE}
    dear = {**cheap, "price": {"input_usd_per_mtok": 10, "output_usd_per_mtok": 10}}
    tiers = [
        {"backend": "cheap", "samples": 3, "beside": {"backend": "dear", "samples": 2}},
        {"backend": "dear"},
    ]
    route = {
        "backends": ["cheap", "dear"],
        "max_tokens": 100,
        "answers": "boxed",
        "policy": {"type": "cascade", "tiers": tiers},
    }
    found = worst(backends={"cheap": cheap, "dear": dear}, routes={"r": route})
    assert found == (3 + 2 + 1) * 11_000_000


def test_the_worst_case_counts_fields_that_a_chat_template_may_put_into_the_prompt() -> None:
    kwargs = {"chat_template_kwargs": {"rules": "x" * 200}}
    text = 1000 + len(json.dumps(kwargs["chat_template_kwargs"], separators=(",", ":")))
    plain = worst(route={"max_tokens": 100})
    assert plain == 650_000
    assert worst(route={"max_tokens": 100, "params": kwargs}) == text * 500 + 150_000
    levels = [{"params": {"reasoning_effort": "low"}}, {"params": kwargs}]
    route = {
        "max_tokens": 100,
        "verifiers": ["boxed"],
        "policy": {"type": "effort", "levels": levels},
    }
    assert worst(route=route) == 2 * ((1000 + len(json.dumps(kwargs))) * 500 + 150_000)


def test_a_price_that_only_litellm_knows_is_not_guessed(file: Path) -> None:
    backends = {"up": {"type": "litellm", "model": "m"}}
    assert worst(backends=backends) is None
    file.write_text(given(backends=backends))
    assert "priced by litellm" in run("check", str(file)).stdout
