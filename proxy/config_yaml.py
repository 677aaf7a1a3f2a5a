"""YAML text to plain data with positions.

Stricter than YAML: no aliases, no merge keys, no custom tags, text keys only, decimal numbers only.
`${NAME}` in text values becomes the environment variable. Nothing here knows what a setting means.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from samplewise.proxy.errors import ConfigError

__all__ = ["MOST_REPORTED", "Document", "Path", "Problem", "near", "quoted", "read"]

Path = tuple[str | int, ...]

_LARGEST = 1_000_000
_DEEPEST = 64
MOST_REPORTED = 50
_SHORTEST_REDACTED = 4
_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_ENV = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$\{")
_USER = re.compile(r"//[^/@]*@")
_LARGEST_SECRET = 65_536
_HIDDEN = ("api_key", "admin_key", "key", "keys", "secret", "headers", "env")


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault: where in the settings, and what to change."""

    path: Path
    message: str


@dataclass(slots=True)
class Document:
    """What one configuration text says, and where it says it.

    `templates` holds the text as written of values that came from the environment, `resolved` what
    came from there; `broken` are paths whose value could not be read: no more is said about them.
    """

    name: str
    data: dict[str, Any] = field(default_factory=dict, repr=False)
    lines: dict[Path, int] = field(default_factory=dict)
    templates: dict[Path, str] = field(default_factory=dict)
    resolved: dict[str, str] = field(default_factory=dict, repr=False)
    problems: list[Problem] = field(default_factory=list)
    broken: set[Path] = field(default_factory=set)

    def at(self, path: Path) -> Any:
        """Return the value at a path, None where there is none."""
        value: Any = self.data
        for part in path:
            if isinstance(value, list):
                value = value[part] if isinstance(part, int) and part < len(value) else None
            else:
                value = value.get(part) if isinstance(value, dict) else None
        return value

    def got(self, path: Path) -> str:
        """Say for the end of an error what stands at a path, but nothing that may be a secret."""
        value = self.templates.get(path, self.at(path))
        match value:
            case _ if any(part in _HIDDEN for part in path):
                return ""
            case dict() | list():
                return f", got a {'mapping' if isinstance(value, dict) else 'list'}"
            case str() if value.startswith(("postgresql:", "postgres:")):
                return ""  # a password can stand anywhere in it
            case str():
                return f", got {quoted(_USER.sub('//***@', value))}"
        return f", got {'nothing' if value is None else str(value).lower()}"

    def error(self, problems: Iterable[Problem] = ()) -> ConfigError:
        """Return all problems as one error, in the order of their lines."""
        found = list(dict.fromkeys([*self.problems, *problems]))
        found.sort(key=lambda problem: self._line(problem.path) or math.inf)
        sentences = [self.sentence(problem) for problem in found[:MOST_REPORTED]]
        if len(found) > MOST_REPORTED:
            sentences.append("... and more problems")
        return ConfigError("\n".join(sentences))

    def sentence(self, problem: Problem) -> str:
        """Return one problem as a line: path, message, file and line.

        What came from the environment is replaced by its `${NAME}`, whoever put it in the message.
        """
        line = self._line(problem.path)
        shown = "".join(
            f"[{part}]" if isinstance(part, int) else f".{_plain(part)}" for part in problem.path
        )
        message = problem.message
        for value, template in sorted(self.resolved.items(), key=lambda item: -len(item[0])):
            if len(value) >= _SHORTEST_REDACTED:
                message = message.replace(value, template).replace(ascii(value)[1:-1], template)
        place = f" ({self.name}:{line})" if line else ""
        return f"{shown[1:] or self.name}: {message}{place}"

    def _line(self, path: Path) -> int | None:
        prefixes = (path[:n] for n in range(len(path), 0, -1))
        return next((self.lines[prefix] for prefix in prefixes if prefix in self.lines), None)


