"""Check XML, YAML and HTML texts: well-formed, and small when read. Runs in a worker process.

Nothing is fetched and nothing is expanded: a document type in XML is refused, and what aliases of
YAML stand for is counted before anything is built.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any, Literal
from xml.parsers import expat

import msgspec
import yaml

__all__ = ["MARKUP_TARGET", "Bounds", "Found", "check_markup"]

MARKUP_TARGET = "samplewise.verifiers.markup_check:check_markup"


@dataclass(frozen=True, slots=True)
class Bounds:
    """The deepest nesting and the most elements (of YAML: nodes, aliases written out)."""

    depth: int = 100
    nodes: int = 100_000


@dataclass(frozen=True, slots=True)
class Found:
    """What became of a text: no `reason` means that it is right.

    `reason` is `parse` (not well-formed), `forbidden`, `too_deep` or `too_large`; `message` says
    it with a place. `canonical` is what equal documents share, where that is defined.
    """

    reason: Literal["", "parse", "forbidden", "too_deep", "too_large"] = ""
    message: str = ""
    canonical: str | None = None


class _Wrong(Exception):
    def __init__(
        self, reason: Literal["parse", "forbidden", "too_deep", "too_large"], message: str
    ) -> None:
        super().__init__(message)
        self.found = Found(reason, message[:300])


def check_markup(payload: Mapping[str, Any]) -> object:
    """Check `payload["text"]` as `payload["kind"]` within `payload["bounds"]`; a worker's target.

    Returns a `Found` as plain data.
    """
    bounds = msgspec.convert(payload["bounds"], Bounds)
    try:
        found = Found(canonical=_KINDS[payload["kind"]](payload["text"], bounds))
    except _Wrong as wrong:
        found = wrong.found
    return msgspec.to_builtins(found)


class _Count:
    """How deep and how many, held against the bounds."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._depth = 0
        self._nodes = 0

    def open(self) -> None:
        self._depth += 1
        self._nodes += 1
        if self._depth > self._bounds.depth:
            raise _Wrong("too_deep", f"nested more than {self._bounds.depth} deep")
        if self._nodes > self._bounds.nodes:
            raise _Wrong("too_large", f"more than {self._bounds.nodes} elements")

    def close(self) -> None:
        self._depth -= 1


def _xml(text: str, bounds: Bounds) -> str:
    """Return the canonical form (C14N 2.0, outer space of texts stripped)."""
    count = _Count(bounds)
    parser = expat.ParserCreate("utf-8")

    def refuse(*_: object) -> None:
        raise _Wrong("forbidden", "a document type (DOCTYPE) is not allowed")

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = lambda *_: count.open()
    parser.EndElementHandler = lambda *_: count.close()
    try:
        parser.Parse(text.encode("utf-8", "surrogatepass"), True)
        return ElementTree.canonicalize(text, strip_text=True)
    except expat.ExpatError as error:
        raise _Wrong("parse", str(error)) from None
    except ElementTree.ParseError as error:
        raise _Wrong("parse", str(error)) from None
    except (ValueError, UnicodeError) as error:
        raise _Wrong("parse", str(error)) from None


