"""The verifiers `xml`, `yaml` and `html`: right texts, wrong ones, and bombs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.verifiers.base import Status, VerifierError
from samplewise.verifiers.markup import Markup
from samplewise.verifiers.markup_check import MARKUP_TARGET, Bounds, check_markup
from samplewise.verifiers.pool import WorkerPool
from tests.verifiers.making import sample, task

LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;">'
    '<!ENTITY c "&b;&b;&b;">]><l>&c;</l>'
)
OUTSIDE = '<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><x>&f;</x>'
ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
DEEPER = "a0: &a0 [x]\n" + "".join(
    f"a{n + 1}: &a{n + 1} {'[' * 90}*a{n}{']' * 90}\n" for n in range(30)
)
Kind = Literal["xml", "yaml", "html"]
Made = Callable[[Kind], Markup]


@pytest.fixture
async def made() -> AsyncIterator[Made]:
    pool = WorkerPool(MARKUP_TARGET, size=1, timeout_s=60, memory_mb=512)

    def make(kind: Kind) -> Markup:
        return Markup(name=kind, kind=kind, pool=pool, bounds=Bounds(), fences=True)

    yield make
    await pool.close()


RIGHT: dict[Kind, list[str]] = {
    "xml": ["<a><b x='1'/>hi</a>", "```xml\n<a/>\n```", "<?xml version='1.0'?>\n<a>\u00e9</a>"],
    "yaml": [
        "a: 1\nb: [1, 2]",
        "```yaml\na: &x {b: 1}\nc: {<<: *x, b: 2}\n```",
        "1: x\nd: 2020-01-01",
    ],
    "html": [
        "<!doctype html><html><head><title>x</title><body><p>a<p>b<ul><li>x<li>y</ul><br></body>",
        "<table><tr><td>1<td>2<tr><td>3</table>",
        "<p>a<div>b</div>",
        "<script>if (a < b) {}</script>",
        "<svg><path d='x'/></svg>",
        "a & b &am",
    ],
}
WRONG: list[tuple[Kind, str, str]] = [
    ("xml", "", "parse"),
    ("xml", "no", "parse"),
    ("xml", "<a><b></a>", "parse"),
    ("xml", "<a>&nope;</a>", "parse"),
    ("xml", "<a x='1' x='2'/>", "parse"),
    ("xml", "<a/><b/>", "parse"),
    ("xml", "<a>\ud800</a>", "parse"),
    ("xml", LAUGHS, "forbidden"),
    ("xml", OUTSIDE, "forbidden"),
    ("xml", "<a>" * 200_000, "too_deep"),
    ("xml", "<a>" + "<b/>" * 200_000 + "</a>", "too_large"),
    ("xml", "x" * 10_000_000, "too_large"),
    ("yaml", "", "parse"),
    ("yaml", "a: [", "parse"),
    ("yaml", "a: 1\na: 2", "parse"),
    ("yaml", "a: *b", "parse"),
    ("yaml", "&a [*a]", "parse"),
    ("yaml", "--- a\n--- b", "parse"),
    ("yaml", "a: !!python/object/apply:os.system [id]", "parse"),
    ("yaml", "0x" + "f" * 100_000, "parse"),
    ("yaml", "? [a, b]\n: c", "parse"),
    ("yaml", ALIASES, "too_large"),
    ("yaml", DEEPER, "too_deep"),
    ("yaml", "[" * 200_000, "too_deep"),
    ("yaml", "x" * 10_000_000, "too_large"),
    ("html", "", "parse"),
    ("html", "<div><span></div>", "parse"),
    ("html", "<div>", "parse"),
    ("html", "</p>", "parse"),
    ("html", "<div/>", "parse"),
    ("html", "</br>", "parse"),
    ("html", "<b id=a></b><i id=a></i>", "parse"),
    ("html", "<a href=x href=y></a>", "parse"),
    ("html", "<!-- never", "parse"),
    ("html", "<div " * 10, "parse"),
    ("html", "<div>" * 300, "too_deep"),
    ("html", "<br>" * 200_000, "too_large"),
    ("html", "x" * 10_000_000, "too_large"),
]


@pytest.mark.parametrize("kind", RIGHT)
async def test_right_texts_pass(kind: Kind, made: Made) -> None:
    for text in RIGHT[kind]:
        verdict = await made(kind).verify(task(), sample(text))
        assert (verdict.status, verdict.reason) == (Status.PASS, ""), (text, verdict)
        assert verdict.answer


@pytest.mark.parametrize("kind", RIGHT)
async def test_wrong_texts_fail_with_their_word(kind: Kind, made: Made) -> None:
    found = {
        (text[:60], reason): (await made(kind).verify(task(), sample(text)))
        for own, text, reason in WRONG
        if own == kind
    }
    assert {key: (v.status, v.reason) for key, v in found.items()} == {
        key: (Status.FAIL, key[1]) for key in found
    }


async def test_equal_documents_have_one_canonical_answer(made: Made) -> None:
    for kind, one, other in (
        ("xml", "<a y='2' x='1'/>", '<a x="1" y="2">\n</a>'),
        ("yaml", "a: 1\nb: [x, y]", '{"b": ["x", "y"], "a": 1}'),
    ):
        verdicts = [await made(kind).verify(task(), sample(text)) for text in (one, other)]  # type: ignore[arg-type]
        assert verdicts[0].answer == verdicts[1].answer


async def test_a_worker_that_takes_too_long_is_an_error() -> None:
    pool = WorkerPool(MARKUP_TARGET, size=1, timeout_s=0.000_001)
    verifier = Markup(name="x", kind="xml", pool=pool, bounds=Bounds())
    with pytest.raises(VerifierError):
        await verifier.verify(task(), sample("<a/>" * 1000))
    await verifier.close()


@given(
    st.recursive(
        st.integers() | st.booleans() | st.none() | st.text(alphabet="ab:-# '\"\n", max_size=8),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.text(alphabet="abc", min_size=1), inner, max_size=4)
        ),
        max_leaves=20,
    )
)
def test_what_json_can_say_is_yaml(value: object) -> None:
    import json

    payload = {"kind": "yaml", "text": json.dumps(value), "bounds": {"depth": 100, "nodes": 1000}}
    found = check_markup(payload)
    assert isinstance(found, dict)
    assert found["canonical"] == json.dumps(value, sort_keys=True)
