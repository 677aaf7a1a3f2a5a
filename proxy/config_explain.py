"""Faults that pydantic found in a document, in plain sentences at their path."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from samplewise.proxy.config_yaml import MOST_REPORTED, Document, Path, Problem, near

__all__ = ["explain"]

_SENTENCES: Mapping[str, tuple[str, ...]] = {
    "must be greater than {gt:.10g}": ("greater_than",),
    "must be at least {ge:.10g}": ("greater_than_equal",),
    "must be less than {lt:.10g}": ("less_than",),
    "must be at most {le:.10g}": ("less_than_equal",),
    "must be a whole number": ("int_type", "int_from_float"),
    "must be a number": ("float_type", "finite_number"),
    "must be true or false": ("bool_type",),
    "must be text": ("string_type",),
    "must be {expected}": ("literal_error", "enum"),
    "must be a mapping": ("dict_type", "mapping_type", "model_type", "model_attributes_type"),
    "must be a list": ("list_type", "tuple_type"),
    "must list at least {min_length}": ("too_short",),
    "must be a mapping with a `type`": ("union_tag_not_found",),
    "{error}": ("value_error",),
}


def explain(error: ValidationError, model: Any, document: Document) -> Iterator[Problem]:
    """Say each fault that pydantic found in one sentence, at its path in the document.

    `model` is the type that was validated; from it come the near matches of unknown fields and, as
    the `description` of a field, what to write where a required one is missing.
    """
    for fault in error.errors(include_url=False, include_input=False)[: 2 * MOST_REPORTED]:
        loc = tuple(part for part in fault["loc"] if part != "[key]")
        path, inside = _place(loc, document)
        unread = any(b[: len(path)] == path[: len(b)] for b in document.broken)
        # A default that depends on fields that are wrong is not a fault of its own.
        if fault["type"] != "default_factory_not_called" and not unread:
            yield Problem(path, inside + _sentence(fault, path, _models(model, loc[:-1]), document))


def _place(loc: Path, document: Document) -> tuple[Path, str]:
    """Return the path that a pydantic location means, without the tags of unions.

    Where the document has a short form (`majority_vote:0`) the field inside it is told apart.
    """
    path: Path = ()
    for number, part in enumerate(loc, 1):
        value = document.at(path)
        if not isinstance(value, dict | list):
            return path, f"{loc[-1]}: "
        last = number == len(loc)
        # `keys` may be a plain list, which stands for a mapping with that list.
        field = isinstance(part, int) if isinstance(value, list) else part in value
        tag = isinstance(value, dict) and part == value.get("type")
        if (field and not tag) or (last and field == tag):
            path = (*path, part)
    return path, ""


def _sentence(
    fault: ErrorDetails, path: Path, models: list[type[BaseModel]], document: Document
) -> str:
    context = fault.get("ctx", {})
    match fault["type"]:
        case "extra_forbidden":
            fields = {field.alias or name for m in models for name, field in m.model_fields.items()}
            return f"unknown field{near(str(path[-1]), fields)}"
        case "missing":
            found = [m.model_fields.get(str(path[-1])) for m in models]
            hints = [field.description for field in found if field and field.description]
            return f"required{': ' + hints[0] if hints else ''}"
        case "union_tag_invalid":
            short = isinstance(document.at(path), str)
            tag = document.got(path if short else (*path, "type")).removeprefix(", got")
            known = re.findall(r"'([^']+)'", str(context.get("expected_tags")))
            return f"unknown type{tag}{near(str(context.get('tag')), known)}"
    kept = fault["msg"].replace("Input should", "must").replace("should", "must")
    pattern = next((s for s, kinds in _SENTENCES.items() if fault["type"] in kinds), "{kept}")
    return pattern.format(**context, kept=kept) + _got(fault["type"], path, document)


def _got(kind: str, path: Path, document: Document) -> str:
    value = document.at(path)
    if isinstance(value, dict | list | None) and not kind.endswith("_type"):
        return ""
    word = kind == "string_type" and isinstance(value, bool)
    return document.got(path) + (" (on, off, yes, no: put the word in quotes)" if word else "")


def _models(annotation: Any, loc: Path) -> list[type[BaseModel]]:
    """Return the models that may stand at a pydantic location inside a type."""
    found = list(_members(annotation))
    for part in loc:
        found = [inner for member in found for inner in _step(member, part)]
    return [m for m in found if isinstance(m, type) and issubclass(m, BaseModel)]


def _members(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) not in (Annotated, Union, UnionType):
        yield annotation
        return
    for member in get_args(annotation):
        yield from _members(member)


def _step(member: Any, part: str | int) -> Iterator[Any]:
    if isinstance(member, type) and issubclass(member, BaseModel):
        for name, field in member.model_fields.items():
            if part == (field.alias or name):
                yield from _members(field.annotation)
            elif name == "type" and part in get_args(field.annotation):
                yield member
    elif get_args(member):
        inner = get_args(member)
        yield from _members(inner[0] if isinstance(part, int) else inner[-1])
