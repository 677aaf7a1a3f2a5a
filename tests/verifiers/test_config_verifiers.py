from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from samplewise.proxy.checks_base import Check, make_check
from samplewise.proxy.config_verifiers import VerifierSettings
from samplewise.verifiers.base import Comparator, Status, Verifier, VerifierSetupError
from samplewise.verifiers.citations import Citations
from samplewise.verifiers.code_tests import CodeTests
from samplewise.verifiers.compiling import Compile, Lint
from samplewise.verifiers.coq import Coq
from samplewise.verifiers.final_answer import FinalAnswer
from samplewise.verifiers.json_schema import JsonSchema
from samplewise.verifiers.lean import Lean
from samplewise.verifiers.markup import Markup
from samplewise.verifiers.math import Math
from samplewise.verifiers.multi import Multi
from samplewise.verifiers.number import Number
from samplewise.verifiers.python_plugin import PythonPlugin
from samplewise.verifiers.regex import Regex
from samplewise.verifiers.smt import Smt
from samplewise.verifiers.string_check import StringCheck
from samplewise.verifiers.text_similarity import TextSimilarity
from samplewise.verifiers.tool_call import ToolCalls
from samplewise.verifiers.webhook import Webhook
from tests.verifiers.making import sample, task

_SETTINGS: TypeAdapter[VerifierSettings] = TypeAdapter(VerifierSettings)
_G = "tests.verifiers.graders"


def _check(**settings: Any) -> Check:
    return make_check("v", _SETTINGS.validate_python(settings))


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"type": "final_answer", "check_reference": True}, FinalAnswer),
        ({"type": "string_check", "operation": "ilike", "reference": "{{item.x}}"}, StringCheck),
        ({"type": "regex", "pattern": "a(b)", "group": 1, "reference": True}, Regex),
        ({"type": "number", "reference": 42, "tolerance_abs": 1}, Number),
        ({"type": "json_schema", "schema": {"type": "object"}, "fences": True}, JsonSchema),
        ({"type": "tool_call", "require": True}, ToolCalls),
        ({"type": "math", "timeout_s": 2, "reference": 0.5}, Math),
        ({"type": "python", "function": f"{_G}:grade", "env": {"A": "b"}}, PythonPlugin),
        ({"type": "webhook", "url": "http://127.0.0.1:1/x?y=1", "secret": "s"}, Webhook),
        ({"type": "webhook", "url": "http://x/", "networks": ["10.1.0.0/16", "::1"]}, Webhook),
        ({"type": "code_tests", "language": "cpp", "spare": 0, "cgroup": "none"}, CodeTests),
        ({"type": "coq", "statement": "{{item.goal}}", "axioms": ["A.b"]}, Coq),
        ({"type": "lean", "url": "http://127.0.0.1:1", "api_key": "k"}, Lean),
        ({"type": "lean", "url": "http://127.0.0.1:1", "replay": {"command": ["/x"]}}, Lean),
        ({"type": "smt", "script": "(assert {{answer}})", "expect": "sat"}, Smt),
        ({"type": "compile", "language": "c"}, Compile),
        ({"type": "lint", "tool": "mypy", "options": ["--strict"]}, Lint),
        ({"type": "xml", "max_depth": 5}, Markup),
        ({"type": "yaml", "fences": False}, Markup),
        ({"type": "html"}, Markup),
        ({"type": "citations", "context": "{{item.page}}"}, Citations),
        ({"type": "text_similarity", "pass_threshold": 0.5}, TextSimilarity),
        ({"type": "multi", "graders": {"a": {"type": "math"}}, "calculate_output": "a"}, Multi),
    ],
)
def test_every_type_is_built_with_its_name(settings: dict[str, Any], kind: type[Verifier]) -> None:
    check = _check(**settings)
    assert type(check.verifier) is kind
    assert (check.name, getattr(check.verifier, "name", "")) == ("v", "v")


@pytest.mark.parametrize(
    "name", ["final_answer", "string_check", "number", "json_schema", "tool_call", "math"]
)
def test_these_types_need_no_settings(name: str) -> None:
    assert _check(type=name).verifier


