from __future__ import annotations

import pytest
import yaml

from samplewise.proxy.config_yaml import read
from samplewise.proxy.errors import ConfigError
from tests.config.given import given, only_problem, refused


def value(yaml_text: str, **env: str) -> object:
    """Return what `x: yaml_text` reads as."""
    document = read(f"x: {yaml_text}", "config.yaml", env)
    assert not document.problems, document.problems
    return document.data["x"]


def problem(text: str, **env: str) -> str:
    """Return the one problem of a text that is read, without looking at what it means."""
    document = read(text, "config.yaml", env)
    assert len(document.problems) == 1
    return str(document.error())


def fatal(text: str | bytes) -> str:
    """Return why a text cannot be read at all."""
    with pytest.raises(ConfigError) as caught:
        read(text, "config.yaml", {})
    return str(caught.value)


def test_a_duplicate_key_is_refused_with_path_and_both_lines() -> None:
    text = "routes:\n  math:\n    seed: 1\n    stream: raw\n    seed: 2\n"
    assert problem(text) == "routes.math.seed: given twice, on line 3 and line 5 (config.yaml:3)"


def test_duplicate_top_level_sections_are_refused() -> None:
    assert "routes: given twice, on line 1 and line 2" in problem("routes: {}\nroutes: {}")


def test_keys_that_differ_only_in_quotes_are_duplicates() -> None:
    assert "given twice" in problem("a: 1\n'a': 2")


@pytest.mark.parametrize("key", ["on", "no", "4", "1.5", "null", "2001-01-01", "!!int 3"])
def test_a_key_must_be_text(key: str) -> None:
    assert "a name must be text: put it in quotes" in problem(f"routes:\n  {key}: 1")


@pytest.mark.parametrize("key", ["[a]", "{a: b}"])
def test_a_key_must_not_be_a_list_or_mapping(key: str) -> None:
    assert "a name must be text" in problem(f"? {key}\n: 1")


def test_a_quoted_key_that_looks_like_a_boolean_is_text() -> None:
    assert read("'on': 1", "c", {}).data == {"on": 1}


def test_merge_keys_are_refused() -> None:
    assert "merge keys (<<) are not supported" in problem("<<: {a: 1}")


def test_aliases_are_refused_with_their_line() -> None:
    assert fatal("a: &x [1]\nb: *x").startswith("config.yaml:2: not valid YAML: aliases")


def test_an_alias_bomb_is_refused_at_its_first_alias() -> None:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    assert fatal("\n".join(lines)).startswith("config.yaml:2:")


def test_an_anchor_alone_is_harmless() -> None:
    assert value("&here 3") == 3


@pytest.mark.parametrize("deep", ["[" * 5000, "{a: " * 5000, "- " * 5000])
def test_deep_nesting_is_refused(deep: str) -> None:
    assert "nested deeper than 64 levels" in fatal("x:\n  " + deep)


def test_nesting_that_real_parameters_have_is_read() -> None:
    assert value("[" * 30 + "1" + "]" * 30)


def test_a_file_above_one_megabyte_is_refused() -> None:
    assert "larger than 1,000,000 bytes" in fatal("#" * 1_000_001)


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", b"", b"\xef\xbb\xbf"])
def test_an_empty_file_says_so(text: str | bytes) -> None:
    assert fatal(text) == "config.yaml: is empty: write sections such as backends and routes"


@pytest.mark.parametrize("text", ["- a", "word", "3", "[]"])
def test_a_file_that_is_no_mapping_says_so(text: str) -> None:
    assert "is not a mapping" in fatal(text)


def test_a_syntax_error_names_its_line() -> None:
    assert fatal("a: 1\nb: [1, 2\nc: 3\n").startswith("config.yaml:3: not valid YAML")


def test_a_tab_names_its_line() -> None:
    assert fatal("a: 1\n\tb: 2").startswith("config.yaml:2: not valid YAML")


def test_two_documents_are_refused() -> None:
    assert "another document" in fatal("a: 1\n---\nb: 2")


def test_bytes_that_are_not_utf8_are_refused() -> None:
    assert fatal(b"a: \xff") == "config.yaml: not UTF-8 text (byte 4)"


def test_a_byte_order_mark_is_ignored() -> None:
    assert read(b"\xef\xbb\xbfa: 1", "c", {}).data == {"a": 1}


def test_control_characters_are_refused_with_their_line() -> None:
    assert fatal("a: 1\nb: \x01").startswith("config.yaml:2: not valid YAML")


@pytest.mark.parametrize("text", ['a: "\\U00110000"', "%YAML 1." + "9" * 5000 + "\n---\na: 1"])
def test_numbers_that_the_parser_itself_cannot_hold_are_refused(text: str) -> None:
    assert "out of range" in fatal(text)


def test_half_a_surrogate_pair_is_refused() -> None:
    assert "not valid text" in problem('a: "\\ud800"')