def near(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?`, else the known words, for the end of an error."""
    words = sorted(known)
    if match := difflib.get_close_matches(word[:100], words, 1):
        return f"; did you mean {quoted(match[0])}?"
    return f"; known: {', '.join(_plain(known_word) for known_word in words[:20])}" if words else ""


def quoted(text: str) -> str:
    """Return text for an error: in quotes, in one line, not long."""
    return ascii(text[:60] + "..." if len(text) > 60 else text)


def _plain(text: str) -> str:
    return text if text.isprintable() and 0 < len(text) <= 60 else quoted(text)


class _Loader(yaml.SafeLoader):
    """Composes nodes only: aliases and deep nesting end there, before they can cost anything."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Refuse aliases and deep nesting, else compose as always."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        alias = isinstance(event, yaml.AliasEvent)
        if alias or self.depth >= _DEEPEST:
            deep = f"nested deeper than {_DEEPEST} levels"
            wrong = "aliases (*name) are not supported: write the value out" if alias else deep
            raise yaml.MarkedYAMLError(problem=wrong, problem_mark=event.start_mark)
        self.depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


# YAML 1.1 takes 1e-6 for text; as a price it is meant as a number.
_Loader.add_implicit_resolver(
    f"{_TAG}float", re.compile(r"[-+]?[0-9.][0-9._]*[eE][-+]?[0-9]+$"), list("+-.0123456789")
)


def read(text: str | bytes, name: str, env: Mapping[str, str]) -> Document:
    """Read one YAML text. Faults of single values are collected in the document's `problems`.

    Raises:
        ConfigError: the text is too large, empty, not UTF-8, not YAML, or not a mapping.
    """
    node = _compose(text, name)
    if not isinstance(node, yaml.MappingNode):
        what = "is empty" if node is None or node.value == "" else "is not a mapping"
        raise ConfigError(f"{name}: {what}: write sections such as backends and routes")
    document = Document(name)
    document.data = _Reader(document, env).mapping(node, ())
    return document


def _compose(text: str | bytes, name: str) -> yaml.Node | None:
    if len(text) > _LARGEST:
        raise ConfigError(f"{name}: is larger than {_LARGEST:,} bytes")
    place = ""
    try:
        decoded = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        return _Loader(decoded).get_single_node()
    except UnicodeDecodeError as error:
        why = f"not UTF-8 text (byte {error.start + 1})"
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f":{mark.line + 1}" if mark else ""
        why = f"not valid YAML: {error.problem}"
    except yaml.reader.ReaderError as error:
        place = f":{decoded.count(chr(10), 0, error.position) + 1}"
        why = "not valid YAML: a character is not allowed"
    except (yaml.YAMLError, ValueError, OverflowError):
        # PyYAML lets a ValueError out for \U escapes and version numbers beyond their range.
        why = "not valid YAML: a number or escape is out of range"
    raise ConfigError(f"{name}{place}: {why}")


@dataclass(slots=True)
class _Reader:
    """Turns nodes into data, one problem per value that cannot be read."""

    document: Document
    env: Mapping[str, str]

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            here = (*path, str(key.value) if isinstance(key, yaml.ScalarNode) else "?")
            wrong = self._wrong_key(key)
            if not wrong and here[-1] in data:
                wrong = f"given twice, on line {self.document.lines[here]} and line {line}"
            if wrong:
                self.document.lines.setdefault(here, line)
                self.document.problems.append(Problem(here, wrong))
            else:
                self.document.lines[here] = line
                data[str(key.value)] = self._value(value, here)
        return data

    def _wrong_key(self, key: yaml.Node) -> str:
        if not isinstance(key, yaml.ScalarNode) or not _encodable(key.value):
            return "a name must be text"
        if key.tag == f"{_TAG}merge":
            return "merge keys (<<) are not supported: write the fields out"
        return "" if key.tag == f"{_TAG}str" else "a name must be text: put it in quotes"

    def _value(self, node: yaml.Node, path: Path) -> Any:
        kind = node.tag.removeprefix(_TAG)
        match node:
            case yaml.MappingNode() if kind == "map":
                return self.mapping(node, path)
            case yaml.SequenceNode() if kind == "seq":
                items = []
                for index, item in enumerate(node.value):
                    self.document.lines[(*path, index)] = item.start_mark.line + 1
                    items.append(self._value(item, (*path, index)))
                return items
            case yaml.ScalarNode():
                return self._scalar(kind, node.value, path)
        return self._fault(path, f"the tag {quoted(kind)} is not supported")

    def _scalar(self, kind: str, text: str, path: Path) -> Any:
        match kind:
            case "null":
                return None
            case "bool" if text.lower() in _Loader.bool_values:
                return _Loader.bool_values[text.lower()]
            case "int" | "float":
                return self._number(text, path)
            case "str":
                return self._resolved(text, path)
            case "timestamp":
                return self._fault(path, f"looks like a date: write {quoted(text)} in quotes")
        return self._fault(path, f"the tag {quoted(kind)} is not supported")

    def _number(self, text: str, path: Path) -> int | float | None:
        digits = text.replace("_", "") if len(text) <= 40 else ""
        if _INT.fullmatch(digits) and -(2**63) <= int(digits) < 2**63:
            return int(digits)
        if _FLOAT.fullmatch(digits) and not _INT.fullmatch(digits) and math.isfinite(float(digits)):
            return float(digits)
        self._fault(path, f"must be a plain decimal number, got {quoted(text)}")
        return None

    def _resolved(self, text: str, path: Path) -> str | None:
        wrong = "" if _encodable(text) else "holds a character that is not valid text"

        def replace(match: re.Match[str]) -> str:
            nonlocal wrong
            name = match[1]
            if match[0] == "$${":
                return "${"
            if name is None:
                wrong = wrong or "${ must be ${NAME}; write $${ for the two characters"
                return ""
            value, fault = self._variable(name)
            wrong = wrong or fault
            if not fault:
                self.document.resolved[value] = match[0]
                self.document.templates[path] = text
            return value

        value = _ENV.sub(replace, text)
        return self._fault(path, wrong) if wrong else value

    def _variable(self, name: str) -> tuple[str, str]:
        """Return the value of a variable, or of the file `NAME_FILE`, and what is wrong with it.

        The second form is how containers are given secrets.
        """
        value, file = self.env.get(name), self.env.get(f"{name}_FILE")
        if value is None and file is not None:
            try:
                with open(file, encoding="utf-8") as secret:
                    # One byte more than is allowed; a line end at the end belongs to the file.
                    value = secret.read(_LARGEST_SECRET + 1).removesuffix("\n")
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
                return "", f"the file that {name}_FILE names cannot be read: {reason}"
            if len(value) > _LARGEST_SECRET:
                return "", f"the file that {name}_FILE names has more than {_LARGEST_SECRET} bytes"
        if value is None:
            return "", f"the environment variable {name} is not set, and {name}_FILE neither"
        if not _encodable(value):
            return "", f"the environment variable {name} is not UTF-8 text"
        return value, ""

    def _fault(self, path: Path, message: str) -> Any:
        self.document.problems.append(Problem(path, message))
        self.document.broken.add(path)
        return None


def _encodable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)