class _Loader(yaml.SafeLoader):
    """The safe loader, which refuses the same key twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [(k.tag, k.value) for k, _ in node.value if isinstance(k, yaml.ScalarNode)]
        if len(set(keys)) < len(keys):
            raise _Wrong("parse", f"line {node.start_mark.line + 1}: the same key twice")
        value: dict[Any, Any] = super().construct_mapping(node, deep)
        return value


def _yaml(text: str, bounds: Bounds) -> str:
    """Return JSON with sorted keys; dates and other values become text."""
    try:
        _count_yaml(text, bounds)
        documents = list(yaml.load_all(text, Loader=_Loader))
        if len(documents) != 1:
            raise _Wrong("parse", f"{len(documents)} documents, not one")
        return json.dumps(_plain(documents[0]), sort_keys=True)
    except RecursionError:
        raise _Wrong("too_deep", "nested too deeply, aliases written out") from None
    except yaml.YAMLError as error:
        raise _Wrong("parse", " ".join(str(error).split())) from None
    except (ValueError, TypeError, OverflowError) as error:
        raise _Wrong("parse", str(error)) from None


def _count_yaml(text: str, bounds: Bounds) -> None:
    """Count nodes with all aliases written out; events are read one by one, nothing is built."""
    count = _Count(bounds)
    sizes: dict[str, int] = {}
    opened: list[tuple[str | None, int]] = []
    total = 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise _Wrong("parse", f"the alias {event.anchor!r} is not known, or holds itself")
            total += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            count.open()
            if event.anchor:
                sizes.pop(event.anchor, None)
            opened.append((event.anchor, total))
            total += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            count.close()
            anchor, before = opened.pop()
            if anchor:
                sizes[anchor] = total - before
        if total > bounds.nodes:
            raise _Wrong("too_large", f"more than {bounds.nodes} nodes, aliases written out")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        pairs = [[_plain(key), _plain(item)] for key, item in value.items()]
        if all(isinstance(key, str) for key, _ in pairs):
            return dict(pairs)
        return {"": sorted(pairs, key=json.dumps)}
    if isinstance(value, list | tuple | set):
        items = [_plain(item) for item in value]
        return sorted(items, key=json.dumps) if isinstance(value, set) else items
    return value if isinstance(value, str | int | float | None) else str(value)


_VOID = frozenset(
    [
        "area",
        "base",
        "br",
        "col",
        "embed",
        "hr",
        "img",
        "input",
        "link",
        "meta",
        "param",
        "source",
        "track",
        "wbr",
    ]
)
# Elements that HTML lets end by themselves, at the end of what they stand in or before these.
_OPTIONAL: Mapping[str, frozenset[str]] = {
    "li": frozenset({"li"}),
    "dt": frozenset({"dt", "dd"}),
    "dd": frozenset({"dt", "dd"}),
    "p": frozenset(
        [
            "address",
            "article",
            "aside",
            "blockquote",
            "details",
            "div",
            "dl",
            "fieldset",
            "figcaption",
            "figure",
            "footer",
            "form",
            "h1",
            "h2",
            "h3",
            "h4",
            "h5",
            "h6",
            "header",
            "hgroup",
            "hr",
            "main",
            "menu",
            "nav",
            "ol",
            "p",
            "pre",
            "search",
            "section",
            "table",
            "ul",
        ]
    ),
    "option": frozenset({"option", "optgroup", "hr"}),
    "optgroup": frozenset({"optgroup", "hr"}),
    "tr": frozenset({"tr", "tbody", "tfoot"}),
    "td": frozenset({"td", "th", "tr", "tbody", "tfoot"}),
    "th": frozenset({"td", "th", "tr", "tbody", "tfoot"}),
    "thead": frozenset({"tbody", "tfoot"}),
    "tbody": frozenset({"tbody", "tfoot"}),
    "tfoot": frozenset(),
    "colgroup": frozenset({"thead", "tbody", "tfoot", "tr"}),
    "caption": frozenset({"colgroup", "thead", "tbody", "tfoot", "tr"}),
    "rt": frozenset({"rt", "rp"}),
    "rp": frozenset({"rt", "rp"}),
    "head": frozenset({"body"}),
    "body": frozenset(),
    "html": frozenset(),
}


class _Tags(HTMLParser):
    """Holds start and end tags against each other, by the rules of HTML for tags left out."""

    def __init__(self, count: _Count) -> None:
        super().__init__()
        self._count = count
        self._open: list[str] = []
        self._foreign = 0  # open svg and math elements, whose tags can end in />
        self._ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        while self._open and tag in _OPTIONAL.get(self._open[-1], ()):
            self._end(self._open[-1])
        names = [name for name, _ in attrs]
        if len(set(names)) < len(names):
            raise self._wrong(f"<{tag}> has an attribute twice")
        own = dict(attrs).get("id")
        if own is not None and own in self._ids:
            raise self._wrong(f"the id {own[:50]!r} is used twice")
        self._ids |= {own} if own is not None else set()
        self._count.open()
        self._open.append(tag)
        self._foreign += tag in ("svg", "math")
        if tag in _VOID:
            self._end(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _VOID and not self._foreign and tag not in ("svg", "math"):
            raise self._wrong(f"<{tag}/> does not end the element in HTML")
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self._end(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in _VOID:
            raise self._wrong(f"</{tag}>: this element has no end tag")
        while self._open and self._open[-1] != tag and self._open[-1] in _OPTIONAL:
            self._end(self._open[-1])
        if not self._open or self._open[-1] != tag:
            inside = f" inside of <{self._open[-1]}>" if self._open else ""
            raise self._wrong(f"</{tag}>{inside} ends nothing")
        self._end(tag)

    def ended(self) -> None:
        if self.rawdata.lstrip().startswith("<"):
            raise self._wrong("a tag or comment that does not end")
        left = [tag for tag in self._open if tag not in _OPTIONAL]
        if left:
            raise self._wrong(f"<{left[-1]}> is never closed")

    def _end(self, tag: str) -> None:
        self._open.pop()
        self._foreign -= tag in ("svg", "math")
        self._count.close()

    def _wrong(self, message: str) -> _Wrong:
        line, column = self.getpos()
        return _Wrong("parse", f"line {line}, column {column + 1}: {message}")


def _html(text: str, bounds: Bounds) -> None:
    tags = _Tags(_Count(bounds))
    tags.feed(text)
    tags.ended()


_KINDS: Mapping[str, Callable[[str, Bounds], str | None]] = {
    "xml": _xml,
    "yaml": _yaml,
    "html": _html,
}