@pytest.mark.parametrize(
    "tag", ["!!python/object:os.system", "!!binary", "!!set", "!own", "!!omap"]
)
def test_tags_are_refused(tag: str) -> None:
    body = {"!!set": "{a}", "!!omap": "[]"}.get(tag, "x")
    assert "is not supported" in problem(f"a: {tag} {body}")


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ("8", 8),
        ("-3", -3),
        ("1_000", 1000),
        ("0", 0),
        ("0.5", 0.5),
        ("1e-6", 1e-6),
        ("1.5e3", 1500.0),
        ("1.0e+3", 1000.0),
        ('"8"', "8"),
        ("true", True),
        ("off", False),
        ("~", None),
        ("", None),
        ("word", "word"),
        ("[1, a]", [1, "a"]),
        ("{a: 1}", {"a": 1}),
        ("1.2.3", "1.2.3"),
        ("e5", "e5"),
    ],
)
def test_values_are_read_as_they_look(written: str, read_as: object) -> None:
    found = value(written)
    assert found == read_as
    assert type(found) is type(read_as)


@pytest.mark.parametrize(
    "written",
    ["010", "0x1F", "0b11", "1:30", "1:30.5", ".inf", "-.inf", ".nan", "1.0e+999", "9" * 5000],
)
def test_numbers_that_are_not_plain_decimal_are_refused(written: str) -> None:
    assert "must be a plain decimal number" in problem(f"a: {written}")


def test_a_date_must_be_quoted() -> None:
    assert "looks like a date: write '2026-01-01' in quotes" in problem("a: 2026-01-01")


def test_a_variable_is_the_whole_value_or_inside_it() -> None:
    assert value('"${A}"', A="x") == "x"
    assert value("pre-${A}-${B}-post", A="x", B="y") == "pre-x-y-post"


def test_a_variable_is_not_expanded_again() -> None:
    assert value('"${A}"', A="${B}", B="never") == "${B}"


def test_a_variable_stays_text() -> None:
    assert value('"${PORT}"', PORT="8400") == "8400"


def test_two_dollars_escape() -> None:
    assert value('"$${A} and $5 and $A"') == "${A} and $5 and $A"


def test_variables_are_not_expanded_in_keys() -> None:
    assert read('"${A}": 1', "c", {}).data == {"${A}": 1}


def test_an_unset_variable_names_variable_and_path() -> None:
    text = "backends:\n  a:\n    api_key: ${NO_KEY}"
    unset = "the environment variable NO_KEY is not set, and NO_KEY_FILE neither"
    expected = f"backends.a.api_key: {unset} (config.yaml:3)"
    assert problem(text) == expected


@pytest.mark.parametrize("written", ["${", "${}", "${A-B}", "${A:-b}", "${1A}", "${A"])
def test_a_broken_variable_is_refused(written: str) -> None:
    assert "${ must be ${NAME}" in problem(f"a: '{written}'")


def test_a_variable_that_is_not_text_is_refused() -> None:
    assert "A is not UTF-8 text" in problem("a: ${A}", A="\udcff")


def test_lists_have_paths_and_lines() -> None:
    text = "a:\n- b\n- c: ${X}\n"
    expected = "a[1].c: the environment variable X is not set, and X_FILE neither (config.yaml:3)"
    assert problem(text) == expected


def test_all_problems_are_told_together_in_the_order_of_lines() -> None:
    text = "stor: 1\nbackends: {up: {type: nope}}\nroutes: {r: {backends: [up, '${X}']}}\n"
    lines = [line.rpartition(":")[2] for line in refused(text)]
    assert lines == ["1)", "2)", "3)"]


def test_a_wrong_value_of_a_route_does_not_hide_the_wrong_names_beside_it() -> None:
    text = (
        "backends: {up: {type: openai, base_url: 'http://a.example/v1', model: m, price: {}}}\n"
        "routes: {r: {backends: [upp], answers: maths, verifiers: [up], tags: [x], polcy: single}}"
    )
    told = "\n".join(refused(text))
    for said in ("routes.r.polcy", "no backend 'upp'", "no verifier 'maths'", "no verifier 'up'"):
        assert said in told


def test_names_with_line_ends_cannot_forge_lines_of_the_report() -> None:
    text = yaml.safe_dump({"routes\nfake: all is well": 1, "backends": {}, "routes": {}})
    assert all("fake" not in line or line.startswith("'routes\\n") for line in refused(text))


def test_a_long_report_is_cut() -> None:
    problems = refused("\n".join(f"x{n}: 1" for n in range(80)))
    assert len(problems) == 51
    assert problems[-1].startswith("... and ")


def test_a_value_that_could_not_be_read_gets_one_problem() -> None:
    assert "is not set" in only_problem(given(backend={"model": "${X}"}))