@pytest.mark.parametrize(
    "settings",
    [
        {"type": "maths"},
        {},
        {"type": "math", "typo": 1},
        {"type": "math", "timeout_s": 0},
        {"type": "math", "timeout_s": "1"},
        {"type": "math", "workers": 0},
        {"type": "regex"},
        {"type": "string_check", "operation": "is"},
        {"type": "python"},
        {"type": "python", "function": "no_colon"},
        {"type": "python", "function": "a:b; import os"},
        {"type": "webhook", "url": "ftp://x"},
        {"type": "webhook", "url": "http://user:password@x/"},
        {"type": "webhook", "url": "http://x/", "networks": ["10.0.0.1/8"]},
        {"type": "webhook", "url": "http://x/", "networks": ["localhost"]},
        {"type": "final_answer", "price": {"usd_per_call": -1}},
        {"type": "final_answer", "price": {"eur_per_call": 1}},
        {"type": "final_answer", "scope": "both"},
        {"type": "lean"},
        {"type": "lean", "url": "http://x", "replay": {"command": []}},
        {"type": "lean", "url": "http://x", "replay": {"command": ["/x"], "folders": ["x"]}},
        {"type": "smt"},
        {"type": "compile", "language": "rust"},
        {"type": "lint", "options": ["main.py"]},
        {"type": "xml", "max_depth": 0},
        {"type": "citations", "pass_threshold": 1.5},
        {"type": "text_similarity", "evaluation_metric": "bleu"},
        {"type": "multi", "graders": {}, "calculate_output": "all"},
        {"type": "multi", "graders": {"a": {"type": "math", "gate": True}},
         "calculate_output": "all"},
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        _SETTINGS.validate_python(settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"type": "regex", "pattern": "("},
        {"type": "string_check", "reference": "{{nope}}"},
        {"type": "number", "reference": "x"},
        {"type": "smt", "script": "(assert true)"},
        {"type": "coq", "statement": "{{goal}}"},
        {"type": "citations", "context": "{{messages}}"},
        {"type": "json_schema", "schema": {"type": 5}},
        {"type": "multi", "graders": {"a": {"type": "math"}}, "calculate_output": "b"},
        {"type": "python", "function": f"{_G}:grade", "isolation": "async"},
        {"type": "multi", "graders": {"r": {"type": "regex", "pattern": "("}},
         "calculate_output": "r"},
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_a_setup_error_that_names_it(settings: dict[str, Any]) -> None:
    with pytest.raises(VerifierSetupError, match=r"^v: "):
        _check(**settings)


def test_secrets_are_not_shown() -> None:
    settings = _SETTINGS.validate_python(
        {"type": "webhook", "url": "http://x/", "secret": "s3cret", "price": None}
    )
    assert "s3cret" not in repr(settings)
    env = {"TOKEN": "s3cret"}
    plugin = _SETTINGS.validate_python({"type": "python", "function": "a:b", "env": env})
    assert "s3cret" not in repr(plugin)


async def test_a_multi_runs_its_graders() -> None:
    check = _check(
        type="multi",
        graders={
            "short": {"type": "regex", "pattern": "^.{1,5}$"},
            "right": {"type": "number"},
        },
        calculate_output="all",
    )
    assert (await check.verifier.verify(task("7"), sample("7"))).status is Status.PASS
    assert (await check.verifier.verify(task("7"), sample("8"))).status is Status.FAIL


def test_a_python_plugin_with_compare_is_a_comparator() -> None:
    assert isinstance(_check(type="python", compare=f"{_G}:longer").verifier, Comparator)
    assert not isinstance(_check(type="python", function=f"{_G}:grade").verifier, Comparator)


def test_the_use_of_a_verifier_is_kept() -> None:
    check = _check(type="number", scope="step", when="asked", gate=True, required=False)
    assert (check.scope, check.when, check.gate, check.required) == ("step", "asked", True, False)


def test_the_limit_leaves_room_for_the_queue() -> None:
    assert _check(type="math", timeout_s=2, queue_s=10).timeout_s > 12
    assert _check(type="number", timeout_s=2).timeout_s < 4
    slow: dict[str, Any] = {"type": "math", "timeout_s": 2, "queue_s": 10}
    graders = {"a": slow, "b": {"type": "number"}}
    assert _check(type="lean", url="http://x", timeout_s=10).timeout_s > 15
    replay: dict[str, Any] = {"command": ["/x"], "timeout_s": 100}
    assert _check(type="lean", url="http://x", timeout_s=10, replay=replay).timeout_s > 115
    multi: dict[str, Any] = {"type": "multi", "graders": graders, "calculate_output": "all"}
    assert _check(**multi).timeout_s == _check(**slow).timeout_s
    assert _check(**multi, timeout_s=1).timeout_s == 2.0
